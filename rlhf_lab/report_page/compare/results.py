"""The results of the runs side by side, with intervals, and how far each run differs from the first.

Leaves out: when a difference may be called one (`verdicts.py`) and what can be compared at all (`grounds.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..charts import interval_strip
from ..estimates import JUDGES, METRICS, Estimate, estimate, in_words, policy_estimate, with_range
from ..figures import Table, download
from ..missing import missing
from ..run_data import RunData
from ..text import DASH, count, decimals, entry, escaped, fields, finite, number
from .grounds import other_judge, other_pairs, other_prompts, other_start
from .runs import ComparedRun
from .verdicts import Verdict, difference, verdict

REWARD_MODEL_ROWS = {
    "accuracy": ("Accuracy", "orders a held-out pair as the rater did"),
    "gold_accuracy": ("Gold accuracy", "orders a held-out pair as the gold score does"),
    "rater_agreement": ("Rater agreement", "two ratings of one pair agree"),
    "calibration.expected_error": ("Calibration error", "expected, as a fraction; lower is better"),
}


@dataclass(frozen=True)
class Finding:
    """One number of one run against the first run's. `hindrance`: why they can not be compared ("": they can)."""

    metric: str
    name: str
    before: Estimate
    after: Estimate
    hindrance: str

    @property
    def change(self) -> Estimate:
        return difference(self.before, self.after)

    @property
    def verdict(self) -> Verdict:
        return "" if self.hindrance else verdict(self.metric, self.change)

    @property
    def places(self) -> int:
        known = (self.before, self.after)
        return decimals(*(v for e in known for v in (e.mean, e.low, e.high) if v is not None))


def section(runs: Sequence[ComparedRun]) -> str:
    head = '<section id="results"><h2>Results, side by side</h2>'
    if all(run.data.policy is None for run in runs):
        return f"{head}{''.join(missing(run.data, f'Evaluation of {run.label}', 'evaluate') for run in runs)}</section>"
    first, others = runs[0], runs[1:]
    note = (
        f"PPO’s policy in each run, on {prompts_in_words(runs)}; beneath it the SFT model’s mean. The other runs are"
        f" compared with {escaped(first.label)}: the difference with its interval, which follows from the two"
        " intervals. Of twenty such differences, chance alone makes about one look clear."
    )
    metrics = known_metrics([run.data for run in runs])
    rows = "".join(result_row(metric, runs) for metric in metrics)
    data = download("Results", results_table(metrics, runs))
    several = '<th scope="col" class="strip-cell">All runs, own scale</th>'
    return (
        f'{head}<p class="soft">{note}</p><div class="card scroll"><table class="compared results"><thead><tr>'
        f'<th scope="col">Metric</th>{column_heads(runs)}{several}</tr></thead><tbody>{rows}</tbody></table>'
        f'<div class="under">{data}</div></div>{reward_models(first, others)}</section>'
    )


def prompts_in_words(runs: Sequence[ComparedRun]) -> str:
    numbers = dict.fromkeys(count(entry(run.data.policy, "num_prompts")) for run in runs if run.data.policy)
    return f"{' and '.join(numbers)} held-out prompts"


def column_heads(runs: Sequence[ComparedRun]) -> str:
    return "".join(
        f'<th scope="col" class="n {run.tone}"><span class="who">{escaped(run.label)}</span></th>' for run in runs
    )


def known_metrics(runs: Sequence[RunData]) -> list[str]:
    """Metrics of PPO's policy that a run has, then "win_rate.<judge>"."""
    found = dict.fromkeys(key for run in runs for key in fields(run.policy, "policies", "ppo"))
    judges = dict.fromkeys(f"win_rate.{key}" for run in runs for key in fields(run.policy, "win_rate"))
    order = list(METRICS)
    return [*sorted(found, key=lambda key: order.index(key) if key in order else len(order)), *judges]


def named(metric: str) -> tuple[str, str]:
    """Name and explanation."""
    if metric.startswith("win_rate."):
        judge = metric.removeprefix("win_rate.")
        return "Win rate against SFT", f"{JUDGES.get(judge, judge)}; a tie counts half"
    return METRICS.get(metric, (metric, ""))


def measured(data: RunData, metric: str) -> Estimate | None:
    if metric.startswith("win_rate."):
        return estimate(entry(data.policy, "win_rate", metric.removeprefix("win_rate.")))
    return policy_estimate(data, "ppo", metric)


def finding(metric: str, before: RunData, after: RunData) -> Finding | None:
    """None where one of the runs has no such number."""
    pair = measured(before, metric), measured(after, metric)
    if pair[0] is None or pair[1] is None:
        return None
    name, what = named(metric)
    name = f"{name} {what.partition(';')[0]}" if metric.startswith("win_rate.") else name
    return Finding(metric, name, pair[0], pair[1], hindrance(metric, before, after))


