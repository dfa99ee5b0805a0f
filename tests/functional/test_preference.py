"""The Bradley-Terry loss against binary cross entropy, and calibration on data whose truth is known."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlhf_lab.functional import bradley_terry_loss, calibration, preference_accuracy


def random_pairs(num_pairs: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_pairs, generator=generator), torch.randn(num_pairs, generator=generator)


def raters_that_follow(true_difference: Tensor, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Scores (chosen, rejected) of pairs in which raters choose with the Bradley-Terry probability."""
    generator = torch.Generator().manual_seed(seed)
    picks_first = torch.rand(len(true_difference), generator=generator) < true_difference.sigmoid()
    zeros = torch.zeros_like(true_difference)
    return torch.where(picks_first, true_difference, zeros), torch.where(picks_first, zeros, true_difference)


def test_loss_is_binary_cross_entropy_of_the_difference() -> None:
    chosen, rejected = random_pairs()
    expected = F.binary_cross_entropy_with_logits(chosen - rejected, torch.ones(64), reduction="none")
    torch.testing.assert_close(bradley_terry_loss(chosen, rejected), expected)


def test_loss_is_cross_entropy_over_the_two_scores() -> None:
    chosen, rejected = random_pairs()
    first = torch.zeros(64, dtype=torch.int64)
    expected = F.cross_entropy(torch.stack([chosen, rejected], dim=1), first, reduction="none")
    torch.testing.assert_close(bradley_terry_loss(chosen, rejected), expected)


def test_loss_at_equal_scores_is_log_two() -> None:
    x = torch.tensor([-30.0, 0.0, 30.0])
    assert bradley_terry_loss(x, x.clone()).tolist() == pytest.approx([0.6931472] * 3)


def test_margin_asks_for_a_larger_difference() -> None:
    chosen, rejected = random_pairs()
    margin = torch.rand(64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        bradley_terry_loss(chosen + margin, rejected, margin), bradley_terry_loss(chosen, rejected)
    )
    assert (bradley_terry_loss(chosen, rejected, margin) > bradley_terry_loss(chosen, rejected)).all()


def test_loss_of_hopeless_pairs_is_finite_with_gradient_minus_one() -> None:
    chosen = torch.tensor([-1e4], requires_grad=True)
    loss = bradley_terry_loss(chosen, torch.tensor([0.0]))
    assert loss.item() == pytest.approx(1e4)
    assert torch.autograd.grad(loss, chosen)[0].item() == -1


def test_a_constant_added_to_all_scores_changes_nothing() -> None:
    chosen, rejected = (x.double() for x in random_pairs())
    torch.testing.assert_close(bradley_terry_loss(chosen + 5, rejected + 5), bradley_terry_loss(chosen, rejected))
    assert calibration(chosen + 5, rejected + 5).expected_error == pytest.approx(
        calibration(chosen, rejected).expected_error
    )


def test_accuracy_counts_ties_half() -> None:
    got = preference_accuracy(torch.tensor([2.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 1.0]))
    assert got.tolist() == [1.0, 0.0, 0.5]
    assert preference_accuracy(torch.tensor([3]), torch.tensor([2])).dtype == torch.float32


def test_accuracy_of_swapped_pairs_is_the_rest() -> None:
    chosen, rejected = random_pairs()
    chosen[:5] = rejected[:5]
    torch.testing.assert_close(
        preference_accuracy(chosen, rejected) + preference_accuracy(rejected, chosen), torch.ones(64)
    )


def test_a_model_that_knows_the_truth_is_calibrated() -> None:
    difference = torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * 2
    got = calibration(*raters_that_follow(difference))
    assert got.expected_error < 0.01
    assert got.num_pairs.sum() == 200_000
    torch.testing.assert_close(got.predicted, got.observed, atol=0.02, rtol=0)
    edges = torch.linspace(0.5, 1, 11, dtype=torch.float64)
    assert ((edges[:-1] <= got.predicted) & (got.predicted <= edges[1:])).all()


@pytest.mark.parametrize(("factor", "sign"), [(4.0, 1), (0.25, -1)])
def test_a_model_that_is_too_sure_predicts_more_than_is_observed(factor: float, sign: int) -> None:
    difference = torch.randn(50_000, generator=torch.Generator().manual_seed(0)) * 2
    chosen, rejected = raters_that_follow(difference)
    got = calibration(chosen * factor, rejected * factor)
    assert got.expected_error > 0.1
    used = got.num_pairs > 100
    assert (sign * (got.predicted - got.observed)[used] > 0).all()


def test_the_error_of_a_coin_that_is_sure_is_a_half() -> None:
    # Certain (probability 1 to all digits) and right in half of the pairs: |1 - 0.5|.
    got = calibration(torch.tensor([100.0, 0.0]), torch.tensor([0.0, 100.0]))
    assert got.expected_error == pytest.approx(0.5)
    assert got.num_pairs.tolist() == [0] * 9 + [2]


def test_empty_bins_do_not_count() -> None:
    # Five pairs at 0.8 (difference log 4), four of them chosen: no error, and nothing in the other bins.
    difference = torch.full((5,), math.log(4), dtype=torch.float64)
    zeros = torch.zeros_like(difference)
    is_right = torch.arange(5) < 4
    got = calibration(torch.where(is_right, difference, zeros), torch.where(is_right, zeros, difference), num_bins=4)
    assert got.num_pairs.tolist() == [0, 0, 5, 0]
    assert got.predicted[2].item() == pytest.approx(0.8)
    assert got.observed[2].item() == pytest.approx(0.8)
    assert got.predicted[got.num_pairs == 0].isnan().all()
    assert got.observed[got.num_pairs == 0].isnan().all()
    assert got.expected_error == pytest.approx(0.0)


def test_bins_weigh_by_their_pairs() -> None:
    # Three pairs at 0.5 (ties: half chosen, no error) and one sure and wrong pair (error 1): a quarter.
    got = calibration(torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 100.0]))
    assert got.num_pairs.tolist() == [3] + [0] * 8 + [1]
    assert got.expected_error == pytest.approx(0.25)


def test_a_model_that_knows_nothing_and_says_so_is_calibrated() -> None:
    assert calibration(torch.zeros(8), torch.zeros(8)).expected_error == 0


def test_calibration_of_half_precision_scores_uses_their_exact_difference() -> None:
    chosen, rejected = (x.bfloat16() for x in random_pairs())
    got = calibration(chosen, rejected)
    expected = calibration(chosen.double(), rejected.double())
    assert torch.equal(got.predicted, expected.predicted)


def test_calibration_can_not_be_changed() -> None:
    got = calibration(torch.ones(2), torch.zeros(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        got.predicted = torch.zeros(2)  # type: ignore[misc]


def test_what_makes_no_sense_is_refused() -> None:
    row, column = torch.zeros(3), torch.zeros(3, 1)
    for call in (
        lambda: bradley_terry_loss(row, column),
        lambda: bradley_terry_loss(row, row, column),
        lambda: preference_accuracy(row, column),
        lambda: calibration(row, column),
    ):
        with pytest.raises(ValueError, match="must be equal"):
            call()
    with pytest.raises(ValueError, match="got 0 pairs"):
        calibration(torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match="none of them NaN"):
        calibration(torch.tensor([math.nan]), torch.tensor([0.0]))
    with pytest.raises(ValueError, match="num_bins=0"):
        calibration(row, row, num_bins=0)
