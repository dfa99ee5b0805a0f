"""Charts as images in memory, for notebooks and for files; no window, no display, no global state of matplotlib.

`classic.curves` writes learning curves over seeds to a file; here a function gets axes and draws what it likes. The
trap this avoids: pyplot keeps every figure until it is closed, and in a notebook it fights over the backend.

Left out: interaction; `classic.notebook_controls` draws anew when a control moves.

    python -m classic.real_world --out runs/real_world
"""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from classic.curves import Curve

DPI = 96
LIMIT_STYLES = ("--", ":", "-.")


def chart(
    draw: Callable[..., None], *, columns: int = 1, width: float = 7.2, height: float = 3.4, title: str = ""
) -> Image.Image:
    """Call `draw` with as many axes as columns, and give what it drew as an image.

    Args:
        draw: takes the axes, one after the other.
        columns: number of axes, side by side.
        width: of the whole, in inches of 96 pixels.
        height: likewise.
        title: above all of them.
    """
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    draw(*figure.subplots(1, columns, squeeze=False)[0])
    if title:
        figure.suptitle(title, fontsize=11)
    canvas.draw()  # a slider waits for this: savefig would draw twice, and pack what is unpacked again here
    return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")


def draw_lines(
    axes: Any,
    curves: Mapping[str, Curve],
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    limits: Mapping[str, float] | None = None,
) -> None:
    """The first row of each curve as a line; limits as dashed lines across."""
    for name, curve in curves.items():
        marker = "o" if len(curve.steps) == 1 else None
        axes.plot(curve.steps, curve.values[0], linewidth=2, label=name, marker=marker)
    for index, (name, height) in enumerate((limits or {}).items()):
        axes.axhline(height, color="black", linestyle=LIMIT_STYLES[index % 3], linewidth=1, label=name)
    finish(axes, title=title, xlabel=xlabel, ylabel=ylabel)


def finish(axes: Any, *, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Labels, a grid, and a legend where anything has a name."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=8)


def stacked(*images: Image.Image) -> Image.Image:
    """Images in a column on white, aligned at the left."""
    height = sum(image.height for image in images)
    column = Image.new("RGB", (max(image.width for image in images), height), "white")
    y = 0
    for image in images:
        column.paste(image, (0, y))
        y += image.height
    return column


def side_by_side(*images: Image.Image, gap: int = 12) -> Image.Image:
    """Images in a row on white, aligned at the top."""
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    row = Image.new("RGB", (width, max(image.height for image in images)), "white")
    x = 0
    for image in images:
        row.paste(image, (x, 0))
        x += image.width + gap
    return row
