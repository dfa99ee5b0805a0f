"""The lessons' PPO and DQN against Stable-Baselines3's: steps a second and seconds to 475 on CartPole-v1, alternating.

    python scripts/benchmark_classic.py                      3 seeds, the zoo's settings and the course's two lines
    python scripts/benchmark_classic.py --lessons ppo --seeds 10 --folder runs/benchmark_ppo
    python scripts/benchmark_classic.py --pieces 0           the table of what the folder holds

The race is made of pieces: one seed of one lesson, ours and then each of SB3's settings in the same process, so that a
busy minute hits all of them. Every piece is a file of the folder (three to five minutes each); call again to go on
where a call was cut off, or give `--pieces N` for the next N. All stop at the first evaluation (100 episodes, no chance
in the actions, the same start states) at or above 475, or at their budget; steps a second leave evaluations out. Ours
has its own settings. Left out: start-up of the interpreter, which is the same for all.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SETTINGS = ("tuned", "course")
# SB3's budgets in environment steps: what the zoo gives its settings; the course's own two lines train PPO for 500,000,
# of which 200,000 do not make a piece longer than five minutes on a slow core.
BUDGETS = {"ppo": {"tuned": 100_000, "course": 200_000}, "dqn": {"tuned": 50_000, "course": 100_000}}
COLUMNS = ("lesson", "who", "reached 475", "steps to 475", "seconds to 475", "steps/s", "times longer", "times slower")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lessons", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark_classic"), help="of the pieces")
    parser.add_argument("--pieces", type=int, help="run at most so many that are not there yet")
    args = parser.parse_args()
    pieces = [(seed, lesson) for seed in range(args.seeds) for lesson in args.lessons]  # a short folder has all lessons
    missing = [piece for piece in pieces if not file_of(args.folder, *piece).is_file()]
    for number, (seed, lesson) in enumerate(missing[: args.pieces], start=1):
        print(f"piece {number} of {len(missing)}: {lesson}, seed {seed}", file=sys.stderr, flush=True)
        run_piece(file_of(args.folder, seed, lesson), lesson, seed)
    there = {lesson: [read(args.folder, seed, lesson) for seed in range(args.seeds)] for lesson in args.lessons}
    for lesson, runs in there.items():
        found = [run for run in runs if run]
        print_rows(rows_of(lesson, found) if found else [])
        print(f"{lesson}: {len(found)} of {args.seeds} seeds; {versions_of(found)}\n")


def file_of(folder: Path, seed: int, lesson: str) -> Path:
    return folder / f"{lesson}_{seed}.json"


def run_piece(file: Path, lesson: str, seed: int) -> None:
    """One seed: the lesson's own command, once with all of SB3's settings."""
    budgets = [str(BUDGETS[lesson][which]) for which in SETTINGS]
    half = file.with_suffix(".half")
    race = ["--against-sb3", *SETTINGS, "--sb3-steps", *budgets, "--stop-at", "475"]
    command = [sys.executable, "-m", f"classic.{lesson}", "--seed", str(seed), *race, "--json", str(half), "--quiet"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    half.rename(file)  # a piece that was cut off leaves no file


def read(folder: Path, seed: int, lesson: str) -> dict[str, Any] | None:
    file = file_of(folder, seed, lesson)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def rows_of(lesson: str, found: list[dict[str, Any]]) -> list[list[str]]:
    """A line for ours, and one for each of SB3's settings with how many times longer and slower it was."""
    runs = [seed for piece in found for seed in piece["seeds"]]
    ours = [run["curve"] for run in runs]
    rows = [[lesson, "ours", *cells_of(ours), "", ""]]
    for which in SETTINGS:
        theirs = [run["sb3_curves"][which] for run in runs]
        rows.append(["", f"SB3 {which}", *cells_of(theirs), *ratios_of(ours, theirs)])
    return rows


def cells_of(curves: list[list[dict[str, Any]]]) -> list[str]:
    """How many seeds reached 475; medians, of those, of the way there, and of all of steps a second."""
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
