"""Lessons 3 to 5 in words and numbers: one line a seed and algorithm, the spread over seeds, the race, the JSON.

Left out: pictures (`classic.agent_pictures`).

    python -m classic.ppo --seeds 3 --against-sb3 tuned
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from classic.environments import specification
from classic.errors import Diverged
from classic.records import table_text
from classic.seeds import spread
from classic.training_runs import Budget, Point, Result, evaluation_seed, first_at, steps_between_evaluations
from classic.vector_rollouts import act_by_sign, make_vector, returns_of_first_episodes

BY_HAND = (0.05, 0.1, 0.9, 0.3)  # weights of position, speed, angle and angular speed on CartPole
S = TypeVar("S", bound=Budget)


@dataclass(frozen=True)
class Runs(Generic[S]):
    """What was trained, for tables, charts and files."""

    title: str
    env_id: str
    settings: S
    seeds: list[int]
    ours: list[Result[Any]]  # by seed
    theirs: dict[str, list[list[Point]]]  # name of Stable-Baselines3's settings to its evaluations, by seed
    cpu_seconds: bool = False  # the processor's seconds, not the wall's
    options: Mapping[str, Any] = field(default_factory=dict)  # of the environment, its time limit among them
    diverged: Diverged | None = None  # what ended the training of the seed behind these

    @property
    def threshold(self) -> float | None:
        """The mean return at which Gymnasium calls the environment solved; None where it was made differently.

        Another time limit or other rewards may put it out of reach, or make it mean something else.
        """
        spec = specification(self.env_id)
        plain = {} if spec.max_episode_steps is None else {"max_episode_steps": spec.max_episode_steps}
        return spec.reward_threshold if {**plain, **self.options} == plain else None

    def points(self) -> dict[str, list[list[Point]]]:
        """Everybody's name to evaluations, by seed."""
        return {
            "ours": [run.points for run in self.ours],
            **{f"SB3 {which}": runs for which, runs in self.theirs.items()},
        }


def report(runs: Runs[Any]) -> str:
    """The table, the spread, how many times faster the threshold was reached, and on the pole the honest baseline."""
    threshold, num_episodes = runs.threshold, runs.settings.num_evaluation_episodes
    ways = [] if threshold is None else [f"steps to {threshold:g}", f"seconds to {threshold:g}"]
    columns = ["seed", "who", "last", "best", *ways, "steps", "seconds", "steps/s"]
    everybody = runs.points()
    rows = [
        _row(seed, who, points[index], threshold)
        for index, seed in enumerate(runs.seeds)
        for who, points in everybody.items()
    ]
    apart = f"{'for everybody ' if runs.theirs else ''}every {steps_between_evaluations(runs.settings):,} steps or so"
    lines = [
        f"{runs.title}: mean return of {num_episodes} episodes without chance in the actions, {apart}; "
        f"{'processor ' if runs.cpu_seconds else ''}seconds include those evaluations, steps/s do not",
        table_text(columns, rows),
    ]
    if len(runs.seeds) > 1:
        for who, points in everybody.items():
            lines += [
                f"interquartile mean of {who}: {_spreads(points)}",
                f"last of {who}: {_mean_and_deviation(points)}",
            ]
    if threshold is not None:
        lines += [f"SB3 {which}: {race_text(runs.ours, points, threshold)}" for which, points in runs.theirs.items()]
    if runs.env_id.startswith("CartPole"):
        lines.append(baseline_text(runs))
    return "\n".join(lines)


def _spreads(runs: Sequence[Sequence[Point]]) -> str:
    last = spread([points[-1].mean_return for points in runs])
    best = spread([max(point.mean_return for point in points) for points in runs])
    return f"last {last}, best {best}"


def _mean_and_deviation(runs: Sequence[Sequence[Point]]) -> str:
    last = [points[-1].mean_return for points in runs]
    return f"{np.mean(last):.1f} +- {np.std(last):.1f} over {len(last)} seeds, lowest {min(last):.6g}"


def _row(seed: int, who: str, points: Sequence[Point], threshold: float | None) -> list[object]:
    best, last = max(point.mean_return for point in points), points[-1]
    speed = [last.step, round(last.seconds, 2), round(last.steps_per_second)]
    if threshold is None:
        return [seed, who, last.mean_return, best, *speed]
    reached = first_at(points, threshold)
    ways = ["never", "never"] if reached is None else [f"{reached.step:,}", f"{reached.seconds:.2f}"]
    return [seed, who, last.mean_return, best, *ways, *speed]


def race_text(ours: Sequence[Result[Any]], theirs: Sequence[Sequence[Point]], threshold: float) -> str:
    """Seconds to the threshold, SB3 over ours; where SB3 never got there, its whole time is a lower bound."""
    speed = [
        run.points[-1].steps_per_second / points[-1].steps_per_second for run, points in zip(ours, theirs, strict=True)
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


def baseline_text(runs: Runs[Any]) -> str:
    """The honest baseline of CartPole: what four numbers by hand score in the first seed's own test episodes."""
    env = make_vector(runs.env_id, runs.settings.num_evaluation_episodes, **runs.options)
    returns = returns_of_first_episodes(env, act_by_sign(BY_HAND), evaluation_seed(runs.seeds[0]))
    env.close()
    return f"for comparison, push right where {BY_HAND} times the observation is above 0: {returns.mean():.6g}"


def record(lesson: str, runs: Runs[Any]) -> dict[str, Any]:
    """The JSON: settings, every seed with its curve, the spread."""
    threshold, seeds = runs.threshold, []
    for index, (seed, run) in enumerate(zip(runs.seeds, runs.ours, strict=True)):
        reached = None if threshold is None else run.first_at(threshold)
        seeds.append(
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
                "sb3_curves": {which: [asdict(point) for point in all_[index]] for which, all_ in runs.theirs.items()},
            }
        )
    return {
        "lesson": lesson,
        "env": runs.env_id,
        "options": dict(runs.options),
        "settings": asdict(runs.settings),
        "cpu_seconds": runs.cpu_seconds,
        "seeds": seeds,
        "last_return": spread([run.points[-1].mean_return for run in runs.ours])._asdict(),
        "best_return": spread([run.best.mean_return for run in runs.ours])._asdict(),
    }
