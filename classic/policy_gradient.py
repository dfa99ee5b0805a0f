"""Lesson 4: policy gradients: REINFORCE, REINFORCE with a baseline, actor-critic.

All three climb the same gradient (Sutton and Barto 2018, equation 13.5; Williams 1992): the expectation of

    A(s, a) * grad log pi(a | s)

and differ in what stands for A, the advantage of an action, Q(s, a) - V(s):

    reinforce      the discounted sum of the rewards to come: an unbiased Q, and no V
    baseline       the same minus the critic's V(s): the same mean, less noise
    actor_critic   Q - V both from the critic, r + gamma V(s') - V(s), over some steps (GAE): less noise still, but as
                   wrong as the critic is. With fixed-length rollouts this is A2C.

`policy_gradient`, `discounted_returns`, `gae`, `standardize` and `rescale` come from `rlhf_lab.functional`, as those of
RLHF do. The weight gamma^t of the theorem is left out, as nearly everybody leaves it out: late states count as much as
early ones. The loss is no measure of anything, only its gradient is; watch return, entropy and KL.

The first two methods play whole episodes, and never more steps than the budget: a batch is as many episodes as there
are streams, towards the end as many as surely fit, be they as long as the time limit. How many is settled before they
are played. To cut a batch off where the budget ends and keep what is complete would keep the short episodes.

Left out: several steps on one batch, which need `classic.ppo`'s clipping; trust regions.

    python -m classic.policy_gradient --method baseline --seed 0
    python -m classic.policy_gradient --env Pendulum-v1
    python -m classic.policy_gradient --gradient-variance
"""

if __name__ == "__main__":  # above the imports, which take seconds and may be stopped like all that comes after them
    from classic.entry import run_command

    run_command("classic.policy_gradient_command")


from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from classic.actor_critic import ActorCritic, actor_critic_for
from classic.environments import specification
from classic.errors import LessonError
from classic.settings_checks import require_discounts, require_numbers, require_rollout
from classic.training_runs import How, Result, rollout_fits, run_training
from classic.vector_rollouts import Rollout, VectorStreams, make_vector, whole_episodes
from rlhf_lab.functional import (
    clipped_value_error,
    discounted_returns,
    explained_variance,
    gae,
    kl_k3,
    policy_gradient,
    rescale,
    standardize,
)

Method = Literal["reinforce", "baseline", "actor_critic"]
Scaling = Literal["none", "rescale", "standardize"]


@dataclass(frozen=True)
class Settings:
    """All that decides a run, besides the environment and the seed."""

    method: Method = "actor_critic"
    num_steps: int = 500_000  # environment steps of all streams together, resets not counted
    num_envs: int = 32  # for the first two methods also the episodes of a batch, while so many surely fit the budget
    rollout_length: int = 16  # columns; the first two methods play whole episodes instead
    learning_rate: float = 3e-3  # of the policy
    critic_learning_rate: float = 1e-2
    num_critic_steps: int = 1  # gradient steps of the critic on each batch
    anneal: bool = True  # the learning rates fall to 0 at the last update
    gamma: float = 0.99
    gae_lambda: float = 0.95  # of actor_critic: 0 trusts the critic most, 1 trusts the rewards most
    scaling: Scaling = "rescale"  # of the advantages of a batch; standardize also takes their mean away
    ent_coef: float = 0.0
    max_grad_norm: float = 0.5
    adam_eps: float = 1e-5
    reward_scale: float = 1.0  # for learning alone; what is reported is unscaled
    hidden: int = 64
    evaluate_every: int = 10_000  # environment steps, or a batch where that is longer
    num_evaluation_episodes: int = 100

    def __post_init__(self) -> None:
        require_numbers(self)
        require_rollout(self.num_steps, self.num_envs, self.rollout_length)
        require_discounts(self.gamma, self.gae_lambda)


@dataclass(frozen=True)
class Batch:
    """The N steps of a rollout that are steps; data, no gradients."""

    observations: Tensor  # (N, D)
    actions: Tensor  # (N,) or (N, A)
    advantages: Tensor  # (N,) as the method has them, in units of return
    returns: Tensor  # (N,) what the critic should say
    values: Tensor  # (N,) what it said


