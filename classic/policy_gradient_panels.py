"""The panels of notebook 4: a two-armed problem with its exact gradient, noise of real gradients, a live run.

Left out: the lesson itself (`classic.policy_gradient`).

    jupyter lab classic/notebooks/04_policy_gradient.ipynb
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from classic.actor_critic import ActorCritic
from classic.charts import chart, draw_lines, finish
from classic.curves import Curve
from classic.gradient_variance import METHODS, Gradients, half_trained, measure_gradients
from classic.notebook_controls import Answer, Panel, Show, budget, choice, slider
from classic.policy_gradient import Settings, train
from classic.policy_gradient_command import SETTINGS
from classic.training_panel import NUM_EPISODES, POLE, TrainingPanel, figure_chart
from classic.training_runs import Point, Result, one_thread, steps_between_evaluations
from rlhf_lab.functional import policy_gradient

PENDULUM = "Pendulum-v1"
FIGURES = ("entropy", "kl", "explained_variance")  # that are watched beside the return; REINFORCE has no critic


def two_arms_panel() -> Panel:
    """Two arms with known rewards: the exact gradient, and what a baseline does to the noise around it."""
    controls = {
        "probability": slider("probability of the left arm", 0.5, 0.05, 0.95, 0.05),
        "left": slider("reward left", 11.0, -5.0, 15.0, 0.5),
        "right": slider("reward right", 10.0, -5.0, 15.0, 0.5),
        "baseline": slider("baseline", 0.0, -5.0, 15.0, 0.5),
    }
    return Panel(two_arms_answer, controls)


def two_arms_answer(probability: float, left: float, right: float, baseline: float) -> Answer:
    """The two samples that there are, their mean, and the variance for every baseline."""
    samples, probabilities = two_arm_samples(probability, left, right, baseline)
    mean, variance = mean_and_variance(samples, probabilities)
    baselines = np.linspace(-5, 15, 81).tolist()
    variances = [mean_and_variance(*two_arm_samples(probability, left, right, b))[1] for b in baselines]

    def draw(samples_axes: Any, variance_axes: Any) -> None:
        samples_axes.bar(samples, probabilities, width=0.25, label="a sample of the gradient")
        samples_axes.axvline(mean, color="black", linestyle="--", linewidth=1, label="the exact gradient")
        finish(samples_axes, xlabel="gradient by the left arm's logit", ylabel="probability")
        draw_lines(variance_axes, {"variance": Curve(baselines, [variances])}, xlabel="baseline")
        variance_axes.plot(baseline, variance, "o", markersize=9)

    text = f"mean {mean:+.4f}, whatever the baseline; variance {variance:.4f}"
    return Answer(chart(draw, columns=2, width=8, height=2.9), text)


def two_arm_samples(probability: float, left: float, right: float, baseline: float) -> tuple[list[float], list[float]]:
    """(reward - baseline) * d log pi / d logit for each arm, by autograd, and the arms' probabilities."""
    samples = []
    for arm, reward in enumerate((left, right)):
        logits = torch.tensor([math.log(probability), math.log(1 - probability)], requires_grad=True)
        loss = policy_gradient(logits.log_softmax(-1)[arm], torch.tensor(reward - baseline))
        (gradient,) = torch.autograd.grad(loss, logits)
        samples.append(-float(gradient[0]))
    return samples, [probability, 1 - probability]


def mean_and_variance(samples: list[float], probabilities: list[float]) -> tuple[float, float]:
    """Exact, over the arms."""
    mean = sum(p * x for p, x in zip(probabilities, samples, strict=True))
    return mean, sum(p * (x - mean) ** 2 for p, x in zip(probabilities, samples, strict=True))


def noise_panel(num_steps: int = 100_000, num_batches: int = 48, seed: int = 0) -> Panel:
    """The three methods on the very same episodes of a half-trained policy."""

    def measure(show: Show, num_episodes: int) -> None:
        one_thread()
        settings = Settings(num_steps=budget(num_steps, 10_240), num_evaluation_episodes=NUM_EPISODES)
        learner = train(POLE, half_trained(settings), seed)
        learner.policy.load_state_dict(learner.last_weights)
        found = measure_gradients(
            POLE, learner.policy, settings, seed, num_batches=budget(num_batches, 8), num_episodes=num_episodes
        )
        show(noise_answer(found))

    return Panel(None, {"num_episodes": slider("episodes in a batch", 8, 1, 16, 1)}, {"measure the noise": measure})


def noise_answer(found: Gradients) -> Answer:
    """Histograms of the batches' gradients, along the mean one."""
    along = {method: found.along_signal(method) for method in METHODS}
    everything = np.concatenate(list(along.values()))
    bins = np.linspace(everything.min(), everything.max(), 30)

    def draw(*all_axes: Any) -> None:
        for index, (axes, method) in enumerate(zip(all_axes, METHODS, strict=True)):
            axes.hist(along[method], bins=bins, color=f"C{index}")
            axes.axvline(float(along["baseline"].mean()), color="black", linestyle="--", linewidth=1)
            finish(axes, title=method.replace("_", "-"), xlabel="along the mean gradient")

    whole = found.variance("reinforce")
    shares = ", ".join(f"{method} {found.variance(method) / whole:.1%}" for method in METHODS)
    picture = chart(draw, columns=3, width=9, height=2.7)
    return Answer(picture, f"variance as a share of REINFORCE's: {shares} (mean return {found.mean_return:.0f})")


