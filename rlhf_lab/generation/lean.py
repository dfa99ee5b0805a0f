"""The lean engine: GPT-2 on a CPU without the cost of modules, masks and growing caches around every small step.

A decode step of a small model takes transformers longer in Python than in arithmetic. Here keys and values lie in one
block made beforehand, weights are read from the model itself, and a step is a dozen operations a layer. The contract is
that of the eager engine: the same uniforms give the same tokens. Leaves out every other architecture, adapters, GPUs.
"""

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from rlhf_lab.generation.eager import invert_cdf

WORTH_A_COPY = 0.75  # rows are gathered anew once this share of them or less is still being written


def fits(model: Any) -> bool:
    """Whether `model` is a plain GPT-2 in fp32 on a CPU, without adapters or rare attention settings."""
    if type(model) is not GPT2LMHeadModel:
        return False
    config, weight = model.config, model.lm_head.weight
    blocks = [(b.attn.c_attn, b.attn.c_proj, b.mlp.c_fc, b.mlp.c_proj) for b in model.transformer.h]
    layers = [layer for block in blocks for layer in block]
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and all(type(layer) is Conv1D for layer in layers)
        and type(model.lm_head) is nn.Linear
        and type(model.transformer.wte) is nn.Embedding
        and config.scale_attn_weights
        and not config.scale_attn_by_inverse_layer_idx
        and not config.add_cross_attention
    )


class LeanGPT2:
    """The weights of a GPT-2 and the keys and values of B rows of up to C columns."""

    def __init__(self, model: Any, num_rows: int, num_columns: int) -> None:
        trunk, config = model.transformer, model.config
        self.blocks = list(trunk.h)
        self.tokens, self.positions, self.last_norm = trunk.wte.weight, trunk.wpe.weight, trunk.ln_f
        self.head = model.lm_head.weight
        self.num_heads = config.n_head
        shape = (config.n_layer, 2, num_rows, config.n_head, num_columns, config.n_embd // config.n_head)
        self.cache = torch.empty(shape)

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        self.cache = self.cache[:, :, rows]

    def logits(self, ids: Tensor, positions: Tensor, start: int, sees: Tensor) -> Tensor:
        """(B, V) logits after the last of n new columns.

        `ids` and `positions` (B, n) stand in the columns from `start` on; `sees` (B, 1, n, start + n) bool says which
        columns each of them reads.
        """
        x = F.embedding(ids, self.tokens) + F.embedding(positions, self.positions)
        for number, block in enumerate(self.blocks):
            x = self._block(block, x, self.cache[number], start, sees)
        return F.linear(_norm(self.last_norm, x[:, -1]), self.head)

    def _block(self, block: Any, x: Tensor, cache: Tensor, start: int, sees: Tensor) -> Tensor:
        num_rows, n, width = x.shape
        flat = x.reshape(-1, width)
        mixed = _conv(block.attn.c_attn, _norm(block.ln_1, flat))
        q, k, v = mixed.view(num_rows, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        cache[0, :, :, start : start + n] = k
        cache[1, :, :, start : start + n] = v
        keys, values = cache[0, :, :, : start + n], cache[1, :, :, : start + n]
        read = F.scaled_dot_product_attention(q, keys, values, attn_mask=sees)
        flat = flat + _conv(block.attn.c_proj, read.transpose(1, 2).reshape(-1, width))
        inner = block.mlp.act(_conv(block.mlp.c_fc, _norm(block.ln_2, flat)))
        return (flat + _conv(block.mlp.c_proj, inner)).view(num_rows, n, width)


def _norm(norm: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _conv(layer: Any, x: Tensor) -> Tensor:
    return torch.addmm(layer.bias, x, layer.weight)


@torch.no_grad()
def generate_lean(
    model: Any,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    *,
    temperature: float,
    stop_token_ids: Collection[int],
    pad_token_id: int,
) -> Tensor:
    """Sample completions for left-padded prompts; arguments and result as in `generate_eagerly`."""
    (num_rows, width), num_tokens = prompt_ids.shape, uniforms.shape[1]
    tokens = torch.full((num_rows, num_tokens), pad_token_id)
    stops = torch.tensor(sorted(stop_token_ids))
    engine = LeanGPT2(model, num_rows, width + num_tokens)
    seen = torch.cat([prompt_mask.bool(), torch.ones(num_rows, num_tokens, dtype=torch.bool)], dim=1)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    sees = (seen[:, None, :width] & causal) | torch.eye(width, dtype=torch.bool)  # padding reads itself, not nothing
    positions = (prompt_mask.long().cumsum(1) - 1).clamp(min=0)
    logits = engine.logits(prompt_ids, positions, 0, sees[:, None])
    rows = torch.arange(num_rows)  # rows in the engine, some of them finished already
    going = torch.ones(num_rows, dtype=torch.bool)
    position = positions[:, -1:] + 1
    for t in range(num_tokens):
        drawn = invert_cdf(logits, uniforms[rows, t], temperature)
        tokens[rows[going], t] = drawn[going]
        going = going & ~torch.isin(drawn, stops)
        share = float(going.float().mean())
        if share == 0 or t + 1 == num_tokens:
            break
        if share <= WORTH_A_COPY:
            engine.keep(going)
            rows, drawn, position, seen = rows[going], drawn[going], position[going], seen[going]
            going = torch.ones(len(rows), dtype=torch.bool)
        column = width + t
        logits = engine.logits(drawn[:, None], position, column, seen[:, None, None, : column + 1])
        position = position + 1
    return tokens
