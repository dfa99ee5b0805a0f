"""Lesson 3: deep Q-learning, from scratch, with each of its three crutches to take away.

The table of lesson 2 becomes a network, and the update a gradient step on (Mnih et al. 2015, equation 2 of the methods)

    Huber( Q(s, a) - [ r + gamma * max_a' Q_target(s', a') ] )        without the maximum where terminated

Three things make it learn: a replay buffer, so that it learns from the past too; a target network that lags behind, so
that it does not chase its own tail; exploration, so that there is something to see. `--no-replay`,
`--no-target-network` and `--no-exploration` show what each is good for. The online network chooses a' and the target
network prices it (double DQN: van Hasselt et al. 2015, arXiv 1509.06461, equation 4); `--no-double` leaves both to the
target network, as above.

The target goes a hundredth of the way to the network after each gradient step (Lillicrap et al. 2015, arXiv 1509.02971,
section 3). Mnih et al. copy it now and then: `--target-step 1 --target-update-interval 128`.

The loss is Huber's, as in Stable-Baselines3; Mnih et al. clip the TD error, which has the same gradient; CleanRL takes
the square. Left out: priorities, n-step returns, dueling heads, pictures as observations.

    python -m classic.dqn --env CartPole-v1 --seed 0
    python -m classic.dqn --against-sb3 course tuned --out runs/dqn
"""

if __name__ == "__main__":  # above the imports, which take seconds and may be stopped like all that comes after them
    from classic.entry import run_command

    run_command("classic.dqn_command")


from dataclasses import dataclass
from typing import Any, Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from classic.errors import LessonError
from classic.forgetting import Yardstick, forgetting_figures, yardstick_of
from classic.q_network import QNetwork, q_network_for
from classic.q_table import epsilon_greedy_actions
from classic.replay_buffer import ReplayBuffer, Transitions, joined, transitions_of
from classic.schedules import Schedule
from classic.settings_checks import require_numbers
from classic.training_runs import How, Result, rollout_fits, run_training
from classic.vector_rollouts import VectorStreams, make_vector

Loss = Literal["huber", "squared"]


@dataclass(frozen=True)
class Settings:
    """All that decides a run, besides the environment and the seed."""

    num_steps: int = 50_000  # environment steps of all streams together, resets not counted
    num_envs: int = 8
    rollout_length: int = 8  # columns between two bursts of gradient steps
    num_gradient_steps: int = 32  # of a burst
    batch_size: int = 64
    buffer_size: int = 50_000  # transitions
    learning_starts: int = 1000  # environment steps before the first gradient step
    target_update_interval: int = 1  # gradient steps; Stable-Baselines3 counts environment steps here
    target_step: float = 0.01  # how far the target moves towards the network at each update; 1: a copy
    learning_rate: float = 1e-3
    anneal: bool = False  # True: the learning rate falls to 0 at the last update
    gamma: float = 0.99
    epsilon_start: float = 1.0
    epsilon_end: float = 0.04
    epsilon_fraction: float = 0.16  # of the budget, over which epsilon falls
    loss: Loss = "huber"
    max_grad_norm: float = 10.0
    hidden: int = 128
    double: bool = True
    replay: bool = True  # False: learn from the latest burst of steps only
    target_network: bool = True  # False: bootstrap from the network in training
    exploration: bool = True  # False: always the best action
    evaluate_every: int = 500  # environment steps, or a burst where that is longer
    num_evaluation_episodes: int = 100

    def __post_init__(self) -> None:
        require_numbers(self)
        burst = self.num_envs * self.rollout_length
        needed = self.learning_starts + 2 * burst
        if self.num_steps < needed:
            raise LessonError(
                f"got a budget of {self.num_steps:,} steps; learning starts after {self.learning_starts:,}, in bursts "
                f"of {burst:,}, so that nothing would be learned: type --steps {needed} or more, or --learning-starts "
                f"{max(1, self.num_steps // 10)}"
            )
        if self.replay and self.buffer_size < burst:
            raise LessonError(
                f"got a buffer of {self.buffer_size:,}; {self.num_envs} x {self.rollout_length} transitions come at a "
                f"time: type --buffer-size {burst} or more, or --no-replay"
            )
        if not 0 <= self.gamma <= 1:
            raise LessonError(f"got gamma {self.gamma}; a discount lies between 0 and 1: type --gamma 0.99")
        if not (0 <= self.epsilon_end <= 1 and 0 <= self.epsilon_start <= 1):
            raise LessonError(
                f"got epsilon {self.epsilon_start} to {self.epsilon_end}; a probability lies between 0 and 1: type "
                "--epsilon-start 1 --epsilon-end 0.05"
            )
        if not 0 <= self.epsilon_fraction <= 1:
            raise LessonError(
                f"got the epsilon fraction {self.epsilon_fraction}; it is a part of the training, between 0 and 1: "
                "type --epsilon-fraction 0.16"
            )
        if not 0 < self.target_step <= 1:
            raise LessonError(
                f"got the target step {self.target_step}; the target goes a part of the way, above 0 and at most 1: "
                "type --target-step 0.01, or --target-step 1 to copy"
            )


