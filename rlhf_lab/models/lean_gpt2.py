"""GPT-2 without its modules: plain functions over its own weights, for small models whose steps are mostly overhead.

Nothing is computed that nobody reads: padding takes no place but in attention, the last block and the head run on the
tokens whose states are asked for, and no token after them is read. `fits` says for which models the numbers are those
of transformers (to rounding). Under autocast linear layers read bf16, all else is fp32. Leaves out every other
architecture, adapters and hooks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from rlhf_lab.models.products import in_fp32, multiplies_bf16, product, two_products

Attend = Callable[
    [Tensor, Tensor, Tensor], Tensor
]  # queries, keys, values (B, heads, L, D / heads) to (B, heads, L, ..)


def fits(model: Any, *, replaced_forward: bool = False, compiled: bool = False) -> bool:
    """Whether `model` is a plain GPT-2, with a language or a score head, in fp32 on a CPU: no adapters, hooks, replaced
    forwards, dropout, checkpointing or rare attention settings.

    `replaced_forward` lets the model's own forward (not its modules') be another one that gives the same numbers,
    `compiled` its trunk's.
    """
    if type(model) not in (GPT2LMHeadModel, GPT2ForSequenceClassification):
        return False
    trunk, config, weight = model.transformer, model.config, model.transformer.wte.weight
    modules, head = list(model.modules()), model.lm_head if type(model) is GPT2LMHeadModel else model.score
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and (multiplies_bf16() or not torch.is_autocast_enabled("cpu"))
        and not (trunk.gradient_checkpointing and trunk.training)
        and (compiled or trunk._compiled_call_impl is None)
        and len(trunk.h) > 0
        and config.scale_attn_weights
        and not config.scale_attn_by_inverse_layer_idx
        and not config.add_cross_attention
        and type(trunk.wte) is nn.Embedding
        and type(head) is nn.Linear
        and (head.bias is None or type(model) is not GPT2LMHeadModel)
        and all(type(layer) is Conv1D for block in trunk.h for layer in layers(block))
        and not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
        and not any(_is_replaced(module) for module in modules if not (replaced_forward and module is model))
        and not any(module.p > 0 and module.training for module in modules if isinstance(module, nn.Dropout))
    )


def states_at(
    trunk: Any, ids: Tensor, asked: Tensor, *, positions: Tensor | None = None, sees: Tensor | None = None
) -> Tensor:
    """(N, D) last hidden states, after the final norm, of the N tokens of `ids` (B, L) where `asked` (B, L) is True,
    row by row.

    A token reads what is on its left in its row, or what `sees` (B, 1, L, L) bool says, then at `positions` (B, L).
    """
    num_rows, width = ids.shape
    left = asked.flip(1).cumsum(1).flip(1) > 0  # in each row, up to the last token that is asked for
    read, wanted = Cells.of(left), Cells.of(asked)
    places = torch.arange(width).expand(num_rows, -1) if positions is None else positions
    x = F.embedding(read.pick(ids), trunk.wte.weight) + F.embedding(read.pick(places), trunk.wpe.weight)
    attend = causal if sees is None else reading(sees)
    *others, last = trunk.h
    for block in others:
        x = block_output(block, x, read, attend)
    return norm(trunk.ln_f, block_output(last, x, read, attend, wanted))


@dataclass(frozen=True)
class Cells:
    """Some cells of a table of B rows and L columns, numbered row by row."""

    index: Tensor | None  # (N,) numbers of the cells; None: all
    shape: tuple[int, int]  # (B, L)

    @classmethod
    def of(cls, mask: Tensor) -> "Cells":
        return cls(mask.flatten().nonzero()[:, 0], (mask.shape[0], mask.shape[1]))

    def pick(self, table: Tensor) -> Tensor:
        """(B, L, ...) to (N, ...)."""
        flat = table.reshape(-1, *table.shape[2:])
        return flat if self.index is None else _Pick.apply(flat, self.index)

    def spread(self, flat: Tensor) -> Tensor:
        """(N, C) to (B, L, C), zeros elsewhere."""
        full = flat if self.index is None else _Spread.apply(flat, self.index, self.shape[0] * self.shape[1])
        return full.view(*self.shape, -1)


class _Pick(torch.autograd.Function):
    """Rows at `index`, each once: unlike indexing, going back is a copy and no sum."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.num_rows = len(flat)
        return flat.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.num_rows, *gradient.shape[1:]).index_copy_(0, index, gradient), None


class _Spread(torch.autograd.Function):
    """The opposite of `_Pick`."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index: Tensor, num_rows: int) -> Tensor:
        ctx.save_for_backward(index)
        return flat.new_zeros(num_rows, *flat.shape[1:]).index_copy_(0, index, flat)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return gradient.index_select(0, index), None, None


def block_output(block: Any, x: Tensor, read: Cells, attend: Attend, asked: Cells | None = None) -> Tensor:
    """What a transformer block makes of the tokens x (M, D) at the cells `read`, at all of them or at `asked` only."""
    heads, width = block.attn.num_heads, x.shape[1]
    c_attn, seen = block.attn.c_attn, norm(block.ln_1, x)
    if asked is None:
        q, k, v = split_heads(read.spread(linear(c_attn, seen)), 3, heads)
    else:
        assert read.index is not None
        assert asked.index is not None
        chosen = torch.searchsorted(read.index, asked.index)  # places of the asked among the read
        x = _Pick.apply(x, chosen)
        queries = product(_Pick.apply(seen, chosen), c_attn.weight[:, :width], c_attn.bias[:width])
        (q,) = split_heads(asked.spread(queries), 1, heads)
        k, v = split_heads(read.spread(product(seen, c_attn.weight[:, width:], c_attn.bias[width:])), 2, heads)
    mixed = attend(q, k, v).transpose(1, 2).flatten(2)
    x = x + linear(block.attn.c_proj, (asked or read).pick(mixed))
    return x + two_products(norm(block.ln_2, x), block.mlp.c_fc, block.mlp.act, block.mlp.c_proj)


def split_heads(mixed: Tensor, parts: int, heads: int) -> Tensor:
    """(B, L, parts D) to (parts, B, heads, L, D / heads)."""
    num_rows, num_columns, width = mixed.shape
    return mixed.view(num_rows, num_columns, parts, heads, width // (parts * heads)).permute(2, 0, 3, 1, 4)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every column reads itself and what is on its left."""
    with in_fp32():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def reading(sees: Tensor) -> Attend:
    """Attention to the columns that `sees` (B or 1, 1, n, L) bool says."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with in_fp32():
            return F.scaled_dot_product_attention(q, k, v, attn_mask=sees)

    return attend


def norm(layer: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def linear(layer: Any, x: Tensor) -> Tensor:
    return product(x, layer.weight, layer.bias)


def _is_replaced(module: nn.Module) -> bool:
    """Whether another forward stands in the place of the class's own. Accelerate's around it, which casts, is none."""
    around = vars(module).get("_original_forward")
    return "forward" in vars(module) and getattr(around, "__func__", None) is not type(module).forward


def layers(block: Any) -> tuple[Any, ...]:
    """The four linear layers of a block, in the order of its forward."""
    return (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
