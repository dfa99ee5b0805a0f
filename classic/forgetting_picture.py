"""The forgetting monitor as a picture: what is played beside what is remembered.

Left out: what the figures mean (`classic.forgetting`).

    python -m classic.dqn --out runs/dqn
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from classic.records import write_picture
from classic.training_runs import Point

PANELS = [
    ("mean_return", "mean return of an episode"),
    ("doomed_q", "Q where the episode ends"),
    ("action_gap", "best Q minus second best"),
    ("terminal_fraction", "ends among what is stored"),
    ("td_loss", "TD loss (it does not tell)"),
    ("mean_q", "mean Q of actions taken"),
]


def draw_forgetting(path: Path, runs: Sequence[Sequence[Point]], *, title: str, gamma: float) -> None:
    """Six panels over environment steps, one line a seed.

    Args:
        path: the PNG file; its folder is made.
        runs: evaluations of DQN, by seed.
        title: above all.
        gamma: discount, for the line at r / (1 - gamma) to which Q drifts when ends are forgotten.
    """
    figure = Figure(figsize=(11, 5.5), dpi=110)
    grid = figure.subplots(2, 3, sharex=True)
    for axes, (name, text) in zip(grid.flat, PANELS, strict=True):
        for points in runs:
            heights = [p.mean_return if name == "mean_return" else p.metrics.get(name, np.nan) for p in points]
            axes.plot([point.step for point in points], heights, color="C0", alpha=1.0 if len(runs) == 1 else 0.5)
        axes.set_title(text, fontsize=9)
        axes.grid(alpha=0.3)
    _exact_lines(grid.flat[1], runs, gamma)
    for axes in grid[1]:
        axes.set_xlabel("environment steps")
    figure.suptitle(title)
    figure.tight_layout()
    write_picture(path, figure.savefig)


def _exact_lines(axes: Axes, runs: Sequence[Sequence[Point]], gamma: float) -> None:
    exact = [point.metrics.get("doomed_q_exact", np.nan) for points in runs for point in points]
    if np.isnan(exact).all():
        return
    reward = float(np.nanmean(exact))  # of a last step; where it is that of every step, it also says where Q drifts to
    axes.axhline(reward, color="black", linestyle="--", linewidth=1, label="what it should be")
    if gamma < 1 and reward:
        axes.axhline(reward / (1 - gamma), color="black", linestyle=":", linewidth=1, label="r / (1 - gamma)")
    axes.legend(fontsize=7)
