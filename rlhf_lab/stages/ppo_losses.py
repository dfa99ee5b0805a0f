"""PPO's two losses on some rows of a rollout, each with the sums that metrics are made of. Leaves out the models."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_lab.functional import clip_fraction, clipped_surrogate, clipped_value_error, kl_k2, masked_sum
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.stages.ppo_targets import Targets, is_clipped
from rlhf_lab.stages.rollout import Rollout

Loss = tuple[Tensor, dict[str, Tensor]]  # summed over tokens, with sums by name that have no gradients


def policy_loss(part: Rollout, aims: Targets, log_probs: Tensor, entropies: Tensor, args: PPOConfig) -> Loss:
    """The clipped surrogate less the entropy bonus, from what the policy says now (B, T) of the rows in `part`."""
    mask = part.completion_mask
    log_ratio = (log_probs - part.log_probs).where(mask, 0.0)
    surrogate = masked_sum(clipped_surrogate(log_ratio, aims.advantages, args.clip_range), mask)
    entropy = masked_sum(entropies, mask)
    with torch.no_grad():
        ratio = log_ratio.exp()
        sums = {
            "tokens": mask.sum(),
            "policy_loss": surrogate,
            "entropy": entropy,
            "approxkl": masked_sum(kl_k2(log_probs, part.log_probs), mask),
            "clipfrac": masked_sum(clip_fraction(log_ratio, aims.advantages, args.clip_range), mask),
            "ratio": masked_sum(ratio, mask),
            "ratio_square": masked_sum(ratio.square(), mask),
        }
    return surrogate - args.ent_coef * entropy, _without_gradients(sums)


def value_loss(part: Rollout, aims: Targets, values: Tensor, args: PPOConfig) -> Loss:
    """The weighted error of the critic, clipped, from what it says now (B, T) of the rows in `part`."""
    mask = part.completion_mask
    error = masked_sum(clipped_value_error(values, part.values, aims.returns, args.value_clip_range), mask)
    with torch.no_grad():
        clipped = masked_sum(is_clipped(values, part.values, args.value_clip_range), mask)
    return args.vf_coef * error, _without_gradients({"value_loss": error, "value_clipfrac": clipped})


def added(terms: Sequence[Loss]) -> Loss:
    """Their sum, and the sums of all of them."""
    sums: dict[str, Tensor] = {}
    for _, of_term in terms:
        sums |= of_term
    return sum((loss for loss, _ in terms[1:]), terms[0][0]), sums


def _without_gradients(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in sums.items()}
