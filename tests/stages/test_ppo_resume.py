"""Saving and resuming PPO: a run that was broken off ends where an unbroken one does, to the last bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from rlhf_lab.errors import UserError
from rlhf_lab.models.scalar import token_values
from rlhf_lab.stages import ppo_checkpoint
from rlhf_lab.training.checkpoint import checkpoints
from tests.full_disk import files_of_at_most
from tests.tiny_ppo import (
    PROMPTS,
    TOKENS,
    A,
    all_weights,
    largest_difference,
    metrics_of,
    tiny_policy,
    tiny_scalar_model,
    tiny_tokenizer,
    tiny_trainer,
)

EVALUATION = {"eval_dataset": Dataset.from_dict({"prompt": PROMPTS[:3]})}


class StopAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_training_stop = state.global_step == self.step
        return control


def lora() -> LoraConfig:
    return LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)


def assert_same(folder: Path, trainer: Any, straight_folder: Path, straight: Any) -> None:
    assert largest_difference(all_weights(trainer), all_weights(straight)) == 0
    assert metrics_of(folder) == metrics_of(straight_folder)
    assert trainer.kl_coef == straight.kl_coef


# --- exact resume ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "target_kl", "adapters", "grown adapters", "reward model", "critic warm-up"])
def test_b13_f08_k_updates_then_the_rest_are_as_good_as_all_at_once(tmp_path: Path, name: str) -> None:
    settings: dict[str, Any] = {"save_steps": 1, "eval_steps": 2}
    arguments: dict[str, Any] = {**EVALUATION}
    if name == "target_kl":
        settings |= {"target_kl": 0.5, "kl_horizon": 50}
    if "adapters" in name:
        arguments["peft_config"] = lora()
    if name == "critic warm-up":
        settings["critic_warmup_updates"] = 3

    def build(folder: Path, **more: Any) -> Any:
        given = {**arguments, **more}
        if name == "grown adapters":  # the tokenizer gets a pad token that the base has no row for
            given["processing_class"] = tiny_tokenizer(pad=None)
        if name == "reward model":  # the critic starts as its copy
            return tiny_trainer(folder, None, tiny_scalar_model(), arguments={**given, "value_model": None}, **settings)
        return tiny_trainer(folder, arguments=given, **settings)

    straight = build(tmp_path / "straight")
    straight.train()
    build(tmp_path / "broken", callbacks=[StopAfter(2)]).train()
    resumed = build(tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.update_number == 4
    assert_same(tmp_path / "broken", resumed, tmp_path / "straight", straight)


def test_b13_resume_from_a_named_checkpoint_into_another_folder(tmp_path: Path) -> None:
    straight = tiny_trainer(tmp_path / "straight", save_steps=1, save_total_limit=None)
    straight.train()
    other = tiny_trainer(tmp_path / "other")
    other.train(resume_from_checkpoint=tmp_path / "straight" / "checkpoint-1")
    assert largest_difference(all_weights(other), all_weights(straight)) == 0
    assert metrics_of(tmp_path / "other") == metrics_of(tmp_path / "straight")[1:]


def test_b13_metrics_after_the_checkpoint_are_taken_again_not_twice(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, save_steps=2, arguments={"callbacks": [StopAfter(3)]}).train()
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 2, 3]
    tiny_trainer(tmp_path, save_steps=2).train(resume_from_checkpoint=True)
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 2, 3, 4]


def test_resuming_a_finished_run_adds_nothing(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, save_steps=2, eval_steps=2, arguments=EVALUATION).train()
    before = metrics_of(tmp_path)
    again = tiny_trainer(tmp_path, save_steps=2, eval_steps=2, arguments=EVALUATION)
    again.train(resume_from_checkpoint=True)
    assert again.update_number == 4
    assert metrics_of(tmp_path) == before


def test_micro_batch_size_and_schedules_may_change_on_resume(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, save_steps=2, arguments={"callbacks": [StopAfter(2)]}).train()
    tiny_trainer(tmp_path, micro_batch_size=1, logging_steps=2).train(resume_from_checkpoint=True)
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 2, 4]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, save_steps=2).train()
    with pytest.raises(UserError, match=r"kl_coef was 0\.05 and is 0\.1"):
        tiny_trainer(tmp_path, kl_coef=0.1).train(resume_from_checkpoint=True)


def test_resume_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint in"):
        tiny_trainer(tmp_path).train(resume_from_checkpoint=True)
    with pytest.raises(UserError, match="is no checkpoint of ours"):
        tiny_trainer(tmp_path).train(resume_from_checkpoint=tmp_path)


@pytest.mark.parametrize("resume", [None, "checkpoint-1"])
def test_checkpoints_of_another_history_are_never_mixed_with_new_ones(tmp_path: Path, resume: str | None) -> None:
    """Newer numbers of an older run would outlive the new ones, and a later resume would take them up."""
    tiny_trainer(tmp_path, save_steps=1, save_total_limit=4).train()
    trainer = tiny_trainer(tmp_path, save_steps=1, save_total_limit=4)
    with pytest.raises(UserError, match=r"checkpoint-4"):
        trainer.train(resume_from_checkpoint=tmp_path / resume if resume else None)
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{number}" for number in (1, 2, 3, 4)]


# --- what is saved -----------------------------------------------------------------------------------------------


def test_b14_b16_f07_every_checkpoint_loads_with_plain_transformers(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, save_steps=1, save_total_limit=None)
    trainer.train()
    trainer.save_model()
    folders = [*checkpoints(tmp_path), tmp_path]
    assert len(folders) == 5
    for folder in folders:
        policy, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(report.values()), report
        critic, report = AutoModelForSequenceClassification.from_pretrained(
            folder / "value_model", output_loading_info=True
        )
        assert not any(report.values()), report
        assert AutoTokenizer.from_pretrained(folder).get_vocab() == trainer.tokenizer.get_vocab()
        assert (folder / "README.md").is_file()
        if folder.name in ("checkpoint-4", tmp_path.name):
            ids = torch.tensor([[A, 3, 4, 5]])
            with torch.no_grad():
                assert torch.equal(token_values(critic, ids), token_values(trainer.models.critic, ids))
                assert torch.allclose(policy(ids).logits, trainer.models.policy(ids).logits, atol=1e-6)


@pytest.mark.parametrize("pad", ["<pad>", None])
def test_a_policy_with_adapters_loads_with_plain_transformers_beside_its_base(tmp_path: Path, pad: str | None) -> None:
    tiny_policy().save_pretrained(tmp_path / "base")
    tiny_tokenizer(pad=pad).save_pretrained(tmp_path / "base")
    trainer = tiny_trainer(
        tmp_path / "run",
        str(tmp_path / "base"),
        save_steps=4,
        arguments={"peft_config": lora(), "processing_class": None},
    )
    trainer.train()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoint-4")
    ids = torch.tensor([[A, 3, 4, 5]])
    with torch.no_grad():
        ours = trainer.models.policy(ids).logits[..., : len(TOKENS)]  # less the row of a pad token that was added
        assert torch.allclose(loaded(ids).logits, ours, atol=1e-5)


@pytest.mark.parametrize(("limit", "left"), [(None, [1, 2, 3, 4]), (1, [4]), (2, [3, 4])])
def test_save_total_limit_keeps_the_newest(tmp_path: Path, limit: int | None, left: list[int]) -> None:
    tiny_trainer(tmp_path, save_steps=1, save_total_limit=limit).train()
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{number}" for number in left]
    assert not list(tmp_path.glob("*.unfinished"))


# --- a full disk, a killed process -------------------------------------------------------------------------------


@pytest.mark.parametrize("num_bytes", [200, 6_000, 30_000])
def test_a_full_disk_leaves_the_checkpoint_before_loadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    """Small limits fail in the configuration, larger ones in the weights, the largest in the optimizer's state."""
    tiny_trainer(tmp_path / "straight").train()
    folder = tmp_path / "run"
    trainer = tiny_trainer(folder, save_steps=1)
    write = ppo_checkpoint.write

    def on_a_full_disk(*args: Any) -> None:
        if trainer.update_number < 3:
            return write(*args)
        with files_of_at_most(num_bytes):
            return write(*args)

    monkeypatch.setattr(ppo_checkpoint, "write", on_a_full_disk)
    with pytest.raises(UserError, match=r"could not save .*checkpoint-3"):
        trainer.train()
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-1", "checkpoint-2"]
    assert not list(folder.glob("*.unfinished"))
    monkeypatch.undo()
    resumed = tiny_trainer(folder, save_steps=1)
    resumed.train(resume_from_checkpoint=True)
    assert metrics_of(folder) == metrics_of(tmp_path / "straight")


