"""Products in fp32, packed, and of factors rounded to bf16."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlhf_lab.models import products
from rlhf_lab.models.products import FixedProduct, product, through, two_products

NUM_ROWS = (1, 63, 64, 70)  # below, at and above what rows are filled up to
HALF_A_STEP = 2.0**-8  # the most that rounding to bf16 changes a number, relative to it


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().double()


def autocast(enabled: bool = True) -> Any:
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


@pytest.mark.parametrize("num_rows", NUM_ROWS)
def test_a_rounded_product_is_the_exact_product_of_rounded_factors_rounded_once(num_rows: int) -> None:
    x, weight, bias = drawn(num_rows, 24), drawn(24, 40, seed=1), drawn(40, seed=2)
    exact = rounded(x) @ rounded(weight) + rounded(bias)
    with autocast():
        found = product(x, weight, bias)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=HALF_A_STEP, atol=1e-6)


@pytest.mark.parametrize("num_rows", NUM_ROWS)
def test_gradients_of_a_rounded_product_are_those_of_rounded_factors(num_rows: int) -> None:
    given = (drawn(num_rows, 24), drawn(24, 40, seed=1), drawn(40, seed=2))
    upstream = drawn(num_rows, 40, seed=3)
    ours = [x.clone().requires_grad_() for x in given]
    with autocast():
        (product(*ours) * upstream).sum().backward()
    exact = [rounded(x).requires_grad_() for x in given]
    ((exact[0] @ exact[1] + exact[2]) * rounded(upstream)).sum().backward()
    for mine, theirs in zip(ours, exact, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert mine.grad.dtype == torch.float32
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=HALF_A_STEP, atol=1e-5)


def test_without_autocast_products_are_those_of_torch() -> None:
    x, weight, bias = drawn(5, 24), drawn(24, 40, seed=1), drawn(40, seed=2)
    assert torch.equal(product(x, weight, bias), torch.addmm(bias, x, weight))
    assert torch.equal(product(x, weight), x @ weight)


def test_two_products_are_a_product_of_what_the_first_gives() -> None:
    first, second = (
        SimpleNamespace(weight=drawn(24, 40, seed=1), bias=drawn(40, seed=2)),
        SimpleNamespace(weight=drawn(40, 24, seed=3), bias=drawn(24, seed=4)),
    )
    x = drawn(70, 24)
    apart = product(torch.tanh(product(x, first.weight, first.bias)), second.weight, second.bias)
    assert torch.equal(two_products(x, first, torch.tanh, second), apart)
    with autocast():
        rounded_twice = two_products(x, first, torch.tanh, second)
    assert rounded_twice.dtype == torch.float32
    assert float((rounded_twice - apart).norm() / apart.norm()) < 4 * HALF_A_STEP


@pytest.mark.parametrize("enabled", [True, False])
def test_a_linear_layer_is_a_product(enabled: bool) -> None:
    layer, x = nn.Linear(24, 40), drawn(5, 24)
    with autocast(enabled), torch.no_grad():
        assert torch.equal(through(layer, x), product(x, layer.weight.t(), layer.bias))
        assert torch.allclose(through(layer, x), layer(x).float(), rtol=2 * HALF_A_STEP, atol=1e-2 if enabled else 1e-6)


@pytest.mark.parametrize("num_rows", [1, 40, 64, 300])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_fixed_product_is_the_product(num_rows: int, with_bias: bool) -> None:
    x, weight = drawn(num_rows, 256), drawn(256, 1024, seed=1)
    bias = drawn(1024, seed=2) if with_bias else None
    fixed = FixedProduct(weight, bias, num_rows=64)
    assert (fixed.packed is not None) == torch.backends.mkldnn.is_available()
    torch.testing.assert_close(fixed(x), product(x, weight, bias), rtol=1e-4, atol=1e-4)


def test_without_packed_products_the_default_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_OPERATORS", SimpleNamespace())  # as in a torch that calls them something else
    x, weight = drawn(40, 256), drawn(256, 1024, seed=1)
    fixed = FixedProduct(weight, None, num_rows=40)
    assert fixed.packed is None
    assert torch.equal(fixed(x), x @ weight)


def test_small_weights_are_not_packed() -> None:
    assert FixedProduct(drawn(64, 64), None, num_rows=64).packed is None


def test_few_shapes_reach_the_products_of_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN writes a kernel for every one."""
    rows = set()
    multiplied = products._multiplied

    def seen(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows.add(len(x))
        return multiplied(x, weight, bias)

    monkeypatch.setattr(products, "_multiplied", seen)
    with autocast():
        for number in range(1, 200):
            product(drawn(number, 8), drawn(8, 8))
    assert rows == {64, 128, 192, 256}
