"""The equations of tabular temporal-difference learning, on N moves at once.

Left out: the loop over steps and the exploration schedule (`classic.q_learning`).

    python -m pytest tests/classic/test_q_table.py
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from classic.dynamic_programming import epsilon_greedy_policy
from classic.table_streams import Moves
from classic.tabular_model import Bools, Floats, Integers

Method = Literal["q_learning", "sarsa", "expected_sarsa"]
StepSize = Literal["schedule", "one_over_n", "rescaled"]


def epsilon_greedy_actions(rows: NDArray[np.floating[Any]], epsilon: float, generator: np.random.Generator) -> Integers:
    """With probability epsilon any action, else one of the best, each of several equally good ones as likely.

    The trap: plain `argmax` takes the first of equals, so that an agent with an empty table walks to the left for ever
    and, on FrozenLake, never sees a reward.

    Args:
        rows: (N, A) Q-values of the states that the N streams stand in.
        epsilon: probability to explore.
        generator: of all chance.

    Returns:
        (N,) actions.
    """
    num_streams, num_actions = rows.shape
    lottery = generator.random(rows.shape)
    greedy = np.where(rows == rows.max(-1, keepdims=True), lottery, -1.0).argmax(-1)
    # One number decides whether to explore and, where it does, which action: below epsilon it is uniform again.
    explore = generator.random(num_streams)
    any_action = np.minimum(explore * (num_actions / max(epsilon, 1e-300)), num_actions - 1).astype(np.int64)
    return np.where(explore < epsilon, any_action, greedy)


def bootstrap_values(method: Method, rows: Floats, actions: Integers, epsilon: float) -> Floats:
    """What the state that was reached is taken to be worth: Sutton and Barto 2018, equations 6.8, 6.7 and 6.9.

    Args:
        method: `q_learning` takes the best action, `sarsa` the one that will be taken, `expected_sarsa` the mean under
            epsilon-greedy.
        rows: (N, A) Q-values of the states that were reached.
        actions: (N,) actions that will be taken there; read by `sarsa` only.
        epsilon: of the behaviour; read by `expected_sarsa` only.

    Returns:
        (N,) in units of return.
    """
    if method == "q_learning":
        return np.asarray(rows.max(-1))
    if method == "sarsa":
        return np.asarray(rows[np.arange(len(rows)), actions])
    return np.asarray((epsilon_greedy_policy(rows, epsilon) * rows).sum(-1))


def td_targets(rewards: Floats, terminated: Bools, bootstraps: Floats, gamma: float) -> Floats:
    """r + gamma * bootstrap, without the bootstrap where terminated. A truncated move keeps it. All (N,)."""
    return rewards + gamma * np.where(terminated, 0.0, bootstraps)


class QTable:
    """Q(s, a) as `q` (S, A), with the number of moves that each entry has seen as `visits` (S, A)."""

    def __init__(self, shape: tuple[int, int], initial_value: float = 0.0) -> None:
        self.q: Floats = np.full(shape, initial_value)
        self.visits: Integers = np.zeros(shape, dtype=np.int64)

    def move_towards(
        self, states: Integers, actions: Integers, targets: Floats, step_sizes: Floats | float
    ) -> Integers:
        """Q(s, a) <- Q(s, a) + alpha * (target - Q(s, a)) for N moves.

        Streams may meet in one entry. Then the entry moves towards the mean of their n targets by 1 - (1 - alpha)^n: as
        far as n moves one after the other with that mean, in no particular order, and never past it. (Adding up n
        corrections would move by n * alpha, which overshoots when many streams meet.)

        Args:
            states: (N,).
            actions: (N,).
            targets: (N,) in units of return.
            step_sizes: alpha, one number or (S, A).

        Returns:
            (M,) the flat entries that moved.
        """
        cells = states * self.q.shape[1] + actions
        counts = np.bincount(cells, minlength=self.q.size)
        sums = np.bincount(cells, weights=targets, minlength=self.q.size)
        moved = np.flatnonzero(counts)
        num_moves = counts[moved]
        alpha = step_sizes if isinstance(step_sizes, float) else step_sizes.ravel()[moved]
        flat = self.q.reshape(-1)
        flat[moved] += (1 - (1 - alpha) ** num_moves) * (sums[moved] / num_moves - flat[moved])
        self.visits.reshape(-1)[moved] += num_moves
        return moved

    def update(
        self,
        states: Integers,
        actions: Integers,
        moves: Moves,
        next_actions: Integers,
        *,
        method: Method,
        gamma: float,
        epsilon: float,
        alpha: float,
        step_size: StepSize = "schedule",
    ) -> None:
        """One step of learning from N moves: `td_targets` with the bootstrap of the method."""
        rows = self.q[moves.next_states]
        bootstraps = bootstrap_values(method, rows, next_actions, epsilon)
        targets = td_targets(moves.rewards, moves.terminated, bootstraps, gamma)
        self.move_towards(states, actions, targets, self.step_sizes(step_size, alpha, gamma))

    def step_sizes(self, step_size: StepSize, alpha: float, gamma: float) -> Floats | float:
        """alpha, or (S, A) step sizes that fall with the visits.

        `one_over_n` is 1 / n at the n-th visit: the targets' plain mean, in which the first, wrong bootstraps weigh as
        much as the last. `rescaled` is 1 / (1 + (1 - gamma) n), Wainwright 2019, arXiv 1905.06265: it forgets them.
        """
        if step_size == "one_over_n":
            return np.asarray(1.0 / (1.0 + self.visits), dtype=np.float64)
        if step_size == "rescaled":
            return np.asarray(1.0 / (1.0 + (1.0 - gamma) * self.visits), dtype=np.float64)
        return alpha
