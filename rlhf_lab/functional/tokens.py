"""From logits to numbers per token, and where a completion ends.

Log-probabilities and entropies are float32 whatever the model's type: in bf16, log-probabilities near -10 are 0.06
apart, more than the difference between policy and reference that PPO looks at.

Left out: shifting. Logits at place t belong to the token at place t + 1 of the model's input; the caller aligns them.

    pytest tests/functional/test_tokens.py
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from rlhf_lab.functional.masking import require_bool


def token_log_probs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token under softmax(logits / temperature).

    Sampling at a temperature other than 1 draws from the divided logits, so the log-probabilities of policy and
    reference must be taken from these too (Huang et al. 2023, "The N implementation details of RLHF with PPO").

    Args:
        logits: (..., V), any floating type.
        tokens: (...), int64, each in [0, V). Padding too must be a valid id: -100 is out of range.
        temperature: above 0.

    Returns:
        (...), nats, float32; -inf for a token whose logit is -inf. Exact to the spacing of float32 at the size of the
        logits: 8e-6 near 100, where GPT-2's lie.

    Raises:
        ValueError: tokens do not have the shape of logits without V, or the temperature is not above 0.
    """
    if tokens.shape != logits.shape[:-1]:
        raise ValueError(
            f"tokens {tuple(tokens.shape)} with logits {tuple(logits.shape)}; tokens must have the shape of logits "
            f"without the last dimension, {tuple(logits.shape[:-1])}"
        )
    # Gather first and subtract logsumexp: a log-softmax of shape (..., V), the largest tensor of a step, is never kept.
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return _scaled(chosen, temperature) - _scaled(logits, temperature).logsumexp(dim=-1)


def token_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(logits / temperature), from 0 (certain) to log V (uniform).

    Args:
        logits: (..., V), any floating type. -inf excludes a token.
        temperature: above 0.

    Returns:
        (...), nats, float32.

    Raises:
        ValueError: the temperature is not above 0.
    """
    log_probs = _scaled(logits, temperature).log_softmax(dim=-1)
    probs = log_probs.exp()
    # A token of probability 0 adds 0, not 0 * -inf = NaN.
    return -(probs * torch.where(probs > 0, log_probs, 0)).sum(dim=-1)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """Logits divided by the temperature in float32; no copy is made where neither changes anything."""
    if not temperature > 0:
        raise ValueError(f"got temperature={temperature}; need a number above 0 (greedy decoding has no temperature)")
    return logits.float() if temperature == 1 else logits.float() / temperature


def first_true_index(mask: Tensor) -> Tensor:
    """Index of the first True along the last dimension, or the size of that dimension if there is none.

    Args:
        mask: (..., T) bool.

    Returns:
        (...), int64, in [0, T].

    Raises:
        ValueError: the mask is not bool.
    """
    require_bool(mask=mask)
    # The number of places before the first True.
    return (mask.cumsum(dim=-1) == 0).sum(dim=-1)


def mask_after_eos(tokens: Tensor, stop_token_ids: Iterable[int]) -> Tensor:
    """The completion mask: True up to and including the first stop token, False after it.

    The stop token is a choice of the policy and must be trained, so it is True. Telling padding from the id of the pad
    token instead would lose it wherever the two ids are equal, as they usually are for GPT-2.

    Args:
        tokens: (..., T), completions only: a stop token in the prompt must not end the completion.
        stop_token_ids: ids that end a completion; none means that nothing does, and all is True.

    Returns:
        (..., T) bool.
    """
    is_stop = torch.isin(tokens, torch.tensor(list(stop_token_ids), dtype=tokens.dtype, device=tokens.device))
    return torch.arange(tokens.shape[-1], device=tokens.device) <= first_true_index(is_stop).unsqueeze(-1)
