"""The options that all lessons share, what was typed, and how a lesson ends when something can not work.

Left out: the options of a single lesson, which stand in its own file; seeds that are cut off (`classic.stopped_runs`).

    python -m classic.q_learning --help
"""

import argparse
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from classic.errors import LessonError
from classic.records import number_of_stream, takes_no_place

OF_PICTURES = (".png", ".gif", ".html")
MAX_SEED = 1_000_000  # from here on seeds belong to test episodes (`classic.training_runs.evaluation_seed`)


def lesson_parser(description: str, *, env: str) -> argparse.ArgumentParser:
    """A parser with --env, --env-option, --seed, --seeds, --steps, --json, --out and --quiet."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default=env, help=f"id of the environment (default {env})")
    parser.add_argument(
        "--env-option", action="append", default=[], metavar="KEY=VALUE", help="for example is_slippery=false"
    )
    parser.add_argument("--max-episode-steps", type=positive_whole, help="another time limit than the registered one")
    add_seeds(parser)
    parser.add_argument("--steps", type=positive_whole, help="environment steps of a seed (default: by environment)")
    add_files(parser)
    return parser


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """--seed and --seeds."""
    parser.add_argument("--seed", type=seed_number, default=0, help="first seed (default 0)")
    parser.add_argument("--seeds", type=positive_whole, default=1, metavar="N", help="N seeds, one after the other")


def add_files(parser: argparse.ArgumentParser) -> None:
    """--json, --out and --quiet."""
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write all numbers here")
    parser.add_argument("--out", type=folder_to_write, metavar="FOLDER", help="write pictures and replays here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def read_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse. `args.typed` maps the name of each option that was typed to the words that say it again.

    An option that was left out and one that was typed with its default are the same to argparse. Here they are not:
    what is typed and would be ignored is refused, and a run that was cut off tells how to go on.
    """
    args = parser.parse_args(arguments)
    # Argparse fills in defaults only where a name is missing: here none is.
    untyped = argparse.Namespace(**{action.dest: None for action in parser._actions})
    given = vars(parser.parse_args(arguments, untyped))
    typed = [action for action in parser._actions if given[action.dest] is not None]
    args.typed = {action.dest: words_of(action, given[action.dest]) for action in typed}
    require_apart(args)
    return args


def require_apart(args: argparse.Namespace) -> None:
    """Raise LessonError where one of the files that are written would take the place of another, or of one that is
    read."""
    named = {name: path for name in ("load", "save", "json", "out") if (path := getattr(args, name, None))}
    for (one, path), (other, place) in itertools.combinations(named.items(), 2):
        if path.resolve() == place.resolve() and {one, other} != {"load", "save"}:  # these two are refused together
            raise LessonError(
                f"got --{one} {path} and --{other} {place}: one would be written over the other: type two names"
            )
    for name in ("save", "json"):
        path, out = named.get(name), named.get("out")
        if path and out and out.resolve() in path.resolve().parents and path.suffix in OF_PICTURES:
            raise LessonError(
                f"got --{name} {path} and --out {out}: a picture might take its place: type --{name} "
                f"{path.with_suffix('.pt' if name == 'save' else '.json')}"
            )


def words_of(action: argparse.Action, value: Any) -> list[str]:
    """The words that give an option this value, its flag first."""
    flag = action.option_strings[1 if value is False else 0]  # --no-double stands behind --double
    if isinstance(value, bool):
        return [flag]
    if not isinstance(value, list):
        return [flag, str(value)]
    if action.nargs is None:  # typed several times, once for each value
        return [word for item in value for word in (flag, str(item))]
    return [flag, *map(str, value)]


def refuse_ignored(args: argparse.Namespace, beside: str, names: Iterable[str], why: str) -> None:
    """Raise LessonError where one of the options was typed, though `beside` leaves it without effect.

    Args:
        args: as `read_arguments` gives them.
        beside: what was typed and rules it out, for example "--no-replay".
        names: of options, as in `args`.
        why: ends the sentence "--no-replay ...".
    """
    for name in names:
        if name in args.typed:
            flag = args.typed[name][0]
            raise LessonError(
                f"got {' '.join(args.typed[name])} and {beside}: {beside} {why}, so that {flag} would do nothing; "
                "leave one of the two out"
            )


