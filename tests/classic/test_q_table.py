"""The equations of temporal-difference learning: numbers by hand, identities, and shares of random choices."""

import numpy as np
import pytest

from classic.q_table import QTable, bootstrap_values, epsilon_greedy_actions, td_targets
from classic.table_streams import Moves

ROWS = np.array([[1.0, 3.0, 2.0, 0.0]])


def test_bootstraps_by_hand() -> None:
    taken = np.array([2])
    assert bootstrap_values("q_learning", ROWS, taken, 0.2).tolist() == [3.0]
    assert bootstrap_values("sarsa", ROWS, taken, 0.2).tolist() == [2.0]
    # 0.8 of 3, and 0.2 of the mean 1.5
    assert bootstrap_values("expected_sarsa", ROWS, taken, 0.2) == pytest.approx(2.7)


def test_without_exploration_expected_sarsa_is_q_learning() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 6))
    taken = rows.argmax(-1)
    best = bootstrap_values("q_learning", rows, taken, 0.0)
    assert bootstrap_values("expected_sarsa", rows, taken, 0.0) == pytest.approx(best)
    assert bootstrap_values("sarsa", rows, taken, 0.0) == pytest.approx(best)


def test_expected_sarsa_is_the_mean_of_sarsa() -> None:
    generator = np.random.default_rng(0)
    rows = np.tile(ROWS, (100_000, 1))
    taken = epsilon_greedy_actions(rows, 0.3, generator)
    mean = bootstrap_values("sarsa", rows, taken, 0.3).mean()
    assert mean == pytest.approx(bootstrap_values("expected_sarsa", ROWS, taken[:1], 0.3)[0], abs=0.015)


def move(*, terminated: bool, truncated: bool) -> Moves:
    return Moves(np.array([1]), np.array([1.0]), np.array([terminated]), np.array([truncated]))


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        (False, False, 0.298),  # 0.1 * (1 + 0.99 * 2)
        (True, False, 0.1),  # nothing is to come
        (False, True, 0.298),  # cut off: the future counts all the same
    ],
)
def test_one_update_by_hand(terminated: bool, truncated: bool, expected: float) -> None:
    table = QTable((2, 2))
    table.q[1] = [0.0, 2.0]
    moves = move(terminated=terminated, truncated=truncated)
    table.update(
        np.array([0]), np.array([1]), moves, np.array([0]), method="q_learning", gamma=0.99, epsilon=0.1, alpha=0.1
    )
    assert table.q == pytest.approx(np.array([[0.0, expected], [0.0, 2.0]]))
    assert table.visits.tolist() == [[0, 1], [0, 0]]


def test_targets_never_read_what_follows_a_termination() -> None:
    targets = td_targets(np.array([1.0]), np.array([True]), np.array([np.nan]), 0.99)
    assert targets.tolist() == [1.0]


def test_streams_that_meet_move_as_far_as_one_after_the_other() -> None:
    together, apart = QTable((3, 2), 5.0), QTable((3, 2), 5.0)
    cell = np.array([1])
    together.move_towards(np.ones(7, dtype=int), np.zeros(7, dtype=int), np.full(7, 2.0), 0.3)
    for _ in range(7):
        apart.move_towards(cell, np.array([0]), np.array([2.0]), 0.3)
    assert together.q == pytest.approx(apart.q)
    assert together.visits.tolist() == apart.visits.tolist()


def test_many_streams_never_overshoot_their_mean() -> None:
    table = QTable((1, 1))
    table.move_towards(np.zeros(500, dtype=int), np.zeros(500, dtype=int), np.full(500, 1.0), 0.1)
    assert table.q[0, 0] == pytest.approx(1.0)


def test_one_over_n_is_the_mean_of_the_targets() -> None:
    table, targets = QTable((1, 1)), [4.0, 1.0, 7.0]
    for target in targets:
        sizes = table.step_sizes("one_over_n", 0.1, 0.9)
        table.move_towards(np.array([0]), np.array([0]), np.array([target]), sizes)
    assert table.q[0, 0] == pytest.approx(4.0)


def test_rescaled_step_sizes_fall_slower_the_longer_the_horizon() -> None:
    table = QTable((1, 1))
    table.visits[:] = 100
    assert table.step_sizes("rescaled", 0.1, 0.99) == pytest.approx(0.5)
    assert table.step_sizes("rescaled", 0.1, 0.0) == pytest.approx(table.step_sizes("one_over_n", 0.1, 0.0))


def shares(rows: list[float], epsilon: float) -> np.ndarray:
    many = np.tile(rows, (100_000, 1))
    actions = epsilon_greedy_actions(many, epsilon, np.random.default_rng(0))
    return np.bincount(actions, minlength=len(rows)) / 100_000


def test_equally_good_actions_are_equally_likely() -> None:
    """The trap of plain argmax: an empty table that always goes left."""
    assert shares([0.0, 0.0, 0.0, 0.0], 0.0) == pytest.approx(np.full(4, 0.25), abs=0.01)
    assert shares([0.0, 1.0, 1.0, 0.0], 0.0) == pytest.approx(np.array([0, 0.5, 0.5, 0]), abs=0.01)


@pytest.mark.parametrize("epsilon", [0.0, 0.2, 1.0])
def test_exploration_has_its_share(epsilon: float) -> None:
    others = epsilon / 4
    expected = np.array([others, others, 1 - 3 * others, others])
    assert shares([0.0, 1.0, 2.0, -1.0], epsilon) == pytest.approx(expected, abs=0.01)
