"""How the page names what is not there: what it is, and the command that makes it."""

from __future__ import annotations

from .run_data import RunData
from .text import escaped

STAGE_OF = {"evaluate": "evaluation"}  # where the command is not called as the stage in run.json


def missing(data: RunData, what: str, stage: str) -> str:
    command = f'<code class="command">{escaped(data.command(stage))}</code>'
    if data.state(STAGE_OF.get(stage, stage)) == "done":
        return (
            f'<div class="card missing"><p>{escaped(what)}: the step ended, but its files hold no such values.'
            f" To make them again: {command}</p></div>"
        )
    return f'<div class="card missing"><p>{escaped(what)}: not there yet.</p><p>To make it: {command}</p></div>'
