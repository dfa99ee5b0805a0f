"""Checkpoints: the newest complete one is always loadable, whatever fails on the way."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rlhf_lab.errors import UserError
from rlhf_lab.training.checkpoint import checkpoints, find_checkpoint, prune, save_atomically, step_of


def write_step(step: int) -> Any:
    def write(folder: Path) -> None:
        torch.save({"step": step}, folder / "trainer.pt")
        (folder / "nested").mkdir()
        (folder / "nested" / "config.json").write_text("{}", encoding="utf-8")

    return write


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        save_atomically(folder / f"checkpoint-{step}", write_step(step))


def step_inside(checkpoint: Path) -> int:
    return torch.load(checkpoint / "trainer.pt", weights_only=True)["step"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def no_space(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"half")
    raise OSError(28, "No space left on device")


def torch_on_a_full_disk(folder: Path) -> None:
    """/dev/full refuses every byte; torch reports that by a RuntimeError of its own."""
    (folder / "trainer.pt").symlink_to("/dev/full")
    torch.save({"weights": torch.zeros(100_000)}, folder / "trainer.pt")


def safetensors_on_a_full_disk(folder: Path) -> None:
    """safetensors reports a failed write by an exception of its own."""
    (folder / "model.safetensors").mkdir()
    save_file({"weights": torch.zeros(10)}, folder / "model.safetensors")


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def test_a_saved_checkpoint_is_complete_and_alone(tmp_path: Path) -> None:
    save(tmp_path / "ppo", 10)
    assert names(tmp_path / "ppo") == ["checkpoint-10"]
    assert names(tmp_path / "ppo" / "checkpoint-10") == ["nested", "trainer.pt"]
    assert step_inside(tmp_path / "ppo" / "checkpoint-10") == 10


@pytest.mark.parametrize(
    "write",
    [no_space, pytest.param(torch_on_a_full_disk, marks=needs_dev_full), safetensors_on_a_full_disk],
    ids=["OSError", "torch", "safetensors"],
)
def test_a_full_disk_keeps_earlier_checkpoints_and_shows_no_half_one(tmp_path: Path, write: Any) -> None:
    save(tmp_path, 10)
    with pytest.raises(UserError, match=r"could not save .*checkpoint-20: .*Earlier checkpoints in .* are intact"):
        save_atomically(tmp_path / "checkpoint-20", write)
    assert names(tmp_path) == ["checkpoint-10"]
    newest = find_checkpoint(tmp_path, True)
    assert newest is not None
    assert step_inside(newest) == 10


def test_a_full_disk_keeps_the_checkpoint_that_was_to_be_replaced(tmp_path: Path) -> None:
    save(tmp_path, 10)
    with pytest.raises(UserError, match="No space left on device"):
        save_atomically(tmp_path / "checkpoint-10", no_space)
    assert step_inside(tmp_path / "checkpoint-10") == 10


def test_a_killed_save_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 10)

    def killed(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_atomically(tmp_path / "checkpoint-20", killed)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-10"]
    assert find_checkpoint(tmp_path, True) == tmp_path / "checkpoint-10"
    save(tmp_path, 20)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-20"]
    assert names(tmp_path / "checkpoint-20") == ["nested", "trainer.pt"], "no rest of the killed save"


def test_a_checkpoint_of_the_same_step_is_replaced_as_a_whole(tmp_path: Path) -> None:
    save(tmp_path, 10)
    save_atomically(tmp_path / "checkpoint-10", lambda folder: torch.save({"step": 11}, folder / "trainer.pt"))
    assert names(tmp_path / "checkpoint-10") == ["trainer.pt"]
    assert step_inside(tmp_path / "checkpoint-10") == 11


def test_the_folder_appears_only_when_its_files_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda number: seen.append((tmp_path / "checkpoint-5").exists()))
    save(tmp_path, 5)
    assert seen == [False, False], "both files, the nested one too"


def test_checkpoints_are_ordered_by_number(tmp_path: Path) -> None:
    save(tmp_path, 100, 9, 20)
    (tmp_path / "checkpoint-300.unfinished").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    assert [step_of(path) for path in checkpoints(tmp_path)] == [9, 20, 100]
    assert checkpoints(tmp_path / "nothing") == []


@pytest.mark.parametrize(("keep", "left"), [(1, [100]), (2, [20, 100]), (3, [9, 20, 100]), (9, [9, 20, 100])])
def test_prune_keeps_the_newest(tmp_path: Path, keep: int, left: list[int]) -> None:
    save(tmp_path, 9, 20, 100)
    prune(tmp_path, keep)
    assert [step_of(path) for path in checkpoints(tmp_path)] == left


def test_prune_without_a_limit_removes_only_what_was_not_finished(tmp_path: Path) -> None:
    save(tmp_path, 9, 20)
    (tmp_path / "checkpoint-30.unfinished").mkdir()
    (tmp_path / "value_model").mkdir()
    prune(tmp_path, None)
    assert names(tmp_path) == ["checkpoint-20", "checkpoint-9", "value_model"]


@pytest.mark.parametrize("resume", [None, False, ""])
def test_nothing_is_resumed_unless_asked_for(tmp_path: Path, resume: Any) -> None:
    save(tmp_path, 10)
    assert find_checkpoint(tmp_path, resume) is None


def test_resume_takes_the_newest_or_the_named_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 10, 9)
    assert find_checkpoint(tmp_path, True) == tmp_path / "checkpoint-10"
    assert find_checkpoint(tmp_path, str(tmp_path / "checkpoint-9")) == tmp_path / "checkpoint-9"
    assert find_checkpoint(tmp_path, tmp_path / "checkpoint-9") == tmp_path / "checkpoint-9"


def test_resume_without_a_checkpoint_says_how_to_start_afresh(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint in .*; call train\(\) without resume_from_checkpoint"):
        find_checkpoint(tmp_path, True)


@pytest.mark.parametrize("name", ["checkpoint-99", "model"])
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=rf"{name} is no checkpoint of ours \(no trainer.pt\); give a folder such as"):
        find_checkpoint(tmp_path, tmp_path / name)