def advantages_of(method: Method, rollout: Rollout, policy: ActorCritic, settings: Settings) -> tuple[Tensor, Tensor]:
    """What each method takes for Q - V on the same steps.

    Args:
        method: which of the three.
        rollout: whole episodes for the first two methods, which know nothing of rewards beyond its edge.
        policy: its critic is asked; `reinforce` does not listen.
        settings: `gamma`, `gae_lambda` and `reward_scale` are read.

    Returns:
        (B, T) advantages and (B, T) returns for the critic to learn. On columns that are no steps they mean nothing.
    """
    terminated = torch.from_numpy(np.ascontiguousarray(rollout.terminated))
    truncated = torch.from_numpy(np.ascontiguousarray(rollout.truncated))
    rewards = torch.from_numpy(np.ascontiguousarray(rollout.rewards)) * settings.reward_scale
    with torch.no_grad():
        # After an end the next column holds the last observation of that episode, so its value is the bootstrap.
        all_values = policy.values(torch.from_numpy(np.ascontiguousarray(rollout.observations)))
    values, next_values = all_values[:, :-1], all_values[:, 1:]
    ends = terminated | truncated
    if method == "reinforce":
        # It has no V to stand for what a time limit cut off, so a truncated episode just looks short.
        returns = discounted_returns(rewards, terminated=ends, gamma=settings.gamma)
        return returns, returns
    if method == "baseline":
        beyond = torch.where(truncated & ~terminated, next_values, 0.0)
        returns = discounted_returns(rewards + settings.gamma * beyond, terminated=ends, gamma=settings.gamma)
        return returns - values, returns
    advantages = gae(
        rewards,
        values,
        next_values,
        terminated=terminated,
        truncated=truncated,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
    )
    return advantages, advantages + values


def make_batch(method: Method, rollout: Rollout, policy: ActorCritic, settings: Settings) -> Batch:
    """The steps of a rollout with their advantages; resets and what follows a whole episode are dropped."""
    advantages, returns = advantages_of(method, rollout, policy, settings)
    is_step = torch.from_numpy(np.ascontiguousarray(rollout.is_step))
    observations = torch.from_numpy(np.ascontiguousarray(rollout.observations[:, :-1]))[is_step]
    with torch.no_grad():
        values = policy.values(observations)
    actions = torch.from_numpy(rollout.actions)[is_step]
    return Batch(observations, actions, advantages[is_step], returns[is_step], values)


def scaled(advantages: Tensor, scaling: Scaling) -> Tensor:
    """(N,) advantages, so that the learning rate need not know the unit of reward.

    `rescale` keeps their mean, so that plain REINFORCE stays without a baseline; `standardize` takes it away, which is
    a baseline of its own (and a slightly biased one, since each return is part of the mean).
    """
    everything = torch.ones_like(advantages, dtype=torch.bool)
    if scaling == "none":
        return advantages
    return rescale(advantages, everything) if scaling == "rescale" else standardize(advantages, everything)


