"""Policy and critic losses: rlax's numbers, the shape of the PPO paper's figure 1, and facts about gradients."""

import math

import pytest
import torch
from stable_baselines3.common.utils import explained_variance as sb3_explained_variance
from torch import Tensor
from torch.distributions import Categorical

from rlhf_lab.functional import (
    clip_fraction,
    clipped_surrogate,
    clipped_value_error,
    explained_variance,
    masked_mean,
    policy_gradient,
    token_log_probs,
)

# The four ends of the two curves in figure 1 of the PPO paper (arXiv 1707.06347), at clip_range 0.2:
# ratio, advantage, loss, whether the curve is flat there.
FIGURE_1 = [
    (1.5, 1.0, -1.2, True),
    (0.5, 1.0, -0.5, False),
    (1.5, -1.0, 1.5, False),
    (0.5, -1.0, 0.8, True),
    (1.1, 1.0, -1.1, False),
    (0.9, -1.0, 0.9, False),
]


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), of)[0]


def random_update(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_ratio = 0.5 * torch.randn(8, 16, generator=generator)
    return log_ratio.requires_grad_(), torch.randn(8, 16, generator=generator)


@pytest.mark.parametrize(("ratio", "advantage", "loss", "is_flat"), FIGURE_1)
def test_surrogate_follows_figure_1_of_the_paper(ratio: float, advantage: float, loss: float, is_flat: bool) -> None:
    log_ratio = torch.tensor([ratio]).log().requires_grad_()
    got = clipped_surrogate(log_ratio, torch.tensor([advantage]), 0.2)
    assert got.item() == pytest.approx(loss)
    assert (gradient(got, log_ratio) == 0).item() is is_flat
    assert clip_fraction(log_ratio, torch.tensor([advantage]), 0.2).item() == is_flat


def test_surrogate_gives_the_numbers_of_rlax() -> None:
    # google-deepmind/rlax, rlax/_src/policy_gradients_test.py, ClippedSurrogatePGLossTest (numbers, and its tolerance).
    actions = torch.tensor([0, 1, 2])
    new = token_log_probs(torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [-1.0, -2.0, -3.0]]), actions)
    old = token_log_probs(torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [-3.0, -2.0, -1.0]]), actions)
    advantages = torch.tensor([0.3, 0.2, 0.1])
    assert clipped_surrogate(new - old, advantages, 0.2).mean().item() == pytest.approx(-0.17117467, abs=1e-4)
    assert clipped_surrogate(new - old, -advantages, 0.2).mean().item() == pytest.approx(0.19333333, abs=1e-4)


def test_gradient_is_zero_exactly_where_clip_fraction_is_one() -> None:
    log_ratio, advantages = random_update()
    clipped = clip_fraction(log_ratio, advantages, 0.2)
    is_zero = gradient(clipped_surrogate(log_ratio, advantages, 0.2), log_ratio) == 0
    assert torch.equal(clipped, is_zero.float())
    assert 0 < clipped.mean() < 1
    assert not clipped.requires_grad


def test_clip_fraction_counts_only_the_side_that_is_clipped() -> None:
    log_ratio, advantages = random_update()
    out_of_range = (log_ratio.exp() - 1).abs() > 0.2
    both_signs = clip_fraction(log_ratio, advantages, 0.2) + clip_fraction(log_ratio, -advantages, 0.2)
    assert torch.equal(both_signs, out_of_range.float())


def test_at_ratio_one_the_gradient_is_the_policy_gradient() -> None:
    _, advantages = random_update()
    log_probs = torch.full_like(advantages, -1.5).requires_grad_()
    surrogate = clipped_surrogate(log_probs - log_probs.detach(), advantages, 0.2)
    torch.testing.assert_close(
        gradient(surrogate, log_probs), gradient(policy_gradient(log_probs, advantages), log_probs)
    )
    torch.testing.assert_close(surrogate, -advantages)


def test_a_wide_clip_range_leaves_importance_sampling() -> None:
    # The expectation of ratio * advantage under the old policy is that of the advantage under the new one.
    new, old = Categorical(logits=torch.tensor([0.3, -0.2, 1.0])), Categorical(logits=torch.tensor([0.0, 0.5, -0.5]))
    advantages = torch.tensor([2.0, -1.0, 0.5])
    losses = clipped_surrogate(new.logits - old.logits, advantages, 1e6)
    torch.testing.assert_close((old.probs * losses).sum(), -(new.probs * advantages).sum())


def test_the_surrogate_is_a_pessimistic_bound() -> None:
    log_ratio, advantages = random_update()
    assert (clipped_surrogate(log_ratio, advantages, 0.2) >= clipped_surrogate(log_ratio, advantages, 1e6)).all()


def test_policy_gradient_is_that_of_the_expected_reward() -> None:
    # d/dlogits of E[r] computed exactly, against the expectation of the estimator over all three actions.
    logits = torch.tensor([0.3, -0.2, 1.0], requires_grad=True)
    rewards = torch.tensor([2.0, -1.0, 0.5])
    probs = logits.softmax(0)
    exact = gradient(probs * rewards, logits)
    estimate = gradient(probs.detach() * policy_gradient(logits.log_softmax(0), rewards), logits)
    torch.testing.assert_close(estimate, -exact)


