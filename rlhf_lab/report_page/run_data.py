"""What a run folder holds, read as it is: finished, half finished, cut in the middle of a line, or not begun.

Leaves out: any judgement or layout. Nothing here raises for a missing or broken file; broken ones are named in
`RunData.notes`, so that the page can say so.
"""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from .text import entry, finite

State = Literal["done", "begun", "missing"]
Row = dict[str, Any]


@dataclass(frozen=True)
class RunData:
    """One run folder. Metric rows are sorted by step, one row a step."""

    folder: Path
    run: Row  # run.json
    config: str | None  # config.yaml as text
    settings: Row  # the same, read
    metrics: dict[str, tuple[Row, ...]]  # "sft", "reward", "ppo"
    raters: Counter[str]  # label -> number of comparisons, of the reward model where it is trained, else of the file
    reward_model: Row | None  # evaluation/reward_model.json
    policy: Row | None  # evaluation/policy.json
    notes: tuple[str, ...]  # files that could not be read, in words
    frontier: Row | None = None  # evaluation/frontier.json
    overoptimization: Row | None = None  # evaluation/overoptimization.json

    def state(self, stage: str) -> State:
        """run.json names a stage only when it ended; metrics without that name are a stage that runs or stopped."""
        if isinstance(entry(self.run, "stages", stage), dict):
            return "done"
        return "begun" if self.metrics.get(stage) else "missing"

    def learnt(self, stage: str, key: str) -> Any:
        """A fact about the data of a stage: source, num_rows, sha256, rater, ..."""
        return entry(self.run, "stages", stage, "data", key)

    def seconds(self, stage: str) -> float | None:
        return finite(entry(self.run, "stages", stage, "seconds"))

    def command(self, stage: str) -> str:
        """What to type to get this stage's files."""
        config = "" if self.config is None else " " + shlex.quote(str(self.folder / "config.yaml"))
        return f"rlhf-lab {stage}{config}"

    def points(self, stage: str, key: str) -> tuple[tuple[float, float], ...]:
        """(step, value) wherever the stage logged a finite value under this key."""
        rows = self.metrics.get(stage, ())
        return tuple((row["step"], y) for row in rows if (y := finite(row.get(key))) is not None)

    def last(self, stage: str, key: str) -> float | None:
        points = self.points(stage, key)
        return points[-1][1] if points else None


def read_run(folder: Path) -> RunData:
    notes: list[str] = []
    run = read_object(folder / "run.json", notes) or {}
    config = read_text(folder / "config.yaml")
    evaluated = {
        name: read_object(folder / "evaluation" / f"{name}.json", notes) for name in ("frontier", "overoptimization")
    }
    return RunData(
        folder=folder,
        run=run,
        config=config,
        settings=read_settings(config, notes),
        metrics={stage: read_metrics(folder / stage / "metrics.jsonl", notes) for stage in ("sft", "reward", "ppo")},
        raters=trained_on(run) or count_raters(folder / "comparisons.jsonl", notes),
        reward_model=read_object(folder / "evaluation" / "reward_model.json", notes),
        policy=read_object(folder / "evaluation" / "policy.json", notes),
        notes=tuple(notes),
        **evaluated,
    )


def read_text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def read_settings(config: str | None, notes: list[str]) -> Row:
    try:
        value = yaml.safe_load(config or "")
    except (yaml.YAMLError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    if config is not None:
        notes.append("config.yaml can not be read as settings")
    return {}


def read_object(path: Path, notes: list[str]) -> Row | None:
    text = read_text(path)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    notes.append(f"{short_name(path)} holds no readable JSON object and was left out")
    return None


def read_lines(path: Path, notes: list[str]) -> Iterator[Row]:
    """The objects of a JSON-lines file. A cut last line is what a running writer leaves, so it is no note."""
    if not path.is_file():
        return
    unreadable = 0
    pending = False
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            unreadable += pending  # the bad line before this one was not the last
            row = parsed_object(line)
            pending = row is None and bool(line.strip())
            if row is not None:
                yield row
    if unreadable:
        notes.append(f"{short_name(path)}: lines left out because they hold no JSON object: {unreadable}")


def parsed_object(line: str) -> Row | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def read_metrics(path: Path, notes: list[str]) -> tuple[Row, ...]:
    """Rows by step. A resumed run repeats the steps after its checkpoint, and a trainer logs training and
    evaluation of one step apart: later lines win, key by key."""
    rows: dict[float, Row] = {}
    for row in read_lines(path, notes):
        step = finite(row.get("step"))
        if step is not None:
            rows.setdefault(step, {}).update(row, step=step)
    in_order = tuple(rows[step] for step in sorted(rows))
    broken = [(key, row["step"]) for row in in_order for key, value in row.items() if is_not_finite(value)]
    if broken:  # a training that went wrong must not look smooth because a curve passes over the gap
        key, step = broken[0]
        notes.append(
            f"{short_name(path)}: values that are not finite: {len(broken)}, the first {key} at step {step:g};"
            " curves pass over them"
        )
    return in_order


def is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def trained_on(run: Row) -> Counter[str]:
    """Whose comparisons the reward model has seen, where votes were among them; else empty."""
    told = entry(run, "stages", "reward", "data", "raters")
    rows = told.items() if isinstance(told, dict) else ()
    return Counter({str(label): int(number) for label, number in rows if finite(number) is not None})


def count_raters(path: Path, notes: list[str]) -> Counter[str]:
    return Counter(str(row.get("rater") or "") for row in read_lines(path, notes))


def short_name(path: Path) -> str:
    """Path inside the run folder, as far as a reader needs it."""
    known = ("sft", "reward", "evaluation", "ppo")
    return f"{path.parent.name}/{path.name}" if path.parent.name in known else path.name
