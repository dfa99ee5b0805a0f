"""The panels of notebook 5: the clip, the advantage, the time limit, and a live run of PPO on the pole.

Left out: the lesson itself (`classic.ppo`).

    jupyter lab classic/notebooks/05_ppo.ipynb
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from classic.actor_critic import ActorCritic
from classic.charts import chart, draw_lines, finish
from classic.clip_picture import objective
from classic.curves import Curve
from classic.notebook_controls import Answer, Panel, budget, slider, switch
from classic.ppo import Settings, train
from classic.training_panel import NUM_EPISODES, POLE, TrainingPanel, figure_chart
from classic.training_runs import Point, Result, steps_between_evaluations
from rlhf_lab.functional import gae


def clip_panel() -> Panel:
    """What PPO maximises, and where its gradient is gone."""
    controls = {
        "clip_range": slider("clip range", 0.2, 0.05, 0.5, 0.05),
        "advantage": slider("advantage", 1.0, -2.0, 2.0, 0.25),
        "ratio": slider("probability now / when sampled", 1.1, 0.05, 2.0, 0.05),
    }
    return Panel(clip_answer, controls)


def clip_answer(clip_range: float, advantage: float, ratio: float) -> Answer:
    """The objective over all ratios, one of them marked with its slope."""
    ratios = torch.linspace(0.05, 2.0, 400)
    here, slope = value_and_slope(ratio, advantage, clip_range)

    def draw(axes: Any) -> None:
        curve = Curve(ratios.tolist(), [objective(ratios, advantage, clip_range).tolist()])
        straight = Curve(ratios.tolist(), [(ratios * advantage).tolist()])
        axes.axvspan(1 - clip_range, 1 + clip_range, color="#4b9b6e", alpha=0.12)
        draw_lines(axes, {"unclipped": straight, "clipped": curve}, xlabel="probability now / when sampled")
        axes.plot(ratio, here, "o", markersize=10, color="#d1495b")

    push = "no gradient: it has moved far enough" if slope == 0 else f"slope {slope:+.2f}"
    return Answer(chart(draw, width=6, height=3), f"objective {here:+.3f}, {push}")


def value_and_slope(ratio: float, advantage: float, clip_range: float) -> tuple[float, float]:
    """The objective at one ratio and its derivative there, from the function that trains."""
    point = torch.tensor([ratio], requires_grad=True)
    value = objective(point, advantage, clip_range)
    value.sum().backward()
    assert point.grad is not None
    return float(value.detach()), float(point.grad)


def advantage_panel() -> Panel:
    """Generalised advantage estimation on ten steps of which the sixth pays."""
    controls = {
        "gamma": slider("gamma", 0.95, 0.5, 1.0, 0.01),
        "gae_lambda": slider("lambda", 0.9, 0.0, 1.0, 0.05),
        "fell": switch("the last step terminated (off: cut off by a time limit)", True),
    }
    return Panel(advantage_answer, controls)


def advantage_answer(gamma: float, gae_lambda: float, fell: bool) -> Answer:
    """Advantages as bars: lambda 0 believes the critic, lambda 1 believes what happened."""
    rewards = torch.zeros(1, 10)
    rewards[0, 5] = 1.0
    values = torch.full((1, 11), 0.4)  # a critic that expects 0.4 everywhere
    end = torch.arange(10).unsqueeze(0) == 9
    advantages = gae(
        rewards,
        values[:, :-1],
        values[:, 1:],
        terminated=end & fell,
        truncated=end & (not fell),
        gamma=gamma,
        gae_lambda=gae_lambda,
    )[0]

    def draw(axes: Any) -> None:
        colours = ["#4b9b6e" if advantage > 0 else "#d1495b" for advantage in advantages.tolist()]
        axes.bar(range(1, 11), advantages.tolist(), color=colours)
        finish(axes, xlabel="step (the sixth pays 1; the critic says 0.4 everywhere)", ylabel="advantage")

    last = f"the last step's advantage is {float(advantages[-1]):+.2f}: after it comes " + (
        "nothing" if fell else "what the critic expects"
    )
    return Answer(chart(draw, width=6, height=2.8), last)


def time_limit_panel() -> Panel:
    """A pole that never falls, and a clock that stops it after 500 steps: what should the critic say?"""
    controls = {
        "gamma": slider("gamma", 0.99, 0.9, 0.995, 0.005),
        "cut_is_end": switch("treat the time limit as an end (the mistake)", True),
    }
    return Panel(time_limit_answer, controls)


def time_limit_answer(gamma: float, cut_is_end: bool) -> Answer:
    """The critic's targets over an episode of 500 steps with reward 1 each."""
    targets = targets_of_standing(gamma, cut_is_end=cut_is_end)

    def draw(axes: Any) -> None:
        limits = {f"1 / (1 - gamma) = {1 / (1 - gamma):.0f}": 1 / (1 - gamma)}
        curve = Curve(list(range(500)), [targets.tolist()])
        draw_lines(axes, {"target of the critic": curve}, xlabel="step of the episode", limits=limits)
        axes.set_ylim(0, 1.1 / (1 - gamma))

    means = f"mean target {float(targets.mean()):.1f}, last target {float(targets[-1]):.1f}"
    text = f"{means}; the pole looks the same at every step"
    return Answer(chart(draw, width=6, height=2.8), text)


def targets_of_standing(gamma: float, *, cut_is_end: bool, num_steps: int = 500) -> Tensor:
    """(T,) targets, by `gae` with lambda 1, of a critic that knows what a standing pole is worth: 1 / (1 - gamma)."""
    truth = torch.full((1, num_steps), 1 / (1 - gamma), dtype=torch.float64)
    end = torch.arange(num_steps).unsqueeze(0) == num_steps - 1
    advantages = gae(
        torch.ones_like(truth),
        truth,
        truth,
        terminated=end & cut_is_end,
        truncated=end & (not cut_is_end),
        gamma=gamma,
        gae_lambda=1.0,
    )
    return (advantages + truth)[0]


def pole_panel(num_steps: int = 100_000, their_steps: int = 8_000, seed: int = 0) -> TrainingPanel:
    """PPO on the pole: a training of some seconds, drawn while it runs; it stops at 500."""
    settings = Settings(num_steps=budget(num_steps, 2048), num_evaluation_episodes=NUM_EPISODES)

    def start(values: Mapping[str, Any], on_point: Callable[[Point], None]) -> Result[ActorCritic]:
        return train(POLE, replace(settings, **values), seed, on_point=on_point, stop_at=500)

    def name_of(values: Mapping[str, Any]) -> str:
        return f"clip {values['clip_range']:g}, lambda {values['gae_lambda']:g}, {values['num_ppo_epochs']} epochs"

    controls = {
        "clip_range": slider("clip range", 0.2, 0.05, 0.5, 0.05),
        "gae_lambda": slider("lambda", 0.95, 0.0, 1.0, 0.05),
        "num_ppo_epochs": slider("epochs", 10, 1, 20, 1),
    }
    return TrainingPanel(
        start,
        name_of,
        controls,
        algorithm="PPO",
        their_steps=their_steps,
        evaluate_every=steps_between_evaluations(settings),
        num_steps=settings.num_steps,
        seed=seed,
        draw_more=[figure_chart(name, 2) for name in ("entropy", "kl", "clip_fraction", "explained_variance")],
    )
