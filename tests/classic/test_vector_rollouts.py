"""Rollouts of vector environments: every transition of the environments, and nothing that is not one."""

import gymnasium as gym
import numpy as np
import pytest

from classic.errors import LessonError
from classic.saved_policies import fresh_seed
from classic.training_runs import evaluation_seed
from classic.vector_rollouts import (
    Rollout,
    VectorStreams,
    act_by_sign,
    make_vector,
    returns_of_first_episodes,
    seed_or_seeds,
)
from tests.classic.probes import MAGIC, register_probes

register_probes()
BY_HAND = (0.05, 0.1, 0.9, 0.3)


def random_actions(observations: np.ndarray) -> np.ndarray:
    """Of no use and hard to foresee, but each row's action depends on what is seen in that row alone."""
    return (abs(observations).sum(-1) * 1e5 % 2).astype(np.int64)


def sentinel_rollouts(num_rollouts: int, num_columns: int) -> tuple[VectorStreams, list[Rollout]]:
    streams = VectorStreams(make_vector("ProbeSentinel-v0", 3), seed=0)
    return streams, [streams.collect(random_actions, num_columns) for _ in range(num_rollouts)]


def test_rollouts_hold_exactly_the_transitions_of_the_environments() -> None:
    """Against what each environment wrote down itself; the rollouts are short, so that ends fall on their edges."""
    streams, rollouts = sentinel_rollouts(30, 4)
    for index, env in enumerate(streams.env.unwrapped.envs):
        rows = []
        for rollout in rollouts:
            for column in np.flatnonzero(rollout.is_step[index]):
                seen, reached = rollout.observations[index, column : column + 2, 0]
                rows.append(
                    (
                        pytest.approx(seen),
                        rollout.actions[index, column],
                        pytest.approx(rollout.rewards[index, column]),
                        pytest.approx(reached),
                        rollout.terminated[index, column],
                        rollout.truncated[index, column],
                    )
                )
        assert env.unwrapped.log == rows


def test_nobody_acts_in_the_last_observation_of_an_episode() -> None:
    streams, rollouts = sentinel_rollouts(10, 16)
    acted_in = np.concatenate([rollout.observations[:, :-1, 0][rollout.is_step] for rollout in rollouts])
    assert MAGIC not in acted_in
    assert any((rollout.observations == MAGIC).any() for rollout in rollouts), "there were no ends to be missed"
    assert streams.num_steps == len(acted_in) == sum(len(env.unwrapped.log) for env in streams.env.unwrapped.envs)


def test_returns_of_episodes_are_those_of_the_environments() -> None:
    streams, _ = sentinel_rollouts(10, 16)
    returns = []
    for env in streams.env.unwrapped.envs:
        total = 0.0
        for _, _, reward, _, terminated, truncated in env.unwrapped.log:
            total += reward
            if terminated or truncated:
                returns.append(total)
                total = 0.0
    assert sorted(streams.episode_returns) == pytest.approx(sorted(returns))


def test_the_vector_cart_pole_moves_as_the_single_one() -> None:
    """Its episodes, played again one by one in `CartPoleEnv` from the same states, end on the same steps."""
    streams = VectorStreams(make_vector("CartPole-v1", 4), seed=0)
    rollout = streams.collect(random_actions, 120)
    single = gym.make("CartPole-v1").unwrapped
    num_ends = 0
    for index in range(4):
        fresh = True
        for column in np.flatnonzero(rollout.is_step[index]):
            if fresh:
                single.reset()
                single.state = rollout.observations[index, column].astype(np.float64)
            seen, _, terminated, _, _ = single.step(int(rollout.actions[index, column]))
            assert seen == pytest.approx(rollout.observations[index, column + 1], abs=1e-5)
            assert terminated == rollout.terminated[index, column]
            fresh = terminated
            num_ends += terminated
    assert num_ends > 8


