"""What one PPO update aims at: rewards per token, advantages, returns.

Leaves out how scores are scaled and clipped before (`PPOTrainer.shape_scores`) and the losses after.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_lab.functional import gae, kl_abs, kl_k1, kl_k2, kl_k3, kl_penalized_rewards, rescale, standardize
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.stages.rollout import Rollout

KL_ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3, "abs": kl_abs}


@dataclass(frozen=True)
class Targets:
    """What one update aims at, for the B rows and T columns of its rollout."""

    shaped_scores: Tensor  # (B,) scaled, clipped, less the penalty for a missing EOS; rewards of tokens added
    rewards: Tensor  # (B, T)
    advantages: Tensor  # (B, T)
    returns: Tensor  # (B, T)

    def rows(self, index: Tensor, num_tokens: int) -> "Targets":
        cut = [x[index][:, :num_tokens] for x in (self.rewards, self.advantages, self.returns)]
        return Targets(self.shaped_scores[index], *cut)


def targets_of(
    rollout: Rollout,
    scores: Tensor,
    token_scores: Tensor,
    *,
    kl: Callable[[Tensor, Tensor], Tensor],
    kl_coef: float,
    args: PPOConfig,
) -> Targets:
    """Shaped scores (B,) of completions and (B, T) of tokens to rewards, then advantages and returns (GAE, arXiv
    1506.02438)."""
    mask = rollout.completion_mask
    rewards = token_scores + kl_penalized_rewards(
        scores, rollout.log_probs, rollout.ref_log_probs, mask, kl_coef, estimator=kl
    )
    if args.whiten_rewards:
        rewards = rescale(rewards, mask)
    is_last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    next_values = torch.cat([rollout.values[:, 1:], torch.zeros_like(rollout.values[:, :1])], dim=1)
    advantages = gae(
        rewards,
        rollout.values,
        next_values,
        terminated=is_last,  # the score judges the text as it stands, so a completion cut by length has ended too
        truncated=torch.zeros_like(is_last),
        gamma=args.gamma,
        gae_lambda=args.gae_lambda,
    ).where(mask, 0.0)
    returns = advantages + rollout.values
    whitened = standardize(advantages, mask) if args.whiten_advantages else advantages
    return Targets(scores + token_scores.sum(1), rewards, whitened, returns)


def is_clipped(values: Tensor, old_values: Tensor, clip_range: float | None) -> Tensor:
    """1.0 where a value left the range round its old one, elementwise."""
    return torch.zeros_like(values) if clip_range is None else ((values - old_values).abs() > clip_range).float()


def is_above(number: Tensor, limit: float | None) -> Tensor:
    """Whether a limit, where there is one, is exceeded; a tensor, so that nobody waits for it."""
    return torch.zeros_like(number, dtype=torch.bool) if limit is None else number > limit