def policy_loss(policy: ActorCritic, batch: Batch, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """The surrogate whose gradient is the policy gradient, less the entropy bonus.

    Returns:
        The scalar loss; (N,) log-probabilities and (N,) entropies, without gradient.
    """
    log_probs, entropy = policy.log_probs_and_entropy(batch.observations, batch.actions)
    loss = policy_gradient(log_probs, scaled(batch.advantages, settings.scaling)).mean()
    return loss - settings.ent_coef * entropy.mean(), log_probs.detach(), entropy.detach()


class Trainer:
    """One policy in training: its streams, its two optimizers and its chance."""

    def __init__(self, env_id: str, settings: Settings, seed: int, options: dict[str, Any]) -> None:
        torch.manual_seed(seed)
        self._settings = settings
        self._generator = np.random.default_rng(seed)
        self.streams = VectorStreams(make_vector(env_id, settings.num_envs, **options), seed)
        self.policy = actor_critic_for(self.streams.env, settings.hidden)
        critic = list(self.policy.critic.parameters())
        self._actor = [weight for weight in self.policy.parameters() if all(weight is not other for other in critic)]
        self._actor_optimizer = torch.optim.Adam(self._actor, settings.learning_rate, eps=settings.adam_eps, fused=True)
        self._critic_optimizer = torch.optim.Adam(
            critic, settings.critic_learning_rate, eps=settings.adam_eps, fused=True
        )
        self._longest_episode = options.get("max_episode_steps", specification(env_id).max_episode_steps)
        self._last_batch = 0  # steps
        if not self.fits():
            raise LessonError(
                f"got a budget of {settings.num_steps:,} steps; {settings.method} learns from whole episodes, and one "
                f"of {env_id} may take {self._longest_episode:,}: type --steps {self._longest_episode} or more, or "
                f"--max-episode-steps {settings.num_steps}"
            )

    def iterate(self, progress: float) -> dict[str, float]:
        """Collect, take one step with the policy, and some with the critic."""
        settings = self._settings
        left = 1 - progress if settings.anneal else 1.0
        self._actor_optimizer.param_groups[0]["lr"] = settings.learning_rate * left
        self._critic_optimizer.param_groups[0]["lr"] = settings.critic_learning_rate * left
        batch = make_batch(settings.method, self.collect(), self.policy, settings)
        metrics = self._policy_step(batch)
        if settings.method != "reinforce":
            metrics["value_loss"] = self._critic_steps(batch)
            everything = torch.ones(len(batch.returns), dtype=torch.bool)
            metrics["explained_variance"] = float(explained_variance(batch.values, batch.returns, everything))
        return metrics

    def collect(self) -> Rollout:
        """Whole episodes where only rewards are believed, a piece of each stream where the critic knows the rest."""
        if self._settings.method == "actor_critic":
            return self.streams.collect(self._act, self._settings.rollout_length)
        batch = whole_episodes(
            self.streams, self._act, int(self._generator.integers(2**31)), num_episodes=self.num_episodes()
        )
        self._last_batch = int(batch.is_step.sum())
        return batch

    def fits(self) -> bool:
        """Whether one more batch stays within the budget."""
        if self._settings.method == "actor_critic":
            return rollout_fits(self.streams, self._settings)
        return self.num_episodes() > 0

    def num_episodes(self) -> int:
        """Of the next batch of whole episodes: one a stream, or as many as surely fit what is left of the budget."""
        left = self._settings.num_steps - self.streams.num_steps
        if self._longest_episode is None:  # nobody can say what fits; all of Gymnasium's own have a limit
            return self._settings.num_envs if self._last_batch <= left else 0
        return min(self._settings.num_envs, left // int(self._longest_episode))

    def _policy_step(self, batch: Batch) -> dict[str, float]:
        loss, old_log_probs, entropy = policy_loss(self.policy, batch, self._settings)
        self._actor_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._actor, self._settings.max_grad_norm)
        self._actor_optimizer.step()
        with torch.no_grad():
            log_probs, _ = self.policy.log_probs_and_entropy(batch.observations, batch.actions)
            kl = kl_k3(old_log_probs, log_probs).mean()
        return {"entropy": float(entropy.mean()), "kl": float(kl), "gradient_norm": float(norm)}

    def _critic_steps(self, batch: Batch) -> float:
        loss = torch.zeros(())
        for _ in range(self._settings.num_critic_steps):
            values = self.policy.values(batch.observations)
            loss = clipped_value_error(values, batch.values, batch.returns, None).mean()
            self._critic_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._critic_optimizer.step()
        return float(loss.detach())

    def _act(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        return self.policy.sample(observations, self._generator)


def train(env_id: str, settings: Settings, seed: int, **how: Unpack[How]) -> Result[ActorCritic]:
    """Train one policy; `how` may give `options`, `on_point` and `stop_at`, see `classic.training_runs.How`."""
    return run_training(Trainer, env_id, settings, seed, **how)
