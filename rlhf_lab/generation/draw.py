"""One token a row from logits and a uniform number: where all engines meet."""

import torch
from torch import Tensor


def draw_tokens(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Tokens (B,) where the cumulative distribution of `logits` (B, V) / temperature first exceeds `uniforms` (B,), and
    their log-probs (B,) in nats under that distribution."""
    probs = (logits.float() / temperature).softmax(-1)
    cdf = probs.cumsum(-1)
    targets = (uniforms * cdf[:, -1])[:, None]  # rounding: the last entry is not exactly 1
    tokens = torch.searchsorted(cdf, targets, right=True).clamp(max=logits.shape[-1] - 1)
    return tokens[:, 0], probs.gather(1, tokens)[:, 0].log()
