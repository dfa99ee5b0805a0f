"""PPO of the lessons against Stable-Baselines3's: steps a second and seconds to 475 on CartPole-v1, alternating.

    python scripts/benchmark_classic.py                      3 seeds, the zoo's settings and the course's two lines
    python scripts/benchmark_classic.py --seeds 10 --json runs/benchmark_classic.json

Each seed trains ours and then SB3's in the same process, so that a busy minute hits both; both stop at the first
evaluation (100 episodes, no chance in the actions, the same start states) at or above 475, or at their budget. Left
out: start-up of the interpreter, which is the same for both.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Environment steps: what the zoo needs for its settings, and what a patient learner gives the course's two lines.
BUDGETS = {"tuned": 100_000, "course": 100_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [compare(which, args.seeds) for which in args.settings]
    for row in rows:
        print(json.dumps(row), flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def compare(which: str, num_seeds: int) -> dict[str, Any]:
    """Medians over seeds of one setting of SB3 and of ours beside it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ppo.json"
        options = ["--against-sb3", which, "--stop-at", "475", "--steps", str(BUDGETS[which])]
        command = [sys.executable, "-m", "classic.ppo", "--seeds", str(num_seeds), "--json", str(file), *options]
        subprocess.run(command, check=True, stdout=sys.stderr)
        runs = json.loads(file.read_text(encoding="utf-8"))["seeds"]
    figures = {
        "ours": figures_of([run["curve"] for run in runs]),
        "sb3": figures_of([run["sb3_curve"] for run in runs]),
    }
    return {"sb3_settings": which, "num_seeds": num_seeds, **figures}


def figures_of(curves: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """How many seeds reached 475, and the medians of steps a second and of the way there (of those that did)."""
    reached = [next((point for point in curve if point["mean_return"] >= 475), None) for curve in curves]
    there = [point for point in reached if point]
    return {
        "num_reached": len(there),
        "steps_to_475": statistics.median(point["step"] for point in there) if there else None,
        "seconds_to_475": statistics.median(point["seconds"] for point in there) if there else None,
        "steps_per_second": statistics.median(curve[-1]["step"] / curve[-1]["seconds"] for curve in curves),
    }


if __name__ == "__main__":
    main()
