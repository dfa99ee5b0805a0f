"""The win rate at equal length: recovered from made data, against torch's own optimiser, and its interval."""

import pytest
import torch
from torch import Tensor

from rlhf_lab.evaluation.length_control import PENALTY, fitted_logits, length_controlled, length_term

SETTINGS = {"num_resamples": 200, "seed": 0}


def drawn(at_equal_length: float, effect: float, number: int, seed: int = 0) -> tuple[list[float], list[float]]:
    """Wins and length differences; ours is 15 characters longer on average."""
    generator = torch.Generator().manual_seed(seed)
    longer = 15 + 20 * torch.randn(number, generator=generator, dtype=torch.float64)
    chances = torch.sigmoid(at_equal_length + effect * torch.tanh(longer / longer.std(correction=0)))
    return (torch.rand(number, generator=generator) < chances).double().tolist(), longer.tolist()


def names(number: int) -> list[str]:
    return [f"prompt {row}" for row in range(number)]


def test_chances_that_follow_the_model_give_its_coefficients_back() -> None:
    term = torch.linspace(-0.9, 0.9, 4000, dtype=torch.float64)
    chances = torch.sigmoid(-0.4 + 1.5 * term)
    found = fitted_logits(term, chances, torch.ones(1, 4000, dtype=torch.float64))[0]
    assert found.tolist() == pytest.approx([-0.4, 1.5], abs=1e-3)


def test_a_judge_who_counts_letters_prefers_nobody_at_equal_length() -> None:
    """All of the raw win rate comes from length, so half is left; and a policy that is better keeps its lead."""
    wins, longer = drawn(0.0, 3.0, 4000)
    assert sum(wins) / 4000 > 0.7
    found = length_controlled(wins, longer, names(4000), **SETTINGS)
    assert found["mean"] == pytest.approx(0.5, abs=0.03)
    assert found["low"] < 0.5 < found["high"]
    assert found["length_effect"] == pytest.approx(3.0, abs=0.25)
    wins, longer = drawn(1.0, -2.0, 4000)
    assert sum(wins) / 4000 < 0.55
    assert length_controlled(wins, longer, names(4000), **SETTINGS)["mean"] == pytest.approx(0.731, abs=0.03)


def by_lbfgs(term: Tensor, wins: Tensor, weights: Tensor) -> list[float]:
    """torch's own optimiser and loss on the same objective."""
    point = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([point], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = torch.nn.functional.binary_cross_entropy_with_logits(
            point[0] + point[1] * term, wins, weight=weights, reduction="sum"
        )
        total = found + PENALTY / 2 * point.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return list(point.tolist())


def test_newton_finds_what_another_optimiser_finds() -> None:
    generator = torch.Generator().manual_seed(1)
    term = torch.tanh(torch.randn(120, generator=generator, dtype=torch.float64))
    weights = torch.randint(0, 4, (3, 120), generator=generator).double()
    ordinary = torch.randint(0, 3, (120,), generator=generator).double() / 2
    separated = (term > 0.1).double()  # longer always wins: without the prior no coefficient is finite
    for wins in (ordinary, separated, torch.ones(120, dtype=torch.float64)):
        found = fitted_logits(term, wins, weights)
        for row in range(3):
            assert found[row].tolist() == pytest.approx(by_lbfgs(term, wins, weights[row]), abs=2e-4)


def test_equal_lengths_give_the_plain_win_rate() -> None:
    wins = [1.0] * 30 + [0.5] * 20 + [0.0] * 10
    found = length_controlled(wins, [7.0] * 60, names(60), **SETTINGS)
    assert found["mean"] == pytest.approx(40 / 60, abs=1e-3)
    assert found["length_effect"] == pytest.approx(0.0, abs=1e-9)
    assert length_term(torch.tensor([7.0, 7.0])).tolist() == [0.0, 0.0]


def test_the_other_side_gets_the_rest() -> None:
    wins, longer = drawn(0.5, 1.0, 500)
    found = length_controlled(wins, longer, names(500), **SETTINGS)
    turned = length_controlled([1 - win for win in wins], [-x for x in longer], names(500), **SETTINGS)
    assert turned["mean"] == pytest.approx(1 - found["mean"])
    assert turned["low"] == pytest.approx(1 - found["high"])
    assert turned["length_effect"] == pytest.approx(found["length_effect"])


def test_units_of_length_do_not_matter_and_one_giant_does_not_rule() -> None:
    wins, longer = drawn(0.5, 1.0, 500)
    found = length_controlled(wins, longer, names(500), **SETTINGS)
    assert length_controlled(wins, [4 * x for x in longer], names(500), **SETTINGS) == pytest.approx(found)
    assert length_term(torch.tensor([0.0, 1.0, 1e6]))[2] <= 1.0


def test_repeating_every_judgement_makes_no_interval_narrower() -> None:
    wins, longer = drawn(0.5, 1.0, 300)
    once = length_controlled(wins, longer, names(300), **SETTINGS)
    again = length_controlled(wins * 6, longer * 6, names(300) * 6, **SETTINGS)
    assert again["low"] == pytest.approx(once["low"], abs=2e-3)
    assert again["high"] == pytest.approx(once["high"], abs=2e-3)
    alone = length_controlled(wins * 6, longer * 6, names(1800), **SETTINGS)
    assert (once["high"] - once["low"]) / (alone["high"] - alone["low"]) == pytest.approx(6**0.5, rel=0.2)