def density_panel() -> Panel:
    """A continuous action: the policy is a bell, and the gradient moves its middle and its width."""
    controls = {
        "mean": slider("mean", 0.0, -2.0, 2.0, 0.1),
        "log_std": slider("log of the deviation", 0.0, -2.0, 1.0, 0.1),
        "action": slider("the action taken", 1.0, -2.0, 2.0, 0.1),
    }
    return Panel(density_answer, controls)


def density_answer(mean: float, log_std: float, action: float) -> Answer:
    """The density, and which way a good action would move it."""
    actions = torch.linspace(-4, 4, 200)
    heights = log_density(bell(mean, log_std), actions).exp().detach()
    pull, widen = density_slopes(mean, log_std, action)

    def draw(axes: Any) -> None:
        draw_lines(axes, {"policy": Curve(actions.tolist(), [heights.tolist()])}, xlabel="action", ylabel="density")
        axes.axvline(action, color="#d1495b", linewidth=2)

    text = f"if that action was good: mean {pull:+.2f}, log of the deviation {widen:+.2f} (times step and advantage)"
    return Answer(chart(draw, width=6, height=2.8), text)


def bell(mean: float, log_std: float) -> ActorCritic:
    """The policy network of the lessons, whose bell has this middle and width whatever it sees."""
    policy = ActorCritic(1, 1, continuous=True)
    head: Any = policy.actor[-1]
    assert policy.log_std is not None
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(mean)
        policy.log_std.fill_(log_std)
    return policy


def log_density(policy: ActorCritic, actions: torch.Tensor) -> torch.Tensor:
    """(N,) of the actions (N,)."""
    return policy.log_probs_and_entropy(torch.zeros(len(actions), 1), actions.unsqueeze(1))[0]


def density_slopes(mean: float, log_std: float, action: float) -> tuple[float, float]:
    """d log pi / d mean and d log pi / d log deviation, by autograd."""
    policy = bell(mean, log_std)
    head: Any = policy.actor[-1]
    pull, widen = torch.autograd.grad(log_density(policy, torch.tensor([action])).sum(), [head.bias, policy.log_std])
    return float(pull), float(widen)


def pole_panel(num_steps: int = 60_000, their_steps: int = 8_000, seed: int = 0) -> TrainingPanel:
    """The three methods on the pole, drawn while they run."""
    steps = budget(num_steps, 2048)

    def start(values: Mapping[str, Any], on_point: Callable[[Point], None]) -> Result[ActorCritic]:
        return train(POLE, settings_for(POLE, steps, **values), seed, on_point=on_point, stop_at=500)

    def name_of(values: Mapping[str, Any]) -> str:
        return f"{values['method'].replace('_', '-')}, lambda {values['gae_lambda']:g}"

    controls = {
        "method": choice("method", list(reversed(METHODS))),
        "gae_lambda": slider("lambda (of actor-critic)", 0.95, 0.0, 1.0, 0.05),
        "learning_rate": slider("learning rate", 0.003, 0.0005, 0.01, 0.0005),
    }
    return TrainingPanel(
        start,
        name_of,
        controls,
        algorithm="A2C",
        their_steps=their_steps,
        evaluate_every=steps_between_evaluations(settings_for(POLE, steps)),
        num_steps=steps,
        seed=seed,
        draw_more=[figure_chart(name, 2) for name in FIGURES],
    )


def pendulum_panel(num_steps: int = 100_000, seed: int = 0) -> TrainingPanel:
    """Continuous actions: how hard to turn the rod. A fifth of the steps that the command takes."""
    steps = budget(num_steps, 4096)

    def start(values: Mapping[str, Any], on_point: Callable[[Point], None]) -> Result[ActorCritic]:
        return train(PENDULUM, settings_for(PENDULUM, steps, **values), seed, on_point=on_point)

    controls = {"gamma": slider("gamma", 0.9, 0.5, 0.99, 0.01)}
    return TrainingPanel(
        start,
        lambda values: f"actor-critic, gamma {values['gamma']:g}",
        controls,
        algorithm="A2C",
        their_steps=0,
        evaluate_every=steps_between_evaluations(settings_for(PENDULUM, steps)),
        num_steps=steps,
        seed=seed,
        env_id=PENDULUM,
        draw_more=[figure_chart(name) for name in FIGURES],
    )


def settings_for(env_id: str, num_steps: int, **values: Any) -> Settings:
    """The settings of the command, with the budget and the hurry of a notebook."""
    settings = SETTINGS[env_id, values.get("method", "actor_critic")]
    every = max(1, num_steps // 15)
    settings = replace(settings, num_steps=num_steps, evaluate_every=every, num_evaluation_episodes=NUM_EPISODES)
    return replace(settings, **values)
