"""The eager engine: one forward a token with transformers' own cache. Works for every causal language model.

Finished rows leave the batch, so a policy that stops early costs less. The draw of each token comes from outside as a
uniform number, so that the same numbers give the same tokens in every engine, batch size and process count.
"""

from collections.abc import Collection

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


@torch.no_grad()
def generate_eagerly(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    *,
    temperature: float,
    stop_token_ids: Collection[int],
    pad_token_id: int,
) -> Tensor:
    """Sample completions for left-padded prompts (B, P).

    `uniforms` (B, T) in [0, 1) decide the tokens by inverting the cumulative distribution; T is the longest completion.
    Returns (B, T) tokens, padding after the first stop token.
    """
    num_rows, num_tokens = uniforms.shape
    tokens = torch.full((num_rows, num_tokens), pad_token_id, device=prompt_ids.device)
    stops = torch.tensor(sorted(stop_token_ids), device=prompt_ids.device)
    rows = torch.arange(num_rows, device=prompt_ids.device)  # rows still being written
    cache, mask = DynamicCache(config=model.config), prompt_mask.long()
    ids, positions = prompt_ids, (mask.cumsum(1) - 1).clamp(min=0)
    for t in range(num_tokens):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        drawn = invert_cdf(output.logits[:, -1], uniforms[rows, t], temperature)
        tokens[rows, t] = drawn
        going = ~torch.isin(drawn, stops)
        if not going.any():
            break
        if not going.all():
            rows, drawn, mask, positions = rows[going], drawn[going], mask[going], positions[going]
            cache.batch_select_indices(going.nonzero()[:, 0])
        ids, positions = drawn[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return tokens


def invert_cdf(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Tokens (B,) where the cumulative distribution of `logits` (B, V) / temperature first exceeds `uniforms` (B,)."""
    cdf = (logits.float() / temperature).softmax(-1).cumsum(-1)
    targets = (uniforms * cdf[:, -1])[:, None]  # rounding: the last entry is not exactly 1
    return torch.searchsorted(cdf, targets, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
