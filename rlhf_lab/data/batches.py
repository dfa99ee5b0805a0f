"""Rows of tokens to padded batches, and rows of like length together. Padding is always on the right for training."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """(B, L) ids from B rows of up to L tokens."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """(B, L) ids and their mask (True on real tokens), real tokens flush right, as generation needs them."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*[pad] * (width - len(row)), *row] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(width) >= (width - lengths)[:, None]


def length_buckets(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Row numbers in groups of at most `size`, neighbours in length together: no group is padded more than it must."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    return [order[start : start + size] for start in range(0, len(order), size)]
