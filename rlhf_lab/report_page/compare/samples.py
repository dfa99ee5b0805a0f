"""Answers of the runs to the same prompts, with the words marked that differ from the first run's answer.

Leaves out: choosing prompts. Each evaluation kept some samples; those on prompts that all the runs kept are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..closing import sample_rows, side
from ..differences import difference
from ..text import count, escaped
from .runs import ComparedRun

Sample = dict[str, Any]


def section(runs: Sequence[ComparedRun]) -> str:
    head = '<section id="samples"><h2>The same prompts, run by run</h2>'
    kept = [{str(row.get("prompt") or ""): row for row in sample_rows(run.data)} for run in runs]
    shared = [prompt for prompt in kept[0] if all(prompt in rows for rows in kept)]
    if not shared:
        return f'{head}<div class="card missing"><p>{nothing_shared(kept)}</p></div></section>'
    answers = {prompt: [rows[prompt] for rows in kept] for prompt in shared}
    changed = [prompt for prompt in shared if len({row.get("ppo") for row in answers[prompt]}) > 1]
    same = [prompt for prompt in shared if prompt not in changed]
    note = (
        f"PPO’s answers to the {count(len(shared))} prompts of which all runs kept samples. Underlined: words that the"
        f" other answer does not have; each run is compared with {escaped(runs[0].label)}."
    )
    cards = "".join(card(prompt, answers[prompt], runs) for prompt in changed)
    return f'{head}<p class="soft">{note}</p>{cards}{unchanged(same, answers, runs)}</section>'


def nothing_shared(kept: Sequence[dict[str, Sample]]) -> str:
    if not all(kept):
        return "Not all of the runs have samples, so there are none to set side by side."
    return (
        "The runs kept samples of different prompts, so there are none to set side by side. Runs of one world that"
        " this version evaluates keep mostly the same ones."
    )


def unchanged(prompts: Sequence[str], answers: dict[str, list[Sample]], runs: Sequence[ComparedRun]) -> str:
    if not prompts:
        return ""
    cards = "".join(card(prompt, answers[prompt], runs) for prompt in prompts)
    what = "1 prompt was" if len(prompts) == 1 else f"{count(len(prompts))} prompts were"
    return f"<details><summary>{what} answered in the same words by all runs</summary>{cards}</details>"


def card(prompt: str, rows: Sequence[Sample], runs: Sequence[ComparedRun]) -> str:
    kind = f'<span class="tag">{escaped(rows[0]["kind"])}</span>' if rows[0].get("kind") else ""
    first = str(rows[0].get("ppo") or "")
    marks = [difference(first, str(row.get("ppo") or "")) for row in rows]
    # With more than two runs the first answer has no one other that it could be marked against.
    texts = [marks[1].before if len(rows) == 2 else escaped(first), *(mark.after for mark in marks[1:])]
    notes = ["", *(mark.note for mark in marks[1:])]
    answers = zip(runs, rows, texts, notes, strict=True)
    sides = sft_side(rows) + "".join(
        side(row, "ppo", text, who=run.label, tone=run.tone, note=note) for run, row, text, note in answers
    )
    return (
        f'<article class="card sample"><header><h3 class="text" dir="auto">{escaped(prompt)}</h3>'
        f'<p class="tags">{kind}</p></header><div class="sides several">{sides}</div></article>'
    )


def sft_side(rows: Sequence[Sample]) -> str:
    """What the SFT model said, where all runs have it said the same."""
    said = {row.get("sft") for row in rows}
    return side(rows[0], "sft", escaped(rows[0].get("sft") or "")) if len(said) == 1 else ""
