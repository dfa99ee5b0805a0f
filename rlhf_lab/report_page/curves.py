"""Which metrics become curves, under which title and unit.

Leaves out: drawing (`charts.py`) and reading (`run_data.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .charts import Series, line_chart
from .missing import missing
from .run_data import RunData
from .text import number


@dataclass(frozen=True)
class Curve:
    label: str
    key: str
    tone: str
    dots: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Chart:
    """`instead` is drawn where none of the curves was logged."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    may_be_log: bool = False
    instead: Chart | None = None


def held_out(key: str) -> Curve:
    return Curve("held-out", key, "tone-held", dots=True)


def rollouts(key: str, label: str = "rollouts") -> Curve:
    return Curve(label, key, "tone-ppo")


def training(key: str, tone: str) -> Curve:
    return Curve("training", key, tone)


PPO_CHARTS = (
    Chart("Score", "from the reward model", (rollouts("objective/scores"), held_out("eval_scores"))),
    Chart(
        "Gold score and its parts",
        "held-out",
        (
            Curve("gold", "eval_gold", "tone-gold", dots=True),
            Curve("helpful", "eval_helpful", "tone-helpful", dots=True),
            Curve("harmless", "eval_harmless", "tone-harmless", dots=True),
            Curve("honest", "eval_honest", "tone-honest", dots=True),
        ),
        instead=Chart("Penalized reward", "score less the KL penalty", (rollouts("objective/rlhf_reward"),)),
    ),
    Chart("KL from SFT", "nats per completion", (rollouts("objective/kl"), held_out("eval_kl"))),
    Chart(
        "Entropy",
        "nats per token",
        (rollouts("policy/entropy_avg", "policy"),),
        instead=Chart("Entropy", "nats per completion", (rollouts("objective/entropy", "policy"),)),
    ),
    Chart("Value loss", "critic", (rollouts("loss/value_avg", "updates"),), may_be_log=True),
    Chart("KL weight", "times KL in the reward", (Curve("coefficient", "kl_coef", "tone-ppo", exact=True),)),
    Chart("Completion length", "tokens", (rollouts("completion_length"), held_out("eval_length"))),
    Chart(
        "Explained variance",
        "of returns; 1 is perfect",
        (rollouts("val/explained_variance", "critic"),),
    ),
    Chart("Clip fraction", "of tokens where the ratio was clipped", (rollouts("policy/clipfrac_avg", "updates"),)),
)

SFT_CHARTS = (
    Chart("SFT loss", "nats per token", (training("loss", "tone-sft"), held_out("eval_loss"))),
    Chart(
        "SFT token accuracy",
        "fraction of next tokens",
        (training("mean_token_accuracy", "tone-sft"), held_out("eval_mean_token_accuracy")),
    ),
    Chart("SFT learning rate", "per optimizer step", (Curve("training", "learning_rate", "tone-sft", exact=True),)),
)

REWARD_CHARTS = (
    Chart(
        "Reward-model loss", "Bradley-Terry, nats per pair", (training("loss", "tone-reward"), held_out("eval_loss"))
    ),
    Chart(
        "Reward-model accuracy", "fraction of pairs", (training("accuracy", "tone-reward"), held_out("eval_accuracy"))
    ),
    Chart(
        "Reward-model margin",
        "chosen less rejected score",
        (training("margin", "tone-reward"), held_out("eval_margin")),
    ),
)


def ppo_curves(data: RunData) -> str:
    head = '<section id="ppo"><h2>PPO, update by update</h2>'
    drawn = charts(data, "ppo", PPO_CHARTS, "PPO update")
    if not drawn:
        return f"{head}{missing(data, 'The PPO curves', 'ppo')}</section>"
    note = (
        "Thin lines are updates, bold lines their running mean; dots are evaluations on held-out prompts."
        " Point at a chart, or use the arrow keys, to read its values."
    )
    speeds = [speed for _, speed in data.points("ppo", "eps")]
    speed = f" Median speed: {number(median(speeds))} episodes per second." if speeds else ""
    return f'{head}<p class="soft">{note}{speed}</p><div class="charts">{drawn}</div></section>'


def earlier_curves(data: RunData) -> str:
    """Steps 1 and 2."""
    sft = charts(data, "sft", SFT_CHARTS, "step")
    reward = charts(data, "reward", REWARD_CHARTS, "step")
    sft = f'<div class="charts">{sft}</div>' if sft else missing(data, "The SFT curves", "sft")
    reward = f'<div class="charts">{reward}</div>' if reward else missing(data, "The reward-model curves", "reward")
    return f'<section id="earlier"><h2>SFT and reward model, step by step</h2>{sft}{reward}</section>'


def charts(data: RunData, stage: str, wanted: Sequence[Chart], x_label: str) -> str:
    return "".join(drawn(data, stage, chart, x_label) for chart in wanted)


def drawn(data: RunData, stage: str, chart: Chart, x_label: str) -> str:
    series = [Series(c.label, data.points(stage, c.key), c.tone, c.dots, c.exact) for c in chart.curves]
    figure = line_chart(chart.title, chart.unit, series, x_label=x_label, may_be_log=chart.may_be_log)
    if figure or chart.instead is None:
        return figure
    return drawn(data, stage, chart.instead, x_label)
