"""The lean engine: GPT-2 on a CPU without the cost of modules, masks and growing caches around every small step.

A decode step of a small model takes transformers longer in Python than in arithmetic. Here keys and values lie in one
block made beforehand, weights are read from the model itself, and a step is a dozen operations a layer; a prompt with
many completions is read once. The contract is that of the eager engine: the same uniforms give the same tokens. Leaves
out every other architecture, adapters, GPUs and autocast: it computes in fp32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2LMHeadModel

from rlhf_lab.generation.draw import draw_tokens
from rlhf_lab.generation.stops import Stops
from rlhf_lab.models import lean_gpt2
from rlhf_lab.models.lean_gpt2 import Attend, Cells, block_output, layers, norm, reading
from rlhf_lab.models.products import FixedProduct

WORTH_A_COPY = 0.75  # rows are gathered anew once this share of them or less is still being written
FEW_PROMPTS = 0.5  # different ones among the rows: each is read once, its keys and values copied to its rows


def fits(model: Any) -> bool:
    """Whether `model` is a plain GPT-2 in fp32 on a CPU, without adapters or rare attention settings."""
    return isinstance(model, GPT2LMHeadModel) and lean_gpt2.fits(model, compiled=True)


class LeanGPT2:
    """The weights of a GPT-2, and the keys and values of B rows of up to C columns.

    `read` takes whole prompts, `read_next` one more token a row.
    """

    def __init__(self, model: Any, seen: Tensor) -> None:
        """`seen` (B, C) bool: columns that are not padding, those to come included."""
        trunk, config = model.transformer, model.config
        self.blocks = list(trunk.h)
        self.tokens, self.positions, self.last_norm = trunk.wte.weight, trunk.wpe.weight, trunk.ln_f
        self.heads, size = config.n_head, config.n_embd // config.n_head
        num_rows, num_columns = seen.shape
        self.linears = [
            [FixedProduct(layer.weight, layer.bias, num_rows) for layer in layers(block)] for block in trunk.h
        ]
        self.head = FixedProduct(model.lm_head.weight.t(), None, num_rows)
        self.seen = seen
        self.cache = torch.empty(2, config.n_layer, num_rows, self.heads, num_columns, size)
        self.bias = self._bias()

    def _bias(self) -> Tensor:
        """(B heads, 1, C) what is added to attention scores: minus infinity on padding."""
        bias = torch.zeros(self.seen.shape).masked_fill(~self.seen, -torch.inf)
        return bias[:, None].expand(-1, self.heads, -1).reshape(-1, 1, self.seen.shape[1])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only; one that is named several times goes on in copies."""
        self.seen, self.cache = self.seen[rows], self.cache[:, :, rows]
        self.bias = self._bias()

    def read(self, ids: Tensor, positions: Tensor) -> Tensor:
        """(B, V) logits after the prompts `ids` (B, P), at `positions` (B, P), in the columns from 0 on."""
        width = ids.shape[1]
        real, last = self.seen[:, :width], torch.arange(width) == width - 1
        cells, ends = Cells.of(real), Cells.of(last.expand_as(real))
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        # Padding reads itself, as attention to nothing is not defined
        attend = reading(((real[:, None] & causal) | torch.eye(width, dtype=torch.bool))[:, None])
        x = F.embedding(cells.pick(ids), self.tokens) + F.embedding(cells.pick(positions), self.positions)
        for number, block in enumerate(self.blocks[:-1]):
            x = block_output(block, x, cells, self._writing(number, attend))
        x = block_output(self.blocks[-1], x, cells, self._writing(len(self.blocks) - 1, attend), ends)
        return self.head(norm(self.last_norm, x))

    def _writing(self, number: int, attend: Attend) -> Attend:
        """`attend`, with keys and values of block `number` written down."""

        def written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.cache[0, number, :, :, : k.shape[2]] = k
            self.cache[1, number, :, :, : v.shape[2]] = v
            return attend(q, k, v)

        return written

    def read_next(self, ids: Tensor, positions: Tensor, column: int) -> Tensor:
        """(B, V) logits after one more token a row: `ids` and `positions` (B,), in column `column`."""
        x = F.embedding(ids, self.tokens) + F.embedding(positions, self.positions)
        for number, (block, (mix, merge, widen, narrow)) in enumerate(zip(self.blocks, self.linears, strict=True)):
            x = x + merge(self._attended(number, mix(norm(block.ln_1, x)), column))
            x = x + narrow(block.mlp.act(widen(norm(block.ln_2, x))))
        return self.head(norm(self.last_norm, x))

    def _attended(self, number: int, mixed: Tensor, column: int) -> Tensor:
        """(B, D) what the heads of block `number` read for new tokens; `mixed` (B, 3 D) queries, keys and values."""
        q, k, v = mixed.view(len(mixed), 3, self.heads, -1).unbind(1)  # each (B, heads, D / heads)
        self.cache[0, number, :, :, column], self.cache[1, number, :, :, column] = k, v
        keys, values = self.cache[:, number].flatten(1, 2)[:, :, : column + 1]
        query = q.reshape(len(keys), 1, -1)
        # Not scaled_dot_product_attention: for a single query it takes a third longer
        bias = self.bias[..., : column + 1]
        scores = torch.baddbmm(bias, query, keys.transpose(1, 2), alpha=query.shape[-1] ** -0.5)
        return torch.bmm(scores.softmax(-1), values).view(len(mixed), -1)


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
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
    engine, logits, position = _after_prompts(model, prompt_ids, prompt_mask.bool(), num_tokens)
    rows = torch.arange(num_rows)  # rows in the engine, some of them finished already
    going = torch.ones(num_rows, dtype=torch.bool)
    for t in range(num_tokens):
        drawn, drawn_log_probs = draw_tokens(logits, uniforms[rows, t], temperature)
        tokens[rows[going], t], log_probs[rows[going], t] = drawn[going], drawn_log_probs[going]
        going = going & ~stops.end(tokens[rows, : t + 1])
        share = float(going.float().mean())
        if share == 0 or t + 1 == num_tokens:
            break
        if share <= WORTH_A_COPY:
            engine.keep(going)
            rows, drawn, position = rows[going], drawn[going], position[going]
            going = torch.ones(len(rows), dtype=torch.bool)
        logits, position = engine.read_next(drawn, position, width + t), position + 1
    return tokens, log_probs


def _after_prompts(model: Any, ids: Tensor, mask: Tensor, num_tokens: int) -> tuple[LeanGPT2, Tensor, Tensor]:
    """An engine that has read the prompts `ids` (B, P) and has room for `num_tokens` more; what it says after them
    (B, V), and the position (B,) of the token that comes next."""
    different, number = torch.unique(torch.cat([ids, mask], dim=1), dim=0, return_inverse=True)
    is_shared = len(different) <= FEW_PROMPTS * len(ids)
    if is_shared:
        ids, mask = different[:, : ids.shape[1]], different[:, ids.shape[1] :].bool()
    engine = LeanGPT2(model, F.pad(mask, (0, num_tokens), value=True))
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    logits, position = engine.read(ids, positions), positions[:, -1] + 1
    if not is_shared:
        return engine, logits, position
    engine.keep(number)
    return engine, logits[number], position[number]
