"""Differences between two runs: their intervals against published examples, and what may be said of them."""

from __future__ import annotations

import math

import pytest

from rlhf_lab.report_page.compare.verdicts import difference, verdict
from rlhf_lab.report_page.estimates import Estimate


def wilson(successes: int, trials: int) -> Estimate:
    """Wilson's score interval at 95 %, which the published examples start from."""
    z, p = 1.959963984540054, successes / trials
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return Estimate(p, middle - half, middle + half)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((6, 7), (2, 7), 0.0582, 0.8062),
     ((5, 56), (0, 29), -0.0381, 0.1926)],
)  # fmt: skip
def test_intervals_are_those_of_newcombe(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe 1998, Statistics in Medicine 17:873-890, table II, method 10, examples (a) to (d)."""
    found = difference(wilson(*second), wilson(*first))
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_swapping_the_runs_turns_the_interval_round() -> None:
    a, b = Estimate(1.0, 0.7, 1.2), Estimate(1.9, 1.8, 2.3)
    there, back = difference(a, b), difference(b, a)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -(back.high or 0), -(back.low or 0)))


def test_a_number_without_an_interval_gets_no_verdict() -> None:
    found = difference(Estimate(1.0, None, None), Estimate(2.0, 1.9, 2.1))
    assert found == Estimate(1.0, None, None)
    assert verdict("gold", found) == ""


@pytest.mark.parametrize(
    ("metric", "rise", "fall"),
    [("gold", "better", "worse"), ("win_rate.gold", "better", "worse"), ("repetition", "worse", "better"),
     ("score", "higher", "lower"), ("kl", "higher", "lower"), ("length", "higher", "lower"),
     ("anything", "higher", "lower")],
)  # fmt: skip
def test_only_what_is_good_by_itself_is_called_better(metric: str, rise: str, fall: str) -> None:
    assert verdict(metric, Estimate(0.2, 0.1, 0.3)) == rise
    assert verdict(metric, Estimate(-0.2, -0.3, -0.1)) == fall
    assert verdict(metric, Estimate(0.2, -0.1, 0.5)) == "no clear difference"
    assert verdict(metric, Estimate(0.2, 0.0, 0.4)) == "no clear difference"
    assert verdict(metric, Estimate(0.0, 0.0, 0.0)) == "the same"
