"""The transition table of a small environment as NumPy arrays: what dynamic programming and batched stepping need.

Gymnasium's toy-text environments carry their own dynamics in `env.unwrapped.P`. Reading it gives exact answers, which
a learner must not use, but a teacher should: how good is this policy, and how good could it be?

Left out: environments without a table (Blackjack, CartPole), and Taxi's fickle passenger, which `P` does not show.

    python -c "from classic.tabular_model import tabular_model; print(tabular_model('Taxi-v4').num_states)"
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classic.environments import make_environment
from classic.errors import LessonError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class TabularModel:
    """S states, A actions, at most K outcomes of an action; missing outcomes have probability 0."""

    env_id: str
    probabilities: Floats  # (S, A, K), each row sums to 1
    next_states: Integers  # (S, A, K)
    rewards: Floats  # (S, A, K)
    terminated: Bools  # (S, A, K) True where nothing is to come
    start: Floats  # (S,) probabilities of the first state
    max_episode_steps: int | None  # the time limit, None for none
    board: tuple[str, ...] = ()  # the map as rows of letters, for drawing; empty where the environment has none

    @property
    def num_states(self) -> int:
        return self.probabilities.shape[0]

    @property
    def num_actions(self) -> int:
        return self.probabilities.shape[1]


def tabular_model(env_id: str, *, max_episode_steps: int | None = None, **options: Any) -> TabularModel:
    """The table of the environment with this id; arguments as in `make_environment`.

    Raises:
        LessonError: the environment is unknown or has no table; the message says which lesson can learn it.
    """
    env = make_environment(env_id, max_episode_steps=max_episode_steps, **options)
    try:
        limit = max_episode_steps or (env.spec.max_episode_steps if env.spec else None)
        return model_of_table(env.unwrapped, env_id, limit)
    finally:
        env.close()


def model_of_table(env: Any, env_id: str, max_episode_steps: int | None) -> TabularModel:
    """The arrays of an unwrapped environment that has `P` and `initial_state_distrib`."""
    require_table(env, env_id)
    table = env.P
    num_states, num_actions = len(table), len(table[0])
    num_outcomes = max(len(table[state][action]) for state in table for action in table[state])
    shape = (num_states, num_actions, num_outcomes)
    probabilities, rewards = np.zeros(shape), np.zeros(shape)
    next_states, terminated = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    cells = ((state, action) for state in range(num_states) for action in range(num_actions))
    for cell in cells:
        for outcome, (probability, next_state, reward, ends) in enumerate(table[cell[0]][cell[1]]):
            place = (*cell, outcome)
            probabilities[place], rewards[place] = probability, reward
            next_states[place], terminated[place] = next_state, ends
    return TabularModel(
        env_id=env_id,
        probabilities=probabilities,
        next_states=next_states,
        rewards=rewards,
        terminated=terminated,
        start=np.asarray(env.initial_state_distrib, dtype=np.float64),
        max_episode_steps=max_episode_steps,
        board=board_of(env),
    )


def board_of(env: Any) -> tuple[str, ...]:
    """The map as rows of letters: Gymnasium's `desc`, or for the cliff S (start), C (cliff), G (goal) and F (free)."""
    if hasattr(env, "desc"):
        return tuple(b"".join(row).decode() for row in env.desc)
    if hasattr(env, "_cliff"):
        free = np.where(env._cliff, "C", "F")
        free[-1, 0], free[-1, -1] = "S", "G"
        return tuple("".join(row) for row in free)
    return ()


def require_table(env: Any, env_id: str) -> None:
    """Raise LessonError unless a Q-table can hold this environment and `P` tells all about it."""
    tables = "--env FrozenLake-v1, FrozenLake8x8-v1, Taxi-v4 or CliffWalking-v1"
    row_of_numbers = len(getattr(env.observation_space, "shape", None) or ()) == 1
    instead = f"python -m classic.ppo --env {env_id}" if row_of_numbers else tables
    if not hasattr(env.action_space, "n"):
        raise LessonError(
            f"{env_id} has the continuous actions {env.action_space}; a Q-table needs a number of separate actions: "
            f"type {instead}"
        )
    if not hasattr(env.observation_space, "n"):
        raise LessonError(
            f"{env_id} has the observations {env.observation_space}; a Q-table needs a number of separate states: "
            f"type {instead}"
        )
    if not hasattr(env, "P") or not hasattr(env, "initial_state_distrib"):
        raise LessonError(
            f"{env_id} does not show its transition probabilities (env.unwrapped.P), which this lesson needs to judge "
            f"a policy exactly: type {tables}"
        )
    if getattr(env, "fickle_passenger", False):
        raise LessonError(
            f"{env_id} was given fickle_passenger=True, which its table P does not show, so that an exact judgement "
            "would be wrong: leave the option out"
        )
