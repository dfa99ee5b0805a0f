"""Streams by table look-up against Gymnasium's own environments."""

import gymnasium as gym
import numpy as np
import pytest

from classic.table_streams import TableStreams
from classic.tabular_model import tabular_model


@pytest.mark.parametrize("env_id", ["Taxi-v4", "CliffWalking-v1"])
def test_moves_are_those_of_the_environment(env_id: str) -> None:
    """Without chance in the moves, the same actions from the same start lead to the same states and rewards."""
    table = tabular_model(env_id)
    generator = np.random.default_rng(0)
    streams = TableStreams(table, 4, generator)
    envs = [gym.make(env_id).unwrapped for _ in range(4)]
    for env, state in zip(envs, streams.states, strict=True):
        env.reset()
        env.s = int(state)
    for _ in range(150):  # below Taxi's limit of 200
        actions = generator.integers(table.num_actions, size=4)
        moves = streams.step(actions)
        for index, env in enumerate(envs):
            state, reward, terminated, _, _ = env.step(int(actions[index]))
            assert (state, reward, terminated) == (
                moves.next_states[index],
                moves.rewards[index],
                moves.terminated[index],
            )
            if terminated:
                env.s = int(streams.states[index])


def test_slips_have_the_probabilities_of_the_table() -> None:
    table = tabular_model("FrozenLake-v1")
    streams = TableStreams(table, 60_000, np.random.default_rng(0))
    reached = streams.step(np.full(60_000, 2)).next_states  # right, from the start in the upper left corner
    # Right is square 1, down 4, up stays at 0: a third each. Standard error 0.002.
    assert np.bincount(reached, minlength=16)[[0, 1, 4]] / 60_000 == pytest.approx(np.full(3, 1 / 3), abs=0.008)


def test_starts_have_the_probabilities_of_the_table() -> None:
    table = tabular_model("Taxi-v4")
    counts = np.bincount(TableStreams(table, 300_000, np.random.default_rng(0)).states, minlength=500)
    assert (counts > 0).sum() == 300
    assert not counts[table.start == 0].any()
    assert counts[table.start > 0] == pytest.approx(np.full(300, 1000), abs=160)  # 5 standard errors


def test_a_limit_cuts_off_and_says_so() -> None:
    table = tabular_model("CliffWalking-v1", max_episode_steps=3)
    streams = TableStreams(table, 2, np.random.default_rng(0))
    seen = [streams.step(np.zeros(2, dtype=int)) for _ in range(4)]  # up
    assert [moves.truncated.tolist() for moves in seen] == [[False] * 2] * 2 + [[True] * 2, [False] * 2]
    # What the last move reached is told, though the stream stands at the start again.
    assert seen[2].next_states.tolist() == [0, 0]
    assert seen[3].next_states.tolist() == [24, 24]


def test_an_end_on_the_last_step_is_a_termination() -> None:
    shortest = [0, *[1] * 11, 2]  # up, along the edge, down
    table = tabular_model("CliffWalking-v1", max_episode_steps=len(shortest))
    streams = TableStreams(table, 1, np.random.default_rng(0))
    moves = [streams.step(np.array([action])) for action in shortest]
    assert moves[-1].terminated.all()
    assert not moves[-1].truncated.any()
    assert streams.states.tolist() == [36]


def test_what_was_returned_is_not_changed_by_the_next_start() -> None:
    table = tabular_model("CliffWalking-v1", max_episode_steps=1)
    streams = TableStreams(table, 1, np.random.default_rng(0))
    states = streams.states
    moves = streams.step(np.array([0]))
    streams.step(np.array([0]))
    assert states.tolist() == [36]
    assert moves.next_states.tolist() == [24]
