"""How far the policy has moved from the reference, in nats, and what that costs.

`kl` is KL(policy || reference). The estimators kl_k1, kl_k2, kl_k3 and kl_abs take the log-probabilities of tokens
sampled from the policy and give one number per token (Schulman 2020, "Approximating KL divergence",
http://joschu.net/blog/kl-approx.html); kl_full takes both sets of logits and is exact. Sum over the completion for
the KL of the sequence.

Left out: using an estimator as a loss. The gradient of the mean of k1 is 0 in expectation, that of k3 is biased (it is
the gradient of the other direction of KL); in the reward, which needs values only, none of this matters.

    pytest tests/functional/test_divergence.py
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_lab.functional.masking import require_bool, require_same_shape


def kl_k1(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """log_probs - ref_log_probs: unbiased, of either sign, high variance (Schulman 2020, k1).

    Args:
        log_probs: any shape, nats, of tokens sampled from the policy.
        ref_log_probs: same shape, of the same tokens under the reference.

    Returns:
        Same shape, nats.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs)
    return log_probs - ref_log_probs


def kl_k2(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Half the squared difference: never negative, low variance, biased far from the reference (Schulman 2020, k2).

    Args, Returns and Raises as `kl_k1`.
    """
    return 0.5 * kl_k1(log_probs, ref_log_probs).square()


def kl_k3(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """exp(r) - 1 - r with r = ref_log_probs - log_probs: unbiased and never negative (Schulman 2020, k3).

    Args, Returns and Raises as `kl_k1`. Overflows to inf where the reference is e^88 times as sure as the policy.
    """
    r = kl_k1(ref_log_probs, log_probs)
    # exp(r) - 1 rounds to a multiple of 1e-7 near 0, where the result is r^2 / 2, and the difference goes negative.
    return torch.expm1(r) - r


def kl_abs(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """The absolute difference: no estimate of KL, but a penalty that some recipes use in its place.

    Args, Returns and Raises as `kl_k1`.
    """
    return kl_k1(log_probs, ref_log_probs).abs()


def kl_full(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Exact KL(policy || reference) of the next-token distribution: the sum over the vocabulary, in float32.

    Args:
        logits: (..., V) of the policy, already divided by the temperature. -inf excludes a token.
        ref_logits: (..., V) of the reference, likewise.

    Returns:
        (...), one number per position, nats, float32. inf where the policy may say what the reference can not.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(logits=logits, ref_logits=ref_logits)
    log_probs = logits.float().log_softmax(dim=-1)
    probs = log_probs.exp()
    # A token that the policy excludes adds 0, not 0 * (-inf - x) = NaN.
    log_ratio = torch.where(probs > 0, log_probs - ref_logits.float().log_softmax(dim=-1), 0)
    return (probs * log_ratio).sum(dim=-1)


def kl_penalized_rewards(
    scores: Tensor,
    log_probs: Tensor,
    ref_log_probs: Tensor,
    completion_mask: Tensor,
    kl_coef: float,
    *,
    estimator: Callable[[Tensor, Tensor], Tensor] = kl_k1,
) -> Tensor:
    """Reward per token: -kl_coef * KL of the token, plus the score on the last token of the completion.

    Ziegler et al. 2019, arXiv 1909.08593, equation 2, spread over the tokens. The score sits exactly on the last True
    place (the EOS token, or the last token where the completion was cut), so that the credit is the same however wide
    the batch is padded.

    Args:
        scores: (B,), one number per completion, from the reward model.
        log_probs: (B, T), nats, of the policy that sampled.
        ref_log_probs: (B, T), nats, of the reference.
        completion_mask: (B, T) bool, True on tokens that the policy chose, EOS included. Padding may hold anything.
        kl_coef: score per nat.
        estimator: takes (log_probs, ref_log_probs), gives KL per token, (B, T).

    Returns:
        (B, T) in units of score; 0 on padding. A row that has no True gets nothing, not even its score.

    Raises:
        ValueError: scores are not (B,), other shapes are not one (B, T), or the mask is not bool.
    """
    require_same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs, completion_mask=completion_mask)
    require_bool(completion_mask=completion_mask)
    if log_probs.ndim != 2 or scores.shape != log_probs.shape[:1]:
        raise ValueError(
            f"scores {tuple(scores.shape)} with log_probs {tuple(log_probs.shape)}; need scores (B,) and log_probs "
            "(B, T): one number per completion, use squeeze(1) on the (B, 1) output of a reward model"
        )
    # Filled before the estimator, so that exp of wild padding has no gradient to spoil.
    kl = estimator(torch.where(completion_mask, log_probs, 0), torch.where(completion_mask, ref_log_probs, 0))
    require_same_shape(log_probs=log_probs, kl=kl)
    trues_from_here_on = completion_mask.flip(1).cumsum(1).flip(1)
    is_last = completion_mask & (trues_from_here_on == 1)
    return torch.where(completion_mask, -kl_coef * kl, 0) + torch.where(is_last, scores.unsqueeze(1), 0)


def adapted_kl_coef(kl_coef: float, kl: float, *, target: float, horizon: float, num_episodes: int) -> float:
    """The KL weight after a rollout: up when the policy is too far from the reference, down when too near.

    Proportional control in log space, Ziegler et al. 2019, arXiv 1909.08593, section 2.2: the weight is multiplied by
    1 + clip(kl / target - 1, -0.2, 0.2) * num_episodes / horizon.

    Args:
        kl_coef: the weight now, score per nat.
        kl: measured, nats per completion, mean over the rollout.
        target: wanted, nats per completion; 6 in the paper's code.
        horizon: episodes over which a full error of 0.2 changes the weight by about a fifth; 10000 in the paper's code.
        num_episodes: completions in the rollout.

    Returns:
        The new weight, score per nat.

    Raises:
        ValueError: target or horizon is not above 0, or kl is not finite (a broken run must not go on quietly).
    """
    if not (target > 0 and horizon > 0):
        raise ValueError(f"got target={target} and horizon={horizon}; both must be above 0")
    if not math.isfinite(kl):
        raise ValueError(f"got kl={kl}; need a finite number: look for NaN or inf in the log-probabilities")
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * num_episodes / horizon)


def best_of_n_kl(n: int) -> float:
    """KL from the policy of the best of n samples by score, log n - (n - 1) / n, to the policy of one sample, in nats.

    Stiennon et al. 2020, arXiv 2009.01325, appendix G.3. Exact when no two samples tie, and an upper bound otherwise
    (Beirami et al. 2024, arXiv 2401.01879).

    Args:
        n: number of samples, 1 or more.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"got n={n}; need 1 or more samples")
    return math.log(n) - (n - 1) / n
