"""Exact values against the optima that are known for Gymnasium's tables, and against playing."""

from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import pytest

from classic import dynamic_programming
from classic.dynamic_programming import (
    action_values,
    best_policy_with_clock,
    best_return_with_clock,
    epsilon_greedy_policy,
    expected_return,
    greedy_policy,
    reachable_states,
    value_iteration,
)
from classic.errors import LessonError
from classic.tabular_model import TabularModel, tabular_model
from classic.what_is_rl import ClockAgent

model = cache(tabular_model)


def anything(table: TabularModel) -> np.ndarray:
    return np.full((table.num_states, table.num_actions), 1 / table.num_actions)


# Mean return of the greedy policy of value iteration, by gamma: exact optima published with the course's reference.
GREEDY_RETURNS = [
    ("FrozenLake-v1", 0.95, 0.729766),
    ("FrozenLake-v1", 0.99, 0.740165),
    ("FrozenLake8x8-v1", 0.95, 0.738576),
    ("FrozenLake8x8-v1", 0.99, 0.862955),
    ("FrozenLake8x8-v1", 0.995, 0.893568),
    ("Taxi-v4", 0.99, 7.93),
    ("CliffWalking-v1", 0.99, -13.0),
]


@pytest.mark.parametrize(("env_id", "gamma", "expected"), GREEDY_RETURNS)
def test_greedy_policy_of_value_iteration_earns_what_is_published(env_id: str, gamma: float, expected: float) -> None:
    policy = greedy_policy(value_iteration(model(env_id), gamma))
    assert expected_return(model(env_id), policy) == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize(
    ("env_id", "expected"), [("FrozenLake-v1", 0.744190), ("FrozenLake8x8-v1", 0.913220), ("Taxi-v4", 7.93)]
)
def test_a_clock_earns_what_is_published(env_id: str, expected: float) -> None:
    assert best_return_with_clock(model(env_id)) == pytest.approx(expected, abs=6e-7)


@pytest.mark.parametrize(
    ("env_id", "expected"), [("FrozenLake-v1", 0.013940), ("FrozenLake8x8-v1", 0.001901), ("Taxi-v4", -771.1)]
)
def test_random_policy_earns_what_is_published(env_id: str, expected: float) -> None:
    assert expected_return(model(env_id), anything(model(env_id))) == pytest.approx(expected, rel=4e-4)


@pytest.mark.parametrize(("epsilon", "expected"), [(0.1, -20.708), (0.05, -17.519), (0.01, -15.441)])
def test_best_exploring_policy_on_the_cliff(epsilon: float, expected: float) -> None:
    q = value_iteration(model("CliffWalking-v1"), 1.0, epsilon=epsilon)
    online = expected_return(model("CliffWalking-v1"), epsilon_greedy_policy(q, epsilon))
    assert online == pytest.approx(expected, abs=6e-4)
    assert expected_return(model("CliffWalking-v1"), greedy_policy(q)) == pytest.approx(-15)


def test_frozen_lake_without_a_time_limit_is_won_14_times_in_17() -> None:
    q = value_iteration(model("FrozenLake-v1"), 1.0)
    assert model("FrozenLake-v1").start @ q.max(-1) == pytest.approx(14 / 17, abs=1e-9)


def test_the_value_of_the_start_is_not_the_chance_to_win() -> None:
    q = value_iteration(model("FrozenLake-v1"), 0.99)
    assert q[0].max() == pytest.approx(0.542026, abs=6e-7)


def test_the_map_of_8x8_alone_keeps_the_limit_of_100_steps() -> None:
    table = tabular_model("FrozenLake-v1", map_name="8x8")
    assert table.max_episode_steps == 100
    assert best_return_with_clock(table) == pytest.approx(0.640719, abs=6e-7)


def test_the_slippery_cliff() -> None:
    q = value_iteration(model("CliffWalkingSlippery-v1"), 1.0)
    best = expected_return(model("CliffWalkingSlippery-v1"), greedy_policy(q))
    assert best == pytest.approx(-64.709, abs=6e-4)


def test_action_values_do_not_look_behind_a_termination() -> None:
    table = model("CliffWalking-v1")
    values = np.full(table.num_states, 1000.0)
    beside_the_goal = 35
    assert action_values(table, values, 1.0)[beside_the_goal, 2] == -1  # down, into the goal
    assert action_values(table, values, 1.0)[beside_the_goal, 0] == 999  # up


def test_walking_for_ever_costs_without_end() -> None:
    table = model("CliffWalking-v1")
    always_up = np.eye(4)[np.zeros(48, dtype=int)]
    assert expected_return(table, always_up) == -np.inf


def test_a_time_limit_counts_exactly_its_steps() -> None:
    always_up = np.eye(4)[np.zeros(48, dtype=int)]
    assert expected_return(tabular_model("CliffWalking-v1", max_episode_steps=7), always_up) == -7


def test_limit_and_linear_system_agree_when_the_limit_is_never_met() -> None:
    policy = epsilon_greedy_policy(value_iteration(model("CliffWalking-v1"), 0.99), 0.1)
    long = tabular_model("CliffWalking-v1", max_episode_steps=3000)
    assert expected_return(model("CliffWalking-v1"), policy) == pytest.approx(expected_return(long, policy), abs=1e-6)


