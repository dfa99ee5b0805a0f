"""Learning curves as PNG, drawn without a display.

Left out: replays of an agent (`classic.replays`) and plots that answer to a slider (the notebooks).

    python -m classic.q_learning --seeds 5 --out runs/q_learning
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from classic.records import write_picture
from classic.seeds import interquartile_mean

mpl.use("Agg")
from matplotlib import pyplot as plt


@dataclass(frozen=True)
class Curve:
    """One number over training, for each seed at the same steps; NaN where a seed says nothing."""

    steps: Sequence[float]  # (E,)
    values: Sequence[Sequence[float]]  # (seeds, E)

    def middle(self) -> list[float]:
        """(E,) interquartile mean over seeds; NaN unless every seed has a value there."""
        columns = np.asarray(self.values, dtype=np.float64).T
        return [math.nan if np.isnan(column).any() else interquartile_mean(column) for column in columns]


def draw_curves(
    path: Path,
    curves: Mapping[str, Curve],
    *,
    title: str,
    ylabel: str,
    xlabel: str = "environment steps",
    limits: Mapping[str, float] | None = None,
) -> None:
    """Each curve as its interquartile mean over seeds, with all seeds behind it; exact limits as dashed lines.

    Args:
        path: the PNG file; its folder is made.
        curves: name in the legend to curve.
        title: above the plot.
        ylabel: beside it, with the unit.
        xlabel: below it.
        limits: name to height, for what is possible at best.
    """
    figure, axes = plt.subplots(figsize=(7, 4), dpi=120)
    for index, (name, curve) in enumerate(curves.items()):
        draw_curve(axes, curve, colour=f"C{index}", name=name)
    for index, (name, height) in enumerate((limits or {}).items()):
        axes.axhline(height, color="black", linestyle=("--", ":", "-.")[index % 3], linewidth=1, label=name)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=8)
    figure.tight_layout()
    write_picture(path, figure.savefig)
    plt.close(figure)


def draw_curve(axes: Any, curve: Curve, *, colour: str, name: str | None = None) -> None:
    """The interquartile mean, where every seed has a value, and the seeds behind it; `name` is for the legend."""
    for row in curve.values if len(curve.values) > 1 else ():
        axes.plot(curve.steps, row, color=colour, alpha=0.25, linewidth=0.8, marker=_marker(row))
    middle = curve.middle()
    axes.plot(curve.steps, middle, color=colour, linewidth=2, label=name, marker=_marker(middle))


def with_heights(limits: Mapping[str, float]) -> dict[str, float]:
    """The names with the numbers in them: two lines may lie so close that only the legend tells them apart."""
    return {f"{name}: {height:.3f}": height for name, height in limits.items()}


def _marker(row: Sequence[float]) -> str | None:
    """A single point is no line, and would not be seen."""
    return "o" if np.isfinite(row).sum() == 1 else None