@pytest.mark.parametrize("loss", [policy_gradient, lambda x, advantages: clipped_surrogate(x, advantages, 0.2)])
def test_no_gradient_flows_into_advantages(loss) -> None:
    x, advantages = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    loss(x, advantages).sum().backward()
    assert advantages.grad is None
    assert x.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_ratio_that_overflows_is_clipped_without_nan(dtype: torch.dtype) -> None:
    log_ratio = torch.tensor([1000.0, 1000.0], dtype=dtype, requires_grad=True)
    advantages = torch.tensor([1.0, 0.0], dtype=dtype)
    loss = clipped_surrogate(log_ratio, advantages, 0.2)
    torch.testing.assert_close(loss.detach(), torch.tensor([-1.2, 0.0], dtype=dtype))
    assert gradient(loss, log_ratio).tolist() == [0.0, 0.0]
    assert clip_fraction(log_ratio, advantages, 0.2).tolist() == [1.0, 0.0]


def test_value_error_inside_the_range_is_half_mse() -> None:
    generator = torch.Generator().manual_seed(0)
    old, returns = torch.randn(5, 6, generator=generator), torch.randn(5, 6, generator=generator)
    values = old + 0.1
    expected = 0.5 * torch.nn.functional.mse_loss(values, returns, reduction="none")
    torch.testing.assert_close(clipped_value_error(values, old, returns, 0.2), expected)
    torch.testing.assert_close(
        clipped_value_error(values + 9, old, returns, math.inf), 0.5 * (values + 9 - returns) ** 2
    )
    torch.testing.assert_close(clipped_value_error(values + 9, old, returns, None), 0.5 * (values + 9 - returns) ** 2)


@pytest.mark.parametrize(
    ("value", "old", "target", "error", "is_flat"),
    [
        (1.0, 0.0, 2.0, 0.5 * 1.8**2, True),  # ran 1.0 towards the target, may run 0.2: flat
        (3.0, 0.0, 1.0, 0.5 * 2.0**2, False),  # overshot: pulled back by the plain error
        (-1.0, 0.0, 2.0, 0.5 * 3.0**2, False),  # ran the wrong way: pulled back
        (-1.0, 0.0, -2.0, 0.5 * 1.8**2, True),
        (0.1, 0.0, 2.0, 0.5 * 1.9**2, False),  # within the range
    ],
)
def test_value_error_is_flat_once_the_value_ran_far_enough(
    value: float, old: float, target: float, error: float, is_flat: bool
) -> None:
    values = torch.tensor([value], requires_grad=True)
    got = clipped_value_error(values, torch.tensor([old]), torch.tensor([target]), 0.2)
    assert got.item() == pytest.approx(error)
    expected = 0.0 if is_flat else value - target
    assert gradient(got, values).item() == pytest.approx(expected)


@pytest.mark.parametrize("clip_range", [0.2, None])
def test_no_gradient_flows_into_old_values_and_returns(clip_range: float | None) -> None:
    values, old, returns = (torch.tensor([x], requires_grad=True) for x in (1.0, 0.0, 5.0))
    clipped_value_error(values, old, returns, clip_range).sum().backward()
    assert old.grad is None
    assert returns.grad is None


@pytest.mark.parametrize("loss", ["policy_gradient", "surrogate", "value"])
def test_nan_in_padding_is_kept_out_by_the_masked_mean(loss: str) -> None:
    mask = torch.tensor([[True, True, False]])
    x = torch.tensor([[0.1, -0.3, math.nan]], requires_grad=True)
    other = torch.tensor([[1.0, -2.0, math.nan]])
    losses = {
        "policy_gradient": lambda: policy_gradient(x, other),
        "surrogate": lambda: clipped_surrogate(x, other, 0.2),
        "value": lambda: clipped_value_error(x, other, other, 0.2),
    }[loss]()
    mean = masked_mean(losses, mask)
    assert mean.isfinite()
    real = gradient(mean, x)[mask]
    assert real.isfinite().all()
    assert real.abs().sum() > 0


def test_explained_variance_equals_stable_baselines3() -> None:
    generator = torch.Generator().manual_seed(0)
    returns = torch.randn(4, 9, generator=generator)
    values = returns + torch.randn(4, 9, generator=generator) * 0.5 + 1
    mask = torch.rand(4, 9, generator=generator) < 0.7
    expected = sb3_explained_variance(values[mask].numpy(), returns[mask].numpy())
    wild = torch.where(mask, values, math.nan)
    assert explained_variance(wild, returns, mask).item() == pytest.approx(expected, abs=1e-6)


def test_explained_variance_at_its_landmarks() -> None:
    returns = torch.tensor([[1.0, 2.0, 6.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(returns + 7, returns, mask) == 1
    assert explained_variance(torch.full((1, 3), 4.0), returns, mask) == 0
    assert explained_variance(-returns, returns, mask) == -3
    assert explained_variance(returns, torch.ones(1, 3), mask).isnan()
    assert explained_variance(returns, returns, ~mask).isnan()


def test_shapes_that_would_broadcast_are_refused() -> None:
    column, row = torch.zeros(3, 1), torch.zeros(3)
    mask = torch.ones(3, dtype=torch.bool)
    for call in (
        lambda: policy_gradient(row, column),
        lambda: clipped_surrogate(row, column, 0.2),
        lambda: clip_fraction(row, column, 0.2),
        lambda: clipped_value_error(row, row, column, 0.2),
        lambda: clipped_value_error(row, column, row, None),
        lambda: explained_variance(row, column, mask),
    ):
        with pytest.raises(ValueError, match=r"\(3, 1\).*must be equal"):
            call()
