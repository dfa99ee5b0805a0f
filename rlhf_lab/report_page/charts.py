"""Charts as inline SVG: curves over steps, a calibration plot, strips of intervals.

A chart is a figure (`figures.py`) whose colours come from CSS variables, so one drawing serves light and dark. Its
legend shows last values without any script; `hover.js` lets a pointer, a finger or the arrow keys move the readout.
Leaves out: what to plot (`curves.py`) and any colour value (`style.css`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .figures import Table, figure
from .text import count, decimals, escaped, number

WIDTH, HEIGHT = 340, 190  # about the size on screen, so that SVG text stays the size of the page's text
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 20
MOST_POINTS = 240  # beyond this the eye and the file gain nothing
MOST_ROWS = 1000  # of a download; the page holds the data of all its figures
SMOOTHED_FROM = 40  # points; shorter curves are read as they are

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One curve. `tone` is a class of style.css; `dots` marks a sparse curve, as evaluations are; `exact` one without
    noise, as a schedule is, which a running mean would only bend at its ends."""

    label: str
    points: tuple[Point, ...]
    tone: str
    dots: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Axis:
    """Maps data to pixels; `ticks` are in data units."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)


def nice_step(span: float, most: int) -> float:
    """The smallest 1, 2 or 5 times a power of ten that cuts the span into at most `most` parts."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(m * power for m in (1, 2, 5, 10, 20) if span / (m * power) <= most)


def widened(low: float, high: float) -> tuple[float, float]:
    """The same range, or one around it where all values are equal: a flat curve needs a range to sit in."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = abs(low) / 2 or 0.5
    return low - room, high + room


def linear_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """From the round number below the values to the one above."""
    low, high = widened(min(values), max(values))
    step = nice_step(high - low, 4)
    ticks = tuple(step * i for i in range(math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6) + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def step_axis(steps: Sequence[float], start: float, end: float) -> Axis:
    """From the first step to the last, ticks at round whole steps."""
    low, high = widened(min(steps), max(steps))
    step = max(1.0, nice_step(high - low, 5))
    ticks = tuple(step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1))
    return Axis(low, high, start, end, ticks)


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    every = math.ceil((high - low) / 5)
    return Axis(10.0**low, 10.0**high, start, end, tuple(10.0**i for i in range(low, high + 1, every)), log=True)


def value_axis(values: Sequence[float], *, may_be_log: bool) -> Axis:
    """Log where one spike, as the critic's first losses are, would press the rest of the curve flat."""
    start, end = HEIGHT - BOTTOM, TOP
    if may_be_log and min(values) > 0 and max(values) / min(values) > 50:
        return log_axis(values, start, end)
    return linear_axis(values, start, end)


