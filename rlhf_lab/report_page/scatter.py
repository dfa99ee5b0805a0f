"""Points and lines over a measured quantity, such as gold over KL: dots that are policies, lines that are made of them.

Every kind of point has a shape of its own, so that colour is not needed to tell them apart; each point names itself
when pointed at. Leaves out: curves over steps (`charts.py`) and any colour value (`style.css`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .charts import BOTTOM, LEFT, RIGHT, TOP, Axis, Point, frame, linear_axis, path
from .figures import Table, figure
from .text import escaped

WIDTH, HEIGHT = 400, 215  # two of them fill the page's width

Shape = Literal["circle", "square", "diamond", "triangle"]


@dataclass(frozen=True)
class Mark:
    """One measured point and what it says when pointed at."""

    x: float
    y: float
    words: str


@dataclass(frozen=True)
class Group:
    """Marks of one kind, and a line, which may be a fit or a frontier; either may be empty."""

    label: str
    tone: str
    marks: tuple[Mark, ...]
    line: tuple[Point, ...] = ()
    shape: Shape = "circle"
    dashed: bool = False


def scatter_chart(
    title: str,
    unit: str,
    groups: Sequence[Group],
    *,
    x_label: str,
    upright: float | None = None,
    upright_words: str = "",
) -> str:
    """A figure of groups; "" where there is no point. `upright` is a thin line at one x, told of in the legend."""
    groups = [group for group in groups if group.marks or group.line]
    points = [(m.x, m.y) for group in groups for m in group.marks] + [p for group in groups for p in group.line]
    if not points:
        return ""
    x = linear_axis([0.0, *(px for px, _ in points)], LEFT, WIDTH - RIGHT)
    y = linear_axis([py for _, py in points], HEIGHT - BOTTOM, TOP)
    drawn = "".join(drawn_group(group, x, y) for group in groups)
    mark = ""
    if upright is not None and x.low <= upright <= x.high:
        mark = f'<line class="diagonal" x1="{x(upright)}" x2="{x(upright)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    drawing = (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escaped(summary(title, unit, groups, x_label))}">{frame(x, y)}{mark}{drawn}</svg>'
    )
    above = legend(groups, upright_words if mark else "")
    below = f'<p class="at">{escaped(x_label)}</p>'
    return figure(title, unit, drawing, table_of(groups, x_label, title), above=above, below=below)


def table_of(groups: Sequence[Group], x_label: str, y_label: str) -> Table:
    """Every mark, and every corner of a line, with the group that it belongs to."""
    marks = [(group.label, "point", m.x, m.y, m.words) for group in groups for m in group.marks]
    lines = [(group.label, "line", px, py, None) for group in groups for px, py in group.line]
    return Table(("group", "kind", x_label, y_label, "words"), [*marks, *lines])


def drawn_group(group: Group, x: Axis, y: Axis) -> str:
    dashes = ' stroke-dasharray="5 4"' if group.dashed else ""
    line = f'<path class="line" d="{path(group.line, x, y)}"{dashes}/>' if len(group.line) > 1 else ""
    marks = "".join(
        f'<g class="point">{shaped(group.shape, x(m.x), y(m.y))}<title>{escaped(m.words)}</title></g>'
        for m in group.marks
    )
    return f'<g class="{group.tone}">{line}{marks}</g>'


def shaped(shape: Shape, x: float, y: float) -> str:
    if shape == "circle":
        return f'<circle cx="{x}" cy="{y}" r="3.2"/>'
    corners = {
        "square": ((-2.9, -2.9), (2.9, -2.9), (2.9, 2.9), (-2.9, 2.9)),
        "diamond": ((0, -4.1), (4.1, 0), (0, 4.1), (-4.1, 0)),
        "triangle": ((0, -3.9), (3.7, 2.7), (-3.7, 2.7)),
    }[shape]
    return '<polygon points="' + " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners) + '"/>'


def legend(groups: Sequence[Group], upright_words: str) -> str:
    items = "".join(f'<li class="{g.tone}">{key(g)} {escaped(g.label)}</li>' for g in groups)
    if upright_words:
        items += f'<li class="soft">{escaped(upright_words)}</li>'
    return f'<ul class="legend">{items}</ul>'


def key(group: Group) -> str:
    """A small picture of a group: its shape, or a stroke where it has a line only."""
    dashes = ' stroke-dasharray="4 3"' if group.dashed else ""
    line = f'<path class="line" d="M0,6L16,6"{dashes}/>' if group.line else ""
    mark = shaped(group.shape, 8, 6) if group.marks else ""
    return f'<svg class="plot key" viewBox="0 0 16 12" width="16" height="12" aria-hidden="true">{line}{mark}</svg>'


def summary(title: str, unit: str, groups: Sequence[Group], x_label: str) -> str:
    """The chart in words, for who can not see it."""
    told = [f"{group.label}: " + "; ".join(m.words for m in group.marks) for group in groups if group.marks]
    return f"{title} ({unit}) over {x_label}. " + ". ".join(told)
