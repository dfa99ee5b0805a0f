"""What every figure of the page has in common: caption, drawing, and its data as a download.

The data travels inside the page as a `data:` link, so the download works from a file, offline and without any script.
Leaves out: drawing (`charts.py`).

    figure("Score", "from the reward model", drawing, Table(("PPO update", "rollouts"), ((1, 0.5), (2, 0.7))))
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from .text import escaped

MARKS_OF_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Table:
    """The data of a figure: a name for each column, then rows of numbers, texts and None (an empty cell)."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[float | str | None]]


def figure(title: str, unit: str, drawing: str, data: Table, *, above: str = "", below: str = "") -> str:
    """`drawing` is the SVG; `above` and `below` are HTML around it (a legend, the name of the x axis)."""
    return (
        f'<figure class="chart"><figcaption><b>{escaped(title)}</b> <span class="unit">{escaped(unit)}</span>'
        f'</figcaption>{above}{drawing}<div class="under">{below}{download(title, data)}</div></figure>'
    )


def download(title: str, data: Table) -> str:
    """A link that saves `data` as a file named after `title`."""
    name = re.sub(r"\W+", "_", title.lower()).strip("_")[:80] or "figure"
    address = "data:text/csv;charset=utf-8," + quote(csv_text(data), safe=",")
    return (
        f'<a class="download" download="{escaped(name)}.csv" href="{address}"'
        f' aria-label="data (CSV) of {escaped(title)}">data (CSV)</a>'
    )


def csv_text(data: Table) -> str:
    """Numbers in full. RFC 4180, but for the shorter end of a line, which an address would hold as six characters."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(map(cell, data.columns))
    rows.writerows(map(cell, row) for row in data.rows)
    return text.getvalue()


def cell(value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):  # a spreadsheet would run the name of a run that begins as a formula does
        return f"'{value}" if value.startswith(MARKS_OF_A_FORMULA) else value
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
