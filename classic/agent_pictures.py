"""Pictures of lessons 3 to 5: learning curves of ours and of Stable-Baselines3's, and a replay of the best policy.

Left out: what only one lesson draws, such as the clipped objective or the forgetting monitor.

    python -m classic.ppo --out runs/ppo
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classic.curves import Curve, draw_curves
from classic.pictures import picture_of_cart_pole, picture_of_pendulum
from classic.replays import write_replay
from classic.training_runs import Point, Policy, evaluation_seed
from classic.vector_rollouts import VectorStreams, make_vector

DRAWINGS = {"CartPole": picture_of_cart_pole, "Pendulum": picture_of_pendulum}


def write_learning_curve(
    path: Path, title: str, runs: Mapping[str, Sequence[Sequence[Point]]], threshold: float | None
) -> None:
    """Mean return over environment steps; name in the legend to evaluations, by seed."""
    limits = {} if threshold is None else {f"threshold {threshold:g}": threshold}
    curves = {name: curve_of(seeds) for name, seeds in runs.items()}
    draw_curves(path, curves, title=title, ylabel="mean return of an episode", limits=limits)


def curve_of(runs: Sequence[Sequence[Point]], metric: str | None = None) -> Curve:
    """One curve a seed, of the mean return or of a metric. Runs may have stopped early: a curve stays at its height."""
    longest = max(runs, key=len)
    heights = [[point.metrics[metric] if metric else point.mean_return for point in points] for points in runs]
    return Curve([point.step for point in longest], [row + [row[-1]] * (len(longest) - len(row)) for row in heights])


def write_agent_replay(folder: Path, env_id: str, policy: Policy, seed: int, options: dict[str, Any]) -> None:
    """An episode of the policy as GIF and as HTML, where we have a drawing of the environment; else nothing."""
    picture = DRAWINGS.get(env_id.partition("-")[0])
    if picture is None:
        return
    env = make_vector(env_id, 1, **options)
    streams = VectorStreams(env, evaluation_seed(seed))
    frames = [picture(streams.observations[0], "step 0")]
    while not streams.episode_returns:
        streams.collect(policy.best, 1)
        frames.append(picture(streams.observations[0], f"step {streams.num_steps}"))
    env.close()
    for name in ("replay.gif", "replay.html"):
        write_replay(folder / name, frames[::2], frames_per_second=25)