NUM_UPDATES = 250
CHILD = (
    f"NUM_UPDATES = {NUM_UPDATES}"
    + """
import sys
from pathlib import Path
import torch
from tests.tiny_ppo import tiny_trainer
from rlhf_lab.training.checkpoint import checkpoints
folder = Path(sys.argv[1])
trainer = tiny_trainer(folder, total_episodes=8 * NUM_UPDATES, save_steps=1, target_kl=1.0)
trainer.train(resume_from_checkpoint=bool(checkpoints(folder)))
trainer.save_model(folder)
"""
)


def start_child(folder: Path) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)],
        cwd=root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_b13_a_process_killed_twenty_times_resumes_exactly(tmp_path: Path) -> None:
    """Every other time in the middle of a save, else at a random moment; each time some progress was made before."""
    rng = random.Random(0)
    # In a process like the others: with another number of threads sums are rounded in another order.
    start_child(tmp_path / "straight").communicate(timeout=300)
    folder, kills, in_a_save = tmp_path / "killed", 0, 0
    for number in range(20):
        done = len(metrics_of(folder))
        child = start_child(folder)
        while child.poll() is None and len(metrics_of(folder)) <= done:
            time.sleep(0.01)
        while number % 2 and child.poll() is None and not list(folder.glob("*.unfinished")):
            time.sleep(0.0005)
        if not number % 2:
            time.sleep(rng.uniform(0.0, 0.3))
        kills += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        in_a_save += bool(list(folder.glob("*.unfinished")))
    assert kills == 20, "too quick to be killed: more updates are needed"
    assert in_a_save >= 5, "killed too late to be in a save"
    child = start_child(folder)
    _, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors.decode()
    assert metrics_of(folder) == metrics_of(tmp_path / "straight")
    ours, theirs = (
        dict(AutoModelForCausalLM.from_pretrained(path).named_parameters()) for path in (folder, tmp_path / "straight")
    )
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
