"""Where the reward model is right: by margin, gold gap and length, on more comparisons; and whether it likes length.

Leaves out: computing any of it (`rlhf_lab/evaluation/reward_habits.py`, `rlhf_lab/studies/learning_curve.py`).
"""

from __future__ import annotations

from typing import Any

from .estimates import estimate, fraction_row
from .evidence import RATERS, objects, p_value, read_evaluation
from .interval_chart import Means, Place, interval_chart
from .run_data import Row, RunData
from .text import MINUS, count, entry, escaped, finite, number, percent

PREFERS = {
    "raters": ("Raters", "as the comparisons say"),
    "reward_model": ("Reward model", "of the same pairs"),
    "gold": ("Gold score", "of those whose gold scores differ"),
}


def habits(data: RunData) -> str:
    """Figures for the section on the reward model; "" where an older version evaluated it."""
    figures = (by_margin(data), by_gold_gap(data), by_length(data), learning_curve(data))
    drawn = "".join(figure for figure in figures if figure)
    drawn = f'<div class="charts">{drawn}</div>' if drawn else ""
    return drawn + learning_command(data) + length_bias(data)


def binned(data: RunData, key: str, title: str, x_label: str, label: Any) -> str:
    bins = objects(entry(data.reward_model, key))
    places = [Place(label(one), finite(one.get("num_pairs"))) for one in bins]
    means = Means("accuracy", "tone-reward", tuple(estimate(one.get("accuracy")) for one in bins))
    return interval_chart(
        title, "fraction of held-out pairs ordered as rated", places, [means], x_label=x_label, mark=0.5
    )


def by_margin(data: RunData) -> str:
    return binned(data, "by_margin", "Accuracy by margin", "gap of the two scores", lambda one: span(one, 1))


def by_gold_gap(data: RunData) -> str:
    return binned(data, "by_gold_gap", "Accuracy by gold gap", "gap of the two gold scores", lambda one: span(one, 0))


def by_length(data: RunData) -> str:
    return binned(
        data, "by_length", "Accuracy by length", "tokens by which the chosen answer is longer", lambda one: span(one, 0)
    )


def span(one: Row, places: int) -> str:
    """'0.1–0.6', or one number where both ends read alike; 'to' where a minus would run into the dash."""
    low, high = (number(one.get(end), places) for end in ("from", "to"))
    if low == high:
        return low
    return f"{low} to {high}" if MINUS in low + high else f"{low}–{high}"


def learning_curve(data: RunData) -> str:
    points = objects(entry(read_evaluation(data, "learning_curve"), "points"))
    places = [Place(count(point.get("num_pairs")), finite(point.get("num_prompts"))) for point in points]
    series = [
        Means("as rated", "tone-reward", tuple(estimate(point.get("accuracy")) for point in points)),
        Means("as gold", "tone-gold", tuple(estimate(point.get("gold_accuracy")) for point in points)),
    ]
    return interval_chart(
        "Learning curve",
        "fraction of held-out pairs ordered right",
        places,
        series,
        x_label="comparisons in training",
        rows_label="prompts",
        joined=True,
    )


def learning_command(data: RunData) -> str:
    if data.state("reward") != "done" or read_evaluation(data, "learning_curve"):
        return ""
    command = f'<code class="command">{escaped(data.command("evaluate"))} --learning-curve</code>'
    return f'<p class="soft more">What more comparisons would bring: {command}</p>'


def length_bias(data: RunData) -> str:
    """How often the longer answer is preferred, by whom; and the raters' sides."""
    found = entry(data.reward_model, "length_bias")
    rows = [(*PREFERS[key], e) for key in PREFERS if (e := estimate(entry(found, key)))]
    if not rows:
        return ""
    body = "".join(fraction_row(name, what, e, "tone-reward") for name, what, e in rows)
    return (
        f'<div class="card scroll more"><table><caption>How often the longer answer is preferred, of'
        f" {count(entry(found, 'num_pairs'))} held-out pairs of different length</caption>"
        '<thead><tr><th scope="col">By</th><th scope="col" class="n">Fraction</th>'
        f'<th scope="col" class="strip-cell">0 to 100 %, line at 50</th></tr></thead><tbody>{body}</tbody></table>'
        f'<p class="soft">{length_sentence(data)} {position_sentence(data)}</p></div>'
    )


def length_sentence(data: RunData) -> str:
    difference = estimate(entry(data.reward_model, "length_bias", "difference"))
    correlation = estimate(entry(data.reward_model, "score_length_correlation"))
    told = ""
    if difference and difference.low is not None and difference.high is not None:
        points = f"{number(100 * abs(difference.mean), 1)} points"
        if difference.low <= 0 <= difference.high:
            told = "The reward model prefers the longer answer as often as its raters do."
        else:
            more = "more" if difference.mean > 0 else "less"
            told = f"The reward model prefers the longer answer {points} {more} often than its raters do."
    if correlation:
        told += f" Among the answers to one prompt, score and length correlate by {number(correlation.mean, 2)}."
    return told


def position_sentence(data: RunData) -> str:
    """Of the raters; a reward model reads one answer at a time and can have no side."""
    position = entry(read_evaluation(data, "win_rates"), "position")
    sides = [
        f"{RATERS[kind]} chose the left side in {percent(entry(told, 'left') / total)} of {count(total)} votes"
        f" ({p_value(entry(told, 'p_value'))})"
        for kind, told in (position.items() if isinstance(position, dict) else ())
        if kind in RATERS and (total := finite(entry(told, "num_votes"))) and finite(entry(told, "left")) is not None
    ]
    return f"{'; '.join(sides)}." if sides else ""
