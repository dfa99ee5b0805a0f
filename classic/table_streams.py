"""Many copies of a tabular environment, stepped at once by looking their moves up in arrays.

A Python loop over `env.step` does about 85,000 steps a second on FrozenLake; looking up 256 streams at once does some
millions. The moves have the probabilities of `env.unwrapped.P`, so the learner sees the same problem.

A stream that ends starts anew in the same step, and what is returned is the state that was reached before that. So
there are no reset rows that look like moves (Gymnasium's own vector environments have them by default).

Left out: observations other than the state number, and the random numbers of `env.reset(seed=...)`: all chance comes
from the generator that is given.

    python -m pytest tests/classic/test_table_streams.py
"""

from dataclasses import dataclass

import numpy as np

from classic.tabular_model import Bools, Floats, Integers, TabularModel


@dataclass(frozen=True)
class Moves:
    """What one step of N streams gave."""

    next_states: Integers  # (N,) reached, before any reset
    rewards: Floats  # (N,)
    terminated: Bools  # (N,) nothing is to come
    truncated: Bools  # (N,) cut off by the time limit; never together with terminated


class TableStreams:
    """N streams of episodes; `states` (N,) is where each stands now."""

    def __init__(self, model: TabularModel, num_streams: int, generator: np.random.Generator) -> None:
        self._generator = generator
        self._limit = model.max_episode_steps
        self._num_actions, self._num_outcomes = model.probabilities.shape[1:]
        # Thresholds for one uniform number. The last outcome that can happen gets 1, not 0.9999999999999999.
        thresholds = model.probabilities.cumsum(-1).reshape(-1, self._num_outcomes)
        self._thresholds = np.where(thresholds > 1 - 1e-9, 1.0, thresholds)[:, :-1]
        self._next_states = model.next_states.ravel()
        self._rewards = model.rewards.ravel()
        self._terminated = model.terminated.ravel()
        self._start_thresholds = np.where((start := model.start.cumsum()) > 1 - 1e-9, 1.0, start)
        self.states = self._first_states(num_streams)
        self._ages = np.zeros(num_streams, dtype=np.int64)

    def step(self, actions: Integers) -> Moves:
        """Take one action in each stream, (N,), and start those anew that ended."""
        cells = self.states * self._num_actions + actions
        outcomes = cells * self._num_outcomes
        if self._num_outcomes > 1:
            chance = self._generator.random((len(cells), 1))
            outcomes += (chance >= self._thresholds[cells]).sum(-1)
        next_states, terminated = self._next_states[outcomes], self._terminated[outcomes]
        self._ages += 1
        truncated = ~terminated & (self._ages >= self._limit) if self._limit else np.zeros_like(terminated)
        self.states = next_states.copy()
        self._start_anew(np.flatnonzero(terminated | truncated))
        return Moves(next_states, self._rewards[outcomes], terminated, truncated)

    def _start_anew(self, ended: Integers) -> None:
        if len(ended):
            self.states[ended] = self._first_states(len(ended))
            self._ages[ended] = 0

    def _first_states(self, count: int) -> Integers:
        return np.searchsorted(self._start_thresholds, self._generator.random(count), side="right")
