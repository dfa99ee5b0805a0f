"""Advantages and returns against rlax, Stable-Baselines3 and the identities of the GAE paper."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from torch import Tensor

from rlhf_lab.functional import discounted_returns, gae


def never(like: Tensor) -> Tensor:
    return torch.zeros_like(like, dtype=torch.bool)


def random_rollout(num_rows: int = 3, num_steps: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(num_rows, num_steps, generator=generator),
        torch.randn(num_rows, num_steps, generator=generator),
        torch.randn(num_rows, num_steps, generator=generator),
    )


# Numbers and tolerance of google-deepmind/rlax, multistep_test.py, TruncatedGeneralizedAdvantageEstimationTest.
RLAX_ROWS = [
    # rewards, values (one more than rewards), gamma, column whose discount is 0, expected by lambda
    (
        [0.0, 0.0, 1.0, 0.0, -0.5],
        [1.0, 4.0, -3.0, -2.0, -1.0, -1.0],
        0.99,
        None,
        {
            1.0: [-1.45118, -4.4557, 2.5396, 0.5249, -0.49],
            0.7: [-0.676979, -5.248167, 2.4846, 0.6704, -0.49],
            0.4: [0.56731, -6.042, 2.3431, 0.815, -0.49],
        },
    ),
    (
        [0.0, 0.0, 0.0, 0.0, 1.0],
        [-3.0, -2.0, -1.0, 0.0, 5.0, -1.0],
        0.9,
        3,
        {1.0: [3.0, 2.0, 1.0, 0.0, -4.9], 0.7: [2.2899, 1.73, 1.0, 0.0, -4.9], 0.4: [1.725, 1.46, 1.0, 0.0, -4.9]},
    ),
]


@pytest.mark.parametrize("gae_lambda", [1.0, 0.7, 0.4])
@pytest.mark.parametrize(("rewards", "values", "gamma", "end", "expected"), RLAX_ROWS)
def test_gae_gives_the_numbers_of_rlax(rewards, values, gamma, end, expected, gae_lambda) -> None:
    row = torch.tensor([rewards])
    terminated = never(row)
    if end is not None:
        terminated[0, end] = True
    all_values = torch.tensor([values])
    advantages = gae(
        row,
        all_values[:, :-1],
        all_values[:, 1:],
        terminated=terminated,
        truncated=never(row),
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    torch.testing.assert_close(advantages, torch.tensor([expected[gae_lambda]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("last_is_end", [False, True])
def test_gae_equals_stable_baselines3(last_is_end: bool) -> None:
    num_rows, num_steps, gamma, gae_lambda = 3, 12, 0.97, 0.9
    rewards, values, bootstrap = random_rollout(num_rows, num_steps)
    terminated = torch.rand(num_rows, num_steps, generator=torch.Generator().manual_seed(1)) < 0.25
    terminated[:, -1] = last_is_end
    assert terminated[:, :-1].any()

    buffer = RolloutBuffer(
        num_steps,
        gym.spaces.Box(-1, 1, (1,)),
        gym.spaces.Discrete(2),
        device="cpu",
        gamma=gamma,
        gae_lambda=gae_lambda,
        n_envs=num_rows,
    )
    buffer.rewards[:] = rewards.T.numpy()
    buffer.values[:] = values.T.numpy()
    buffer.episode_starts[1:] = terminated.T.numpy()[:-1]
    buffer.compute_returns_and_advantage(bootstrap[:, -1], terminated[:, -1].numpy())

    advantages = gae(
        rewards,
        values,
        torch.cat([values[:, 1:], bootstrap[:, -1:]], dim=1),
        terminated=terminated,
        truncated=never(rewards),
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    np.testing.assert_allclose(advantages.T.numpy(), buffer.advantages, rtol=1e-5, atol=1e-6)


def test_gae_at_a_time_limit_equals_stable_baselines3_with_its_reward_correction() -> None:
    # SB3 has no truncated steps in its buffer: at a time limit its loop adds gamma * V(last observation) to the reward
    # and marks an episode end.
    num_rows, num_steps, gamma, gae_lambda = 3, 12, 0.97, 0.9
    rewards, values, last_observation_values = random_rollout(num_rows, num_steps, seed=2)
    truncated = torch.rand(num_rows, num_steps, generator=torch.Generator().manual_seed(3)) < 0.3
    truncated[:, -1] = True
    buffer = RolloutBuffer(
        num_steps,
        gym.spaces.Box(-1, 1, (1,)),
        gym.spaces.Discrete(2),
        device="cpu",
        gamma=gamma,
        gae_lambda=gae_lambda,
        n_envs=num_rows,
    )
    buffer.rewards[:] = torch.where(truncated, rewards + gamma * last_observation_values, rewards).T.numpy()
    buffer.values[:] = values.T.numpy()
    buffer.episode_starts[1:] = truncated.T.numpy()[:-1]
    buffer.compute_returns_and_advantage(torch.zeros(num_rows), truncated[:, -1].numpy())

    next_values = torch.where(truncated, last_observation_values, values.roll(-1, dims=1))
    advantages = gae(
        rewards,
        values,
        next_values,
        terminated=never(rewards),
        truncated=truncated,
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    np.testing.assert_allclose(advantages.T.numpy(), buffer.advantages, rtol=1e-5, atol=1e-6)


def test_lambda_one_is_the_return_minus_the_value() -> None:
    # Schulman et al. 2015, equation 18.
    rewards, values, _ = random_rollout()
    terminated = never(rewards)
    terminated[:, [4, -1]] = True
    advantages = gae(
        rewards,
        values,
        values.roll(-1, dims=1),
        terminated=terminated,
        truncated=never(rewards),
        gamma=0.9,
        gae_lambda=1.0,
    )
    torch.testing.assert_close(advantages + values, discounted_returns(rewards, terminated=terminated, gamma=0.9))


def test_lambda_zero_looks_one_step_ahead() -> None:
    # Schulman et al. 2015, equation 17: the change of one reward or one next value moves one advantage only.
    rewards, values, next_values = (x.double().requires_grad_() for x in random_rollout(1, 5))

    def advantages(*inputs: Tensor) -> Tensor:
        ends = never(rewards)
        return gae(*inputs, terminated=ends, truncated=ends, gamma=0.9, gae_lambda=0.0)[0]

    jacobians = torch.autograd.functional.jacobian(advantages, (rewards, values, next_values))
    for jacobian, expected in zip(jacobians, (1.0, -1.0, 0.9), strict=True):
        torch.testing.assert_close(jacobian[:, 0], expected * torch.eye(5, dtype=torch.float64))


def test_the_score_on_the_last_token_is_worth_lambda_a_token() -> None:
    # gamma 1, values 0, as for language models: credit falls by the factor lambda per token towards the start.
    rewards = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    ends = rewards.bool()
    zeros = torch.zeros_like(rewards)
    advantages = gae(rewards, zeros, zeros, terminated=ends, truncated=never(rewards), gamma=1.0, gae_lambda=0.5)
    assert advantages.tolist() == [[0.125, 0.25, 0.5, 1.0]]


def test_a_terminated_step_never_reads_the_next_value_and_a_truncated_one_does() -> None:
    one, five = torch.ones(1, 1), torch.full((1, 1), 5.0)
    yes, no = torch.tensor([[True]]), torch.tensor([[False]])

    def advantage(terminated: Tensor, truncated: Tensor) -> float:
        return gae(one, one, five, terminated=terminated, truncated=truncated, gamma=0.5, gae_lambda=0.9).item()

    assert advantage(yes, no) == 0.0
    assert advantage(no, yes) == 2.5
    assert advantage(yes, yes) == 0.0, "an episode that is over has no value to come, time limit or not"


@pytest.mark.parametrize("junk", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["terminated", "truncated"])
def test_padding_after_an_end_never_flows_back(junk: float, kind: str) -> None:
    ends = {name: torch.zeros(1, 6, dtype=torch.bool) for name in ("terminated", "truncated")}
    ends[kind][0, 3] = True
    real = torch.arange(6) < 4
    clean = random_rollout(1, 6)
    filled = [torch.where(real, x, junk) for x in clean]
    if kind == "terminated":
        filled[2][0, 3] = junk  # the value after the end is padding as well
    filled = [x.requires_grad_() for x in filled]

    advantages = gae(*filled, **ends, gamma=0.9, gae_lambda=0.8)
    expected = gae(*(x[:, :4] for x in clean), **{k: v[:, :4] for k, v in ends.items()}, gamma=0.9, gae_lambda=0.8)
    assert torch.equal(advantages[:, :4], expected)

    torch.where(real, advantages, 0).sum().backward()
    for x in filled:
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert torch.equal(x.grad[:, 4:], torch.zeros(1, 2))
    assert filled[0].grad[0, :4].gt(0).all()


def test_returns_of_equal_rewards_are_the_geometric_series() -> None:
    returns = discounted_returns(
        torch.ones(1, 400, dtype=torch.float64), terminated=never(torch.ones(1, 400)), gamma=0.9
    )
    assert returns[0, 0].item() == pytest.approx(10.0)
    assert returns[0, -1].item() == 1.0


def test_returns_start_afresh_in_each_episode() -> None:
    # Sutton and Barto 2018, exercise 3.8: rewards -1, 2, 6, 3, 2 at gamma 0.5 return 2, 6, 8, 4, 2.
    rewards = torch.tensor([[-1.0, 2.0, 6.0, 3.0, 2.0, -1.0, 2.0, 6.0, 3.0, 2.0]])
    terminated = never(rewards)
    terminated[0, 4] = True
    returns = discounted_returns(rewards, terminated=terminated, gamma=0.5)
    assert returns.tolist() == [[2.0, 6.0, 8.0, 4.0, 2.0] * 2]


def test_padding_after_an_end_never_flows_into_returns() -> None:
    rewards = torch.tensor([[1.0, 1.0, math.nan]], requires_grad=True)
    returns = discounted_returns(rewards, terminated=torch.tensor([[False, True, False]]), gamma=0.5)
    assert returns[0, :2].tolist() == [1.5, 1.0]
    returns[0, :2].sum().backward()
    assert rewards.grad is not None
    assert rewards.grad.tolist() == [[1.0, 1.5, 0.0]]


def test_rows_are_independent() -> None:
    rollout = random_rollout()
    terminated = rollout[0] > 1
    truncated = rollout[1] > 1
    settings = {"gamma": 0.9, "gae_lambda": 0.8}
    together = gae(*rollout, terminated=terminated, truncated=truncated, **settings)
    alone = [
        gae(*(x[i : i + 1] for x in rollout), terminated=terminated[[i]], truncated=truncated[[i]], **settings)
        for i in range(3)
    ]
    assert torch.equal(together, torch.cat(alone))


def test_no_columns_give_no_advantages() -> None:
    empty = torch.zeros(2, 0)
    ends = never(empty)
    assert gae(empty, empty, empty, terminated=ends, truncated=ends, gamma=1.0, gae_lambda=1.0).shape == (2, 0)


def test_shapes_that_would_broadcast_and_masks_that_are_not_bool_are_refused() -> None:
    x = torch.zeros(3, 3)
    ends = never(x)
    settings = {"gamma": 1.0, "gae_lambda": 1.0}
    with pytest.raises(ValueError, match=r"next_values \(3, 1\)"):
        gae(x, x, x[:, :1], terminated=ends, truncated=ends, **settings)
    with pytest.raises(ValueError, match=r"truncated is torch\.float32"):
        gae(x, x, x, terminated=ends, truncated=x, **settings)
    with pytest.raises(ValueError, match=r"got shape \(3,\); need \(B, T\)"):
        discounted_returns(x[0], terminated=ends[0], gamma=1.0)
    with pytest.raises(ValueError, match=r"terminated is torch\.float32"):
        discounted_returns(x, terminated=x, gamma=1.0)
    with pytest.raises(ValueError, match=r"terminated \(3, 1\)"):
        discounted_returns(x, terminated=ends[:, :1], gamma=1.0)
