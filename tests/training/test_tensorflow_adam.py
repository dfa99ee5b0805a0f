"""TensorFlow's form of Adam: against numbers worked out by hand, and against PyTorch's where the two agree."""

import math

import pytest
import torch

from rlhf_lab.training.tensorflow_adam import TensorFlowAdam


def moved(optimizer_class: type[torch.optim.Optimizer], gradients: list[float], **settings: float) -> float:
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = optimizer_class([weight], **settings)
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return weight.item()


def test_without_eps_the_two_forms_are_one() -> None:
    gradients = [0.3, -2.0, 0.01, 5.0]
    ours = moved(TensorFlowAdam, gradients, lr=0.1, eps=0.0)
    assert ours == pytest.approx(moved(torch.optim.Adam, gradients, lr=0.1, eps=0.0), rel=1e-9)


def test_the_first_step_by_hand() -> None:
    """After one step m = 0.1 g, v = 0.001 g^2, so the step is lr * sqrt(0.001) g / (sqrt(0.001) |g| + eps)."""
    gradient, eps = 1e-5, 1e-5
    root = math.sqrt(0.001)
    expected = -0.1 * root * gradient / (root * gradient + eps)
    assert moved(TensorFlowAdam, [gradient], lr=0.1, eps=eps) == pytest.approx(expected, rel=1e-9)
    assert moved(torch.optim.Adam, [gradient], lr=0.1, eps=eps) == pytest.approx(-0.1 * 0.5, rel=1e-6)


def test_state_survives_a_save() -> None:
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)]
    copies = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    one, other = TensorFlowAdam(weights, lr=0.1), TensorFlowAdam(copies, lr=0.1)
    gradients = torch.randn(4, 2, 3)

    def step(optimizer: TensorFlowAdam, parameters: list[torch.nn.Parameter], number: int) -> None:
        for parameter, gradient in zip(parameters, gradients[number], strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()

    step(one, weights, 0)
    step(other, copies, 0)
    resumed = TensorFlowAdam(copies, lr=0.1)
    resumed.load_state_dict(other.state_dict())
    for number in (1, 2, 3):
        step(one, weights, number)
        step(resumed, copies, number)
    assert all(torch.equal(weight, copy) for weight, copy in zip(weights, copies, strict=True))
