"""Means with intervals, and how the page shows them: the SFT-against-PPO table and the win rates.

Leaves out: computing any of them; `rlhf_lab.evaluation` did, and the page only prints what it wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .charts import Interval, interval_strip
from .missing import missing
from .run_data import RunData, read_object
from .text import DASH, count, decimals, entry, escaped, finite, number, percent_interval

GOLD_PARTS = ("helpful", "harmless", "honest")

METRICS = {  # key in policy.json -> name, what it is
    "score": ("Score", "from the reward model; PPO was trained to raise it"),
    "gold": ("Gold score", "known to the embedded world only; no step trains on it"),
    "helpful": ("Helpful", "part of the gold score"),
    "harmless": ("Harmless", "part of the gold score"),
    "honest": ("Honest", "part of the gold score"),
    "kl": ("KL from SFT", "nats, summed over the completion"),
    "length": ("Length", "tokens of the completion"),
    "repetition": ("Repetition", "fraction; lower is better"),
    "eos_fraction": ("Ended by itself", "fraction of completions with an end token"),
}
JUDGES = {"reward_model": "by the reward model’s score", "gold": "by gold score"}


@dataclass(frozen=True)
class Estimate:
    """A finite mean; its interval may be missing."""

    mean: float
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, float | None]:
        return {"mean": self.mean, "low": self.low, "high": self.high}

    def as_interval(self, tone: str) -> Interval:
        low = self.mean if self.low is None else self.low
        return Interval(tone, self.mean, low, self.mean if self.high is None else self.high)


def estimate(value: Any) -> Estimate | None:
    """From {"mean", "low", "high"}, or from a bare number; None where there is no finite mean."""
    mean = finite(entry(value, "mean")) if isinstance(value, dict) else finite(value)
    return None if mean is None else Estimate(mean, finite(entry(value, "low")), finite(entry(value, "high")))


def policy_estimate(data: RunData, policy: str, metric: str) -> Estimate | None:
    return estimate(entry(data.policy, "policies", policy, metric))


def win_rate(data: RunData, judge: str) -> Estimate | None:
    return estimate(entry(data.policy, "win_rate", judge))


def comparison(data: RunData) -> str:
    """The section that sets PPO against SFT."""
    there = missing(data, "The evaluation", "evaluate") if data.policy is None else policy_table(data)
    has_judges = read_object(data.folder / "evaluation" / "win_rates.json", []) is not None
    more = "" if has_judges else win_table(data)  # the section on evidence has these and all other judges
    return f'<section id="comparison"><h2>SFT against PPO</h2>{there}{more}</section>'


def policy_table(data: RunData) -> str:
    known = [entry(data.policy, "policies", policy) for policy in ("sft", "ppo")]
    found = dict.fromkeys(key for metrics in known if isinstance(metrics, dict) for key in metrics)
    order = sorted(found, key=lambda key: list(METRICS).index(key) if key in METRICS else len(METRICS))
    rows = "".join(policy_row(data, key) for key in order)
    caption = (
        f"{count(entry(data.policy, 'num_prompts'))} held-out prompts, temperature"
        f" {number(entry(data.policy, 'temperature'))}, seed {escaped(shown(entry(data.policy, 'seed')))}."
        f" In brackets: {escaped(shown(entry(data.policy, 'interval')))}."
    )
    return (
        f'<div class="card scroll"><table><caption>{caption}</caption><thead><tr><th scope="col">Metric</th>'
        '<th scope="col" class="n"><span class="sft-text">SFT</span></th>'
        '<th scope="col" class="n"><span class="ppo-text">PPO</span></th>'
        f'<th scope="col" class="strip-cell">SFT over PPO, own scale</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def shown(value: Any) -> str:
    return DASH if value is None or value != value else str(value)


def policy_row(data: RunData, metric: str) -> str:
    name, what = METRICS.get(metric, (metric, ""))
    both = [policy_estimate(data, policy, metric) for policy in ("sft", "ppo")]
    bounds = [v for e in both if e for v in (e.mean, e.low, e.high) if v is not None]
    places = decimals(*bounds)
    cells = "".join(f'<td class="n">{with_range(e, places)}</td>' for e in both)
    strip = ""
    if bounds:
        words = f"{name}: " + ", ".join(f"{p} {in_words(e, places)}" for p, e in zip(("SFT", "PPO"), both, strict=True))
        drawn = [e.as_interval(f"tone-{p}") for p, e in zip(("sft", "ppo"), both, strict=True) if e]
        strip = interval_strip(drawn, words, low=min(bounds), high=max(bounds))
    unit = f' <span class="unit">{escaped(what)}</span>' if what else ""
    return f'<tr><th scope="row">{escaped(name)}{unit}</th>{cells}<td class="strip-cell">{strip}</td></tr>'


def in_words(e: Estimate | None, places: int) -> str:
    if e is None:
        return DASH
    return f"{number(e.mean, places)}, interval {number(e.low, places)} to {number(e.high, places)}"


def with_range(e: Estimate | None, places: int) -> str:
    if e is None:
        return f"<b>{DASH}</b>"
    if e.low is None or e.high is None:
        return f"<b>{number(e.mean, places)}</b>"
    span = f"[{number(e.low, places)}, {number(e.high, places)}]"
    return f'<b>{number(e.mean, places)}</b> <span class="range">{span}</span>'


def win_table(data: RunData) -> str:
    rates = {judge: rate for judge in JUDGES if (rate := win_rate(data, judge))}
    if not rates:
        return ""
    rows = "".join(fraction_row(JUDGES[judge], "", rate, "tone-ppo") for judge, rate in rates.items())
    return (
        '<div class="card scroll"><table><caption>Prompts on which PPO beats SFT; a tie counts half.</caption>'
        '<thead><tr><th scope="col">Judge</th><th scope="col" class="n">PPO wins</th>'
        f'<th scope="col" class="strip-cell">0 to 100 %, line at 50</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def fraction_row(name: str, what: str, e: Estimate, tone: str) -> str:
    """A table row of one fraction in percent, with its strip from 0 to 1 and an upright line at one half."""
    words = percent_interval(e.as_json())
    unit = f' <span class="unit">{escaped(what)}</span>' if what else ""
    strip = interval_strip([e.as_interval(tone)], f"{name}: {words}", low=0.0, high=1.0, mark=0.5)
    return (
        f'<tr><th scope="row">{escaped(name)}{unit}</th><td class="n">{percent_with_range(words)}</td>'
        f'<td class="strip-cell">{strip}</td></tr>'
    )


def percent_with_range(words: str) -> str:
    """'83 % [80, 86]' with the mean heavy and the interval light."""
    mean, bracket, rest = words.partition(" [")
    return f'<b>{mean}</b> <span class="range">{bracket.strip()}{rest}</span>'
