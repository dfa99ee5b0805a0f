"""The options that all lessons share, and how a lesson ends when something was given that can not work.

Left out: the options of a single lesson, which stand in its own file.

    python -m classic.q_learning --help
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from classic.errors import LessonError


def lesson_parser(description: str, *, env: str) -> argparse.ArgumentParser:
    """A parser with --env, --env-option, --seed, --seeds, --steps, --json, --out and --quiet."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default=env, help=f"id of the environment (default {env})")
    parser.add_argument(
        "--env-option", action="append", default=[], metavar="KEY=VALUE", help="for example is_slippery=false"
    )
    parser.add_argument("--max-episode-steps", type=positive_whole, help="another time limit than the registered one")
    parser.add_argument("--seed", type=whole, default=0, help="first seed (default 0)")
    parser.add_argument("--seeds", type=positive_whole, default=1, metavar="N", help="N seeds, one after the other")
    parser.add_argument("--steps", type=positive_whole, help="environment steps of a seed (default: by environment)")
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write all numbers here")
    parser.add_argument("--out", type=folder_to_write, metavar="FOLDER", help="write pictures and replays here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def positive_whole(text: str) -> int:
    """A whole number above 0; 1e6 and 1_000_000 are read too."""
    number = float(text)
    if not math.isfinite(number) or number < 1 or number != int(number):
        raise argparse.ArgumentTypeError(f"got {text}; it must be a whole number above 0")
    return int(number)


def whole(text: str) -> int:
    """0 or a whole number above it."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"got {text}; it must be 0 or a whole number above it")
    return number


def file_to_write(text: str) -> Path:
    """A path that a file can have: told before anything is trained, not after."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; it must be the name of a file to write")
    return Path(text)


def folder_to_write(text: str) -> Path:
    """A path that a folder can have."""
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; it must be a folder to write into")
    return Path(text)


def run_lesson(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run the command; mistakes that a learner can mend are printed without a traceback, with exit code 2."""
    try:
        main(None)
    except LessonError as error:
        sys.exit(_two(f"error: {error}"))
    except KeyboardInterrupt:
        sys.exit(130)


def _two(text: str) -> int:
    print(text, file=sys.stderr)
    return 2
