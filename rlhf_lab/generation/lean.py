"""The lean engine: GPT-2 on a CPU without the cost of modules, masks and growing caches around every small step.

A decode step of a small model takes transformers longer in Python than in arithmetic. Here keys and values lie in one
block made beforehand, weights are read from the model itself, and a step is a dozen operations a layer. The contract is
that of the eager engine: the same uniforms give the same tokens. Leaves out every other architecture, adapters, GPUs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2LMHeadModel

from rlhf_lab.generation.draw import draw_tokens
from rlhf_lab.generation.stops import Stops
from rlhf_lab.models import lean_gpt2
from rlhf_lab.models.lean_gpt2 import Attend, Cells, block_output, norm, reading

WORTH_A_COPY = 0.75  # rows are gathered anew once this share of them or less is still being written


def fits(model: Any) -> bool:
    """Whether `model` is a plain GPT-2 in fp32 on a CPU, without adapters or rare attention settings."""
    return isinstance(model, GPT2LMHeadModel) and lean_gpt2.fits(model)


class LeanGPT2:
    """The weights of a GPT-2 and the keys and values of B rows of up to C columns."""

    def __init__(self, model: Any, num_rows: int, num_columns: int) -> None:
        trunk, config = model.transformer, model.config
        self.blocks = list(trunk.h)
        self.tokens, self.positions, self.last_norm = trunk.wte.weight, trunk.wpe.weight, trunk.ln_f
        self.head = model.lm_head.weight
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
        num_rows, n = ids.shape
        every = Cells(None, (num_rows, n))
        x = (F.embedding(ids, self.tokens) + F.embedding(positions, self.positions)).view(num_rows * n, -1)
        for number, block in enumerate(self.blocks):
            x = block_output(block, x, every, self._attend(self.cache[number], start, sees))
        return F.linear(norm(self.last_norm, x.view(num_rows, n, -1)[:, -1]), self.head)

    def _attend(self, cache: Tensor, start: int, sees: Tensor) -> Attend:
        """Attention that writes the new keys and values down first."""

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            stop = start + q.shape[2]
            cache[0, :, :, start:stop] = k
            cache[1, :, :, start:stop] = v
            return reading(sees)(q, cache[0, :, :, :stop], cache[1, :, :, :stop])

        return attend


@torch.no_grad()
def generate_lean(
    model: Any,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    *,
    temperature: float,
    stops: Stops,
    pad_token_id: int,
) -> tuple[Tensor, Tensor]:
    """Sample completions for left-padded prompts; arguments and result as in `generate_eagerly`."""
    (num_rows, width), num_tokens = prompt_ids.shape, uniforms.shape[1]
    tokens = torch.full((num_rows, num_tokens), pad_token_id)
    log_probs = torch.zeros(num_rows, num_tokens)
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
        drawn, drawn_log_probs = draw_tokens(logits, uniforms[rows, t], temperature)
        tokens[rows[going], t], log_probs[rows[going], t] = drawn[going], drawn_log_probs[going]
        going = going & ~stops.end(tokens[rows, : t + 1])
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
    return tokens, log_probs
