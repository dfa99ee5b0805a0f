"""Lesson 5: PPO with the very functions that align the language model.

`gae`, `clipped_surrogate` and `clipped_value_error` come from `rlhf_lab.functional`, unmodified: the equations that
balance the pole are those of step 3 of RLHF. What differs is where the rollout comes from.

One iteration (Schulman et al. 2017, arXiv 1707.06347, algorithm 1): collect a rollout, estimate advantages, and take
some epochs of minibatch steps on the clipped surrogate, so that each sample is used more than once without the policy
running away from the one that sampled it.

Left out: recurrent policies, pictures as observations, several processes, normalised observations.

    python -m classic.ppo --env CartPole-v1 --seed 0
    python -m classic.ppo --against-sb3 tuned --seeds 3 --out runs/ppo
"""

if __name__ == "__main__":  # above the imports, which take seconds and may be stopped like all that comes after them
    from classic.entry import run_command

    run_command("classic.ppo_command")


import math
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from classic.actor_critic import ActorCritic, actor_critic_for
from classic.errors import LessonError
from classic.settings_checks import require_discounts, require_numbers, require_rollout
from classic.training_runs import How, Result, rollout_fits, run_training
from classic.vector_rollouts import Rollout, VectorStreams, make_vector
from rlhf_lab.functional import clip_fraction, clipped_surrogate, clipped_value_error, explained_variance, gae, kl_k3


@dataclass(frozen=True)
class Settings:
    """All that decides a run, besides the environment and the seed. Names as in `rlhf_lab.PPOConfig`."""

    num_steps: int = 100_000  # environment steps of all streams together, resets not counted
    num_envs: int = 16
    rollout_length: int = 128  # columns of a rollout
    minibatch_size: int = 512  # steps of the environment
    num_ppo_epochs: int = 10
    learning_rate: float = 3e-3
    anneal: bool = True  # the learning rate falls to 0 at the last update
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    value_clip_range: float | None = None  # optional; in units of return, so it depends on the scale of the rewards
    ent_coef: float = 0.0
    vf_coef: float = 0.5  # times half the squared error, as CleanRL; SB3's 0.5 is times the whole
    max_grad_norm: float = 0.5
    adam_eps: float = 1e-5
    reward_scale: float = 1.0  # for learning alone; what is reported is unscaled
    hidden: int = 64
    evaluate_every: int = 1  # environment steps, or an iteration where that is longer
    num_evaluation_episodes: int = 100

    def __post_init__(self) -> None:
        require_numbers(self)
        require_rollout(self.num_steps, self.num_envs, self.rollout_length)
        require_discounts(self.gamma, self.gae_lambda)
        rollout = self.num_envs * self.rollout_length
        if rollout < 2:
            raise LessonError("got a rollout of one step; advantages need two to compare: type --rollout-length 2")
        if not 1 < self.minibatch_size <= rollout:
            raise LessonError(
                f"got minibatches of {self.minibatch_size}; a rollout has {rollout:,} steps: type --minibatch-size "
                f"{max(2, rollout // 4)}"
            )


@dataclass(frozen=True)
class Batch:
    """The N steps of a rollout that are steps, with all that the update needs; data, no gradients."""

    observations: Tensor  # (N, D)
    actions: Tensor  # (N,) or (N, A)
    old_log_probs: Tensor  # (N,) in nats
    old_values: Tensor  # (N,)
    advantages: Tensor  # (N,)
    returns: Tensor  # (N,) advantages + values: what the critic should say


def make_batch(rollout: Rollout, policy: ActorCritic, settings: Settings) -> Batch:
    """Values, advantages and old log-probabilities of a rollout, in one pass of each network; resets dropped."""
    observations = torch.from_numpy(np.ascontiguousarray(rollout.observations))
    is_step = torch.from_numpy(np.ascontiguousarray(rollout.is_step))
    with torch.no_grad():
        # After an end the next column holds the last observation of that episode, so its value is the bootstrap.
        all_values = policy.values(observations)
        values, next_values = all_values[:, :-1], all_values[:, 1:]
        advantages = gae(
            torch.from_numpy(rollout.rewards * np.float32(settings.reward_scale)),
            values,
            next_values,
            terminated=torch.from_numpy(np.ascontiguousarray(rollout.terminated)),
            truncated=torch.from_numpy(np.ascontiguousarray(rollout.truncated)),
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
        )
        taken, actions = observations[:, :-1][is_step], torch.from_numpy(rollout.actions)[is_step]
        old_log_probs, _ = policy.log_probs_and_entropy(taken, actions)
    values, advantages = values[is_step], advantages[is_step]
    return Batch(taken, actions, old_log_probs, values, advantages, advantages + values)


