"""PPO and reward-model curves of several runs in one chart each, one colour and dash a run.

Leaves out: drawing (`charts.py`). Of a curve that was logged on rollouts only the running mean is drawn where two or
more would cross.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..charts import Series, line_chart
from ..raters import calibration
from .runs import ComparedRun


@dataclass(frozen=True)
class Overlay:
    """`key` is the column of the stage's metrics.jsonl; `dots` and `exact` as in `Series`."""

    title: str
    unit: str
    key: str
    dots: bool = False
    exact: bool = False
    may_be_log: bool = False


PPO = (
    Overlay("Gold score", "held-out", "eval_gold", dots=True),
    Overlay("Helpful", "part of the gold score, held-out", "eval_helpful", dots=True),
    Overlay("Harmless", "part of the gold score, held-out", "eval_harmless", dots=True),
    Overlay("Honest", "part of the gold score, held-out", "eval_honest", dots=True),
    Overlay("Score of rollouts", "from each run’s reward model", "objective/scores"),
    Overlay("Held-out score", "from each run’s reward model", "eval_scores", dots=True),
    Overlay("KL from SFT", "nats per completion, rollouts", "objective/kl"),
    Overlay("KL weight", "times KL in the reward", "kl_coef", exact=True),
    Overlay("Entropy", "nats per token", "policy/entropy_avg"),
    Overlay("Completion length", "tokens, rollouts", "completion_length"),
    Overlay("Value loss", "critic", "loss/value_avg", may_be_log=True),
    Overlay("Explained variance", "of returns; 1 is perfect", "val/explained_variance"),
    Overlay("Clip fraction", "of tokens where the ratio was clipped", "policy/clipfrac_avg"),
)
REWARD = (
    Overlay("Reward-model loss", "Bradley-Terry, nats per pair, training", "loss"),
    Overlay("Reward-model accuracy", "fraction of pairs, training", "accuracy"),
    Overlay("Reward-model margin", "chosen less rejected score, training", "margin"),
)


def ppo_section(runs: Sequence[ComparedRun]) -> str:
    drawn = charts(runs, "ppo", PPO, "PPO update")
    if not drawn:
        return ""
    note = (
        "Running means of rollouts, dots for evaluations. Point at a chart, or use the arrow keys, to read its values."
    )
    head = f'<section id="ppo"><h2>PPO, update by update</h2><p class="soft">{note}</p>'
    return f'{head}<div class="charts overlaid">{drawn}</div></section>'


def reward_section(runs: Sequence[ComparedRun]) -> str:
    drawn = charts(runs, "reward", REWARD, "step")
    plots = "".join(calibration(run.data, of=run.label) for run in runs if run.data.reward_model is not None)
    if not drawn + plots:
        return ""
    head = '<section id="reward-model"><h2>The reward models</h2>'
    return f'{head}<div class="charts overlaid">{drawn}{plots}</div></section>'


def charts(runs: Sequence[ComparedRun], stage: str, wanted: Sequence[Overlay], x_label: str) -> str:
    return "".join(chart(runs, stage, overlay, x_label) for overlay in wanted)


def chart(runs: Sequence[ComparedRun], stage: str, overlay: Overlay, x_label: str) -> str:
    """Nothing where no run logged the key."""
    series = [
        Series(run.label, run.data.points(stage, overlay.key), run.tone, overlay.dots, overlay.exact) for run in runs
    ]
    return line_chart(overlay.title, overlay.unit, series, x_label=x_label, may_be_log=overlay.may_be_log)
