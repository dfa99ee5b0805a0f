"""Pictures of lessons 3 to 5: learning curves, the figures that tell a healthy update from a sick one, a replay.

The loss is not among those figures: that of a policy gradient is a device to get a gradient, and may rise while the
agent gets better.

Left out: what only one lesson draws, such as the clipped objective or the forgetting monitor.

    python -m classic.ppo --out runs/ppo
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from classic.agent_report import Runs
from classic.charts import finish
from classic.curves import Curve, draw_curve, draw_curves
from classic.pictures import picture_of_cart_pole, picture_of_pendulum
from classic.records import write_picture
from classic.replays import write_replay
from classic.training_runs import Point, Policy, evaluation_seed
from classic.vector_rollouts import VectorStreams, make_vector

FIGURES = {
    "entropy": "entropy of the policy, nats",
    "kl": "KL of an update, nats",
    "clip_fraction": "share of clipped samples",
    "explained_variance": "explained variance",
    "gradient_norm": "length of the policy's gradient",
}
DRAWINGS = {"CartPole": picture_of_cart_pole, "Pendulum": picture_of_pendulum}


def write_agent_pictures(folder: Path, runs: Runs[Any], options: dict[str, Any]) -> None:
    """The learning curve, the figures of the updates, and a replay of the first seed's best policy."""
    limits = {} if runs.threshold is None else {f"threshold {runs.threshold:g}": runs.threshold}
    curves = {name: curve_of(points) for name, points in runs.points().items()}
    draw_curves(folder / "curve.png", curves, title=runs.title, ylabel="mean return of an episode", limits=limits)
    draw_diagnostics(
        folder / "diagnostics.png",
        [run.points for run in runs.ours],
        title=f"{runs.title}: updates",
        num_actions=number_of_actions(runs.ours[0].policy),
    )
    write_agent_replay(folder, runs.env_id, runs.ours[0].policy, runs.seeds[0], options)
    print(f"wrote pictures to {folder}")


def curve_of(runs: Sequence[Sequence[Point]], metric: str | None = None) -> Curve:
    """One curve a seed, of the mean return or of a metric, at all the steps at which any seed was evaluated.

    Where batches are whole episodes, every seed is evaluated at steps of its own. Between two evaluations a seed's
    curve is a straight line; before its first and after its last it is NaN, so that no mean over seeds is made of what
    was never measured. Points that do not have the metric are left out.
    """
    measured = [_measured(points, metric) for points in runs]
    steps = sorted({step for row in measured for step in row})
    rows = [np.interp(steps, list(row), list(row.values()), left=math.nan, right=math.nan) for row in measured if row]
    return Curve(steps, [row.tolist() for row in rows])


def _measured(points: Sequence[Point], metric: str | None) -> dict[int, float]:
    """Step to value."""
    if metric is None:
        return {point.step: point.mean_return for point in points}
    return {point.step: point.metrics[metric] for point in points if metric in point.metrics}


def draw_diagnostics(
    path: Path, runs: Sequence[Sequence[Point]], *, title: str, num_actions: int | None = None
) -> None:
    """A panel for each of `FIGURES` that the runs have; no file where they have none, as with DQN.

    Args:
        path: the PNG file; its folder is made.
        runs: evaluations by seed; their metrics are those of the update before.
        title: above all.
        num_actions: for the entropy of a policy that knows nothing; None where actions are continuous.
    """
    names = [name for name in FIGURES if any(name in point.metrics for points in runs for point in points)]
    if not names:
        return
    figure = Figure(figsize=(9, 2.6 * math.ceil(len(names) / 2)), dpi=110, layout="constrained")
    grid = figure.subplots(math.ceil(len(names) / 2), 2, sharex=True, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        draw_figure(axes, runs, name, num_actions)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    figure.suptitle(title)
    write_picture(path, figure.savefig)


def draw_figure(axes: Any, runs: Sequence[Sequence[Point]], name: str, num_actions: int | None = None) -> None:
    """One of `FIGURES` over environment steps, with what it is at most as a line."""
    draw_curve(axes, curve_of(runs, name), colour="C0")
    if name == "entropy" and num_actions:
        axes.axhline(math.log(num_actions), color="black", linestyle="--", linewidth=1, label="all actions alike")
    if name == "explained_variance":
        axes.axhline(1.0, color="black", linestyle="--", linewidth=1, label="perfect")
    finish(axes, title=FIGURES[name], xlabel="environment steps")


def number_of_actions(policy: Any) -> int | None:
    """Of a policy with separate actions; None where they are continuous."""
    return None if policy.shape.get("continuous") else int(policy.shape["num_actions"])


def write_agent_replay(folder: Path, env_id: str, policy: Policy, seed: int, options: dict[str, Any]) -> None:
    """An episode of the policy as GIF and as HTML, where we have a drawing of the environment; else nothing."""
    picture = DRAWINGS.get(env_id.partition("-")[0])
    if picture is None:
        print(f"no replay: there is no drawing of {env_id}")
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
