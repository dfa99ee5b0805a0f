"""Habits of reward models: one that likes length, one that likes what is right, one that guesses."""

import math
from typing import Any

import pytest
import torch

from rlhf_lab.evaluation.reward_habits import HeldoutPairs, habits, quantile_bins, score_length_correlation

SETTINGS = {"num_resamples": 200, "seed": 0}


def pairs_of(score: Any, *, number: int = 300, gold: bool = True) -> HeldoutPairs:
    """Pairs of answers whose quality and length are drawn apart; the rater prefers quality. `score` of (quality,
    length) is what the model says."""
    generator = torch.Generator().manual_seed(0)
    quality = torch.randint(0, 4, (number, 2), generator=generator).double() + torch.tensor([0.1, 0.0])
    length = torch.randint(3, 12, (number, 2), generator=generator).double()
    order = quality.argsort(1, descending=True)
    quality, length = quality.gather(1, order), length.gather(1, order)
    said = score(quality, length)
    return HeldoutPairs(
        chosen=said[:, 0],
        rejected=said[:, 1],
        chosen_lengths=length[:, 0],
        rejected_lengths=length[:, 1],
        prompts=[f"prompt {row // 3}" for row in range(number)],
        texts=[(f"{row} chosen", f"{row} rejected") for row in range(number)],
        gold=quality.round() if gold else None,
    )


def test_a_model_that_likes_length() -> None:
    found = habits(pairs_of(lambda quality, length: length), **SETTINGS)
    bias = found["length_bias"]
    assert bias["reward_model"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert bias["raters"]["low"] < 0.5 < bias["raters"]["high"], "the raters do not care"
    assert bias["difference"]["mean"] == pytest.approx(1 - bias["raters"]["mean"])
    assert bias["difference"]["low"] > 0.3
    assert found["score_length_correlation"]["mean"] == pytest.approx(1.0)
    shorter, *_, longer = found["by_length"]
    assert shorter["to"] < 0 < longer["from"]
    assert shorter["accuracy"]["mean"] == 0.0, "right answers that are short are taken for wrong"
    assert longer["accuracy"]["mean"] == 1.0


def test_a_model_that_likes_brevity_is_the_mirror() -> None:
    found = habits(pairs_of(lambda quality, length: -length), **SETTINGS)
    assert found["length_bias"]["reward_model"]["mean"] == 0.0
    assert found["score_length_correlation"]["mean"] == pytest.approx(-1.0)


def test_a_model_that_is_right_has_no_length_bias_beyond_the_raters() -> None:
    found = habits(pairs_of(lambda quality, length: quality), **SETTINGS)
    assert found["length_bias"]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert abs(found["score_length_correlation"]["mean"]) < 0.15
    for name in ("by_margin", "by_length", "by_gold_gap"):
        assert all(entry["accuracy"]["mean"] == 1.0 for entry in found[name])
        assert sum(entry["num_pairs"] for entry in found[name]) == 300


def test_accuracy_rises_with_the_margin_of_a_model_that_is_sometimes_unsure() -> None:
    generator = torch.Generator().manual_seed(1)

    def noisy(quality: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        return quality + torch.randn(quality.shape, generator=generator, dtype=torch.float64)

    found = habits(pairs_of(noisy, number=1500), **SETTINGS)
    margins = [entry["mean"] for entry in found["by_margin"]]
    assert margins == sorted(margins)
    assert [entry["num_pairs"] for entry in found["by_margin"]] == [300] * 5
    assert found["by_margin"][-1]["accuracy"]["low"] > found["by_margin"][0]["accuracy"]["high"]
    assert [entry["from"] for entry in found["by_gold_gap"]] == [0.0, 1.0, 2.0, 3.0]
    assert found["by_gold_gap"][-1]["accuracy"]["mean"] > found["by_gold_gap"][1]["accuracy"]["mean"]


def test_bins_hold_everything_once_and_equal_values_together() -> None:
    x = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 5.0])
    bins = quantile_bins(x, 4)
    assert sorted(row for rows in bins for row in rows) == list(range(8))
    for value in (0.0, 2.0):
        assert sum(bool((x[rows] == value).any()) for rows in bins) == 1
    assert quantile_bins(torch.zeros(3), 5) == [[0, 1, 2]]


def test_prompts_with_long_right_answers_are_no_length_bias() -> None:
    """Between prompts, long goes with high scores; within each, with nothing."""
    pairs = HeldoutPairs(
        chosen=torch.tensor([1.0, 1.0, 9.0, 9.0]),
        rejected=torch.tensor([0.0, 0.0, 8.0, 8.0]),
        chosen_lengths=torch.tensor([4.0, 2.0, 30.0, 32.0]).double(),
        rejected_lengths=torch.tensor([2.0, 4.0, 32.0, 30.0]).double(),
        prompts=["a", "a", "b", "b"],
        texts=[("1", "2"), ("3", "4"), ("5", "6"), ("7", "8")],
    )
    assert score_length_correlation(pairs, **SETTINGS)["mean"] == pytest.approx(0.0)


def test_an_answer_that_stands_in_many_pairs_counts_once() -> None:
    """Three answers of one prompt, on a line but for the third; the third stands in nine of ten pairs."""
    scores, lengths = [1.0, 2.0, 5.0], [1.0, 2.0, 0.0]
    once = [(0, 1), (1, 2)]
    often = [(0, 1), *[(1, 2)] * 9]

    def pairs(places: list[tuple[int, int]]) -> HeldoutPairs:
        columns = [
            torch.tensor([x[place[side]] for place in places]).double() for x in (scores, lengths) for side in (0, 1)
        ]
        texts = [(str(a), str(b)) for a, b in places]
        return HeldoutPairs(*columns, ["p"] * len(places), texts)

    one, many = (score_length_correlation(pairs(places), **SETTINGS)["mean"] for places in (once, often))
    assert one == pytest.approx(many)
    assert one == pytest.approx(float(torch.corrcoef(torch.tensor([scores, lengths]))[0, 1]), abs=1e-6)


def test_equal_lengths_have_no_length_bias_to_measure() -> None:
    flat = pairs_of(lambda quality, length: quality)
    flat = HeldoutPairs(flat.chosen, flat.rejected, torch.ones(300), torch.ones(300), flat.prompts, flat.texts)
    found = habits(flat, **SETTINGS)
    assert found["length_bias"] is None
    assert math.isnan(found["score_length_correlation"]["mean"])
    assert "by_gold_gap" not in found