def ppo_loss(policy: ActorCritic, batch: Batch, settings: Settings) -> tuple[Tensor, dict[str, Tensor]]:
    """Equation 9 of the paper, negated: policy loss + vf_coef * value loss - ent_coef * entropy.

    Returns:
        The scalar loss, and the figures that watch it, from the same steps and the same weights.
    """
    log_probs, entropy = policy.log_probs_and_entropy(batch.observations, batch.actions)
    values = policy.values(batch.observations)
    log_ratio = log_probs - batch.old_log_probs
    advantages = centred(batch.advantages)
    policy_loss = clipped_surrogate(log_ratio, advantages, settings.clip_range).mean()
    value_loss = clipped_value_error(values, batch.old_values, batch.returns, settings.value_clip_range).mean()
    loss = policy_loss + settings.vf_coef * value_loss - settings.ent_coef * entropy.mean()
    with torch.no_grad():
        metrics = {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.mean(),
            # How far the policy has moved from the one that sampled, KL(old || now): k3 is never negative.
            "kl": kl_k3(batch.old_log_probs, log_probs.detach()).mean(),
            "clip_fraction": clip_fraction(log_ratio.detach(), advantages, settings.clip_range).mean(),
        }
    return loss, metrics


def centred(advantages: Tensor) -> Tensor:
    """(N,) with mean 0 and deviation 1 over the minibatch; a single step keeps its own, since 0 would teach nothing."""
    if len(advantages) < 2:
        return advantages
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def minibatches(num_rows: int, size: int, generator: np.random.Generator) -> list[Tensor]:
    """Every row once, shuffled, in parts as equal as they can be and at most `size` long.

    Equal parts, because the resets that were dropped leave a few rows over, and a minibatch of three rows would be a
    full step on almost no data.
    """
    order = torch.from_numpy(generator.permutation(num_rows))
    return list(order.tensor_split(math.ceil(num_rows / size)))


def update(
    policy: ActorCritic,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    settings: Settings,
    generator: np.random.Generator,
) -> dict[str, float]:
    """Some epochs of minibatch steps on one rollout. The figures are means over all minibatches."""
    history: list[dict[str, Tensor]] = []
    parameters = list(policy.parameters())
    for _ in range(settings.num_ppo_epochs):
        for rows in minibatches(len(batch.actions), settings.minibatch_size, generator):
            loss, metrics = ppo_loss(policy, rows_of(batch, rows), settings)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            history.append(metrics)
    everything = torch.ones(len(batch.returns), dtype=torch.bool)
    means = {name: float(torch.stack([row[name] for row in history]).mean()) for name in history[0]}
    return {**means, "explained_variance": float(explained_variance(batch.old_values, batch.returns, everything))}


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """The batch at some of its rows."""
    return Batch(*(column[rows] for column in vars(batch).values()))


class Trainer:
    """One policy in training: its streams, its optimizer and its chance."""

    def __init__(self, env_id: str, settings: Settings, seed: int, options: dict[str, Any]) -> None:
        torch.manual_seed(seed)
        self._settings = settings
        self._generator = np.random.default_rng(seed)
        self.streams = VectorStreams(make_vector(env_id, settings.num_envs, **options), seed)
        self.policy = actor_critic_for(self.streams.env, settings.hidden)
        self._optimizer = torch.optim.Adam(
            self.policy.parameters(), settings.learning_rate, eps=settings.adam_eps, fused=True
        )

    def iterate(self, progress: float) -> dict[str, float]:
        """Collect a rollout and learn from it; `progress` (0 to 1) is how much of the budget is spent."""
        settings = self._settings
        if settings.anneal:
            self._optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - progress)
        rollout = self.streams.collect(self._act, settings.rollout_length)
        batch = make_batch(rollout, self.policy, settings)
        return update(self.policy, self._optimizer, batch, settings, self._generator)

    def fits(self) -> bool:
        """Whether one more rollout stays within the budget."""
        return rollout_fits(self.streams, self._settings)

    def _act(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        return self.policy.sample(observations, self._generator)


def train(env_id: str, settings: Settings, seed: int, **how: Unpack[How]) -> Result[ActorCritic]:
    """Train one policy; `how` may give `options`, `on_point` and `stop_at`, see `classic.training_runs.How`."""
    return run_training(Trainer, env_id, settings, seed, **how)
