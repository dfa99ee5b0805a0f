"""Gymnasium's vector environments reset in three ways: the same episodes, and the same advantages to ten digits.

The lessons read streams that reset on the next step and refuse the other two (`require_learnable`); here the rows of
each mode are laid out as its documentation says, to see that our advantages do not depend on it.
"""

from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from classic.errors import LessonError
from classic.vector_rollouts import VectorStreams, require_learnable, seed_or_seeds
from rlhf_lab.functional import gae
from tests.classic.probes import MAGIC, register_probes

register_probes()
GAMMA, LAMBDA = 0.97, 0.9
NUM_COLUMNS = 120


class Rows(NamedTuple):
    """(B, T) each, double precision; `is_step` is False where a row is no transition."""

    seen: np.ndarray
    rewards: np.ndarray
    reached: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    is_step: np.ndarray


def vector_of(mode: AutoresetMode) -> gym.vector.VectorEnv:
    return gym.make_vec("ProbeSentinel-v0", 3, "sync", {"autoreset_mode": mode})


def next_step() -> Rows:
    """As the lessons collect them: the row after an end is there, and is no step."""
    rollout = VectorStreams(vector_of(AutoresetMode.NEXT_STEP), 0).collect(lambda seen: np.zeros(3, int), NUM_COLUMNS)
    observations = rollout.observations[..., 0].astype(np.float64)
    ends = (rollout.terminated, rollout.truncated, rollout.is_step)
    return Rows(observations[:, :-1], rollout.rewards.astype(np.float64), observations[:, 1:], *ends)


def same_step() -> Rows:
    """Every row is a step; the last observation of an episode hides in `info`."""
    env = vector_of(AutoresetMode.SAME_STEP)
    seen, columns = env.reset(seed=seed_or_seeds(env, 0))[0], []
    for _ in range(NUM_COLUMNS):
        after, rewards, terminated, truncated, info = env.step(np.zeros(3, int))
        reached = after.copy()
        for index in np.flatnonzero(terminated | truncated):
            reached[index] = info["final_obs"][index]
        columns.append((seen, rewards, reached, terminated, truncated))
        seen = after
    return in_columns(columns)


def disabled() -> Rows:
    """Every row is a step, and whoever collects them resets what has ended."""
    env = vector_of(AutoresetMode.DISABLED)
    seen, columns = env.reset(seed=seed_or_seeds(env, 0))[0].copy(), []
    for _ in range(NUM_COLUMNS):
        reached, rewards, terminated, truncated, _ = env.step(np.zeros(3, int))
        columns.append((seen, rewards, reached.copy(), terminated.copy(), truncated.copy()))
        ended = terminated | truncated
        seen = (env.reset(options={"reset_mask": ended})[0] if ended.any() else reached).copy()
    return in_columns(columns)


def in_columns(columns: list[tuple[np.ndarray, ...]]) -> Rows:
    seen, rewards, reached, terminated, truncated = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    # Rewards as the rollouts keep them, so that nothing but the layout can make a difference.
    numbers = [column.astype(np.float32).astype(np.float64) for column in (seen[..., 0], rewards, reached[..., 0])]
    return Rows(*numbers, terminated, truncated, np.ones_like(terminated))


def value(observations: np.ndarray | float) -> np.ndarray:
    """Any function of what is seen."""
    return np.asarray(3 * np.sin(observations))


def advantages_of(rows: Rows) -> list[list[float]]:
    """Of the steps of each stream."""
    found = gae(
        torch.from_numpy(rows.rewards),
        torch.from_numpy(value(rows.seen)),
        torch.from_numpy(value(rows.reached)),
        terminated=torch.from_numpy(np.ascontiguousarray(rows.terminated)),
        truncated=torch.from_numpy(np.ascontiguousarray(rows.truncated)),
        gamma=GAMMA,
        gae_lambda=LAMBDA,
    )
    return [row[torch.from_numpy(keep)].tolist() for row, keep in zip(found, rows.is_step, strict=True)]


def brute_force(rows: Rows, index: int) -> list[float]:
    """The sum over all later steps of the episode, for each step: O(T^2)."""
    steps = np.flatnonzero(rows.is_step[index])
    found = []
    for start in range(len(steps)):
        total, weight = 0.0, 1.0
        for column in steps[start:]:
            bootstrap = 0.0 if rows.terminated[index, column] else GAMMA * value(rows.reached[index, column])
            total += weight * float(rows.rewards[index, column] + bootstrap - value(rows.seen[index, column]))
            weight *= GAMMA * LAMBDA
            if rows.terminated[index, column] or rows.truncated[index, column]:
                break
        found.append(total)
    return found


MODES = [next_step, same_step, disabled]


@pytest.mark.parametrize("mode", MODES)
def test_advantages_equal_brute_force_to_ten_digits(mode) -> None:  # type: ignore[no-untyped-def]
    rows = mode()
    found = advantages_of(rows)
    for index in range(3):
        assert found[index] == pytest.approx(brute_force(rows, index), rel=0, abs=1e-10)
    ends = rows.terminated & rows.truncated & rows.is_step, rows.truncated & ~rows.terminated, rows.terminated
    assert all(kind.sum() > 2 for kind in ends), "some kind of end never came"


@pytest.mark.parametrize("mode", MODES[1:])
def test_the_three_modes_tell_the_same_episodes_and_advantages(mode) -> None:  # type: ignore[no-untyped-def]
    ours, other = next_step(), mode()
    for index in range(3):
        steps = np.flatnonzero(ours.is_step[index])
        assert len(steps) < NUM_COLUMNS, "there was no reset"
        ends = np.flatnonzero((ours.terminated | ours.truncated)[index, steps])
        whole = 1 + int(ends[-1])  # to the end of an episode
        for mine, their in zip(ours[:5], other[:5], strict=True):
            assert np.array_equal(mine[index, steps[:whole]], their[index, :whole])
        mine, their = (advantages_of(rows)[index][:whole] for rows in (ours, other))
        assert mine == pytest.approx(their, rel=0, abs=1e-10)


def test_the_row_of_a_reset_is_no_transition() -> None:
    """It leads from the last observation of an episode to the first of the next, pays nothing, and is left out."""
    rows = next_step()
    resets = ~rows.is_step
    assert (rows.seen[resets] == MAGIC).all()
    assert (rows.seen[rows.is_step] != MAGIC).all()
    assert not rows.rewards[resets].any()
    assert (resets[:, 1:] == (rows.terminated | rows.truncated)[:, :-1]).all()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_other_ways_to_reset_are_refused(mode: AutoresetMode) -> None:
    with pytest.raises(LessonError, match=rf"{mode}.*leave autoreset_mode out"):
        require_learnable(vector_of(mode), "ProbeSentinel-v0")
