"""Checkpoints: written to a folder beside and renamed, so that the newest complete one is always loadable.

A checkpoint folder loads with plain transformers; `trainer.pt` beside the weights holds what resuming needs.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from rlhf_lab.errors import UserError

PREFIX = "checkpoint-"
UNFINISHED = ".unfinished"
REPLACED = ".replaced"


@contextlib.contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Turn what a full or read-only disk raises while `folder` is written into a UserError."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have words of their own
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        is_disk = isinstance(error, OSError) or any(word in said for word in ("writ", "I/O", "IoError", "space"))
        advice = "free some space and run the same command again, it continues from the last one"
        raise UserError(
            f"could not save {folder}: {said}. Earlier checkpoints in {folder.parent} are intact; "
            + (advice if is_disk else "this is no matter of space: mend it, and the same command continues")
        ) from error


def save_atomically(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, then put it in the place of `folder`.

    A process killed on the way, or a full disk, leaves `folder` and all other checkpoints as they were.
    Raises UserError where the disk refuses.
    """
    unfinished = folder.with_name(folder.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        with saving(folder):
            write(unfinished)
            _sync(unfinished)
    except UserError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    replaced = folder.with_name(folder.name + REPLACED)
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)  # not deleted first: a kill just here would take the old one and leave no new one
    unfinished.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of `folder`, oldest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def prune(folder: Path, keep: int | None, *, best: int | None = None) -> None:
    """Delete all but the newest `keep` checkpoints and that of step `best`, and what an interrupted save left."""
    for leftover in (UNFINISHED, REPLACED):
        for path in folder.glob(f"{PREFIX}*{leftover}"):
            shutil.rmtree(path, ignore_errors=True)
    old = checkpoints(folder)[: -keep if keep else 0]
    for path in (path for path in old if step_of(path) != best):
        shutil.rmtree(path)


def find_checkpoint(folder: Path, resume: bool | str | Path | None) -> Path | None:
    """The checkpoint to continue from: the newest for True, the named one for a path, none for None or False.

    Raises UserError for a path that is no checkpoint, and for True where there is none.
    """
    if not resume:
        return None
    if resume is True:
        if not (found := checkpoints(folder)):
            raise UserError(f"no checkpoint in {folder}; call train() without resume_from_checkpoint to start afresh")
        return found[-1]
    path = Path(resume)
    if not (path / "trainer.pt").is_file():
        raise UserError(f"{path} is no checkpoint of ours (no trainer.pt); give a folder such as {folder}/{PREFIX}40")
    return path


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
