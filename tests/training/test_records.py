"""Files of a run: whole after a crash, plain JSON, and metrics that a killed process can not spoil."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.training import records
from rlhf_lab.training.records import (
    append_metrics,
    cut_metrics,
    is_finished,
    read_json,
    read_jsonl,
    read_metrics,
    read_run,
    record_stage,
    write_json,
    write_jsonl,
    write_text,
)


def full_disk(*arguments: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(*((os, "fsync") if moment == "fsync" else (Path, "replace")), full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["run.json"], "nothing half-written is left lying"


def test_a_value_that_is_no_json_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert read_json(path) == {"old": 1}


def test_the_old_text_stands_until_the_new_one_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "page.html", []
    write_text(path, "old")
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(path.read_text(encoding="utf-8")))
    write_text(path, "new")
    assert seen == ["old"]
    assert path.read_text(encoding="utf-8") == "new"


def test_folders_are_made(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b" / "c.json", [1])
    append_metrics(tmp_path / "d" / "e", 1, {"x": 1})
    assert read_json(tmp_path / "a" / "b" / "c.json") == [1]
    assert read_metrics(tmp_path / "d" / "e") == [{"step": 1, "x": 1}]


def test_what_is_no_number_becomes_null(tmp_path: Path) -> None:
    value = {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": 1.5, "e": (2, math.nan), "f": "nan", "g": True}
    write_json(tmp_path / "x.json", value)
    expected = {"a": None, "b": [None, {"c": None}], "d": 1.5, "e": [2, None], "f": "nan", "g": True}
    assert read_json(tmp_path / "x.json") == expected
    append_metrics(tmp_path, 3, {"loss": math.nan})
    line = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8")
    assert line == '{"step": 3, "loss": null}\n', "step first, and no NaN, which other readers of JSON refuse"


def test_text_stays_readable(tmp_path: Path) -> None:
    rows = [{"text": "Grüße, 世界"}, {"text": 'line\nbreak "quoted"'}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == rows
    assert "世界" in (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    assert len((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_no_file_means_no_rows(tmp_path: Path) -> None:
    assert read_jsonl(tmp_path / "nothing.jsonl") == []
    assert read_metrics(tmp_path) == []
    cut_metrics(tmp_path, 3)
    assert list(tmp_path.iterdir()) == []


def test_a_last_line_that_was_cut_short_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(tmp_path, 1, {"loss": 2.0})
    append_metrics(tmp_path, 2, {"loss": 1.0})
    whole = path.read_bytes()
    for kept in range(len(whole) - 1, whole.index(b"\n"), -1):
        path.write_bytes(whole[:kept])
        assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}], kept


def test_lines_after_a_cut_one_are_readable(tmp_path: Path) -> None:
    """A process that continues where a killed one stopped writes no line into its half line."""
    append_metrics(tmp_path, 1, {"loss": 2.0})
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')
    cut_metrics(tmp_path, 1)
    append_metrics(tmp_path, 2, {"loss": 1.0})
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


def test_steps_after_a_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    for step in (1, 2, 2, 3, 4):
        append_metrics(tmp_path, step, {"x": step})
    cut_metrics(tmp_path, 2)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 2]


def test_stages_are_noted_one_by_one(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"name": "mine", "stages": {}})
    assert not is_finished(tmp_path, "sft")
    record_stage(tmp_path, "sft", {"seconds": 1.5})
    record_stage(tmp_path, "reward", {"seconds": 2.5})
    assert read_run(tmp_path) == {"name": "mine", "stages": {"sft": {"seconds": 1.5}, "reward": {"seconds": 2.5}}}
    assert is_finished(tmp_path, "sft")
    assert not is_finished(tmp_path, "ppo")


def test_a_stage_can_be_noted_before_there_is_a_record(tmp_path: Path) -> None:
    assert read_run(tmp_path) == {}
    assert not is_finished(tmp_path, "sft")
    record_stage(tmp_path, "sft", {})
    assert is_finished(tmp_path, "sft")


def test_json_files_end_in_a_line_break(tmp_path: Path) -> None:
    records.write_json(tmp_path / "x.json", {"a": [1]})
    assert (tmp_path / "x.json").read_text(encoding="utf-8").endswith("}\n")
    assert json.loads((tmp_path / "x.json").read_bytes()) == {"a": [1]}
