"""Agreement statistics against textbook examples, the `krippendorff` package, R's documentation, and identities."""

import math
import random

import numpy as np
import pytest

from rlhf_lab.rating.agreement import (
    agreement_interval,
    alpha_interval,
    binomial_test,
    chance_of_at_least,
    cohen_kappa,
    count_values,
    krippendorff_alpha,
    percent_agreement,
)

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability. Rows are observers; 0 is a missing value.
EXAMPLE_A = ["0100000010", "1110010000"]
EXAMPLE_B = ["aabbdcccedda", "babbbccceddd"]
EXAMPLE_C = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]


def units_of(observers: list[list[int]], missing: int | None = None) -> list[list[int]]:
    return [[value for value in unit if value != missing] for unit in zip(*observers, strict=True)]


def alpha(units: list[list[int]], num_values: int, scale: str = "nominal") -> float:
    counts = count_values(units, num_values)
    return float(krippendorff_alpha(counts, np.ones((1, len(units))), scale)[0])  # type: ignore[arg-type]


def test_alpha_of_the_textbook_binary_example() -> None:
    assert alpha(units_of([[int(c) for c in row] for row in EXAMPLE_A]), 2) == pytest.approx(0.095, abs=5e-4)


def test_alpha_of_the_textbook_nominal_example() -> None:
    codes = [["abcde".index(c) for c in row] for row in EXAMPLE_B]
    assert alpha(units_of(codes), 5) == pytest.approx(0.692, abs=5e-4)


@pytest.mark.parametrize(("scale", "published"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_of_the_textbook_example_with_four_observers_and_gaps(scale: str, published: float) -> None:
    units = [[value - 1 for value in unit] for unit in units_of(EXAMPLE_C, missing=0)]
    assert alpha(units, 5, scale) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize("scale", ["nominal", "ordinal"])
@pytest.mark.parametrize("seed", range(5))
def test_alpha_equals_the_package(seed: int, scale: str) -> None:
    krippendorff = pytest.importorskip("krippendorff", reason="pip install krippendorff to compare with it")
    rng = random.Random(seed)
    truth = [rng.randrange(4) for _ in range(40)]
    table = [[rng.choice([t, t, rng.randrange(4), None]) for t in truth] for _ in range(2 + seed)]
    theirs = krippendorff.alpha(
        [[math.nan if v is None else v for v in row] for row in table],
        level_of_measurement=scale,
        value_domain=list(range(4)),
    )
    units = [[v for v in unit if v is not None] for unit in zip(*table, strict=True)]
    assert alpha(units, 4, scale) == pytest.approx(theirs, abs=1e-6)


def test_alpha_is_one_where_all_agree_and_undefined_where_nothing_varies() -> None:
    assert alpha([[0, 0], [1, 1], [2, 2, 2]], 3) == pytest.approx(1)
    assert math.isnan(alpha([[1, 1], [1, 1]], 3))
    assert math.isnan(alpha([[0], [1]], 3)), "single votes can not agree"


@pytest.mark.parametrize(
    ("table", "published"), [([20, 5, 10, 15], 0.4), ([45, 15, 25, 15], 0.1304), ([25, 35, 5, 35], 0.2593)]
)
def test_kappa_of_published_tables(table: list[int], published: float) -> None:
    """The three 2 x 2 tables of the encyclopaedia article on Cohen's kappa."""
    first = [0] * (table[0] + table[1]) + [1] * (table[2] + table[3])
    second = [0] * table[0] + [1] * table[1] + [0] * table[2] + [1] * table[3]
    kappa = cohen_kappa(first, second, 2, np.ones((1, len(first))))
    assert kappa[0] == pytest.approx(published, abs=5e-5)


def test_kappa_does_not_depend_on_who_comes_first_and_is_one_for_equal_raters() -> None:
    rng = random.Random(1)
    a, b = ([rng.randrange(3) for _ in range(30)] for _ in range(2))
    one = np.ones((1, 30))
    assert cohen_kappa(a, b, 3, one)[0] == pytest.approx(cohen_kappa(b, a, 3, one)[0])
    assert cohen_kappa(a, a, 3, one)[0] == pytest.approx(1)
    assert math.isnan(cohen_kappa([1, 1], [1, 1], 3, np.ones((1, 2)))[0])


def test_percent_agreement_counts_pairs_of_votes() -> None:
    counts = count_values([[0, 0], [0, 1], [1, 1, 0], [2]], 3)
    # by hand: 1 of 1, 0 of 1, 1 of 3 pairs of votes; the single vote has no partner
    assert percent_agreement(counts, np.ones((1, 4)))[0] == pytest.approx(2 / 5)


def test_taking_a_unit_twice_is_having_it_twice() -> None:
    units = [[0, 0], [0, 1], [1, 1, 0]]
    counts, doubled = count_values(units, 2), count_values([*units, units[1]], 2)
    for statistic in (percent_agreement, krippendorff_alpha):
        weighted = statistic(counts, np.array([[1.0, 2.0, 1.0]]))
        assert weighted[0] == pytest.approx(statistic(doubled, np.ones((1, 4)))[0])


def test_interval_holds_the_estimate_shrinks_with_pairs_and_repeats_with_the_seed() -> None:
    rng = random.Random(3)
    units = [[v, v if rng.random() < 0.7 else 1 - v] for v in (rng.randrange(2) for _ in range(400))]
    few, many = (alpha_interval(count_values(units[:n], 2), "nominal", num_resamples=500, seed=0) for n in (40, 400))
    for found in (few, many):
        assert found.low < found.value < found.high
    assert many.high - many.low < 0.5 * (few.high - few.low), "ten times the pairs: about a third of the width"
    assert few == alpha_interval(count_values(units[:40], 2), "nominal", num_resamples=500, seed=0)
    assert agreement_interval(count_values(units, 2), num_resamples=200, seed=0).value == pytest.approx(0.7, abs=0.06)


def test_interval_of_nothing_is_no_number() -> None:
    found = alpha_interval(count_values([[0], [1]], 2), "nominal", num_resamples=10, seed=0)
    assert math.isnan(found.value)
    assert math.isnan(found.low)


def test_binomial_test_of_the_documentation_of_r() -> None:
    """?binom.test: Mendel's peas, 682 of 925 against 3/4, p-value = 0.3825."""
    assert binomial_test(682, 925, 0.75) == pytest.approx(0.3825, abs=5e-5)


def test_binomial_test_of_coins() -> None:
    # by hand: 10 heads of 10: 2 / 2**10; 5 of 10 is the likeliest count, so every count is as unlikely
    assert binomial_test(10, 10) == pytest.approx(2 / 1024)
    assert binomial_test(5, 10) == pytest.approx(1)
    assert binomial_test(0, 0) == 1
    assert binomial_test(3, 17) == pytest.approx(binomial_test(14, 17))
    assert chance_of_at_least(10, 10) == pytest.approx(1 / 1024)
    assert chance_of_at_least(0, 10) == pytest.approx(1)
