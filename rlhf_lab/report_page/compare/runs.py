"""The runs of one comparison: found by folder or name, each with a label and a colour of its own.

Leaves out: whether their results can be compared (`grounds.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_lab.errors import UserError

from ..run_data import RunData, read_run

MOST_RUNS = 8  # as many colours as style.css has for them


@dataclass(frozen=True)
class ComparedRun:
    """`label` is what the page calls the run; `tone` a class of style.css."""

    label: str
    tone: str
    data: RunData


def read_runs(words: Sequence[str]) -> list[ComparedRun]:
    """The runs named by folders or by names in runs/. Raises UserError for what is no run, and for one run twice."""
    folders = [folder_of(word) for word in words]
    if len(folders) > MOST_RUNS:
        raise UserError(f"{len(folders)} runs were given; one page shows at most {MOST_RUNS}: give fewer")
    places = [folder.resolve() for folder in folders]
    for i, place in enumerate(places):
        if place in places[:i]:
            first = words[places.index(place)]
            raise UserError(f"{first!r} and {words[i]!r} are the same run, {place}; name two different ones")
    return [
        ComparedRun(label, f"tone-run-{i}", read_run(folder))
        for i, (label, folder) in enumerate(zip(labels(places), folders, strict=True), 1)
    ]


def folder_of(word: str) -> Path:
    candidates = [Path(word), Path("runs") / word]
    for folder in candidates:
        if is_run(folder):
            return folder
    found = [folder for folder in candidates if folder.is_dir()]
    if found:
        raise UserError(
            f"{found[0]} is a folder, but no run: it holds neither run.json nor config.yaml."
            " Give the folder of a run, such as runs/assistant"
        )
    raise UserError(
        f"there is no run {word!r} (looked for the folders {word} and runs/{word})."
        " Give the folder of a run; to make one, type: rlhf-lab run name=NAME"
    )


def is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("run.json", "config.yaml"))


def labels(places: Sequence[Path]) -> list[str]:
    """The folder's name; where two have the same, as much of the path as tells them apart."""
    lengths = range(1, max(len(place.parts) for place in places) + 1)
    candidates = (["/".join(place.parts[-parts:]) for place in places] for parts in lengths)
    return next(names for names in candidates if max(Counter(names).values()) == 1)
