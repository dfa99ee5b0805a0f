"""The top of the comparison: what was changed, what came of it, and what can not be said.

One sentence for the number that matters most: the gold score where the world has one, else a win rate by a judge that
the runs share, else the score of a reward model that they share. Then all numbers, by what their intervals show.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..estimates import Estimate
from ..notices import notice, notices
from ..opening import first_sentence, listed
from ..run_data import RunData
from ..text import escaped, number
from .grounds import is_same_model, other_prompts
from .results import Finding, finding, known_metrics, signed
from .runs import ComparedRun
from .settings import cause

GROUPS = {"better": "Better", "worse": "Worse", "higher": "Higher", "lower": "Lower"}
UNCHANGED = {"no clear difference": "No difference that the intervals show", "the same": "The same on every prompt"}
CAUTION = (
    "The intervals say how far a number moves when other prompts are drawn, not when the training is repeated with"
    " another seed: before you trust a small change, compare runs with several seeds."
)


def opening(runs: Sequence[ComparedRun]) -> str:
    first, others = runs[0], runs[1:]
    names = listed([escaped(run.label) for run in others])
    lede = main_sentence(first, others[0]) if len(others) == 1 else several(first, others)
    return f'<h1>{names} against {escaped(first.label)}</h1>{notice(all_notices(runs))}<p class="lede">{lede}</p>'


def all_notices(runs: Sequence[ComparedRun]) -> list[str]:
    """What stands in the way of a comparison, then what each run's own report would say first."""
    first, others = runs[0], runs[1:]
    apart = [
        f"{run.label} and {first.label} can not be compared by their results: {reason}. They stand side by side all"
        " the same"
        for run in others
        if (reason := other_prompts(first.data, run.data))
    ]
    absent = [
        f"{run.label} has not been evaluated; to do it, type: {run.data.command('evaluate')}"
        for run in runs
        if run.data.policy is None
    ]
    return [*apart, *absent, *(f"{run.label}: {told}" for run in runs for told in notices(run.data))]


def findings(before: RunData, after: RunData) -> list[Finding]:
    """Every number that both runs have."""
    metrics = known_metrics([before, after])
    return [found for metric in metrics if (found := finding(metric, before, after))]


def main_finding(found: Sequence[Finding]) -> Finding | None:
    """The number that tells most, of those that can be compared."""
    known = {one.metric: one for one in found if not one.hindrance}
    rates = [metric for metric in known if metric.startswith("win_rate")]
    order = ("gold", *rates, "score", *known)
    return next((known[metric] for metric in order if metric in known), None)


def main_sentence(first: ComparedRun, other: ComparedRun) -> str:
    found = findings(first.data, other.data)
    main = main_finding(found)
    if main is None:
        return "There is no number by which these runs can be compared."
    return f"{cause(first.data, other.data)}, PPO’s {main.name[:1].lower()}{main.name[1:]} {went(main)}."


def went(found: Finding) -> str:
    """'went from 2.58 to 2.64: better by 0.06 [0.01, 0.11]'."""
    ends = f"went from {mean(found.before, found)} to {mean(found.after, found)}"
    if found.verdict == "the same":
        return f"is {mean(found.after, found)} in both"
    if found.verdict == "no clear difference":
        return f"{ends}: no difference that the intervals show ({signed(found)})"
    return f"{ends}: {found.verdict} by {signed(found).lstrip('+')}" if found.verdict else ends


def mean(e: Estimate, found: Finding) -> str:
    return number(e.mean, found.places)


def several(first: ComparedRun, others: Sequence[ComparedRun]) -> str:
    """One sentence on more than two runs, by the number that all of them share with the first."""
    main = [main_finding(findings(first.data, run.data)) for run in others]
    shared = {one.metric for one in main if one}
    if len(shared) != 1:
        return f"{len(others)} runs beside {escaped(first.label)}; no one number compares them all."
    known = [(run, one) for run, one in zip(others, main, strict=True) if one]
    start = f"PPO’s {known[0][1].name[:1].lower()}{known[0][1].name[1:]} was {mean(known[0][1].before, known[0][1])}"
    told = [f"{mean(one.after, one)} in {escaped(run.label)} ({one.verdict or 'no interval'})" for run, one in known]
    return f"{start} in {escaped(first.label)}, {listed(told)}."


def changes(runs: Sequence[ComparedRun]) -> str:
    """The section that says, for each run, what changed against the first."""
    parts = "".join(changed(runs[0], run, is_only=len(runs) == 2) for run in runs[1:])
    return (
        f'<section id="changes"><h2>What changed</h2><div class="changes">{parts}</div>'
        f'<p class="soft later">{CAUTION}</p></section>'
    )


def changed(first: ComparedRun, other: ComparedRun, *, is_only: bool) -> str:
    """One run against the first. `is_only`: there is no third, so the first's own sentence stands here."""
    found = findings(first.data, other.data)
    items = [f"<li><b>{title}:</b> {'; '.join(map(moved, group))}.</li>" for title, group in by_verdict(found)]
    for verdict, title in UNCHANGED.items():
        names = [lowered(one.name) for one in found if one.verdict == verdict]
        items += [f"<li><b>{title}:</b> {listed(names)}.</li>"] if names else []
    items += [f"<li><b>Not compared:</b> {told}.</li>" for told in not_compared(found)]
    listing = f"<ul>{''.join(items)}</ul>" if items else "<p>No number that both runs have.</p>"
    own = "".join(
        f'<p class="own {run.tone}"><span class="who">{escaped(run.label)}</span> {first_sentence(run.data)}</p>'
        for run in ([first, other] if is_only else [other])
    )
    return (
        f'<div class="card {other.tone}"><h3>{escaped(other.label)}</h3>'
        f'<p class="cause">{cause(first.data, other.data)}:</p>{listing}{own}'
        f'<p class="soft">{start_in_words(first.data, other.data)}</p></div>'
    )


def by_verdict(found: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    groups = [(title, [one for one in found if one.verdict == verdict]) for verdict, title in GROUPS.items()]
    return [(title, group) for title, group in groups if group]


def moved(found: Finding) -> str:
    """'gold score 2.58 → 2.64 (+0.06 [0.01, 0.11])'."""
    return f"{lowered(found.name)} {mean(found.before, found)} → {mean(found.after, found)} ({signed(found)})"


def lowered(name: str) -> str:
    """In the middle of a sentence; KL stays KL."""
    return escaped(name if name[:2].isupper() else name[:1].lower() + name[1:])


def not_compared(found: Sequence[Finding]) -> list[str]:
    """'score (each run has its own reward model, ...)', one line a reason."""
    reasons = dict.fromkeys(one.hindrance for one in found if one.hindrance)
    return [
        f"{listed([lowered(one.name) for one in found if one.hindrance == reason])}, since {reason}"
        for reason in reasons
    ]


def start_in_words(first: RunData, other: RunData) -> str:
    if not is_same_model(first, other, "sft"):
        return "Each has an SFT model of its own."
    if is_same_model(first, other, "reward"):
        return "Both start from the same SFT model and follow the same reward model."
    return "Both start from the same SFT model; each has its own reward model."
