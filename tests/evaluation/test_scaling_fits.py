"""The fits of Gao et al. 2022 on exact data, on degenerate data, and against numpy's own polynomial fit."""

import math
from typing import Any

import numpy as np
import pytest

from rlhf_lab.evaluation.scaling_fits import fit, fitted_gain

KLS = [0.1, 0.5, 1.0, 2.0, 4.0, 9.0]


def best_of_n(kl: float, a: float, b: float) -> float:
    d = math.sqrt(kl)
    return a * d - b * kl


def rl(kl: float, a: float, b: float) -> float:
    d = math.sqrt(kl)
    return a * d - b * d * math.log(d)


@pytest.mark.parametrize(("form", "curve"), [("best_of_n", best_of_n), ("rl", rl)])
@pytest.mark.parametrize(("a", "b"), [(1.0, 0.2), (0.5, 0.4), (2.0, 1.5), (0.7, -0.1)])
def test_exact_data_gives_its_own_coefficients(form: Any, curve: Any, a: float, b: float) -> None:
    found = fit(KLS, [curve(kl, a, b) for kl in KLS], form)
    assert found["a"] == pytest.approx(a)
    assert found["b"] == pytest.approx(b)
    assert found["r_squared"] == pytest.approx(1.0)
    assert found["num_points"] == 6


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_the_turn_is_where_a_fine_grid_is_highest(form: Any) -> None:
    curve = best_of_n if form == "best_of_n" else rl
    found = fit(KLS, [curve(kl, 1.2, 0.6) for kl in KLS], form)
    grid = np.linspace(1e-4, 9.0, 200_000)
    highest = max(grid, key=lambda kl: curve(kl, 1.2, 0.6))
    assert found["turn"] == "inside"
    assert found["turn_kl"] == pytest.approx(highest, rel=1e-3)
    assert found["turn_gain"] == pytest.approx(curve(highest, 1.2, 0.6), rel=1e-6)


def test_best_of_n_is_numpys_polynomial_over_d() -> None:
    """R / d = a - b d is a straight line; weights d make polyfit's squares those of R."""
    rng = np.random.default_rng(0)
    gains = np.array([best_of_n(kl, 1.0, 0.2) for kl in KLS]) + rng.normal(0, 0.1, len(KLS))
    d = np.sqrt(KLS)
    slope, level = np.polyfit(d, gains / d, 1, w=d)
    found = fit(KLS, gains.tolist(), "best_of_n")
    assert (found["a"], found["b"]) == pytest.approx((level, -slope))


def test_rl_is_numpys_line_over_the_logarithm() -> None:
    rng = np.random.default_rng(1)
    gains = np.array([rl(kl, 1.0, 0.2) for kl in KLS]) + rng.normal(0, 0.1, len(KLS))
    d = np.sqrt(KLS)
    slope, level = np.polyfit(np.log(d), gains / d, 1, w=d)
    found = fit(KLS, gains.tolist(), "rl")
    assert (found["a"], found["b"]) == pytest.approx((level, -slope))
    assert 0 < found["r_squared"] < 1


def test_the_start_at_kl_zero_is_no_point() -> None:
    gains = [best_of_n(kl, 1.0, 0.2) for kl in KLS]
    assert fit([0.0, -0.01, *KLS], [0.0, 0.3, *gains], "best_of_n") == fit(KLS, gains, "best_of_n")


@pytest.mark.parametrize("kls", [[], [0.0], [1.0, 2.0], [0.0, 0.0, 1.0, 2.0]])
@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_too_few_points_are_no_fit(kls: list[float], form: Any) -> None:
    found = fit(kls, [0.1] * len(kls), form)
    assert (found["a"], found["b"], found["turn"], found["turn_kl"]) == (None, None, "unknown", None)
    assert "a fit needs 3" in found["words"]


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_one_kl_many_times_is_no_fit(form: Any) -> None:
    found = fit([2.0, 2.0, 2.0, 2.0], [0.1, 0.2, 0.3, 0.4], form)
    assert found["a"] is None
    assert "same KL" in found["words"]


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_gold_that_only_rises_has_no_turn(form: Any) -> None:
    curve = best_of_n if form == "best_of_n" else rl
    found = fit(KLS, [curve(kl, 0.5, -0.05) for kl in KLS], form)
    assert (found["turn"], found["turn_kl"]) == ("none", None)
    assert "does not turn down" in found["words"]


def test_gold_that_only_falls_has_no_turn() -> None:
    found = fit(KLS, [best_of_n(kl, -0.5, 0.05) for kl in KLS], "best_of_n")
    assert found["turn"] == "none"
    assert "only falls" in found["words"]


def test_a_turn_beyond_what_was_measured_is_said_to_be_so() -> None:
    found = fit(KLS, [best_of_n(kl, 1.0, 0.1) for kl in KLS], "best_of_n")
    assert found["turn"] == "outside"
    assert found["turn_kl"] == pytest.approx(25.0)
    assert "beyond the 9 at which the measurements end: no turn was seen" in found["words"]


def test_a_turn_below_what_was_measured_is_said_to_be_so() -> None:
    """As where a run is past the turn at its first evaluation: the rising side is the form's, not the data's."""
    kls = [3.0, 4.0, 5.0]
    found = fit(kls, [best_of_n(kl, 1.0, 0.5) for kl in kls], "best_of_n")
    assert found["turn_kl"] == pytest.approx(1.0)
    assert found["turn"] == "outside"
    assert "below the 3 at which the measurements begin: no turn was seen" in found["words"]


def test_a_turn_at_no_kl_worth_naming_is_none() -> None:
    found = fit(KLS, [rl(kl, 1.0, 0.001) for kl in KLS], "rl")
    assert (found["turn"], found["turn_kl"]) == ("none", None)


def test_the_fitted_curve_starts_at_nothing() -> None:
    assert fitted_gain(0.0, 1.0, 0.5, "rl") == 0.0
    assert fitted_gain(4.0, 1.0, 0.25, "best_of_n") == pytest.approx(1.0)
    assert fitted_gain(math.e**2, 1.0, 0.25, "rl") == pytest.approx(0.75 * math.e)
