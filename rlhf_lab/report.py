"""`report.html`: one self-contained page that tells what happened in a run.

Reads only files in the run folder, and only as JSON and text, so it needs no model, no GPU and no network, and works
while the run is half done: what is missing is named with the command that makes it. The page loads nothing from
anywhere: styles, script and charts are inside it, and its content security policy forbids the rest.
Leaves out: computing anything that evaluation did not write.

    rlhf-lab report                 # writes runs/<name>/report.html
"""

from __future__ import annotations

import base64
import hashlib
import os
from importlib.resources import files
from pathlib import Path
from string import Template

from rlhf_lab.errors import UserError
from rlhf_lab.report_page import closing, curves, estimates, evidence, opening, raters
from rlhf_lab.report_page.run_data import RunData, read_run
from rlhf_lab.report_page.text import entry, escaped

NAVIGATION = {
    "comparison": "SFT against PPO",
    "evidence": "Evidence",
    "ppo": "PPO curves",
    "earlier": "SFT and reward model",
    "reward-model": "Comparisons",
    "samples": "Samples",
    "glossary": "Words",
    "provenance": "Provenance",
}


def write_report(run_folder: Path) -> Path:
    """Writes `report.html` into the run folder and gives its path."""
    run_folder = Path(run_folder)
    if not run_folder.is_dir():
        raise UserError(
            f"There is no run folder {str(run_folder)!r}. A report needs the folder of a run, finished or not."
            " To make one, type: rlhf-lab run"
        )
    target = run_folder / "report.html"
    # Whole or not at all: somebody may be looking at the page of a run that goes on.
    unfinished = run_folder / f".report.{os.getpid()}.html"
    unfinished.write_text(page(read_run(run_folder)), encoding="utf-8")
    unfinished.replace(target)
    return target


def page(data: RunData) -> str:
    script = page_file("hover.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(page_file("page.html")).substitute(
        title=escaped(f"{entry(data.run, 'name') or data.folder.resolve().name}: report"),
        style=page_file("style.css"),
        script=script,
        script_hash=f"sha256-{digest}",
        body=body(data),
    )


def body(data: RunData) -> str:
    links = "".join(f'<a href="#{target}">{name}</a>' for target, name in NAVIGATION.items())
    parts = (
        f'<header>{opening.opening(data)}<nav aria-label="Parts of this page">{links}</nav></header>',
        notice(data),
        opening.steps(data),
        estimates.comparison(data),
        evidence.evidence(data),
        curves.ppo_curves(data),
        curves.earlier_curves(data),
        raters.reward_model(data),
        closing.samples(data),
        closing.glossary(),
        closing.provenance(data),
    )
    return "\n".join(part for part in parts if part)


def notice(data: RunData) -> str:
    if not data.notes:
        return ""
    items = "".join(f"<li>{escaped(note)}</li>" for note in data.notes)
    return f'<div class="notice" role="note">Before you read on:<ul>{items}</ul></div>'


def page_file(name: str) -> str:
    return (files("rlhf_lab.report_page") / name).read_text(encoding="utf-8")