def test_the_clock_policy_earns_what_backward_induction_says() -> None:
    """Forward in time, as a population over states: an independent way to the same number."""
    table = model("FrozenLake-v1")
    actions = best_policy_with_clock(table)
    population, total = table.start.copy(), 0.0
    for left in range(100, 0, -1):
        chosen = (np.arange(16), actions[left])
        flow = population[:, None] * table.probabilities[chosen]
        total += float((flow * table.rewards[chosen]).sum())
        population = np.zeros(16)
        np.add.at(population, table.next_states[chosen], np.where(table.terminated[chosen], 0.0, flow))
    assert total == pytest.approx(best_return_with_clock(table), abs=1e-12)


# --- time limits far beyond what can be looked at step by step -------------------------------------------------------

BILLION = 1_000_000_000


@pytest.fixture
def at_most_50_000_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks at every step of a billion fails, and does not hang."""
    numbers = count()

    def counted(*args: Any) -> Any:
        assert next(numbers) < 50_000, "one sweep a step"
        return action_values(*args)

    monkeypatch.setattr(dynamic_programming, "action_values", counted)


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "FrozenLake8x8-v1", "Taxi-v4", "CliffWalking-v1"])
@pytest.mark.usefixtures("at_most_50_000_sweeps")
def test_a_limit_that_is_never_met_is_none(env_id: str) -> None:
    plain = replace(model(env_id), max_episode_steps=None)
    endless = replace(plain, max_episode_steps=BILLION)
    q = value_iteration(plain, 0.99)
    for policy in (greedy_policy(q), epsilon_greedy_policy(q, 0.1), anything(plain)):
        assert expected_return(endless, policy) == pytest.approx(expected_return(plain, policy), rel=1e-9)
    best = float(plain.start @ value_iteration(plain, 1.0).max(-1))
    assert best_return_with_clock(endless) == pytest.approx(best, abs=1e-9)


@pytest.mark.usefixtures("at_most_50_000_sweeps")
def test_a_limit_is_met_however_far_it_is() -> None:
    always_up = np.eye(4)[np.zeros(48, dtype=int)]
    assert expected_return(tabular_model("CliffWalking-v1", max_episode_steps=BILLION), always_up) == -BILLION
    odd = tabular_model("CliffWalking-v1", max_episode_steps=1_234_567)
    assert expected_return(odd, always_up) == pytest.approx(-1_234_567, abs=1e-3)


def test_many_steps_at_once_are_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    table = replace(model("FrozenLake8x8-v1"), max_episode_steps=200)
    one_by_one = expected_return(table, anything(table))
    monkeypatch.setattr(dynamic_programming, "MAX_STEPS_OF_POLICY", 3)
    assert expected_return(table, anything(table)) == pytest.approx(one_by_one, rel=1e-12)


@pytest.mark.usefixtures("at_most_50_000_sweeps")
def test_the_clock_is_looked_at_while_it_matters() -> None:
    """A billion rows of 48 actions would not fit into memory."""
    endless = replace(model("CliffWalking-v1"), max_episode_steps=BILLION)
    actions = best_policy_with_clock(endless)
    assert len(actions) < 100
    assert expected_return(endless, np.eye(4)[actions[-1]]) == -13
    agent = ClockAgent(best_policy_with_clock(model("FrozenLake-v1")), 100)
    assert [agent.act(14, step) for step in (0, 99)] == [agent.actions[100, 14], agent.actions[1, 14]]
    assert ClockAgent(actions, BILLION).act(36, 5) == actions[-1, 36]


@pytest.mark.usefixtures("at_most_50_000_sweeps")
def test_a_clock_that_always_matters_is_refused() -> None:
    always_paid = TabularModel("paid", *_one_state(reward=1.0), max_episode_steps=20_000)
    assert best_return_with_clock(always_paid) == 20_000
    with pytest.raises(LessonError, match=r"got a time limit of 1,000,000,000 steps.* --max-episode-steps 20000"):
        best_return_with_clock(replace(always_paid, max_episode_steps=BILLION))


def test_taxi_can_stand_in_400_states() -> None:
    assert reachable_states(model("Taxi-v4")).sum() == 400


def test_ties_are_shared() -> None:
    assert greedy_policy(np.array([[1.0, 1.0, 0.0, 0.0]])).tolist() == [[0.5, 0.5, 0.0, 0.0]]
    assert epsilon_greedy_policy(np.array([[1.0, 0.0]]), 0.1) == pytest.approx(np.array([[0.95, 0.05]]))


def test_what_never_comes_to_rest_is_refused() -> None:
    always_paid = TabularModel("paid", *_one_state(reward=1.0), max_episode_steps=None)
    with pytest.raises(LessonError, match=r"--gamma 0\.99"):
        value_iteration(always_paid, 1.0, max_sweeps=100)
    assert value_iteration(always_paid, 0.9)[0, 0] == pytest.approx(10)


def _one_state(reward: float) -> tuple[np.ndarray, ...]:
    shape = (1, 1, 1)
    return (
        np.ones(shape),
        np.zeros(shape, dtype=np.int64),
        np.full(shape, reward),
        np.zeros(shape, dtype=np.bool_),
        np.ones(1),
    )
