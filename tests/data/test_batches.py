"""Padding and bucketing by length, by hand and against PyTorch's own padding."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from rlhf_lab.data.batches import length_buckets, pad_left, pad_right

ROWS = [[5, 6, 7], [8], [9, 10]]


def test_padding_by_hand() -> None:
    assert pad_right(ROWS, 0).tolist() == [[5, 6, 7], [8, 0, 0], [9, 10, 0]]
    ids, mask = pad_left(ROWS, 0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8], [0, 9, 10]]
    assert mask.tolist() == [[True, True, True], [False, False, True], [False, True, True]]
    assert mask.dtype == torch.bool


@pytest.mark.parametrize("pad", [0, 7, 99])
def test_padding_is_pytorchs(pad: int) -> None:
    tensors = [torch.tensor(row) for row in ROWS]
    assert torch.equal(pad_right(ROWS, pad), pad_sequence(tensors, batch_first=True, padding_value=pad))
    left = pad_sequence(tensors, batch_first=True, padding_value=pad, padding_side="left")
    assert torch.equal(pad_left(ROWS, pad)[0], left)


def test_the_mask_marks_tokens_also_where_they_look_like_padding() -> None:
    assert pad_left([[3, 3], [3]], 3)[1].tolist() == [[True, True], [False, True]]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_buckets_hold_every_row_once_and_neighbours_in_length(size: int) -> None:
    lengths = torch.randint(1, 30, (23,), generator=torch.Generator().manual_seed(0)).tolist()
    buckets = length_buckets(lengths, size)
    assert sorted(row for bucket in buckets for row in bucket) == list(range(23))
    assert all(len(bucket) == min(size, 23) for bucket in buckets[:-1])
    assert 0 < len(buckets[-1]) <= size
    shown = [lengths[row] for bucket in buckets for row in bucket]
    assert shown == sorted(lengths)


def test_rows_of_one_length_keep_their_order() -> None:
    assert length_buckets([4, 2, 4, 2, 4], 3) == [[1, 3, 0], [2, 4]]
    assert length_buckets([], 3) == []
