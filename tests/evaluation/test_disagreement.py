"""Ensembles: members that agree, members that disagree everywhere alike, members that disagree on PPO's answers."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_lab.evaluation.disagreement import MUCH_MORE, disagreement

PROMPTS = [f"prompt {row}" for row in range(400)]


def measured(sft: Tensor, ppo: Tensor, prompts: list[str] | None = None) -> dict[str, Any]:
    return disagreement(sft, ppo, prompts or PROMPTS, num_resamples=200, seed=0)


def scores(spread: float, seed: int, *, mean: float = 0.0, members: int = 4) -> Tensor:
    """Members around a common opinion of each answer."""
    generator = torch.Generator().manual_seed(seed)
    common = mean + torch.randn(1, 400, generator=generator)
    return common + spread * torch.randn(members, 400, generator=generator)


def test_members_that_disagree_three_times_as_much_on_ppo_ring_the_alarm() -> None:
    found = measured(scores(0.2, 0), scores(0.6, 1, mean=1.0))
    assert found["ratio"]["mean"] == pytest.approx(3.0, rel=0.1)
    assert found["alarm"] is True
    assert found["beyond_sft_fraction"] > 0.3
    assert found["spread"]["sft"]["mean"] == pytest.approx(0.2, rel=0.15)


def test_members_that_disagree_alike_are_silent_however_much() -> None:
    found = measured(scores(0.9, 0), scores(0.9, 1, mean=2.0))
    assert found["ratio"]["low"] < 1.0 < found["ratio"]["high"]
    assert found["alarm"] is False
    assert found["beyond_sft_fraction"] == pytest.approx(0.05, abs=0.04)


def test_a_little_more_is_not_much_more() -> None:
    found = measured(scores(0.5, 0), scores(0.65, 1))
    assert 1.0 < found["ratio"]["low"] < MUCH_MORE
    assert found["alarm"] is False


def test_copies_of_one_model_have_no_spread_and_no_alarm() -> None:
    same = torch.randn(1, 400).expand(3, 400)
    found = measured(same, same + 1)
    assert found["spread"]["ppo"]["mean"] == 0.0
    assert math.isnan(found["ratio"]["mean"])
    assert found["alarm"] is False


def test_two_members_by_hand() -> None:
    """Standard deviations of two numbers are their distance over the root of two."""
    sft, ppo = torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[1.0, 4.0], [3.0, 0.0]])
    found = measured(sft, ppo, ["a", "b"])
    root = 2**0.5
    assert found["spread"]["sft"]["mean"] == pytest.approx((2 / root + 0) / 2)
    assert found["spread"]["ppo"]["mean"] == pytest.approx((2 / root + 4 / root) / 2)
    assert found["ratio"]["mean"] == pytest.approx(3.0)
    assert found["gain"]["by_member"] == pytest.approx([2.0, 0.0])
    assert found["gain"]["worst"] == 0.0, "one of the two sees no gain"
    assert found["gain"]["mean"]["mean"] == pytest.approx(1.0)