def positive_whole(text: str) -> int:
    """A whole number above 0; 1e6 and 1_000_000 are read too."""
    number = _float_of(text)
    if not math.isfinite(number) or number < 1 or number != int(number):
        raise argparse.ArgumentTypeError(f"got {text}; it must be a whole number above 0")
    return int(number)


def seed_number(text: str) -> int:
    """0 or a whole number above it, below the seeds of test episodes."""
    number = _float_of(text)
    if not math.isfinite(number) or number < 0 or number != int(number):
        raise argparse.ArgumentTypeError(f"got {text}; it must be 0 or a whole number above it")
    if number >= MAX_SEED:
        raise argparse.ArgumentTypeError(f"got {text}; seeds from {MAX_SEED} on belong to test episodes: type less")
    return int(number)


def finite(text: str) -> float:
    """A number that is not nan or inf."""
    number = _float_of(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"got {text}; it must be a finite number")
    return number


def _float_of(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text}; it must be a number") from None


def file_to_write(text: str) -> Path:
    """A path that a file can have: told before anything is trained, not after."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; it must be the name of a file to write")
    if takes_no_place(Path(text)):
        _require_stream(Path(text))  # nothing is made beside it, so that it does not matter whose /dev is
    else:
        _require_place(Path(text).parent, text)
    return Path(text)


def folder_to_write(text: str) -> Path:
    """A path that a folder can have."""
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; it must be a folder to write into")
    _require_place(Path(text), text)
    return Path(text)


def _require_place(folder: Path, text: str) -> None:
    """Folders on the way are made when there is something to write; the nearest one that is there must allow it."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{text} can not be made: {there} is a file; type another place")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} can not be made: {there} may not be written to; type another place")


def _require_stream(path: Path) -> None:
    """A pipe or a device must allow to be written to, and what this process has open must be open for that."""
    number = number_of_stream(path)
    if not (os.access(path, os.W_OK) if number is None else _is_open_to_write(number)):
        raise argparse.ArgumentTypeError(f"{path} may not be written to; type another place")


def _is_open_to_write(number: int) -> bool:
    try:
        os.write(number, b"")
    except OSError:
        return False
    return True


def write_each(writers: Mapping[str, Callable[[], object]]) -> None:
    """Call every writer, also after one has failed, so that a full disk costs one file and not all that follow.

    Args:
        writers: what each writes, in words, to the function that does.

    Raises:
        LessonError: something could not be written; the message has every reason.
    """
    reasons = []
    for what, write in writers.items():
        try:
            write()
        except OSError as error:
            reasons.append(f"{what} ({reason_of(error)})")
    if reasons:
        kept = len(writers) - len(reasons)
        raise LessonError(
            f"could not write {', '.join(reasons)}; the table above stands, and {kept} of {len(writers)} were written: "
            "make room or type another place, and run it again"
        )


def reason_of(error: OSError) -> str:
    """Which file, and why."""
    why = error.strerror or str(error) or type(error).__name__
    return f"{error.filename} ({why})" if error.filename else why


def run_lesson(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run the command; mistakes that a learner can mend are printed without a traceback, with exit code 2.

    Ctrl-C ends it with exit code 130, and one line where nothing else was said.
    """
    try:
        main(None)
    except LessonError as error:
        sys.exit(_told(f"error: {error}", 2))
    except OSError as error:
        sys.exit(_told(f"error: the machine refused: {reason_of(error)}", 2))
    except MemoryError:
        sys.exit(_told("error: this takes more memory than there is; type smaller numbers", 2))
    except KeyboardInterrupt as stopped:
        sys.exit(_told(str(stopped) or "stopped by Ctrl-C", 130))


def _told(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code
