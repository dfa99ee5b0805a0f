"""Matrix products of small models on a CPU: in fp32, or under autocast from inputs rounded to bf16.

A CPU that multiplies bf16 (AMX, AVX512-BF16) does it at twice the speed of fp32. PyTorch's own autocast gives that away
again: it rounds what attention reads, too, where bf16 is slower, and oneDNN writes a new kernel for every number of
tokens. Here the linear layers alone are rounded, and rows are filled up so that few shapes come, again and again.
`FixedProduct` is for generation, where a few rows meet the same weights at every token. Leaves out GPUs, where autocast
is what it should be.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

WORTH_PACKING = 2**17  # numbers in a weight: smaller ones stay in a core's cache, where their order costs little
ROWS = 64  # the rows of a rounded product are a multiple of this


@lru_cache(maxsize=1)
def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16. Without them they take longer than those of fp32.

    False, too, for a PyTorch that can not say.
    """
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def in_fp32() -> AbstractContextManager[Any]:
    """Within it, autocast changes nothing on a CPU."""
    if torch.is_autocast_enabled("cpu"):
        return torch.autocast("cpu", enabled=False)
    return nullcontext()  # small models notice the other one's bookkeeping


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` (N, D) times `weight` (D, M) plus `bias` (M,): (N, M) in fp32; under autocast both factors are rounded."""
    if torch.is_autocast_enabled("cpu"):
        with in_fp32():
            return _Emptied.apply(_multiplied(_Filled.apply(x), weight, bias), len(x))
    return _multiplied(x, weight, bias)


def two_products(x: Tensor, first: Any, act: Any, second: Any) -> Tensor:
    """`second(act(first(x)))` for two layers with `weight` (D, M) and `bias`; under autocast what is in between stays
    bf16."""
    if torch.is_autocast_enabled("cpu"):
        with in_fp32():
            between = act(_multiplied(_Filled.apply(x), first.weight, first.bias))
            return _Emptied.apply(_multiplied(between, second.weight, second.bias), len(x))
    return _multiplied(act(_multiplied(x, first.weight, first.bias)), second.weight, second.bias)


def _multiplied(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product, in the type of `x`; sums are fp32."""
    weight = weight.to(x.dtype)
    return x @ weight if bias is None else torch.addmm(bias.to(x.dtype), x, weight)


def through(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer(x)` for `x` (N, D); under a CPU's autocast by `product`."""
    if x.is_cpu and x.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        return product(x, layer.weight.t(), layer.bias)
    found: Tensor = layer(x)
    return found


class FixedProduct:
    """`product` in fp32 with one weight, again and again: a copy of it lies in the order in which oneDNN reads it.

    For a few dozen rows the default product spends a third of its time on that order, every time. PyTorch has these
    operators for its compiler and no public name for them; where they are not there, this is the default product.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, num_rows: int) -> None:
        """`weight` (D, M), `bias` (M,); it is packed for about `num_rows` rows."""
        self.weight, self.bias = weight, bias
        worth_it = weight.numel() >= WORTH_PACKING and _packs()
        self.packed = _OPERATORS._reorder_linear_weight(weight.t(), num_rows) if worth_it else None

    def __call__(self, x: Tensor) -> Tensor:
        """(N, D) to (N, M), without gradients."""
        if self.packed is None:
            return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)
        found: Tensor = _OPERATORS._linear_pointwise(x, self.packed, self.bias, "none", [], None)
        return found


_OPERATORS = torch.ops.mkldnn


def _packs() -> bool:
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(_OPERATORS, name) for name in names)


class _Filled(torch.autograd.Function):
    """(N, D) in fp32 to bf16, with rows of zeros up to a multiple of `ROWS`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.num_rows = len(x)
        return _fill(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[: ctx.num_rows].float()


class _Emptied(torch.autograd.Function):
    """The opposite of `_Filled`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, num_rows: int) -> Tensor:
        return x[:num_rows].float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _fill(gradient), None


def _fill(x: Tensor) -> Tensor:
    filled = torch.empty(len(x) + -len(x) % ROWS, x.shape[1], dtype=torch.bfloat16)
    filled[: len(x)].copy_(x)
    filled[len(x) :].zero_()
    return filled
