"""The eager engine: one forward a token with transformers' own cache. Works for every causal language model.

Finished rows leave the batch, so a policy that stops early costs less. The draw of each token comes from outside as a
uniform number, so that the same numbers give the same tokens in every engine, batch size and process count.
"""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from rlhf_lab.generation.draw import draw_tokens
from rlhf_lab.generation.stops import Stops


@torch.no_grad()
def generate_eagerly(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    *,
    temperature: float,
    stops: Stops,
    pad_token_id: int,
) -> tuple[Tensor, Tensor]:
    """Sample completions for left-padded prompts (B, P).

    `uniforms` (B, T) in [0, 1) decide the tokens by inverting the cumulative distribution; T is the longest completion.
    Returns (B, T) tokens, padding after the first stop, and their log-probs (B, T) in nats, 0 on padding.
    """
    num_rows, num_tokens = uniforms.shape
    tokens = torch.full((num_rows, num_tokens), pad_token_id, device=prompt_ids.device)
    log_probs = torch.zeros(num_rows, num_tokens, device=prompt_ids.device)
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
        drawn, log_probs[rows, t] = draw_tokens(output.logits[:, -1], uniforms[rows, t], temperature)
        tokens[rows, t] = drawn
        going = ~stops.end(tokens[rows, : t + 1])
        if not going.any():
            break
        if not going.all():
            rows, drawn, mask, positions = rows[going], drawn[going], mask[going], positions[going]
            cache.batch_select_indices(going.nonzero()[:, 0])
        ids, positions = drawn[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return tokens, log_probs
