"""Sums, means and scaling over the True places of a mask.

A mask is bool and named for what is True. Padding may hold anything, NaN and inf included: it is cut out with
`torch.where`, never with a multiplication, because 0 * NaN is NaN in the value and in the gradient.

The trap that no reduction can close: `masked_mean(f(x), mask)` keeps a NaN of `f(x)` out of the result, but when `f`
itself has an infinite or NaN derivative at the padding, the chain rule multiplies that by 0 and `x` gets NaN gradients
at the padding, which a shared weight below `x` then sums. Where padding may be wild, fill it before `f`.

Left out: sums over processes (gather first, then call) and reductions over a single dimension.

    pytest tests/functional/test_masking.py
"""

import torch
from torch import Tensor

# Inside the root, as in OpenAI's lm-human-preferences `whiten`; a constant input gives 0 and not a division by 0.
_VARIANCE_FLOOR = 1e-8


def require_same_shape(**tensors: Tensor) -> None:
    """Raise ValueError unless all tensors have one shape.

    A silent broadcast, such as (N,) against (N, 1) to (N, N), trains without an error and learns nothing.
    """
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        given = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(
            f"got shapes {given}; all must be equal: use expand, squeeze or unsqueeze to say what is meant"
        )


def require_bool(**tensors: Tensor) -> None:
    """Raise ValueError unless all tensors are bool."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.bool:
            raise ValueError(f"{name} is {tensor.dtype}; it must be torch.bool: write `{name}.bool()`")


def _expanded(mask: Tensor, x: Tensor) -> Tensor:
    """The mask in the shape of x; only dimensions of size 1 grow, and x never does."""
    require_bool(mask=mask)
    fits = mask.ndim == x.ndim and all(size in (1, full) for size, full in zip(mask.shape, x.shape, strict=True))
    if not fits:
        raise ValueError(
            f"mask {tuple(mask.shape)} does not fit x {tuple(x.shape)}; it needs as many dimensions as x, "
            "each of the size in x or 1: use unsqueeze to say which dimension is missing"
        )
    return mask.expand_as(x)


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum of x over the True places of mask.

    Args:
        x: any shape, for example (B, T).
        mask: bool, same number of dimensions as x; dimensions of size 1 are expanded.

    Returns:
        A scalar in the units of x; 0 if nothing is True.

    Raises:
        ValueError: the mask is not bool or does not fit x.
    """
    return torch.where(_expanded(mask, x), x, 0).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x over the True places of mask: `masked_sum` divided by the number of True.

    The mean of micro-batches' means is not the mean of the batch when their token counts differ. Code that cuts a
    batch sums with `masked_sum` and divides by the count of the whole batch.

    Args:
        x: any shape, for example (B, T).
        mask: bool, same number of dimensions as x; dimensions of size 1 are expanded.

    Returns:
        A scalar in the units of x; 0, not NaN, if nothing is True.

    Raises:
        ValueError: the mask is not bool or does not fit x.
    """
    # The count is taken over the expanded mask: a (B, 1) mask on (B, T) counts T places a row.
    return masked_sum(x, mask) / _expanded(mask, x).sum().clamp(min=1)


def standardize(x: Tensor, mask: Tensor) -> Tensor:
    """x with mean 0 and variance 1 over the True places: (x - mean) / sqrt(variance + 1e-8).

    The variance is the biased one (divided by the count), as in OpenAI's lm-human-preferences `whiten` with
    `shift_mean=True`, used for advantages (Huang et al. 2023, "The N implementation details of RLHF with PPO").

    Args:
        x: (B, T), or any shape. All rows of the batch, over all processes: parts have other means.
        mask: bool, same number of dimensions as x; dimensions of size 1 are expanded.

    Returns:
        Same shape as x, without unit; 0 where the mask is False. A single True place gives 0.

    Raises:
        ValueError: the mask is not bool or does not fit x.
    """
    centred, scale = _centred_and_scale(x, mask)
    return torch.where(mask, centred * scale, 0)


def rescale(x: Tensor, mask: Tensor) -> Tensor:
    """x with variance 1 and its own mean over the True places: (x - mean) / sqrt(variance + 1e-8) + mean.

    As `standardize`, but the mean is kept: OpenAI's `whiten` with `shift_mean=False`, used for rewards, where taking
    the mean away would change which episode lengths pay.

    Args:
        x: (B, T), or any shape. All rows of the batch, over all processes: parts have other means.
        mask: bool, same number of dimensions as x; dimensions of size 1 are expanded.

    Returns:
        Same shape as x; 0 where the mask is False.

    Raises:
        ValueError: the mask is not bool or does not fit x.
    """
    centred, scale = _centred_and_scale(x, mask)
    return torch.where(mask, centred * scale + masked_mean(x, mask), 0)


def _centred_and_scale(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """x minus its masked mean (0 on padding), and 1 / sqrt(masked variance + 1e-8)."""
    # Padding is filled before anything is squared, so that its gradient is 0 and not 0 * NaN.
    centred = torch.where(mask, x - masked_mean(x, mask), 0)
    return centred, torch.rsqrt(masked_mean(centred.square(), mask) + _VARIANCE_FLOOR)
