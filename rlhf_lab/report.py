"""`report.html`: one self-contained page that tells what happened in a run, and one that compares several runs.

Reads only files in the run folders, and only as JSON, YAML and text, so it needs no model, no GPU and no network, and
works while a run is half done: what is missing is named with the command that makes it. The page loads nothing from
anywhere: styles, script, charts and their data are inside it, and its content security policy forbids the rest.
Leaves out: measuring. The differences between runs follow from the intervals that their evaluations wrote.

    rlhf-lab report                                   # writes runs/<name>/report.html
    rlhf-lab report runs/assistant runs/with_votes    # writes runs/comparison_assistant_with_votes.html
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from rlhf_lab.errors import UserError
from rlhf_lab.report_page import closing, curves, estimates, evidence, frontier, opening, raters
from rlhf_lab.report_page.compare import opening as compared
from rlhf_lab.report_page.compare import overlaid, results, samples, settings
from rlhf_lab.report_page.compare.runs import ComparedRun, read_runs
from rlhf_lab.report_page.run_data import RunData, read_run
from rlhf_lab.report_page.text import entry, escaped

NAVIGATION = {
    "comparison": "SFT against PPO",
    "frontier": "Gold and KL",
    "evidence": "Evidence",
    "ppo": "PPO curves",
    "earlier": "SFT and reward model",
    "reward-model": "Comparisons",
    "samples": "Samples",
    "glossary": "Words",
    "provenance": "Provenance",
}
NAVIGATION_OF_SEVERAL = {
    "changes": "What changed",
    "differences": "What was done differently",
    "results": "Results",
    "ppo": "PPO curves",
    "reward-model": "Reward models",
    "samples": "Samples",
    "glossary": "Words",
}
LONGEST_NAME = 150  # of a file, in characters; many systems stop at 255 bytes


def write_report(run_folder: Path) -> Path:
    """Writes `report.html` into the run folder and gives its path."""
    run_folder = Path(run_folder)
    if not run_folder.is_dir():
        raise UserError(
            f"There is no run folder {str(run_folder)!r}. A report needs the folder of a run, finished or not."
            " To make one, type: rlhf-lab run"
        )
    data = read_run(run_folder)
    title = f"{entry(data.run, 'name') or data.folder.resolve().name}: report"
    return write_page(run_folder / "report.html", page(title, body(data)))


def write_comparison(words: Sequence[str], out: Path | None = None) -> Path:
    """Writes the page that compares these runs (folders, or names in runs/), and gives its path.

    Without `out` it is called after the runs and lies beside the first one's folder.
    """
    runs = read_runs(words)
    place = out or runs[0].data.folder.resolve().parent / file_name(runs)
    title = f"{', '.join(run.label for run in runs[1:])} against {runs[0].label}"
    return write_page(place, page(title, body_of_several(runs)))


def file_name(runs: Sequence[ComparedRun]) -> str:
    names = [run.data.folder.resolve().name for run in runs]
    whole = f"comparison_{'_'.join(names)}"
    short = f"comparison_{names[0][:LONGEST_NAME]}_and_{len(runs) - 1}_more"
    return f"{whole if len(whole) <= LONGEST_NAME else short}.html"


def write_page(target: Path, text: str) -> Path:
    """Whole or not at all: somebody may be looking at the page of a run that goes on."""
    unfinished = target.with_name(f".report.{os.getpid()}.html")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(target)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(
            f"the page can not be written to {target}: {error.strerror or error}. It needs a folder that is there and"
            " may be written to; to compare runs on a page elsewhere, type: rlhf-lab report RUN1 RUN2 --out FILE"
        ) from error
    return target


def page(title: str, content: str) -> str:
    script = page_file("hover.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(page_file("page.html")).substitute(
        title=escaped(title),
        style=page_file("style.css"),
        script=script,
        script_hash=f"sha256-{digest}",
        body=content,
    )


def body(data: RunData) -> str:
    parts = (
        header(opening.opening(data), NAVIGATION),
        opening.steps(data),
        estimates.comparison(data),
        frontier.frontier(data),
        evidence.evidence(data),
        curves.ppo_curves(data),
        curves.earlier_curves(data),
        raters.reward_model(data),
        closing.samples(data),
        closing.glossary(),
        closing.provenance(data),
    )
    return "\n".join(part for part in parts if part)


def body_of_several(runs: Sequence[ComparedRun]) -> str:
    parts = (
        compared.changes(runs),
        settings.section(runs),
        results.section(runs),
        overlaid.ppo_section(runs),
        overlaid.reward_section(runs),
        samples.section(runs),
        closing.glossary(),
    )
    there = {target: name for target, name in NAVIGATION_OF_SEVERAL.items() if f'id="{target}"' in "".join(parts)}
    return "\n".join([header(compared.opening(runs), there), *(part for part in parts if part)])


def header(top: str, targets: Mapping[str, str]) -> str:
    links = "".join(f'<a href="#{target}">{name}</a>' for target, name in targets.items())
    return f'<header>{top}<nav aria-label="Parts of this page">{links}</nav></header>'


def page_file(name: str) -> str:
    return (files("rlhf_lab.report_page") / name).read_text(encoding="utf-8")
