"""The panels of notebook 3: loss, target, and a live run of DQN with its crutches as switches.

Left out: the lesson itself (`classic.dqn`).

    jupyter lab classic/notebooks/03_dqn.ipynb
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from classic.charts import chart, draw_lines
from classic.curves import Curve
from classic.dqn import Settings, train
from classic.notebook_controls import Answer, Panel, budget, slider, switch
from classic.q_network import QNetwork
from classic.training_panel import NUM_EPISODES, POLE, TrainingPanel
from classic.training_runs import Point, Result, steps_between_evaluations

CRUTCHES = {"replay": "replay", "target_network": "target network", "exploration": "exploration"}


def loss_panel() -> Panel:
    """Huber's loss beside the squared one: what one wild target does to the gradient."""
    return Panel(loss_answer, {"error": slider("TD error", 2.5, -5.0, 5.0, 0.1)})


def loss_answer(error: float) -> Answer:
    """Both losses over all TD errors, one of them marked with its two slopes."""
    errors = torch.linspace(-5, 5, 201)
    losses = {"squared": lambda x: 0.5 * x**2, "Huber": huber}

    def draw(axes: Any) -> None:
        curves = {name: Curve(errors.tolist(), [loss(errors).tolist()]) for name, loss in losses.items()}
        draw_lines(axes, curves, xlabel="TD error", ylabel="loss")
        axes.plot(error, float(huber(torch.tensor(error))), "o", markersize=10, color="#d1495b")

    text = f"slope of the squared loss {error:+.2f}, of Huber's {slope_of_huber(error):+.2f}"
    return Answer(chart(draw, width=6, height=3), text)


def huber(errors: torch.Tensor) -> torch.Tensor:
    """Elementwise, with the bend at 1: what `classic.dqn.dqn_loss` takes the mean of."""
    return torch.nn.functional.smooth_l1_loss(errors, torch.zeros_like(errors), reduction="none")


def slope_of_huber(error: float) -> float:
    """Its derivative: the TD error, clipped to -1 and 1."""
    point = torch.tensor([error], requires_grad=True)
    huber(point).sum().backward()
    assert point.grad is not None
    return float(point.grad)


def overestimation_panel() -> Panel:
    """The best of noisy numbers is too high on average; double DQN asks a second network for the price."""
    controls = {"noise": slider("noise of Q", 1.0, 0.0, 3.0, 0.1), "num_actions": slider("actions", 4, 1, 20, 1)}
    return Panel(overestimation_answer, controls)


def overestimation_answer(noise: float, num_actions: int) -> Answer:
    """Mean error of the bootstrap where all actions are truly worth 0."""
    counts = list(range(1, 21))
    single = [overestimation(noise, count, double=False) for count in counts]
    double = [overestimation(noise, count, double=True) for count in counts]

    def draw(axes: Any) -> None:
        curves = {"one network": Curve(counts, [single]), "double": Curve(counts, [double])}
        draw_lines(axes, curves, xlabel="actions", ylabel="mean error of the bootstrap", limits={"the truth": 0.0})
        axes.plot(num_actions, single[num_actions - 1], "o", markersize=9)

    errors = f"{single[num_actions - 1]:+.3f}, with double DQN {double[num_actions - 1]:+.3f}"
    return Answer(chart(draw, width=6, height=3), f"{num_actions} actions, all worth 0: the bootstrap says {errors}")


def overestimation(noise: float, num_actions: int, *, double: bool, num_draws: int = 20_000) -> float:
    """Mean of Q_target(s', a') over noise, with a' chosen by the same noisy numbers or by other ones."""
    generator = torch.Generator().manual_seed(0)
    priced = noise * torch.randn(num_draws, num_actions, generator=generator)
    chosen = noise * torch.randn(num_draws, num_actions, generator=generator) if double else priced
    return float(priced.gather(1, chosen.argmax(1, keepdim=True)).mean())


def dqn_panel(num_steps: int = 15_000, their_steps: int = 8_000, seed: int = 0) -> TrainingPanel:
    """DQN on the pole, drawn while it runs, with the monitor of forgetting beside it."""
    settings = Settings(num_steps=budget(num_steps, 1600), num_evaluation_episodes=NUM_EPISODES)

    def start(values: Mapping[str, Any], on_point: Callable[[Point], None]) -> Result[QNetwork]:
        return train(POLE, replace(settings, **values), seed, on_point=on_point, stop_at=500)

    def doomed(axes: Any, points: Sequence[Point]) -> None:
        asked = [point for point in points if "doomed_q" in point.metrics]
        curve = Curve([point.step for point in asked], [[point.metrics["doomed_q"] for point in asked]])
        draw_lines(
            axes,
            {"Q of a pole that has fallen": curve},
            title="the monitor of forgetting",
            xlabel="environment steps",
            limits={"what it should be": 1.0},
        )

    controls = {
        **{name: switch(label, True) for name, label in CRUTCHES.items()},
        "double": switch("double", True),
        "learning_rate": slider("learning rate", 0.001, 0.0001, 0.01, 0.0001),
    }
    return TrainingPanel(
        start,
        run_name,
        controls,
        algorithm="DQN",
        their_steps=their_steps,
        evaluate_every=steps_between_evaluations(settings),
        num_steps=settings.num_steps,
        seed=seed,
        draw_more=(doomed,),
    )


def run_name(values: Mapping[str, Any]) -> str:
    """What was taken away or added."""
    without = [label for name, label in CRUTCHES.items() if not values[name]]
    name = "without " + " and ".join(without) if without else "all three"
    return name + (", double" if values["double"] else "") + f", rate {values['learning_rate']:g}"
