"""The lessons' PPO and DQN against Stable-Baselines3's: steps a second and seconds to 475 on CartPole-v1, alternating.

    python scripts/benchmark_classic.py                      3 seeds, the zoo's settings and the course's two lines
    python scripts/benchmark_classic.py --lessons ppo --seeds 10 --folder runs/benchmark_ppo
    python scripts/benchmark_classic.py --pieces 0           the table of what the folder holds

The race is made of pieces: one seed of one lesson, ours and then SB3's with one of its settings in the same process,
so that a busy minute hits both. Every piece is a file of the folder (one to three minutes each); call again to go on
where a call was cut off, or give `--pieces N` for the next N. All stop at the first evaluation (100 episodes, no chance
in the actions, the same start states, as many steps apart for both) at or above 475, or at their budget; seconds to 475
include those evaluations, steps a second leave them out. Ours has its own settings. Seconds are the processor's:
everybody computes with one thread, so that they are the wall's too where nothing else runs, and hardly change where
much does. Left out: start-up of the interpreter, the same for all.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SETTINGS = ("tuned", "course")
# SB3's budgets in environment steps: what the zoo gives its settings, and 100,000 for the course's own two lines (which
# train PPO for 500,000; its steps a second do not change on the way).
BUDGETS = {"ppo": {"tuned": 100_000, "course": 100_000}, "dqn": {"tuned": 50_000, "course": 100_000}}
Piece = tuple[int, str, str]  # seed, lesson, SB3's settings
COLUMNS = ("lesson", "who", "reached 475", "steps to 475", "seconds to 475", "steps/s", "times longer", "times slower")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lessons", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark_classic"), help="of the pieces")
    parser.add_argument("--pieces", type=int, help="run at most so many that are not there yet")
    args = parser.parse_args()
    # Seed by seed, so that a folder that is not full yet has something of everybody.
    pieces = [(seed, lesson, which) for seed in range(args.seeds) for lesson in args.lessons for which in SETTINGS]
    missing = [piece for piece in pieces if not file_of(args.folder, piece).is_file()]
    for number, piece in enumerate(missing[: args.pieces], start=1):
        print(f"piece {number} of {len(missing)}: seed, lesson, SB3's settings {piece}", file=sys.stderr, flush=True)
        run_piece(file_of(args.folder, piece), piece)
    found = {piece: read(args.folder, piece) for piece in pieces if file_of(args.folder, piece).is_file()}
    for lesson in args.lessons:
        runs = {
            which: [runs for (_, of, other), runs in found.items() if (of, other) == (lesson, which)]
            for which in SETTINGS
        }
        print_rows(rows_of(lesson, runs))
    print(f"{len(found)} of {len(pieces)} pieces; {versions_of(list(found.values()))}")


def file_of(folder: Path, piece: Piece) -> Path:
    seed, lesson, which = piece
    return folder / f"{lesson}_{which}_{seed}.json"


def run_piece(file: Path, piece: Piece) -> None:
    """One seed of the lesson's own command, with one of SB3's settings beside it."""
    seed, lesson, which = piece
    half = file.with_suffix(".half")
    race = ["--against-sb3", which, "--sb3-steps", str(BUDGETS[lesson][which]), "--stop-at", "475", "--cpu-seconds"]
    command = [sys.executable, "-m", f"classic.{lesson}", "--seed", str(seed), *race, "--json", str(half), "--quiet"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    half.rename(file)  # a piece that was cut off leaves no file


def read(folder: Path, piece: Piece) -> dict[str, Any]:
    """What a piece found; ends the command where its file was broken."""
    file, which = file_of(folder, piece), piece[2]
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        speed(found["seeds"][0]["curve"]), speed(found["seeds"][0]["sb3_curves"][which]), found["machine"]
    except (ValueError, LookupError, TypeError) as error:
        sys.exit(
            f"error: {file} is not what a piece of this race leaves ({type(error).__name__}: {error}): delete it, and "
            "call again to run that piece anew"
        )
    return found


def rows_of(lesson: str, found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """A line for ours, with all of its runs, and one for each of SB3's settings: how much longer and slower it was."""
    ours = {which: [piece["seeds"][0]["curve"] for piece in pieces] for which, pieces in found.items()}
    rows = [[lesson, "ours", *cells_of([curve for curves in ours.values() for curve in curves]), "", ""]]
    for which, pieces in found.items():
        theirs = [piece["seeds"][0]["sb3_curves"][which] for piece in pieces]
        rows.append(["", f"SB3 {which}", *cells_of(theirs), *ratios_of(ours[which], theirs)])
    return rows


def cells_of(curves: list[list[dict[str, Any]]]) -> list[str]:
    """How many seeds reached 475; medians, of those, of the way there, and of all of steps a second."""
    if not curves:
        return ["not run", "", "", ""]
    there = [point for curve in curves if (point := arrival(curve))]
    ways = ["never", "never"]
    if there:
        ways = [
            f"{statistics.median(point['step'] for point in there):,.0f}",
            f"{statistics.median(point['seconds'] for point in there):.2f}",
        ]
    return [f"{len(there)} of {len(curves)}", *ways, f"{statistics.median(map(speed, curves)):,.0f}"]


def ratios_of(ours: list[list[dict[str, Any]]], theirs: list[list[dict[str, Any]]]) -> list[str]:
    """Medians over seeds of SB3's seconds over ours and of our steps a second over SB3's."""
    if not ours:
        return ["", ""]
    slower = f"{statistics.median(speed(mine) / speed(other) for mine, other in zip(ours, theirs, strict=True)):.1f}"
    longer, bound = [], ""
    for mine, other in zip(ours, theirs, strict=True):
        here, there = arrival(mine), arrival(other)
        if here is None:
            return ["-", slower]
        bound = bound if there else "> "  # it never arrived, so the time that it was given is a lower bound
        longer.append((there or other[-1])["seconds"] / here["seconds"])
    return [f"{bound}{statistics.median(longer):.1f}", slower]


def arrival(curve: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first evaluation at or above 475."""
    return next((point for point in curve if point["mean_return"] >= 475), None)


def speed(curve: list[dict[str, Any]]) -> float:
    """Steps a second of the training alone."""
    return float(curve[-1]["step"] / curve[-1]["training_seconds"])


def versions_of(found: list[dict[str, Any]]) -> str:
    """Where the pieces were measured; every machine, if there were several."""
    machines = {json.dumps(piece["machine"]): piece["machine"] for piece in found}
    return "; ".join(", ".join(f"{name} {value}" for name, value in machine.items()) for machine in machines.values())


def print_rows(rows: list[list[str]]) -> None:
    cells = [list(COLUMNS), *rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(COLUMNS))]
    for row in cells:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip(), flush=True)


if __name__ == "__main__":
    main()
