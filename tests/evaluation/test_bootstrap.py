"""Bootstrap intervals: scipy as oracle, how often they hold the truth, and pairs that hang together."""

import pytest
import torch

from rlhf_lab.evaluation.bootstrap import bootstrap_mean, bootstrap_ratio, bootstrap_sums

SETTINGS = {"num_resamples": 2000, "seed": 0}


def normal_values(number: int, seed: int = 0) -> list[float]:
    return torch.randn(number, generator=torch.Generator().manual_seed(seed)).tolist()


def width(interval: dict[str, float]) -> float:
    return interval["high"] - interval["low"]


def test_a_mean_and_its_interval_by_hand() -> None:
    assert bootstrap_mean([2.0, 2.0, 2.0], **SETTINGS) == {"mean": 2.0, "low": 2.0, "high": 2.0}
    assert bootstrap_mean([5], **SETTINGS) == {"mean": 5.0, "low": 5.0, "high": 5.0}
    found = bootstrap_mean([0.0, 1.0], **SETTINGS)
    assert found == {"mean": 0.5, "low": 0.0, "high": 1.0}, "resamples of two are 0, a half or 1"


def test_the_interval_is_that_of_the_normal_distribution_for_many_values() -> None:
    """For a mean, the percentile interval tends to mean ± 1.96 standard errors (Efron and Tibshirani 1993, 13.3)."""
    values = normal_values(400)
    found = bootstrap_mean(values, num_resamples=20_000, seed=0)
    x = torch.tensor(values, dtype=torch.float64)
    error = float(x.std(correction=0)) / 400**0.5
    assert found["mean"] == pytest.approx(float(x.mean()))
    assert found["low"] == pytest.approx(found["mean"] - 1.96 * error, abs=0.05 * error)
    assert found["high"] == pytest.approx(found["mean"] + 1.96 * error, abs=0.05 * error)
    assert width(bootstrap_mean(values, **SETTINGS, level=0.5)) == pytest.approx(2 * 0.674 * error, rel=0.1)


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    """200 samples of 60 normal values with mean 0: about 95 % of the intervals hold 0 (a little less at this size)."""
    found = [bootstrap_mean(normal_values(60, seed), num_resamples=400, seed=seed) for seed in range(200)]
    covered = sum(interval["low"] <= 0.0 <= interval["high"] for interval in found) / 200
    assert 0.90 <= covered <= 0.985, covered


def test_intervals_shrink_with_the_square_root_of_the_number() -> None:
    few, many = (bootstrap_mean(normal_values(number), **SETTINGS) for number in (100, 1600))
    assert width(few) / width(many) == pytest.approx(4.0, rel=0.25)


def test_the_seed_decides_the_interval() -> None:
    values = normal_values(50)
    assert bootstrap_mean(values, **SETTINGS) == bootstrap_mean(values, **SETTINGS)
    assert bootstrap_mean(values, **SETTINGS) != bootstrap_mean(values, num_resamples=2000, seed=1)


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no values to average; need at least one"):
        bootstrap_mean([], **SETTINGS)


def test_pairs_that_all_stand_alone_give_the_plain_bootstrap() -> None:
    values = normal_values(40)
    clusters = [f"prompt {row}" for row in range(40)]
    assert bootstrap_ratio(values, clusters, **SETTINGS) == pytest.approx(bootstrap_mean(values, **SETTINGS))


def test_repeating_every_pair_makes_no_interval_narrower() -> None:
    """Nine copies of a pair tell no more than one: clusters see that, plain resampling believes in three times less."""
    once = normal_values(60)
    clusters = [f"prompt {row}" for row in range(60)]
    honest = bootstrap_ratio(once * 9, clusters * 9, **SETTINGS)
    assert honest == pytest.approx(bootstrap_ratio(once, clusters, **SETTINGS))
    assert width(honest) / width(bootstrap_mean(once * 9, **SETTINGS)) == pytest.approx(3.0, rel=0.15)


def test_the_mean_over_clusters_of_unequal_size_is_that_of_the_pairs() -> None:
    found = bootstrap_ratio([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], **SETTINGS)
    assert found == {"mean": 0.75, "low": 0.0, "high": 1.0}, "resamples of two clusters: only a, only b, or both"
    middle = bootstrap_ratio([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], **SETTINGS, level=0.2)
    assert middle == {"mean": 0.75, "low": 0.75, "high": 0.75}, "half of the resamples are both: three of four pairs"


def test_the_order_of_pairs_does_not_matter() -> None:
    values, clusters = [0.0, 1.0, 1.0, 0.5, 0.25], ["a", "b", "a", "c", "b"]
    order = [0, 2, 1, 4, 3]
    shuffled = bootstrap_ratio([values[i] for i in order], [clusters[i] for i in order], **SETTINGS)
    assert shuffled == pytest.approx(bootstrap_ratio(values, clusters, **SETTINGS))


def test_one_prompt_gives_no_spread() -> None:
    assert bootstrap_ratio([0.0, 1.0], ["a", "a"], **SETTINGS) == {"mean": 0.5, "low": 0.5, "high": 0.5}


def ratio_of_sums(totals: torch.Tensor) -> torch.Tensor:
    return totals[:, 0] / totals[:, 1]


def test_sums_of_clusters_give_the_interval_of_their_ratio() -> None:
    """By identity with the ratio that has a function of its own."""
    values, clusters = [1.0, 1.0, 0.0, 0.5, 1.0, 0.0, 0.0], ["a", "a", "a", "b", "c", "c", "d"]
    sums = torch.tensor([[2.0, 3.0], [0.5, 1.0], [1.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    found = bootstrap_sums(sums, ratio_of_sums, **SETTINGS)
    assert found == pytest.approx(bootstrap_ratio(values, clusters, **SETTINGS))


def test_resamples_without_a_value_are_left_out() -> None:
    """The second cluster alone is 0 / 0."""
    found = bootstrap_sums(torch.tensor([[3.0, 2.0], [0.0, 0.0]], dtype=torch.float64), ratio_of_sums, **SETTINGS)
    assert found == {"mean": 1.5, "low": 1.5, "high": 1.5}
    nothing = bootstrap_sums(torch.zeros(3, 2, dtype=torch.float64), ratio_of_sums, **SETTINGS)
    assert all(value != value for value in nothing.values())