def thinned(points: tuple[Point, ...], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """At most `most` points, each the mean of equally many neighbours, shown at the last of their steps."""
    size = math.ceil(len(points) / most)
    groups = [points[i : i + size] for i in range(0, len(points), max(1, size))]
    return tuple((group[-1][0], sum(y for _, y in group) / len(group)) for group in groups)


def running_mean(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Centred mean over about a fifteenth of the curve; at the ends over the neighbours that there are."""
    half = max(1, len(points) // 30)
    smooth = []
    for i, (x, _) in enumerate(points):
        window = points[max(0, i - half) : i + half + 1]
        smooth.append((x, sum(y for _, y in window) / len(window)))
    return tuple(smooth)


def path(points: Sequence[Point], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x(px)},{y(py)}" for px, py in points)


def line_chart(title: str, unit: str, series: Sequence[Series], *, x_label: str, may_be_log: bool = False) -> str:
    """A figure with one or more curves over steps; "" where no series has a point."""
    series = [s for s in series if s.points]
    if not series:
        return ""
    data = table(series, x_label)
    series = [replace(s, points=thinned(s.points)) for s in series]
    x = step_axis([px for s in series for px, _ in s.points], LEFT, WIDTH - RIGHT)
    y = value_axis([py for s in series for _, py in s.points], may_be_log=may_be_log)
    unit = f"{unit}, log scale" if y.log else unit
    drawn = "".join(curve(s, x, y) for s in series)
    drawing = (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0"'
        f' aria-label="{escaped(summary(title, unit, series, x_label))}"'
        f' data-readout="{escaped(readout(series, x, y, x_label))}">'
        f"{frame(x, y)}{drawn}"
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/></svg>'
    )
    at = f'<p class="at" aria-live="polite">{escaped(x_label)}</p>'
    return figure(title, unit, drawing, data, above=legend(series), below=at)


def table(series: Sequence[Series], x_label: str) -> Table:
    """The points of all series, a column each, as they were logged; of a very long one the means of neighbours."""
    columns = [x_label]
    rows: dict[tuple[float, int], list[float | None]] = {}
    for column, s in enumerate(series, 1):
        size = math.ceil(len(s.points) / MOST_ROWS)
        columns.append(f"{s.label}, means of {size}" if size > 1 else s.label)
        repeats: Counter[float] = Counter()
        for x, y in thinned(s.points, MOST_ROWS):
            row = rows.setdefault((x, repeats[x]), [x, *[None] * len(series)])
            row[column] = y
            repeats[x] += 1
    return Table(tuple(columns), [rows[place] for place in sorted(rows)])


def curve(s: Series, x: Axis, y: Axis) -> str:
    if s.dots:
        marks = "".join(f'<circle cx="{x(px)}" cy="{y(py)}" r="2.4"/>' for px, py in s.points)
        return f'<g class="{s.tone}"><path class="line" d="{path(s.points, x, y)}"/>{marks}</g>'
    smooth = s.points if s.exact or len(s.points) < SMOOTHED_FROM else running_mean(s.points)
    raw = "" if smooth == s.points else f'<path class="raw" d="{path(s.points, x, y)}"/>'
    end_x, end_y = smooth[-1]
    end = f'<circle cx="{x(end_x)}" cy="{y(end_y)}" r="2.4"/>'
    return f'<g class="{s.tone}">{raw}<path class="line" d="{path(smooth, x, y)}"/>{end}</g>'


def frame(x: Axis, y: Axis) -> str:
    """Grid lines and tick labels, hidden from screen readers: the summary says what they show."""
    places = None if y.log else places_that_tell_apart(y.ticks[1] - y.ticks[0])
    rows = "".join(
        f'<line x1="{x.start}" x2="{x.end}" y1="{y(t)}" y2="{y(t)}"/>'
        f'<text x="{x.start - 7}" y="{y(t) + 4}" text-anchor="end">{tick(t, places)}</text>'
        for t in y.ticks
    )
    bottom = y.start
    columns = "".join(
        f'<text x="{x(t)}" y="{bottom + 15}" text-anchor="middle">{tick(t, None)}</text>' for t in x.ticks
    )
    return f'<g class="frame" aria-hidden="true">{rows}{columns}</g>'


def places_that_tell_apart(step: float) -> int:
    return next((p for p in range(9) if abs(round(step, p) - step) < 1e-9 * step), decimals(step))


def tick(value: float, places: int | None) -> str:
    if value == 0:
        return "0"
    if places is not None:
        return number(value, places)
    return count(value) if value == round(value) else f"{value:g}"


def legend(series: Sequence[Series]) -> str:
    items = "".join(
        f'<li class="{s.tone}"><i class="swatch{" dotted" if s.dots else ""}"></i>{escaped(s.label)}'
        f' <b class="value">{number(s.points[-1][1])}</b></li>'
        for s in series
    )
    return f'<ul class="legend">{items}</ul>'


def readout(series: Sequence[Series], x: Axis, y: Axis, x_label: str) -> str:
    """What hover.js needs: per series, each point's pixel, step and value as text."""
    points = [[[x(px), count(px), number(py)] for px, py in s.points] for s in series]
    return json.dumps({"label": x_label, "series": points}, separators=(",", ":"), ensure_ascii=False)


def summary(title: str, unit: str, series: Sequence[Series], x_label: str) -> str:
    """The chart in words, for who can not see it."""
    parts = [
        f"{s.label} from {number(s.points[0][1])} at {x_label} {count(s.points[0][0])}"
        f" to {number(s.points[-1][1])} at {x_label} {count(s.points[-1][0])}"
        for s in series
    ]
    return f"{title} ({unit}): " + "; ".join(parts)


@dataclass(frozen=True)
class Bin:
    """Pairs that the reward model gave about the same probability."""

    predicted: float
    observed: float
    num_pairs: float


def calibration_chart(bins: Sequence[Bin]) -> str:
    """Observed against predicted agreement; a circle's area is its number of pairs, the diagonal is perfect."""
    width, height, left, top = WIDTH - LEFT - 20, 200, LEFT, 10
    low = 0.5 if min(min(b.predicted, b.observed) for b in bins) >= 0.5 else 0.0
    ticks = tuple(low + (1 - low) * i / 5 for i in range(6))
    x, y = Axis(low, 1.0, left, left + width, ticks), Axis(low, 1.0, top + height, top, ticks)
    most = max(b.num_pairs for b in bins) or 1.0
    grid = "".join(
        f'<line x1="{left}" x2="{left + width}" y1="{y(t)}" y2="{y(t)}"/>'
        f'<text x="{left - 7}" y="{y(t) + 4}" text-anchor="end">{100 * t:.0f}</text>'
        f'<text x="{x(t)}" y="{top + height + 17}" text-anchor="middle">{100 * t:.0f}</text>'
        for t in ticks
    )
    circles = "".join(
        f'<circle cx="{x(b.predicted)}" cy="{y(b.observed)}" r="{3 + 8 * math.sqrt(b.num_pairs / most):.1f}">'
        f"<title>{escaped(bin_in_words(b))}</title></circle>"
        for b in bins
    )
    words = "Calibration of the reward model: " + "; ".join(map(bin_in_words, bins))
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {top + height + 22}" role="img"'
        f' aria-label="{escaped(words)}"><g class="frame" aria-hidden="true">{grid}</g>'
        f'<line class="diagonal" x1="{x(low)}" y1="{y(low)}" x2="{x(1)}" y2="{y(1)}"/>'
        f'<g class="tone-reward bins">{circles}</g></svg>'
    )


def bin_in_words(b: Bin) -> str:
    return f"predicted {100 * b.predicted:.0f} %, observed {100 * b.observed:.0f} %, {count(b.num_pairs)} pairs"


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, already finite."""

    tone: str
    mean: float
    low: float
    high: float


def interval_strip(
    intervals: Sequence[Interval], words: str, *, low: float, high: float, mark: float | None = None
) -> str:
    """Means as dots on their intervals, one above the other, from `low` to `high`; `mark` is a thin upright line."""
    width, row = 150, 11
    axis = Axis(*widened(low, high), 6, width - 6, ())
    height = row * len(intervals) + 4
    lines = "".join(
        f'<g class="{v.tone}"><line x1="{axis(max(low, v.low))}" x2="{axis(min(high, v.high))}" y1="{y}" y2="{y}"/>'
        f'<circle cx="{axis(min(high, max(low, v.mean)))}" cy="{y}" r="3.4"/></g>'
        for y, v in ((row * (i + 0.5) + 2, v) for i, v in enumerate(intervals))
    )
    upright = "" if mark is None else f'<line class="mark" x1="{axis(mark)}" x2="{axis(mark)}" y1="0" y2="{height}"/>'
    return (
        f'<svg class="strip" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{escaped(words)}">{upright}{lines}</svg>'
    )
