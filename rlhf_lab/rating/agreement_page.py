"""The findings as text: for the agreement page, and for `rlhf-lab rate --report` in a terminal."""

import math
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlhf_lab.rating.agreement import Interval
from rlhf_lab.rating.findings import FEW_PAIRS, GROUPS, Findings, Rate, RaterFindings

DASH = "–"
OUTCOME_NAMES = {
    "left": "left",
    "right": "right",
    "tie": "tie",
    "both_bad": "both bad",
    "skip": "skipped",
    "flag": "flagged",
}


def page_values(found: Findings) -> dict[str, Any]:
    """What the template `agreement.html` needs."""
    measures = [
        ("Votes that agree", percent(found.agreement), "two votes on one pair say the same", bar(found.agreement)),
        ("Krippendorff’s alpha", number(found.alpha), "0 is chance, 1 is perfect", bar(found.alpha)),
        (
            "Alpha, graded",
            number(found.graded_alpha),
            "slightly and clearly as an ordinal scale, without both bad",
            bar(found.graded_alpha),
        ),
    ]
    return {
        "headline": headline(found),
        "sources": sources(found),
        "measures": [dict(zip(("name", "value", "what", "bar"), row, strict=True)) for row in measures],
        "num_shared": found.num_shared,
        "kappas": [
            {
                "raters": " and ".join(kappa.raters),
                "num_pairs": kappa.num_pairs,
                "value": number(kappa.interval),
                "bar": bar(kappa.interval),
            }
            for kappa in found.kappas
        ],
        "raters": [rater_row(rater) for rater in found.raters],
        "flagged": found.flagged,
        "warnings": found.warnings,
    }


def headline(found: Findings) -> str:
    if not sum(found.num_votes.values()):
        return "No votes yet."
    if not found.num_shared:
        return "No pair has two votes yet, so agreement can not be measured."
    few = f" {found.num_shared} pairs are few: expect this to move." if found.num_shared < FEW_PAIRS else ""
    return f"Two votes on one pair agree {100 * found.agreement.value:.0f} % of the time.{few}"


def sources(found: Findings) -> str:
    """Who voted, how often, on how many pairs."""
    told = [f"{votes} by {GROUPS[kind]}" for kind, votes in found.num_votes.items()]
    return f"{', '.join(told) or 'none'}; {found.num_pairs} pairs, {found.num_shared} of them with several votes"


def rater_row(rater: RaterFindings) -> dict[str, Any]:
    return {
        "name": rater.name,
        "kind": rater.kind,
        "num_votes": sum(rater.outcomes.values()),
        "outcomes": ", ".join(f"{n} {OUTCOME_NAMES[outcome]}" for outcome, n in rater.outcomes.items()),
        "left": rate(rater.left),
        "left_p": f"p = {rater.left.p_value:.2g}" if rater.left.whole else "",
        "longer": rate(rater.longer),
        "longer_p": f"p = {rater.longer.p_value:.2g}" if rater.longer.whole else "",
        "seconds": DASH if rater.median_seconds is None else f"{rater.median_seconds:.1f} s",
        "gold": count(rater.gold),
        "consistent": count(rater.consistent),
    }


def print_findings(found: Findings) -> None:
    """The same as the page, in a terminal."""
    console = Console()
    console.print(headline(found), style="bold", highlight=False)
    console.print(f"votes: {sources(found)}", highlight=False, markup=False)
    console.print(f"per cent agreement    {percent(found.agreement)}", highlight=False, markup=False)
    console.print(f"Krippendorff's alpha  {number(found.alpha)}", highlight=False, markup=False)
    console.print(f"alpha, graded         {number(found.graded_alpha)}", highlight=False, markup=False)
    for kappa in found.kappas:
        who = " and ".join(kappa.raters)
        line = f"Cohen's kappa         {number(kappa.interval)}  {who}, {kappa.num_pairs} pairs"
        console.print(line, highlight=False, markup=False)
    table = Table()
    for column in ("rater", "kind", "votes", "left", "longer", "seconds", "gold", "repeats"):
        table.add_column(column, justify="left" if column in ("rater", "kind") else "right")
    for row in map(rater_row, found.raters):
        left, longer = f"{row['left']} {row['left_p']}", f"{row['longer']} {row['longer_p']}"
        cells = [row["name"], row["kind"], str(row["num_votes"]), left, longer, row["seconds"], row["gold"]]
        table.add_row(*map(escape, [*cells, row["consistent"]]))
    console.print(table)
    if found.flagged:
        console.print(f"{found.flagged} pairs were flagged", highlight=False)
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def percent(interval: Interval) -> str:
    return _interval(interval, lambda x: f"{100 * x:.0f}", " %")


def number(interval: Interval) -> str:
    return _interval(interval, lambda x: f"{x:.2f}".replace("-", "−"), "")


def _interval(interval: Interval, written: Callable[[float], str], unit: str) -> str:
    if not math.isfinite(interval.value):
        return DASH
    if not math.isfinite(interval.low):
        return f"{written(interval.value)}{unit}"
    return f"{written(interval.value)}{unit} [{written(interval.low)}, {written(interval.high)}]"


def bar(interval: Interval) -> dict[str, float] | None:
    """Places on a strip from 0 to 100, for the picture of an interval; None where there is nothing to draw."""
    if not math.isfinite(interval.value) or not math.isfinite(interval.low):
        return None
    places = {"low": interval.low, "value": interval.value, "high": interval.high}
    return {name: round(100 * min(max(x, 0.0), 1.0), 1) for name, x in places.items()}


def rate(found: Rate) -> str:
    return DASH if found.value is None else f"{100 * found.value:.0f} %"


def count(found: Rate) -> str:
    return f"{found.part} of {found.whole}" if found.whole else DASH
