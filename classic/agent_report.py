"""Lessons 3 to 5 in words and numbers: one line a seed and algorithm, the spread over seeds, the race, the JSON.

Left out: pictures (`classic.agent_pictures`).

    python -m classic.ppo --seeds 3 --against-sb3 tuned
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from classic.records import table_text
from classic.seeds import spread
from classic.training_runs import Point, Result, evaluation_seed, first_at
from classic.vector_rollouts import act_by_sign, make_vector, returns_of_first_episodes

BY_HAND = (0.05, 0.1, 0.9, 0.3)  # weights of position, speed, angle and angular speed on CartPole
Theirs = Mapping[str, Sequence[Sequence[Point]]]  # name of SB3's settings to evaluations, by seed


def report(
    title: str,
    seeds: Sequence[int],
    ours: Sequence[Result[Any]],
    theirs: Theirs,
    *,
    threshold: float | None,
    num_evaluation_episodes: int,
) -> str:
    """The table, the spread, and how many times faster the threshold was reached."""
    bar = f"{threshold:g}" if threshold is not None else "no threshold"
    columns = ["seed", "who", "last", "best", f"steps to {bar}", f"seconds to {bar}", "steps", "seconds", "steps/s"]
    rows = []
    for index, seed in enumerate(seeds):
        rows.append(_row(seed, "ours", ours[index].points, threshold))
        rows += [_row(seed, f"SB3 {which}", runs[index], threshold) for which, runs in theirs.items()]
    lines = [
        f"{title}: mean return of {num_evaluation_episodes} episodes without chance in the actions",
        table_text(columns, rows),
    ]
    if len(seeds) > 1:
        everybody = {"ours": [run.points for run in ours], **{f"SB3 {which}": runs for which, runs in theirs.items()}}
        for who, runs in everybody.items():
            lines.append(f"interquartile mean of {who}: {_spreads(runs)}")
    if threshold is not None:
        lines += [f"SB3 {which}: {race_text(ours, runs, threshold)}" for which, runs in theirs.items()]
    return "\n".join(lines)


def _spreads(runs: Sequence[Sequence[Point]]) -> str:
    last = spread([points[-1].mean_return for points in runs])
    best = spread([max(point.mean_return for point in points) for points in runs])
    return f"last {last}, best {best}"


def _row(seed: int, who: str, points: Sequence[Point], threshold: float | None) -> list[object]:
    reached = None if threshold is None else first_at(points, threshold)
    best = max(point.mean_return for point in points)
    ways: list[object] = ["never", "never"] if reached is None else [f"{reached.step:,}", f"{reached.seconds:.2f}"]
    last = points[-1]
    return [seed, who, last.mean_return, best, *ways, last.step, last.seconds, last.step / last.seconds]


def race_text(ours: Sequence[Result[Any]], theirs: Sequence[Sequence[Point]], threshold: float) -> str:
    """Seconds to the threshold, SB3 over ours; where SB3 never got there, its whole time is a lower bound."""
    speed = [
        (run.points[-1].step / run.points[-1].seconds) / (points[-1].step / points[-1].seconds)
        for run, points in zip(ours, theirs, strict=True)
    ]
    steps = f"steps per second, ours / SB3: {np.median(speed):.1f}"
    ratios, bound = [], ""
    for run, points in zip(ours, theirs, strict=True):
        mine, other = run.first_at(threshold), first_at(points, threshold)
        if mine is None:
            return f"ours did not reach {threshold:g} with every seed, so there is no ratio of times; {steps}"
        bound = bound if other else "at least "
        ratios.append((other or points[-1]).seconds / mine.seconds)
    return f"seconds to {threshold:g}, SB3 / ours: {bound}{np.median(ratios):.1f} (median over seeds); {steps}"


def baseline_text(num_episodes: int) -> str:
    """The honest baseline of CartPole: what four numbers by hand score in as many episodes."""
    env = make_vector("CartPole-v1", num_episodes)
    returns = returns_of_first_episodes(env, act_by_sign(BY_HAND), evaluation_seed(0))
    env.close()
    return f"for comparison, push right where {BY_HAND} times the observation is above 0: {returns.mean():.6g}"


def record(
    lesson: str,
    env_id: str,
    settings: Any,
    seeds: Sequence[int],
    ours: Sequence[Result[Any]],
    theirs: Theirs,
    threshold: float | None,
) -> dict[str, Any]:
    """The JSON: settings, every seed with its curve, the spread."""
    runs = []
    for index, (seed, run) in enumerate(zip(seeds, ours, strict=True)):
        reached = None if threshold is None else run.first_at(threshold)
        runs.append(
            {
                "seed": seed,
                "last_return": run.points[-1].mean_return,
                "best_return": run.best.mean_return,
                "threshold": threshold,
                "steps_to_threshold": reached and reached.step,
                "seconds_to_threshold": reached and reached.seconds,
                "num_steps": run.num_steps,
                "seconds": run.seconds,
                "curve": [asdict(point) for point in run.points],
                "sb3_curves": {which: [asdict(point) for point in runs[index]] for which, runs in theirs.items()},
            }
        )
    return {
        "lesson": lesson,
        "env": env_id,
        "settings": asdict(settings),
        "seeds": runs,
        "last_return": spread([run.points[-1].mean_return for run in ours])._asdict(),
        "best_return": spread([run.best.mean_return for run in ours])._asdict(),
    }
