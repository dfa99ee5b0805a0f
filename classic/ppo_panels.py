"""The panels of notebook 5: the clip, the advantage, the time limit, and a live run of PPO on the pole.

Left out: the lesson itself (`classic.ppo`).

    jupyter lab classic/notebooks/05_ppo.ipynb
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from classic.charts import chart, draw_lines, finish
from classic.clip_picture import objective
from classic.curves import Curve
from classic.notebook_controls import Answer, Panel, Show, budget, draw_every, slider, switch
from classic.pictures import picture_of_cart_pole
from classic.ppo import Point, Result, Settings, evaluation_seed, train
from classic.ppo_command import BY_HAND
from classic.vector_rollouts import Act, VectorStreams, act_by_sign, make_vector, returns_of_first_episodes
from rlhf_lab.functional import gae

POLE = "CartPole-v1"
OURS, THEIRS = "train ours", "train Stable-Baselines3"


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


class PolePanel(Panel):
    """PPO on the pole behind a button, ours and Stable-Baselines3's on one chart, and the policy that came out."""

    def __init__(self, num_steps: int, their_steps: int, seed: int) -> None:
        self._num_steps, self._their_steps, self._seed = num_steps, their_steps, seed
        self._curves: dict[str, Curve] = {}
        self._by_hand = mean_return_by_hand()
        self.result: Result | None = None
        controls = {
            "clip_range": slider("clip range", 0.2, 0.05, 0.5, 0.05),
            "gae_lambda": slider("lambda", 0.95, 0.0, 1.0, 0.05),
            "num_ppo_epochs": slider("epochs", 10, 1, 20, 1),
        }
        super().__init__(None, controls, {OURS: self._ours, THEIRS: self._theirs})

    def _ours(self, show: Show, **values: Any) -> None:
        torch.set_num_threads(1)
        settings = replace(self._settings(self._num_steps), **values)
        points: list[Point] = []
        is_due = draw_every(settings.num_steps // (settings.num_envs * settings.rollout_length))

        def on_point(point: Point) -> None:
            points.append(point)
            if is_due(len(points)) or point.mean_return >= 500:
                show(self._chart(OURS, points))

        self.result = train(POLE, settings, self._seed, on_point=on_point, stop_at=500)
        show(self._chart(OURS, points))

    def _theirs(self, show: Show, **values: Any) -> None:
        from classic.against_sb3 import train_sb3

        torch.set_num_threads(1)
        points: list[Point] = []

        def on_point(point: Point) -> None:
            points.append(point)
            show(self._chart(THEIRS, points))

        train_sb3(POLE, self._settings(self._their_steps), self._seed, which="tuned", stop_at=500, on_point=on_point)

    def _settings(self, num_steps: int) -> Settings:
        return Settings(num_steps=budget(num_steps, 2048), num_evaluation_episodes=30)

    def _chart(self, label: str, points: list[Point]) -> Answer:
        name = "ours" if label == OURS else "Stable-Baselines3, tuned"
        self._curves[name] = Curve([point.step for point in points], [[point.mean_return for point in points]])
        limits = {"the most there is": 500.0, "solved": 475.0, "four numbers by hand": self._by_hand}

        def draw(axes: Any) -> None:
            draw_lines(axes, self._curves, xlabel="environment steps", ylabel="mean return", limits=limits)
            axes.set_ylim(0, 520)

        last = points[-1]
        speed = f"{last.step / last.seconds:,.0f} steps a second"
        return Answer(chart(draw), f"{name}: {last.step:,} steps, mean return {last.mean_return:.1f}, {speed}")

    def episode(self) -> list[Image.Image]:
        """Frames of an episode: of the trained policy, or before training of the four numbers by hand."""
        if self.result is None:
            return pole_episode(act_by_sign(BY_HAND), self._seed, "by hand")
        return pole_episode(self.result.policy.best, self._seed, "trained")


def pole_panel(num_steps: int = 100_000, their_steps: int = 8_000, seed: int = 0) -> PolePanel:
    """A training of some seconds, drawn while it runs; it stops at 500."""
    return PolePanel(num_steps, their_steps, seed)


def mean_return_by_hand(num_episodes: int = 100) -> float:
    """The honest baseline: push right where four numbers times the observation are above 0."""
    env = make_vector(POLE, num_episodes)
    returns = returns_of_first_episodes(env, act_by_sign(BY_HAND), evaluation_seed(0))
    env.close()
    return float(returns.mean())


def pole_episode(act: Act, seed: int, name: str, every: int = 5) -> list[Image.Image]:
    """Every fifth frame of one episode, and the last."""
    env = make_vector(POLE, 1)
    streams = VectorStreams(env, evaluation_seed(seed))
    frames = [picture_of_cart_pole(streams.observations[0], f"{name}, step 0")]
    seen: NDArray[np.float32] = streams.observations[0]
    while not streams.episode_returns:
        streams.collect(act, 1)
        seen = streams.observations[0]
        if streams.num_steps % every == 0:
            frames.append(picture_of_cart_pole(seen, f"{name}, step {streams.num_steps}"))
    env.close()
    return [*frames, picture_of_cart_pole(seen, f"{name}, over after {streams.num_steps} steps")]
