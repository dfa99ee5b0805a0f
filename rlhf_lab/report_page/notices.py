"""What a reader must know before any number: files that could not be read, votes that look unreliable.

Leaves out: parts that are not there yet; the sections name those where they would stand.
"""

from __future__ import annotations

from collections.abc import Sequence

from .run_data import RunData
from .text import entry, escaped


def notices(data: RunData) -> list[str]:
    """In words, the most serious first."""
    warnings = entry(data.learnt("reward", "votes"), "warnings")
    votes = [f"The votes look unreliable: {told}" for told in (warnings if isinstance(warnings, list) else ())]
    return [*data.notes, *votes]


def notice(told: Sequence[str]) -> str:
    if not told:
        return ""
    items = "".join(f"<li>{escaped(one)}</li>" for one in told)
    return f'<div class="notice" role="note"><b>Before you read on</b><ul>{items}</ul></div>'
