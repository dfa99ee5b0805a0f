"""Who compared the completions, and how well the reward model learnt it.

Simulated raters are never called people, and a label that this page does not know is quoted, not guessed.
Leaves out: agreement statistics themselves (`rlhf_lab.rating.agreement`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from .charts import Bin, calibration_chart
from .estimates import estimate, fraction_row
from .missing import missing
from .reward_habits import habits
from .run_data import RunData
from .text import DASH, count, entry, escaped, finite, number, percent

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
    default = str(entry(data.run, "data", "preferences", "rater") or evaluated or "")
    kinds: Counter[str] = Counter()
    for label, rows in data.raters.items():
        kinds[kind_of(label or default)] += rows
    for label in (default, evaluated) if not kinds else (evaluated,):
        for one in str(label or "").split(", "):
            if one:
                kinds.setdefault(kind_of(one), 0)
    return kinds


def kind_of(label: str) -> str:
    low = label.strip().lower()
    if low.startswith("simulated"):
        return "simulated raters"
    if low.startswith("human") or low in ("person", "people"):
        return "people"
    if low == "imported":
        return "raters of an imported file"
    return f"“{label}”" if low else ""


def raters_in_short(data: RunData) -> str:
    """For the picture of the steps: 'simulated raters', or "" where the run does not say."""
    return escaped(" and ".join(kind for kind in rater_kinds(data) if kind))


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
    told = entry(data.run, "stages", "reward", "data", "votes")
    if not isinstance(told, dict):
        return ""
    by_kind, raters = entry(told, "by_kind"), entry(told, "raters_by_kind")
    kinds = [
        f"{count(number)} votes by {count(entry(raters, kind))} {voters(kind, finite(entry(raters, kind)))}"
        for kind, number in (by_kind.items() if isinstance(by_kind, dict) else ())
    ]
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


def calibration(data: RunData) -> str:
    bins = read_bins(data)
    if not bins:
        return '<div class="card missing"><p>Calibration: not measured in this run.</p></div>'
    error = finite(entry(data.reward_model, "calibration", "expected_error"))
    error_points = DASH if error is None else number(100 * error, 1)
    return (
        '<figure class="chart"><figcaption><b>Calibration</b> <span class="unit">observed against'
        f" predicted agreement; expected calibration error {error_points} points. On the dashed line the model is"
        " as sure as it is right; a circle’s area is its number of pairs.</span></figcaption>"
        f'{calibration_chart(bins)}<p class="at">predicted agreement, %</p></figure>'
    )


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
