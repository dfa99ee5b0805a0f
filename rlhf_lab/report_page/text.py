"""Numbers and text as the page prints them: one rounding rule, one dash for what is not there, one escape.

Leaves out: everything about layout. All text that comes from a run passes `escaped` exactly once.
"""

from __future__ import annotations

import html
import math
from typing import Any

DASH = "–"
MINUS = "\u2212"  # a hyphen is too short beside tabular figures


def finite(value: Any) -> float | None:
    """The number, or None where JSON held null, NaN, an infinity, a text or a truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:  # JSON has integers of any length
        return None
    return value if math.isfinite(value) else None


def escaped(value: Any) -> str:
    """Text from a run, safe as element content and inside a quoted attribute."""
    # A byte-level tokenizer can leave half a surrogate pair or a control character; the first can not be written
    # as UTF-8 and the second is no legal HTML.
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    text = "".join(c if c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") else "\ufffd" for c in text)
    return html.escape(text, quote=True)


def decimals(*values: Any) -> int:
    """How many decimals show two to three figures of the largest of these values."""
    largest = max((abs(v) for v in map(finite, values) if v is not None), default=0.0)
    if largest == 0.0:
        return 2
    magnitude = math.floor(math.log10(largest))
    return max(0, 2 - magnitude) if magnitude >= 1 else min(8, max(2, 1 - magnitude))


def number(value: Any, places: int | None = None) -> str:
    """A number for a reader: 0.314, 12.5, 1,204; a dash where there is none."""
    value = finite(value)
    if value is None:
        return DASH
    if abs(value) >= 1e7 or 0 < abs(value) < 1e-4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", MINUS)
    places = decimals(value) if places is None else places
    text = f"{value:,.{places}f}"
    is_zero = not text.strip("-0.,")
    return text.lstrip("-") if is_zero else text.replace("-", MINUS)


def count(value: Any) -> str:
    """A whole number with thousands marks."""
    return number(value, 0)


def percent(value: Any) -> str:
    value = finite(value)
    return DASH if value is None else f"{number(100 * value, 1 if 0.995 <= value < 1 else 0)}\u00a0%"


def percent_interval(estimate: Any) -> str:
    """'83 % [80, 86]' of a {"mean", "low", "high"} entry."""
    low, high = (finite(entry(estimate, key)) for key in ("low", "high"))
    mean = percent(entry(estimate, "mean"))
    if low is None or high is None:
        return mean
    return f"{mean} [{number(100 * low, 0)}, {number(100 * high, 0)}]"


def duration(seconds: Any) -> str:
    """'48 s', '3 min 20 s', '2 h 05 min'."""
    seconds = finite(seconds)
    if seconds is None or seconds < 0:
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def entry(value: Any, *keys: str) -> Any:
    """A nested JSON entry, or None where any level is missing or is no object."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def fields(value: Any, *keys: str) -> dict[str, Any]:
    """A nested JSON object, or an empty one where there is none."""
    found = entry(value, *keys)
    return found if isinstance(found, dict) else {}
