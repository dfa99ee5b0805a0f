"""Ctrl-C in the middle of several seeds, or a seed that diverges: what is finished is kept, what to type is told.

Left out: the middle of a seed; that one is trained again.

    python -m classic.q_learning --seeds 10
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from classic.command_line import MAX_SEED
from classic.errors import Diverged, LessonError
from classic.records import takes_no_place

T = TypeVar("T")
EXIT_CODE = 130  # as shells have it: 128 + the number of SIGINT


def seeds_of(args: argparse.Namespace) -> list[int]:
    """The seeds that were asked for.

    Raises:
        LessonError: the last of them are those of test episodes.
    """
    if args.seed + args.seeds > MAX_SEED:
        raise LessonError(
            f"got --seed {args.seed} and --seeds {args.seeds}; seeds from {MAX_SEED} on belong to test episodes: type "
            f"--seeds {MAX_SEED - args.seed} or less"
        )
    return list(range(args.seed, args.seed + args.seeds))


def each_seed(seeds: Sequence[int], learn: Callable[[int], T]) -> list[T]:
    """The results of the seeds, in order; after Ctrl-C those of the seeds that were finished.

    Raises:
        KeyboardInterrupt: none was finished.
    """
    results: list[T] = []
    try:
        for seed in seeds:
            result = learn(seed)
            results.append(result)
    except KeyboardInterrupt:
        if not results:
            raise nothing_finished(seeds) from None
    return results


def nothing_finished(seeds: Sequence[int]) -> KeyboardInterrupt:
    """What `classic.command_line.run_lesson` prints as one line."""
    which = f"seed {seeds[0]}" + (f", the first of {len(seeds)}," if len(seeds) > 1 else "")
    return KeyboardInterrupt(f"stopped by Ctrl-C before {which} was finished, so that there is no table")


@contextmanager
def told_at_the_end(
    lesson: str, args: argparse.Namespace, num_finished: int, missing: str = "", diverged: Diverged | None = None
) -> Iterator[None]:
    """Around the writing of files: `end_early` after it, also where a file could not be written."""
    try:
        yield
    except LessonError as error:
        if num_finished == args.seeds and not missing:
            raise
        print(f"error: {error}", file=sys.stderr)
        end_early(lesson, args, num_finished, missing, diverged, in_files=False)
    end_early(lesson, args, num_finished, missing, diverged)


def end_early(
    lesson: str,
    args: argparse.Namespace,
    num_finished: int,
    missing: str = "",
    diverged: Diverged | None = None,
    *,
    in_files: bool = True,
) -> None:
    """Say what was cut off and what to type for it, and end with an exit code; nothing where all is there.

    Args:
        lesson: name of its module.
        args: as `classic.command_line.read_arguments` gives them.
        num_finished: seeds in the table and the files.
        missing: the option whose work was cut off after the seeds.
        diverged: what ended it; None for Ctrl-C.
        in_files: whether all files were written.
    """
    if num_finished == args.seeds and not missing:
        return
    told = f"error: {diverged}\n" if diverged else "stopped by Ctrl-C: "
    told += f"{num_finished} of {args.seeds} seeds are in the table"
    if in_files and (args.json or args.out):
        told += " and in the files"
    if missing:
        told += f"; what {missing} measures is missing"
    # A seed that diverged does so again.
    num_done = num_finished + (1 if diverged else 0)
    if num_done < args.seeds:
        rest = f"the seeds behind {args.seed + num_finished}" if diverged else "the rest"
        told += f"; for {rest} type\n{rest_of(lesson, args, num_done)}"
    print(told, file=sys.stderr)
    sys.exit(2 if diverged else EXIT_CODE)


def rest_of(lesson: str, args: argparse.Namespace, num_done: int) -> str:
    """The command for the seeds behind these. Its files have names of their own, so that none is written over."""
    first = args.seed + num_done
    # The first seed's policy is saved already.
    left_out = {"seed", "seeds", "save"} if num_done else {"seed", "seeds"}
    words = {name: said for name, said in args.typed.items() if name not in left_out}
    if "json" in words:
        words["json"] = ["--json", str(beside(args.json, first))]
    if "out" in words:
        words["out"] = ["--out", str(beside(args.out, first))]
    said = [word for part in words.values() for word in part]
    seeds = ["--seed", str(first), "--seeds", str(args.seeds - num_done)]
    return shlex.join(["python", "-m", f"classic.{lesson}", *said, *seeds])


def beside(path: Path, first: int) -> Path:
    """`run.json` to `run_from_3.json`; what can be written to again and again, such as /dev/stdout, is that still."""
    if takes_no_place(path):
        return path
    if not path.name:  # the folder where we are
        return path / f"from_{first}"
    return path.with_name(f"{path.stem}_from_{first}{path.suffix}")
