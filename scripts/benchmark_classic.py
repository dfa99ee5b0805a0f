"""The lessons' PPO and DQN against Stable-Baselines3's: steps a second and seconds to 475 on CartPole-v1, alternating.

    python scripts/benchmark_classic.py                      3 seeds, the zoo's settings and the course's two lines
    python scripts/benchmark_classic.py --lessons ppo --seeds 10 --json runs/benchmark_classic.json

Each seed trains ours and then SB3's in the same process, so that a busy minute hits both; both stop at the first
evaluation (100 episodes, no chance in the actions, the same start states) at or above 475, or at their budget. Ours has
its own settings. Left out: start-up of the interpreter, which is the same for both.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Environment steps of SB3: what the zoo gives its settings, and what a patient learner gives the course's two lines.
BUDGETS = {
    "ppo": {"tuned": 100_000, "course": 100_000},
    "dqn": {"tuned": 50_000, "course": 100_000},
}
COLUMNS = ("lesson", "who", "reached 475", "steps to 475", "seconds to 475", "steps/s", "times longer", "times slower")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lessons", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--settings", nargs="+", choices=["tuned", "course"], default=["tuned", "course"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    rows = [compare(lesson, which, args.seeds) for lesson in args.lessons for which in args.settings]
    print_rows([line for row in rows for line in lines_of(row)])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def compare(lesson: str, which: str, num_seeds: int) -> dict[str, Any]:
    """Medians over seeds of one setting of SB3 and of ours beside it."""
    budget = str(BUDGETS[lesson][which])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runs.json"
        options = ["--against-sb3", which, "--sb3-steps", budget, "--stop-at", "475", "--json", str(file)]
        command = [sys.executable, "-m", f"classic.{lesson}", "--seeds", str(num_seeds), *options]
        subprocess.run(command, check=True, stdout=sys.stderr)
        written = json.loads(file.read_text(encoding="utf-8"))
    runs = written["seeds"]
    return {
        "lesson": lesson,
        "sb3_settings": which,
        "num_seeds": num_seeds,
        "machine": written["machine"],
        "ours": figures_of([run["curve"] for run in runs]),
        "sb3": figures_of([run["sb3_curves"][which] for run in runs]),
    }


def figures_of(curves: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """How many seeds reached 475, and the medians of steps a second and of the way there (of those that did)."""
    reached = [next((point for point in curve if point["mean_return"] >= 475), None) for curve in curves]
    there = [point for point in reached if point]
    return {
        "num_reached": len(there),
        "steps_to_475": statistics.median(point["step"] for point in there) if there else None,
        "seconds_to_475": statistics.median(point["seconds"] for point in there) if there else None,
        "seconds": statistics.median(curve[-1]["seconds"] for curve in curves),
        "steps_per_second": statistics.median(curve[-1]["step"] / curve[-1]["seconds"] for curve in curves),
    }


def lines_of(row: dict[str, Any]) -> list[list[str]]:
    """Two lines of the table: ours, and SB3 with how many times longer it took and how many times slower it steps."""
    ours, sb3 = row["ours"], row["sb3"]
    lines = [
        [
            row["lesson"],
            who,
            f"{figures['num_reached']} of {row['num_seeds']}",
            "never" if figures["steps_to_475"] is None else f"{figures['steps_to_475']:,.0f}",
            "never" if figures["seconds_to_475"] is None else f"{figures['seconds_to_475']:.2f}",
            f"{figures['steps_per_second']:,.0f}",
        ]
        for who, figures in (("ours", ours), (f"SB3 {row['sb3_settings']}", sb3))
    ]
    # Where SB3 never arrived, the time that it was given is a lower bound.
    theirs, bound = (sb3["seconds_to_475"], "") if sb3["seconds_to_475"] else (sb3["seconds"], "> ")
    longer = f"{bound}{theirs / ours['seconds_to_475']:.1f}" if ours["seconds_to_475"] else "-"
    slower = f"{ours['steps_per_second'] / sb3['steps_per_second']:.1f}"
    return [[*lines[0], "", ""], [*lines[1], longer, slower]]


def print_rows(rows: list[list[str]]) -> None:
    cells = [list(COLUMNS), *rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(COLUMNS))]
    for row in cells:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip(), flush=True)


if __name__ == "__main__":
    main()