def td_targets(target: QNetwork, online: QNetwork, batch: dict[str, Tensor], *, gamma: float, double: bool) -> Tensor:
    """(N,) r + gamma * Q_target(s', a'), without the second term where terminated; no gradient.

    a' is the target network's best action, or with `double` the online network's: the best of noisy numbers is too
    high on average, and two networks seldom err on the same action.
    """
    with torch.no_grad():
        priced = target(batch["next_observations"])
        chosen = online(batch["next_observations"]) if double else priced
        next_values = priced.gather(1, chosen.argmax(1, keepdim=True)).squeeze(1)
        return batch["rewards"] + gamma * torch.where(batch["terminated"], 0.0, next_values)


def dqn_loss(online: QNetwork, batch: dict[str, Tensor], targets: Tensor, kind: Loss) -> tuple[Tensor, Tensor]:
    """The mean loss, half the square of the TD error (Huber: linear beyond 1), and the mean Q of the actions taken."""
    taken = online(batch["observations"]).gather(1, batch["actions"].unsqueeze(1)).squeeze(1)
    if kind == "huber":
        return nn.functional.smooth_l1_loss(taken, targets), taken.detach().mean()
    return 0.5 * nn.functional.mse_loss(taken, targets), taken.detach().mean()


def tensors_of(transitions: Transitions) -> dict[str, Tensor]:
    """The columns as tensors, by name."""
    return {name: torch.from_numpy(column) for name, column in vars(transitions).items()}


class Trainer:
    """One Q-network in training: its streams, its memory, its target and its chance."""

    def __init__(self, env_id: str, settings: Settings, seed: int, options: dict[str, Any]) -> None:
        torch.manual_seed(seed)
        self._settings = settings
        self._generator = np.random.default_rng(seed)
        self.streams = VectorStreams(make_vector(env_id, settings.num_envs, **options), seed)
        self.policy = q_network_for(self.streams.env, env_id, settings.hidden)
        self._target = QNetwork(**self.policy.shape)
        self._target.load_state_dict(self.policy.state_dict())
        self._optimizer = torch.optim.Adam(self.policy.parameters(), settings.learning_rate, fused=True)
        burst = settings.num_envs * settings.rollout_length
        self.buffer = ReplayBuffer(settings.buffer_size if settings.replay else burst, self.policy.shape["num_inputs"])
        self._schedule = Schedule(
            settings.epsilon_start, settings.epsilon_end, "linear", max(settings.epsilon_fraction, 1e-9)
        )
        self._epsilon = 1.0
        self._warm_up: list[Transitions] = []
        self._yardstick: Yardstick | None = None
        self.num_gradient_steps = 0

    def iterate(self, progress: float) -> dict[str, float]:
        """A burst of steps in the environment and, after the warm-up, a burst of gradient steps."""
        settings = self._settings
        warm = self.streams.num_steps >= settings.learning_starts
        self._epsilon = self.epsilon(progress)
        seen = transitions_of(self.streams.collect(self._act, settings.rollout_length))
        self.buffer.add(seen)
        if not warm:
            self._warm_up.append(seen)
            return {"epsilon": self._epsilon}
        if self._yardstick is None:
            self._yardstick = yardstick_of(joined(self._warm_up or [seen]), self._generator)
        if settings.anneal:
            self._optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - progress)
        figures = self._learn()
        return {"epsilon": self._epsilon, **figures, **forgetting_figures(self.policy, self.buffer, self._yardstick)}

    def fits(self) -> bool:
        """Whether one more burst stays within the budget."""
        return rollout_fits(self.streams, self._settings)

    def epsilon(self, progress: float) -> float:
        """Probability of a random action."""
        if not self._settings.exploration:
            return 0.0
        return 1.0 if self.streams.num_steps < self._settings.learning_starts else self._schedule(progress)

    def _learn(self) -> dict[str, float]:
        settings, losses, values = self._settings, [], []
        # One draw for the whole burst: the same chance for every transition, in a tenth of the time.
        drawn = tensors_of(self.buffer.sample(settings.num_gradient_steps * settings.batch_size, self._generator))
        parts = [column.split(settings.batch_size) for column in drawn.values()]
        for columns in zip(*parts, strict=True):
            loss, value = self._gradient_step(dict(zip(drawn, columns, strict=True)))
            losses.append(loss)
            values.append(value)
        return {"td_loss": float(torch.stack(losses).mean()), "mean_q": float(torch.stack(values).mean())}

    def _gradient_step(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        settings = self._settings
        target = self._target if settings.target_network else self.policy
        targets = td_targets(target, self.policy, batch, gamma=settings.gamma, double=settings.double)
        loss, value = dqn_loss(self.policy, batch, targets, settings.loss)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), settings.max_grad_norm)
        self._optimizer.step()
        self.num_gradient_steps += 1
        if self.num_gradient_steps % settings.target_update_interval == 0:
            self._follow()
        return loss.detach(), value

    @torch.no_grad()
    def _follow(self) -> None:
        for behind, ahead in zip(self._target.parameters(), self.policy.parameters(), strict=True):
            behind.lerp_(ahead, self._settings.target_step)

    def _act(self, observations: NDArray[np.float32]) -> NDArray[Any]:
        return epsilon_greedy_actions(self.policy.rows(observations), self._epsilon, self._generator)


def train(env_id: str, settings: Settings, seed: int, **how: Unpack[How]) -> Result[QNetwork]:
    """Train one Q-network; `how` may give `options`, `on_point` and `stop_at`, see `classic.training_runs.How`."""
    return run_training(Trainer, env_id, settings, seed, **how)
