"""A chart of means with whiskers over a few places in order: bins of a margin, sizes of a data set, quantiles.

Places stand evenly spaced whatever their values, so that bins and doublings read alike. Leaves out: what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, linear_axis, places_that_tell_apart
from .estimates import Estimate
from .figures import Table, figure
from .text import escaped, number

SHIFT = 7  # pixels between series at one place, so that whiskers do not hide each other


@dataclass(frozen=True)
class Place:
    """One place of the x axis: its label, and how many rows its estimates rest on."""

    label: str
    num_rows: float | None = None


@dataclass(frozen=True)
class Means:
    """One series: an estimate for each place, None where it was not measured."""

    label: str
    tone: str
    estimates: tuple[Estimate | None, ...]


def interval_chart(
    title: str,
    unit: str,
    places: Sequence[Place],
    series: Sequence[Means],
    *,
    x_label: str,
    rows_label: str = "pairs",
    mark: float | None = None,
    joined: bool = False,
) -> str:
    """A figure; `mark` is a dashed level line; `joined` draws a line through the means. "" where nothing is known."""
    series = [s for s in series if any(s.estimates)]
    if not series:
        return ""
    known = [e for s in series for e in s.estimates if e]
    bounds = [v for e in known for v in (e.mean, e.low, e.high) if v is not None]
    y = linear_axis([*bounds, *([] if mark is None else [mark])], HEIGHT - BOTTOM, TOP)
    xs = centres(len(places))
    drawn = "".join(
        marks(s, [x + SHIFT * (i - (len(series) - 1) / 2) for x in xs], y, joined=joined) for i, s in enumerate(series)
    )
    level = (
        ""
        if mark is None
        else f'<line class="diagonal" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(mark)}" y2="{y(mark)}"/>'
    )
    label = escaped(words(title, places, series))
    drawing = (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{frame(places, xs, y)}{level}{drawn}</svg>"
    )
    return figure(
        title,
        unit,
        drawing,
        table(places, series, x_label, rows_label),
        above=legend(series) if len(series) > 1 else "",
        below=f'<p class="at">{escaped(x_label)}</p>',
    )


def centres(number: int) -> list[float]:
    """Where each of so many places lies, in pixels."""
    width = (WIDTH - RIGHT - LEFT) / number
    return [LEFT + width * (i + 0.5) for i in range(number)]


def marks(s: Means, xs: Sequence[float], y: Axis, *, joined: bool) -> str:
    points = [(x, e) for x, e in zip(xs, s.estimates, strict=True) if e]
    path = "L".join(f"{x:.1f},{y(e.mean)}" for x, e in points)
    line = f'<path class="line" d="M{path}"/>' if joined and len(points) > 1 else ""
    whiskers = "".join(
        f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{y(e.low)}" y2="{y(e.high)}"/>'
        for x, e in points
        if e.low is not None and e.high is not None
    )
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y(e.mean)}" r="3.4"><title>{escaped(s.label)}: {in_words(e)}</title></circle>'
        for x, e in points
    )
    return f'<g class="{s.tone}">{line}{whiskers}{dots}</g>'


def frame(places: Sequence[Place], xs: Sequence[float], y: Axis) -> str:
    """Grid lines and labels, hidden from screen readers: the summary says what they show."""
    step = y.ticks[1] - y.ticks[0]
    rows = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(t)}" y2="{y(t)}"/>'
        f'<text x="{LEFT - 7}" y="{y(t) + 4}" text-anchor="end">{number(t, places_that_tell_apart(step))}</text>'
        for t in y.ticks
    )
    columns = "".join(
        f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{escaped(place.label)}</text>'
        for place, x in zip(places, xs, strict=True)
    )
    return f'<g class="frame" aria-hidden="true">{rows}{columns}</g>'


def legend(series: Sequence[Means]) -> str:
    items = "".join(f'<li class="{s.tone}"><span class="swatch"></span>{escaped(s.label)}</li>' for s in series)
    return f'<ul class="legend">{items}</ul>'


def in_words(e: Estimate) -> str:
    between = "" if e.low is None or e.high is None else f", {number(e.low)} to {number(e.high)}"
    return f"{number(e.mean)}{between}"


def words(title: str, places: Sequence[Place], series: Sequence[Means]) -> str:
    told = [
        f"{s.label} at {place.label}: {in_words(e)}"
        for s in series
        for place, e in zip(places, s.estimates, strict=True)
        if e
    ]
    return f"{title}: {'; '.join(told)}"


def table(places: Sequence[Place], series: Sequence[Means], x_label: str, rows_label: str) -> Table:
    columns = [name for s in series for name in (s.label, f"{s.label}, low", f"{s.label}, high")]
    rows = [
        [place.label, place.num_rows, *(v for s in series for v in values(s.estimates[i]))]
        for i, place in enumerate(places)
    ]
    return Table((x_label, rows_label, *columns), rows)


def values(e: Estimate | None) -> tuple[float | None, ...]:
    return (None, None, None) if e is None else (e.mean, e.low, e.high)
