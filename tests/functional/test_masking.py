"""Masked reductions and scaling: padding never matters, whatever it holds."""

import math

import pytest
import torch
from torch import Tensor

from rlhf_lab.functional import masked_mean, masked_sum, rescale, standardize

REDUCTIONS = [masked_sum, masked_mean]
SCALINGS = [standardize, rescale]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 7, generator=torch.Generator().manual_seed(0)) * 3 + 2


@pytest.fixture
def mask() -> Tensor:
    return torch.arange(7) < torch.tensor([[3], [7], [1], [5]])


def test_sum_and_mean_equal_torch_on_the_selected_places(x: Tensor, mask: Tensor) -> None:
    torch.testing.assert_close(masked_sum(x, mask), x[mask].sum())
    torch.testing.assert_close(masked_mean(x, mask), x[mask].mean())


def test_mean_of_counts_is_a_fraction() -> None:
    assert masked_mean(torch.tensor([True, False, True, True]), torch.tensor([True, True, True, False])) == 2 / 3


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_nothing_true_gives_zero(reduce, x: Tensor) -> None:
    assert reduce(x, torch.zeros_like(x, dtype=torch.bool)) == 0


@pytest.mark.parametrize("scale", SCALINGS)
def test_scaling_nothing_gives_zeros(scale, x: Tensor) -> None:
    assert torch.equal(scale(x, torch.zeros_like(x, dtype=torch.bool)), torch.zeros_like(x))


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_mask_with_a_dimension_of_one_is_expanded(reduce, x: Tensor) -> None:
    rows = torch.tensor([True, False, True, False])
    torch.testing.assert_close(reduce(x, rows[:, None]), reduce(x[rows], torch.ones(2, 7, dtype=torch.bool)))


@pytest.mark.parametrize("scale", SCALINGS)
def test_scaled_has_unit_biased_variance(scale, x: Tensor, mask: Tensor) -> None:
    torch.testing.assert_close(scale(x, mask)[mask].var(correction=0), torch.tensor(1.0))


def test_standardize_removes_the_mean_and_rescale_keeps_it(x: Tensor, mask: Tensor) -> None:
    torch.testing.assert_close(standardize(x, mask)[mask].mean(), torch.tensor(0.0))
    torch.testing.assert_close(rescale(x, mask)[mask].mean(), x[mask].mean())


@pytest.mark.parametrize("scale", SCALINGS)
def test_scaled_padding_is_zero(scale, x: Tensor, mask: Tensor) -> None:
    assert torch.equal(scale(x, mask)[~mask], torch.zeros(12))


def test_standardize_is_batch_norm_without_weights(x: Tensor) -> None:
    # torch's batch norm over one channel: biased variance and the floor inside the root, as here.
    expected = torch.nn.functional.batch_norm(x.reshape(-1, 1), None, None, training=True, eps=1e-8).reshape(x.shape)
    torch.testing.assert_close(standardize(x, torch.ones_like(x, dtype=torch.bool)), expected)


def test_the_floor_is_inside_the_root_and_is_one_in_a_hundred_million() -> None:
    # Variance 1e-8 exactly at the floor: the scale is 1 / sqrt(2e-8), so 1e-4 becomes 1 / sqrt(2).
    x = torch.tensor([[1e-4, -1e-4]], dtype=torch.float64)
    torch.testing.assert_close(standardize(x, x.isfinite())[0, 0].item(), 1 / math.sqrt(2))


@pytest.mark.parametrize("scale", SCALINGS)
def test_a_constant_stays_finite(scale) -> None:
    x = torch.full((2, 3), 4.0)
    expected = 0.0 if scale is standardize else 4.0
    assert torch.equal(scale(x, x.isfinite()), torch.full((2, 3), expected))


@pytest.mark.parametrize("function", REDUCTIONS + SCALINGS)
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_padding_reaches_neither_result_nor_gradient(function, junk: float, x: Tensor, mask: Tensor) -> None:
    weights = torch.linspace(1, 2, 28).reshape(4, 7)

    def result_and_gradient(filling: float) -> tuple[Tensor, Tensor]:
        filled = torch.where(mask, x, filling).requires_grad_()
        result = function(filled, mask)
        (result * (weights if result.ndim else 1)).sum().backward()
        assert filled.grad is not None
        return result.detach(), filled.grad

    result, gradient = result_and_gradient(junk)
    expected_result, expected_gradient = result_and_gradient(0.0)
    assert torch.equal(result, expected_result)
    assert torch.equal(gradient, expected_gradient)
    assert torch.equal(gradient[~mask], torch.zeros(12))
    assert gradient[mask].abs().sum() > 0


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_nan_at_a_true_place_is_not_hidden(reduce, x: Tensor, mask: Tensor) -> None:
    x[0, 0] = math.nan
    assert reduce(x, mask).isnan()


@pytest.mark.parametrize("function", REDUCTIONS + SCALINGS)
def test_extra_padding_columns_change_nothing(function, x: Tensor, mask: Tensor) -> None:
    wide = function(torch.nn.functional.pad(x, (2, 3), value=9.0), torch.nn.functional.pad(mask, (2, 3)))
    torch.testing.assert_close(wide[:, 2:-3] if wide.ndim else wide, function(x, mask))


@pytest.mark.parametrize("function", REDUCTIONS + SCALINGS)
def test_a_mask_that_is_not_bool_is_refused(function, x: Tensor, mask: Tensor) -> None:
    with pytest.raises(ValueError, match=r"torch\.int64.*torch\.bool"):
        function(x, mask.long())


@pytest.mark.parametrize("function", REDUCTIONS + SCALINGS)
def test_a_mask_that_would_grow_or_shift_x_is_refused(function) -> None:
    square = torch.ones(3, 3)
    with pytest.raises(ValueError, match=r"mask \(3,\) does not fit x \(3, 3\)"):
        function(square, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask \(3, 3\) does not fit x \(3, 1\)"):
        function(square[:, :1], torch.ones(3, 3, dtype=torch.bool))