def test_episodes_are_the_same_however_a_stream_is_reset() -> None:
    """Ours on a stream that resets on the next step, against Gymnasium's own way to reset on the same step."""
    ours = VectorStreams(gym.make_vec("CartPole-v1", 2, "sync"), seed=5)
    rollout = ours.collect(random_actions, 150)
    same = gym.make_vec("CartPole-v1", 2, "sync", {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP})
    seen, _ = same.reset(seed=seed_or_seeds(same, 5))
    # Actions must depend on one stream alone, as the two ways part after the first end of either.
    rows: list[list[tuple[list[float], list[float], bool]]] = [[], []]
    for _ in range(150):
        after, _, terminated, truncated, info = same.step(random_actions(seen))
        for index in range(2):
            ended = terminated[index] or truncated[index]
            reached = info["final_obs"][index] if ended else after[index]
            rows[index].append((seen[index].tolist(), reached.tolist(), bool(terminated[index])))
        seen = after
    for index in range(2):
        steps = np.flatnonzero(rollout.is_step[index])
        found = [
            (
                rollout.observations[index, column].tolist(),
                rollout.observations[index, column + 1].tolist(),
                bool(rollout.terminated[index, column]),
            )
            for column in steps
        ]
        assert len(found) < 150, "there was no end"
        assert found == rows[index][: len(found)]


def test_the_first_episode_of_each_stream_is_judged() -> None:
    """The first hundred to end would be short ones: with random actions their mean is far below 22."""
    env = make_vector("CartPole-v1", 400)
    generator = np.random.default_rng(0)
    returns = returns_of_first_episodes(env, lambda seen: generator.integers(2, size=len(seen)), seed=0)
    # 21.9 over 1,000 episodes of random actions; standard error 0.6.
    assert returns.mean() == pytest.approx(21.9, abs=2.5)


def test_a_linear_policy_balances_for_500_steps() -> None:
    """An honest baseline: four numbers by hand score what all the learning is for."""
    env = make_vector("CartPole-v1", 200)
    assert (returns_of_first_episodes(env, act_by_sign(BY_HAND), seed=0) == 500).all()
    # The sign of the angle alone: 41.7 over 1,000 episodes.
    angle = returns_of_first_episodes(env, act_by_sign([0, 0, 1, 0]), seed=0)
    assert angle.mean() == pytest.approx(41.7, abs=3)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("FrozenLake-v1", r"python -m classic\.q_learning --env FrozenLake-v1"),
        ("Blackjack-v1", "--env CartPole-v1"),
        ("CartPole-v9", "--env CartPole-v1"),
        ("Pendulum-v0", "--env Pendulum-v1"),
    ],
)
def test_environments_that_can_not_be_learned_here_are_refused(env_id: str, message: str) -> None:
    with pytest.raises(LessonError, match=message):
        make_vector(env_id, 2)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(LessonError, match="gravity_of_mars"):
        make_vector("CartPole-v1", 2, gravity_of_mars=3.7)


# --- where episodes begin --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"])
def test_neighbouring_seeds_share_no_episode(env_id: str) -> None:
    """Gymnasium's loop of environments counts on from a seed: 29 of 30 test episodes would be the next seed's too."""
    first_states = []
    for seed in (0, 1, 2, 29):
        for kind in (seed, evaluation_seed(seed), fresh_seed(seed)):
            env = make_vector(env_id, 30)
            streams = VectorStreams(env, kind)
            first_states += [tuple(row) for row in streams.observations.tolist()]
            env.close()
    assert len(set(first_states)) == len(first_states) == 4 * 3 * 30


def test_one_seed_begins_the_same_episodes_however_many_there_are() -> None:
    """So a replay, which is one stream, shows the first of the test episodes."""
    many, one = (VectorStreams(make_vector("Pendulum-v1", num_envs), 7).observations for num_envs in (5, 1))
    assert (many[:1] == one).all()


def test_the_vector_cart_pole_is_given_the_seed_itself() -> None:
    """It has one generator for all of its streams, and published figures are of the episodes that begin so."""
    env = make_vector("CartPole-v1", 30)
    plain = env.reset(seed=evaluation_seed(3))[0]
    assert (VectorStreams(env, evaluation_seed(3)).observations == plain).all()
