"""The replay buffer: a ring that forgets the oldest, draws without preference, and never holds a reset."""

import numpy as np
import pytest

from classic.replay_buffer import ReplayBuffer, Transitions, joined, transitions_of
from classic.vector_rollouts import VectorStreams, make_vector
from tests.classic.probes import MAGIC, register_probes

register_probes()


def numbered(first: int, last: int) -> Transitions:
    """Transitions whose every column tells their number."""
    numbers = np.arange(first, last)
    column = numbers[:, None].astype(np.float32)
    return Transitions(column, numbers, numbers.astype(np.float32), column + 0.5, numbers % 2 == 0)


def stored(buffer: ReplayBuffer) -> list[int]:
    drawn = buffer.sample(5000, np.random.default_rng(0))
    assert (drawn.observations[:, 0] == drawn.actions).all()
    assert (drawn.next_observations[:, 0] == drawn.actions + 0.5).all()
    assert (drawn.rewards == drawn.actions).all()
    assert (drawn.terminated == (drawn.actions % 2 == 0)).all()
    return sorted(set(drawn.actions.tolist()))


def test_the_oldest_make_room_also_across_the_edge() -> None:
    buffer = ReplayBuffer(10, 1)
    for first in range(0, 28, 4):
        buffer.add(numbered(first, first + 4))
        assert stored(buffer) == list(range(max(0, first + 4 - 10), first + 4))
    assert len(buffer) == 10
    assert buffer.num_seen == 28


def test_of_more_than_fit_the_last_are_kept() -> None:
    buffer = ReplayBuffer(4, 1)
    buffer.add(numbered(0, 3))
    buffer.add(numbered(3, 20))
    assert stored(buffer) == [16, 17, 18, 19]
    buffer.add(numbered(20, 21))
    assert stored(buffer) == [17, 18, 19, 20]


def test_each_is_as_likely_as_the_other() -> None:
    buffer = ReplayBuffer(8, 1)
    buffer.add(numbered(0, 5))  # three places are still empty
    shares = np.bincount(buffer.sample(50_000, np.random.default_rng(0)).actions, minlength=8) / 50_000
    assert shares == pytest.approx(np.array([0.2] * 5 + [0.0] * 3), abs=0.01)


def test_samples_are_copies() -> None:
    buffer = ReplayBuffer(4, 1)
    buffer.add(numbered(0, 4))
    buffer.sample(10, np.random.default_rng(0)).observations[:] = -1
    assert stored(buffer) == [0, 1, 2, 3]


def test_the_share_of_ends_counts_what_is_stored_only() -> None:
    buffer = ReplayBuffer(10, 1)
    buffer.add(numbered(0, 3))  # 0 and 2 end an episode
    assert buffer.terminal_fraction() == pytest.approx(2 / 3)


def test_a_rollout_gives_the_transitions_of_its_environments_and_no_reset() -> None:
    streams = VectorStreams(make_vector("ProbeSentinel-v0", 3), seed=0)
    generator = np.random.default_rng(0)
    parts = [transitions_of(streams.collect(lambda seen: generator.integers(2, size=3), 7)) for _ in range(20)]
    both = joined(parts)
    logs = [row for env in streams.env.unwrapped.envs for row in env.unwrapped.log]
    assert len(both) == streams.num_steps == len(logs)
    assert MAGIC not in both.observations
    found = zip(both.observations[:, 0], both.actions, both.rewards, both.next_observations[:, 0], both.terminated)  # noqa: B905
    expected = [(np.float32(a), b, np.float32(c), np.float32(d), e) for a, b, c, d, e, _ in logs]
    assert sorted(map(tuple, found)) == sorted(expected)
    assert (both.next_observations == MAGIC).sum() > both.terminated.sum() > 5  # some were cut off, and keep a future
