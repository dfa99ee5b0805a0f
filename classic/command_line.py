"""The options that all lessons share, and how a lesson ends when something was given that can not work.

Left out: the options of a single lesson, which stand in its own file.

    python -m classic.q_learning --help
"""

import argparse
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
    parser.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--seeds", type=positive_whole, default=1, metavar="N", help="N seeds, one after the other")
    parser.add_argument("--steps", type=positive_whole, help="environment steps of a seed (default: by environment)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write pictures and replays here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def positive_whole(text: str) -> int:
    """A whole number above 0; 1e6 and 1_000_000 are read too."""
    number = float(text)
    if number < 1 or number != int(number):
        raise argparse.ArgumentTypeError(f"got {text}; it must be a whole number above 0")
    return int(number)


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
