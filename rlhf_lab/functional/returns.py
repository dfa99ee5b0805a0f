"""Discounted returns and generalized advantage estimation, over rows of steps.

Rows are streams, columns are time, (B, T) everywhere: T steps of an environment, or T tokens of a completion. A stream
may hold several episodes one after the other, and may go on after the last column.

`terminated` and `truncated` are Gymnasium's words: at a terminated step the episode is over and nothing is to come; at
a truncated step it was cut off (a time limit) and its value goes on. Treating the second like the first teaches the
critic that time limits are failures (Pardo et al. 2018, arXiv 1712.00378).

Both are loops over time on whole columns. Left out: the baseline (subtract it) and scaling (see masking.py).

    pytest tests/functional/test_returns.py
"""

import torch
from torch import Tensor

from rlhf_lab.functional.masking import require_bool, require_same_shape


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    *,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalized advantage estimation: Schulman et al. 2015, arXiv 1506.02438, equation 16.

    With delta_t = r_t + gamma * V(s_{t+1}) - V(s_t), the advantage is the sum over l of (gamma * gae_lambda)^l
    delta_{t+l} to the end of the episode or of the row. `gae_lambda=0` gives delta_t (equation 17), `gae_lambda=1` the
    discounted return minus V (equation 18).

    Args:
        rewards: (B, T), reward of the step.
        values: (B, T), V of the state that the step left.
        next_values: (B, T), V of the state that the step reached, before any reset. Never read where terminated. In
            the middle of an episode this is `values` one column later; on a truncated step it is V of the last
            observation of the old episode, not of the first of the new one.
        terminated: (B, T) bool, True on a step after which nothing is to come. Wins over `truncated`.
        truncated: (B, T) bool, True on a step after which the episode was cut off: bootstraps from `next_values`.
        gamma: discount a step.
        gae_lambda: 0 for low variance, 1 for low bias.

    Returns:
        (B, T) advantages in units of reward. Columns after an end never reach columns before it, NaN included, nor do
        their gradients; padding columns hold what their inputs make of them.

    Raises:
        ValueError: shapes differ or are not (B, T), or a mask is not bool.
    """
    require_same_shape(
        rewards=rewards, values=values, next_values=next_values, terminated=terminated, truncated=truncated
    )
    require_bool(terminated=terminated, truncated=truncated)
    deltas = rewards + gamma * torch.where(terminated, 0, next_values) - values
    return _discounted_sums(deltas, terminated | truncated, gamma * gae_lambda)


def discounted_returns(rewards: Tensor, *, terminated: Tensor, gamma: float) -> Tensor:
    """Sum of the rewards to come, each discounted by gamma a step: Sutton and Barto 2018, equation 3.8.

    Rewards after the last column are unknown and count as 0. For an episode that was cut off, add gamma * V of the
    state it reached to the reward of its last step.

    Args:
        rewards: (B, T).
        terminated: (B, T) bool, True on the last step of an episode.
        gamma: discount a step.

    Returns:
        (B, T) returns in units of reward. Columns after an end never reach columns before it, NaN included.

    Raises:
        ValueError: shapes differ or are not (B, T), or the mask is not bool.
    """
    require_same_shape(rewards=rewards, terminated=terminated)
    require_bool(terminated=terminated)
    return _discounted_sums(rewards, terminated, gamma)


def _discounted_sums(x: Tensor, is_end: Tensor, discount: float) -> Tensor:
    """sum_t = x_t + discount * sum_{t+1}, started afresh after each end, from the last column to the first."""
    if x.ndim != 2:
        raise ValueError(f"got shape {tuple(x.shape)}; need (B, T): use unsqueeze(0) for a single stream")
    total = x.new_zeros(len(x))
    columns = []
    for column, ends in zip(reversed(x.unbind(1)), reversed(is_end.unbind(1)), strict=True):
        # torch.where and not a multiplication by (1 - end): what follows an end may be NaN padding.
        total = column + discount * torch.where(ends, 0, total)
        columns.append(total)
    return torch.stack(columns[::-1], dim=1) if columns else x
