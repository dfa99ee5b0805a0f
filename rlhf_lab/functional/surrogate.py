"""Losses of the policy and of the critic, elementwise, and the two figures that watch them.

Advantages, old values and returns are data here: no gradient flows into them, whatever the caller passes. Everything
is elementwise, so that the caller divides by the token count of the whole optimizer step (see masking.py).

Left out: the entropy bonus (tokens.py has the entropy), dual clipping, and any reduction.

    pytest tests/functional/test_surrogate.py
"""

import math

import torch
from torch import Tensor

from rlhf_lab.functional.masking import masked_mean, require_same_shape


def policy_gradient(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """-advantage * log_prob, whose gradient is the policy gradient: PPO, arXiv 1707.06347, equation 2, negated.

    Args:
        log_probs: any shape, log-probability (nats) of the action taken, under the policy in training.
        advantages: same shape; constant.

    Returns:
        Same shape, a loss to be minimised. Its value says nothing, only its gradient does.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(log_probs=log_probs, advantages=advantages)
    return -advantages.detach() * log_probs


def clipped_surrogate(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """PPO's clipped objective, arXiv 1707.06347, equation 7, negated.

    The loss is the larger of -advantage * ratio and -advantage * ratio kept within 1 +- clip_range: a pessimistic
    bound, flat once the ratio has moved far enough in the direction that the advantage asks for.

    Args:
        log_ratio: any shape, log_probs - old_log_probs in nats. Fill padding with 0.
        advantages: same shape; constant.
        clip_range: 0.2 in the paper.

    Returns:
        Same shape, a loss to be minimised, in units of advantage.

    Raises:
        ValueError: shapes differ.
    """
    return torch.maximum(*_branches(log_ratio, advantages, clip_range))


def clip_fraction(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """1 where `clipped_surrogate` takes the clipped branch, so that its gradient is 0 there; else 0.

    A ratio out of range on the side where the loss still pulls it back is not counted: its gradient is alive.
    Stable-Baselines3 and CleanRL count every ratio out of range, so their figure is never below this one.

    Args:
        log_ratio: any shape, log_probs - old_log_probs in nats.
        advantages: same shape.
        clip_range: as given to `clipped_surrogate`.

    Returns:
        Same shape and floating type as the loss, 0 or 1, without gradient.

    Raises:
        ValueError: shapes differ.
    """
    unclipped, clipped = _branches(log_ratio, advantages, clip_range)
    return (clipped > unclipped).to(clipped.dtype)


def _branches(log_ratio: Tensor, advantages: Tensor, clip_range: float) -> tuple[Tensor, Tensor]:
    """The two losses of PPO's equation 7: with the ratio as it is, and with the ratio clipped."""
    require_same_shape(log_ratio=log_ratio, advantages=advantages)
    # An overflowing ratio would give the clipped branch the gradient 0 * inf = NaN instead of 0. The bound is e times
    # below the largest number of the type (log_ratio 87.7 in float32), so no ratio that means anything is changed.
    ratio = log_ratio.clamp(max=math.log(torch.finfo(log_ratio.dtype).max) - 1).exp()
    loss_scale = -advantages.detach()
    return loss_scale * ratio, loss_scale * ratio.clamp(1 - clip_range, 1 + clip_range)


def clipped_value_error(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None) -> Tensor:
    """Half the larger of two squared errors: of the value, and of the value kept near the old one.

    From OpenAI's baselines `ppo2`; kept for language models in lm-human-preferences (Ziegler et al. 2019, arXiv
    1909.08593). The PPO paper has no equation for it.

    Args:
        values: any shape, V under the critic in training, in units of return.
        old_values: same shape, V when the rollout was made; constant.
        returns: same shape, the target; constant.
        clip_range: how far the value may move from the old one, in units of return; None for no clipping.

    Returns:
        Same shape, a loss to be minimised, in squared units of return.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(values=values, old_values=old_values, returns=returns)
    old_values, returns = old_values.detach(), returns.detach()
    error = (values - returns).square()
    if clip_range is None:
        return 0.5 * error
    near_old = values.clamp(old_values - clip_range, old_values + clip_range)
    return 0.5 * torch.maximum(error, (near_old - returns).square())


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var[returns - values] / Var[returns] over the True places: how much of the returns the critic foresees.

    Args:
        values: (B, T), or any shape, in units of return.
        returns: same shape.
        mask: bool, same number of dimensions; dimensions of size 1 are expanded.

    Returns:
        A scalar: 1 perfect, 0 no better than a constant, below 0 worse than a constant. A constant offset of the
        critic does not count against it. NaN if the returns do not vary, because then there is nothing to explain.

    Raises:
        ValueError: shapes differ, or the mask is not bool or does not fit.
    """
    require_same_shape(values=values, returns=returns)
    variance = _masked_variance(returns, mask)
    ratio = _masked_variance(returns - values, mask) / variance
    return torch.where(variance > 0, 1 - ratio, torch.nan)


def _masked_variance(x: Tensor, mask: Tensor) -> Tensor:
    return masked_mean((x - masked_mean(x, mask)).square(), mask)
