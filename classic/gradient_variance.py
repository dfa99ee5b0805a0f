"""How noisy is the gradient? REINFORCE, with baseline, and actor-critic on the very same episodes, measured.

One policy, one critic, many small batches of whole episodes. Each method makes one gradient of each batch; their spread
around their mean is the noise that the optimizer gets instead of the signal. Nothing is scaled here, so that the three
are in one unit. The first two have the same mean; the third is as wrong as its critic.

Left out: what the noise costs in steps of training; `python -m classic.policy_gradient --method baseline reinforce` and
its neighbours show that.

    python -m classic.policy_gradient --gradient-variance --out runs/policy_gradient
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from classic.actor_critic import ActorCritic
from classic.policy_gradient import Batch, Method, Settings, make_batch
from classic.records import table_text, write_picture
from classic.vector_rollouts import Rollout, VectorStreams, make_vector, whole_episodes
from rlhf_lab.functional import policy_gradient

METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Gradients:
    """What each method made of each batch."""

    by_method: Mapping[Method, NDArray[np.float64]]  # (K, W) one gradient a batch, W weights of the policy
    num_episodes: int  # of a batch
    mean_return: float  # of all the episodes: how good the policy is

    def variance(self, method: Method) -> float:
        """Mean squared distance of a batch's gradient from their mean: the trace of the covariance."""
        gradients = self.by_method[method]
        return float(((gradients - gradients.mean(0)) ** 2).sum(1).mean())

    def along_signal(self, method: Method) -> NDArray[np.float64]:
        """(K,) length of each gradient in the direction of the mean one; the baseline's, the best that is unbiased."""
        signal = self.by_method["baseline"].mean(0)
        return np.asarray(self.by_method[method] @ signal / np.linalg.norm(signal))


def measure_gradients(
    env_id: str,
    policy: ActorCritic,
    settings: Settings,
    seed: int,
    *,
    num_batches: int = 64,
    num_episodes: int = 8,
    options: Mapping[str, Any] | None = None,
) -> Gradients:
    """Play `num_batches` times `num_episodes` episodes and let each method make its gradients of them."""
    env = make_vector(env_id, num_batches * num_episodes, **options or {})
    generator = np.random.default_rng(seed)
    rollout = whole_episodes(VectorStreams(env, seed), lambda seen: policy.sample(seen, generator), seed)
    env.close()
    parts = [streams_of(rollout, first, first + num_episodes) for first in range(0, env.num_envs, num_episodes)]
    by_method = {
        method: np.stack(
            [gradient_of(policy, make_batch(method, part, policy, settings), num_episodes) for part in parts]
        )
        for method in METHODS
    }
    returns = np.where(rollout.is_step, rollout.rewards, 0.0).sum(1)
    return Gradients(by_method, num_episodes, float(returns.mean()))


def streams_of(rollout: Rollout, first: int, last: int) -> Rollout:
    """Some streams of a rollout."""
    return Rollout(**{name: np.ascontiguousarray(column[first:last]) for name, column in vars(rollout).items()})


def gradient_of(policy: ActorCritic, batch: Batch, num_episodes: int) -> NDArray[np.float64]:
    """(W,) what the batch says about the policy's weights: the sum over its steps, divided by its episodes."""
    weights = [*policy.actor.parameters(), *([] if policy.log_std is None else [policy.log_std])]
    log_probs, _ = policy.log_probs_and_entropy(batch.observations, batch.actions)
    loss = policy_gradient(log_probs, batch.advantages).sum() / num_episodes
    parts = torch.autograd.grad(loss, weights)
    return -torch.cat([part.flatten() for part in parts]).double().numpy()


def variance_text(gradients: Gradients) -> str:
    """The table: noise, signal, and noise as a share of REINFORCE's."""
    whole = gradients.variance("reinforce")
    rows: list[list[object]] = []
    for method in METHODS:
        variance = gradients.variance(method)
        signal = float(np.linalg.norm(gradients.by_method[method].mean(0)))
        rows.append([method, variance, f"{100 * variance / whole:.1f} %", signal, float(np.sqrt(variance)) / signal])
    columns = ["method", "variance", "of reinforce's", "length of the mean", "noise / signal"]
    return (
        f"gradients of {len(gradients.by_method['baseline'])} batches of {gradients.num_episodes} episodes, the same "
        f"for all three; mean return of the policy {gradients.mean_return:.1f}\n" + table_text(columns, rows)
    )


def variance_record(gradients: Gradients) -> dict[str, Any]:
    """For the JSON."""
    return {
        "mean_return": gradients.mean_return,
        "num_episodes": gradients.num_episodes,
        **{method: {"variance": gradients.variance(method)} for method in METHODS},
    }


def draw_gradients(path: Path, gradients: Gradients, title: str) -> None:
    """A histogram a method: where the gradients of the batches lie along the mean gradient, and the mean itself."""
    figure = Figure(figsize=(7, 5), dpi=120)
    panels = figure.subplots(len(METHODS), 1, sharex=True, sharey=True)
    along = {method: gradients.along_signal(method) for method in METHODS}
    everything = np.concatenate(list(along.values()))
    bins = np.linspace(everything.min(), everything.max(), 40)
    for index, (axes, method) in enumerate(zip(panels, METHODS, strict=True)):
        axes.hist(along[method], bins=bins, color=f"C{index}", label=method)
        axes.axvline(float(along["baseline"].mean()), color="black", linestyle="--", linewidth=1, label="mean gradient")
        axes.legend(fontsize=8, loc="upper right")
        axes.set_ylabel("batches")
    panels[-1].set_xlabel("gradient of a batch, in the direction of the mean gradient")
    figure.suptitle(title)
    figure.tight_layout()
    write_picture(path, figure.savefig)


def half_trained(settings: Settings) -> Settings:
    """Enough to have a critic and a way to go: a tenth of the budget, by actor-critic, without annealing."""
    budget = max(settings.num_steps // 10, settings.num_envs * settings.rollout_length)
    return replace(settings, method="actor_critic", num_steps=budget, anneal=False)
