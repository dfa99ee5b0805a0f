"""The last transitions that were seen, to learn from again in random order.

Consecutive transitions resemble each other and come from the latest policy alone; a network that learns from those only
forgets the rest. Lin 1992; Mnih et al. 2015, "Human-level control through deep reinforcement learning".

Left out: priorities, n-step returns, storage on disk.

    python -m pytest tests/classic/test_replay_buffer.py
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classic.vector_rollouts import Bools, Floats, Rollout


@dataclass(frozen=True)
class Transitions:
    """N moves."""

    observations: Floats  # (N, D)
    actions: NDArray[Any]  # (N,) whole numbers
    rewards: Floats  # (N,)
    next_observations: Floats  # (N, D) reached, before any reset
    terminated: Bools  # (N,) nothing is to come; a time limit is not that, so truncation is not even stored

    def __len__(self) -> int:
        return len(self.rewards)

    def rows(self, index: Any) -> "Transitions":
        """Some of them; a copy where the index is an array."""
        return Transitions(*(column[index] for column in vars(self).values()))


def transitions_of(rollout: Rollout) -> Transitions:
    """The steps of a rollout, without the rows on which a stream only reset; those of each stream stay in order."""
    keep = rollout.is_step
    return Transitions(
        observations=rollout.observations[:, :-1][keep],
        actions=rollout.actions[keep],
        rewards=rollout.rewards[keep],
        # After an end the next column holds the last observation of that episode, not the first of the new one.
        next_observations=rollout.observations[:, 1:][keep],
        terminated=rollout.terminated[keep],
    )


def joined(parts: list[Transitions]) -> Transitions:
    """One after the other."""
    return Transitions(*(np.concatenate(columns) for columns in zip(*(vars(part).values() for part in parts))))  # noqa: B905


class ReplayBuffer:
    """A ring of at most `capacity` transitions; the oldest make room."""

    def __init__(self, capacity: int, num_inputs: int) -> None:
        self.capacity = capacity
        self._ring = Transitions(
            observations=np.zeros((capacity, num_inputs), dtype=np.float32),
            actions=np.zeros(capacity, dtype=np.int64),
            rewards=np.zeros(capacity, dtype=np.float32),
            next_observations=np.zeros((capacity, num_inputs), dtype=np.float32),
            terminated=np.zeros(capacity, dtype=np.bool_),
        )
        self.num_seen = 0

    def __len__(self) -> int:
        return min(self.num_seen, self.capacity)

    def add(self, transitions: Transitions) -> None:
        """Put them in, over the oldest; of more than fit, the last are kept."""
        kept = transitions.rows(slice(max(0, len(transitions) - self.capacity), None))
        self.num_seen += len(transitions) - len(kept)
        places = np.arange(self.num_seen, self.num_seen + len(kept)) % self.capacity
        for column, values in zip(vars(self._ring).values(), vars(kept).values(), strict=True):
            column[places] = values
        self.num_seen += len(kept)

    def sample(self, count: int, generator: np.random.Generator) -> Transitions:
        """Copies of `count` of them, each as likely as the other, with replacement."""
        return self._ring.rows(generator.integers(len(self), size=count))

    def terminal_fraction(self) -> float:
        """How many of them end an episode. Once the pole stays up few are left, and with them the price of a fall."""
        return float(self._ring.terminated[: len(self)].mean())