def hindrance(metric: str, before: RunData, after: RunData) -> str:
    """Why the metric of these two runs can not be compared; "" where it can."""
    if reason := other_prompts(before, after):
        return reason
    if metric in ("score", "win_rate.reward_model"):
        return other_judge(before, after)
    return other_start(before, after) if metric == "kl" else ""


def result_row(metric: str, runs: Sequence[ComparedRun]) -> str:
    name, what = named(metric)
    values = [measured(run.data, metric) for run in runs]
    starts = [policy_estimate(run.data, "sft", metric) for run in runs]
    known = [v for e in values if e for v in (e.mean, e.low, e.high) if v is not None]
    places = decimals(*known)
    cells = "".join(
        f'<td class="n">{with_range(value, places)}{beneath(start, places)}'
        f"{told(finding(metric, runs[0].data, run.data) if run is not runs[0] else None)}</td>"
        for run, value, start in zip(runs, values, starts, strict=True)
    )
    strip = ""
    if known:
        words = f"{name}: " + ", ".join(f"{r.label} {in_words(e, places)}" for r, e in zip(runs, values, strict=True))
        drawn = [e.as_interval(run.tone) for run, e in zip(runs, values, strict=True) if e]
        strip = interval_strip(drawn, words, low=min(known), high=max(known))
    unit = f' <span class="unit">{escaped(what)}</span>' if what else ""
    return f'<tr><th scope="row">{escaped(name)}{unit}</th>{cells}<td class="strip-cell">{strip}</td></tr>'


def beneath(start: Estimate | None, places: int) -> str:
    return "" if start is None else f'<span class="beneath">SFT {number(start.mean, places)}</span>'


def told(found: Finding | None) -> str:
    """The difference to the first run, or why there is none."""
    if found is None:
        return ""
    if found.hindrance:
        return '<span class="beneath">not compared</span>'
    size, bracket, span = signed(found).partition(" [")
    span = f' <span class="range">[{span}</span>' if bracket else ""
    return f'<span class="beneath {found.verdict.partition(" ")[0]}">{size}{span} <b>{found.verdict}</b></span>'


def signed(found: Finding) -> str:
    """'+0.06 [−0.01, 0.13]'."""
    change, places = found.change, found.places
    mean = number(change.mean, places)
    plus = "+" if change.mean > 0 and mean.strip("0.,") else ""
    if change.low is None or change.high is None:
        return f"{plus}{mean}"
    return f"{plus}{mean} [{number(change.low, places)}, {number(change.high, places)}]"


def results_table(metrics: Sequence[str], runs: Sequence[ComparedRun]) -> Table:
    rows = [
        (metric, run.label, policy, e.mean, e.low, e.high)
        for metric in metrics
        for run in runs
        for policy, e in (("sft", policy_estimate(run.data, "sft", metric)), ("ppo", measured(run.data, metric)))
        if e
    ]
    return Table(("metric", "run", "policy", "mean", "low", "high"), rows)


def reward_models(first: ComparedRun, others: Sequence[ComparedRun]) -> str:
    """Accuracy of each run's reward model on its held-out pairs."""
    runs = [first, *others]
    found = {key: [reward_estimate(run.data, key) for run in runs] for key in REWARD_MODEL_ROWS}
    rows = "".join(reward_row(key, values, runs) for key, values in found.items() if any(values))
    if not rows:
        return ""
    pairs = "".join(f'<td class="n">{count(entry(run.data.reward_model, "num_pairs"))}</td>' for run in runs)
    return (
        '<h3 class="later">The reward models, on held-out comparisons</h3>'
        '<div class="card scroll"><table class="compared results"><thead><tr><th scope="col">Measure</th>'
        f'{column_heads(runs)}</tr></thead><tbody>{rows}<tr><th scope="row">Held-out pairs</th>{pairs}</tr></tbody>'
        "</table></div>"
    )


def reward_estimate(data: RunData, key: str) -> Estimate | None:
    return estimate(entry(data.reward_model, *key.split(".")))


def reward_row(key: str, values: Sequence[Estimate | None], runs: Sequence[ComparedRun]) -> str:
    name, what = REWARD_MODEL_ROWS[key]
    places = decimals(*(e.mean for e in values if e))
    cells = []
    for run, value in zip(runs, values, strict=True):
        before = values[0]
        compared = None
        if run is not runs[0] and before and value and finite(value.low) is not None:
            reason = other_pairs(runs[0].data, run.data)
            compared = Finding(key, name, before, value, reason)
        cells.append(f'<td class="n">{with_range(value, places) if value else DASH}{told(compared)}</td>')
    return f'<tr><th scope="row">{name} <span class="unit">{what}</span></th>{"".join(cells)}</tr>'
