"""Who compared the completions, and how well the reward model learnt it.

Simulated raters are never called people, and a label that this page does not know is quoted, not guessed.
Leaves out: agreement statistics themselves (`rlhf_lab.rating.agreement`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from .charts import Bin, calibration_chart
from .estimates import estimate, fraction_row
from .figures import Table, figure
from .missing import missing
from .reward_habits import habits
from .run_data import RunData
from .text import DASH, count, entry, escaped, fields, finite, number, percent

SIMULATED_SENTENCE = "Comparisons by simulated raters; no person rated these."

VOTERS = {
    "human": ("person", "people"),
    "simulated": ("simulated rater", "simulated raters"),
    "imported": ("rater of an imported file", "raters of imported files"),
}


def rater_kinds(data: RunData) -> Counter[str]:
    """Number of comparisons by kind of rater: "simulated raters", "people", a quoted label, or "" for not told.

    Rows of comparisons.jsonl speak for themselves; a row without a rater takes the label of the whole data set.
    """
    evaluated = entry(data.reward_model, "rater")
    default = base_label(data) or str(evaluated or "")
    kinds: Counter[str] = Counter()
    for label, rows in data.raters.items():
        kinds[kind_of(label or default)] += rows
    for label in (default, evaluated) if not kinds else (evaluated,):
        for one in str(label or "").split(", "):
            if one:
                kinds.setdefault(kind_of(one), 0)
    return kinds


def base_label(data: RunData) -> str:
    """What the data itself says of who compared, votes of `rlhf-lab rate` aside; "" where it does not know."""
    told = entry(data.run, "stages", "comparisons", "rater") or data.learnt("reward", "rater")
    return str(told or "")


def kind_of(label: str) -> str:
    low = label.strip().lower()
    if low.startswith("simulated"):
        return "simulated raters"
    if low.startswith("human") or low in ("person", "people"):
        return "people"
    if low == "imported":
        return "raters of an imported file"
    return f"“{label}”" if low not in ("", "unknown") else ""


def raters_in_short(data: RunData) -> str:
    """For the picture of the steps: 'simulated raters', or "" where the run does not say."""
    return escaped(" and ".join(kind for kind in rater_kinds(data) if kind))


def learnt_from(data: RunData) -> str:
    """'20 votes by 1 person and 82,625 comparisons by simulated raters', votes first; "" where nothing is known.

    Votes stand apart from the comparisons that the run began with, unless both are by one kind of rater.
    """
    rows: Counter[str] = Counter()
    for label, num_rows in data.raters.items():
        rows[kind_of(label or base_label(data))] += num_rows
    cast = data.learnt("reward", "votes")
    by_kind = fields(cast, "by_kind")
    votes = {kind_of(kind): vote_count(cast, kind) for kind in by_kind if kind_of(kind) != kind_of(base_label(data))}
    mixed = [f"with {vote_count(cast, kind)} among them" for kind in by_kind if kind_of(kind) not in votes]
    kinds = [*votes, *(kind for kind in rows if kind not in votes)]
    told = [votes.get(kind) or compared(kind, rows[kind]) for kind in kinds]
    return " and ".join(told) + (f" ({', '.join(mixed)})" if mixed and told else "")


def vote_count(cast: Any, kind: str) -> str:
    votes, raters = entry(cast, "by_kind", kind), entry(cast, "raters_by_kind", kind)
    noun = "vote" if votes == 1 else "votes"
    return f"{count(votes)} {noun} by {count(raters)} {voters(kind, finite(raters))}"


def compared(kind: str, rows: int) -> str:
    told = "comparison" if rows == 1 else "comparisons"
    return f"{count(rows)} {told}" + (f" by {escaped(kind)}" if kind else "")


def rater_sentence(data: RunData) -> str:
    kinds = rater_kinds(data)
    if set(kinds) == {"simulated raters"}:
        return SIMULATED_SENTENCE
    if not any(kinds):
        return "The run does not say who made the comparisons."
    if set(kinds) == {"people"}:
        return "Comparisons by people."
    told = [f"{kind or 'raters not named'}" + (f" ({count(rows)})" if rows else "") for kind, rows in kinds.items()]
    return f"Comparisons by {', '.join(told)}."


def reward_model(data: RunData) -> str:
    """The section on the reward model: accuracy, agreement, calibration."""
    head = '<section id="reward-model"><h2>How well the reward model learnt the comparisons</h2>'
    told = bool(data.raters) or any(rater_kinds(data))
    sentence = f"<p><b>{escaped(rater_sentence(data))}</b></p>" if told or data.reward_model else ""
    if data.reward_model is None:
        return f"{head}{sentence}{missing(data, 'The evaluation of the reward model', 'evaluate')}</section>"
    measured = f'<div class="pair">{accuracy_table(data)}{calibration(data)}</div>'
    return f"{head}{sentence}{votes(data)}{measured}{habits(data)}</section>"


def voters(kind: str, number: float | None) -> str:
    one, several = VOTERS.get(kind, (escaped(kind), escaped(kind)))
    return one if number == 1 else several


def votes(data: RunData) -> str:
    """What `rlhf-lab rate` collected, how far raters agree, and what is wrong with it; "" where it took no part."""
    told = data.learnt("reward", "votes")
    if not isinstance(told, dict):
        return ""
    kinds = [vote_count(told, kind) for kind in fields(told, "by_kind")]
    agreement, alpha = (estimate(entry(told, key)) for key in ("agreement", "alpha"))
    agreed = f" Two votes on one pair agree {percent(agreement.mean)} of the time" if agreement else ""
    beyond = f"; Krippendorff’s alpha {number(alpha.mean, 2)}" if agreement and alpha else ""
    tied = finite(entry(told, "num_tied")) or 0
    fate = "were left out" if entry(told, "tied_votes") == "drop" else "count in both directions"
    ties = f" {count(tied)} tied pairs {fate}." if tied else ""
    warnings = entry(told, "warnings")
    items = "".join(f"<li>{escaped(one)}</li>" for one in (warnings if isinstance(warnings, list) else ()))
    notice = f'<div class="notice"><b>The votes look unreliable.</b><ul>{items}</ul></div>' if items else ""
    return f"<p>Among them {' and '.join(kinds)}.{agreed}{beyond}{'.' if agreed else ''}{ties}</p>{notice}"


def accuracy_table(data: RunData) -> str:
    rows = {
        "accuracy": ("Accuracy", "orders a pair as the rater did"),
        "gold_accuracy": ("Gold accuracy", "orders a pair as the gold score does"),
        "rater_agreement": ("Rater agreement", "two ratings of one pair agree"),
    }
    found = [(*rows[key], e) for key in rows if (e := estimate(entry(data.reward_model, key)))]
    body = "".join(fraction_row(name, what, e, "tone-reward") for name, what, e in found)
    absent = [name.lower() for key, (name, _) in rows.items() if not estimate(entry(data.reward_model, key))]
    note = f'<p class="soft">Not measured in this run: {", ".join(absent)}.</p>' if absent else ""
    pairs = count(entry(data.reward_model, "num_pairs"))
    return (
        f'<div class="card scroll"><table><caption>{pairs} held-out pairs</caption>'
        '<thead><tr><th scope="col">Measure</th><th scope="col" class="n">Fraction</th>'
        f'<th scope="col" class="strip-cell">0 to 100 %, line at 50</th></tr></thead>'
        f"<tbody>{body}</tbody></table>{note}</div>"
    )


def calibration(data: RunData, *, of: str = "") -> str:
    """The figure; `of` names the run where a page shows several."""
    title = f"Calibration, {of}" if of else "Calibration"
    bins = read_bins(data)
    if not bins:
        return f'<div class="card missing"><p>{escaped(title)}: not measured in this run.</p></div>'
    error = finite(entry(data.reward_model, "calibration", "expected_error"))
    error_points = DASH if error is None else number(100 * error, 1)
    words = (
        f"observed against predicted agreement; expected calibration error {error_points} points. On the dashed line"
        " the model is as sure as it is right; a circle’s area is its number of pairs."
    )
    table = Table(("predicted", "observed", "pairs"), [(b.predicted, b.observed, b.num_pairs) for b in bins])
    at = '<p class="at">predicted agreement, %</p>'
    return figure(title, words, calibration_chart(bins), table, below=at)


def read_bins(data: RunData) -> list[Bin]:
    bins = entry(data.reward_model, "calibration", "bins")
    read = map(read_bin, bins) if isinstance(bins, list) else ()
    return [b for b in read if b]


def read_bin(value: Any) -> Bin | None:
    predicted, observed, num_pairs = (finite(entry(value, key)) for key in ("predicted", "observed", "num_pairs"))
    if predicted is None or observed is None or num_pairs is None:
        return None
    is_drawable = 0 <= predicted <= 1 and 0 <= observed <= 1 and num_pairs > 0
    return Bin(predicted, observed, num_pairs) if is_drawable else None
