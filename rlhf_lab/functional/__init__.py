"""The equations of the package: torch only, stateless, elementwise first, each with its source.

Every function takes tensors and gives tensors (or Python floats, where said); none reads a config, a model or a file.
The language-model trainer and the lessons in `classic/` use the same ones. What is left out: reductions over
processes (the caller gathers) and loops over batches (the caller owns them).

    pytest tests/functional
"""

from rlhf_lab.functional.divergence import (
    adapted_kl_coef,
    best_of_n_kl,
    kl_abs,
    kl_full,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_penalized_rewards,
)
from rlhf_lab.functional.masking import masked_mean, masked_sum, rescale, standardize
from rlhf_lab.functional.preference import Calibration, bradley_terry_loss, calibration, preference_accuracy
from rlhf_lab.functional.returns import discounted_returns, gae
from rlhf_lab.functional.surrogate import (
    clip_fraction,
    clipped_surrogate,
    clipped_value_error,
    explained_variance,
    policy_gradient,
)
from rlhf_lab.functional.tokens import first_true_index, mask_after_eos, token_entropy, token_log_probs

__all__ = [
    "Calibration",
    "adapted_kl_coef",
    "best_of_n_kl",
    "bradley_terry_loss",
    "calibration",
    "clip_fraction",
    "clipped_surrogate",
    "clipped_value_error",
    "discounted_returns",
    "explained_variance",
    "first_true_index",
    "gae",
    "kl_abs",
    "kl_full",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kl_penalized_rewards",
    "mask_after_eos",
    "masked_mean",
    "masked_sum",
    "policy_gradient",
    "preference_accuracy",
    "rescale",
    "standardize",
    "token_entropy",
    "token_log_probs",
]
