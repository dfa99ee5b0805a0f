"""How far raters agree: per cent, Cohen's kappa, Krippendorff's alpha, with bootstrap intervals; a binomial test.

A unit is a pair of completions; `counts` (U, V) holds for each unit how many votes gave each of V values. Missing votes
are simply not counted. Leaves out what the values mean (`outcomes.py`) and which votes belong here (`findings.py`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Scale = Literal["nominal", "ordinal"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile bootstrap interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


def count_values(units: Sequence[Sequence[int]], num_values: int) -> Array:
    """(U, V): how often each value was given to each unit."""
    counts = np.zeros((len(units), num_values))
    for row, values in enumerate(units):
        np.add.at(counts[row], list(values), 1)
    return counts


def percent_agreement(counts: Array, weights: Array) -> Array:
    """(R,) fraction of pairs of votes on one unit that agree. `weights` (R, U): how often each unit is taken."""
    totals = counts.sum(1)
    agreeing = weights @ (counts * (counts - 1)).sum(1)
    return _divide(agreeing, weights @ (totals * (totals - 1)))


def krippendorff_alpha(counts: Array, weights: Array, scale: Scale = "nominal") -> Array:
    """(R,) alpha: 1 - observed / expected disagreement (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability).

    NaN where all votes are equal, for then no disagreement could be expected.
    """
    num_values = counts.shape[1]
    totals = counts.sum(1)
    ways = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(num_values)
    ways = np.where(totals[:, None, None] > 1, ways / np.maximum(totals - 1, 1)[:, None, None], 0.0)
    coincidences = (weights @ ways.reshape(len(counts), -1)).reshape(-1, num_values, num_values)
    marginals = coincidences.sum(2)
    distances = _squared_distances(marginals, scale)
    observed = (coincidences * distances).sum((1, 2))
    expected = (marginals[:, :, None] * marginals[:, None, :] * distances).sum((1, 2))
    return 1 - _divide((marginals.sum(1) - 1) * observed, expected)


def cohen_kappa(first: Sequence[int], second: Sequence[int], num_values: int, weights: Array) -> Array:
    """(R,) kappa of two raters on the U units that both rated (Cohen 1960); NaN where both always say the same."""
    confusion = np.zeros((len(first), num_values, num_values))
    confusion[np.arange(len(first)), list(first), list(second)] = 1
    share = (weights @ confusion.reshape(len(first), -1)).reshape(-1, num_values, num_values)
    share = share / weights.sum(1)[:, None, None]
    observed = np.trace(share, axis1=1, axis2=2)
    expected = (share.sum(2) * share.sum(1)).sum(1)
    return _divide(observed - expected, 1 - expected)


def with_interval(
    statistic: Callable[[Array], Array], num_units: int, *, num_resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """`statistic` of all units, and its percentile interval from resampling whole units with replacement.

    Units, not votes: votes on one pair hang together. Resamples in which the statistic is not defined are left out.
    """
    if not num_units:
        return Interval(math.nan, math.nan, math.nan)
    value = float(statistic(np.ones((1, num_units)))[0])
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(num_units, [1 / num_units] * num_units, size=num_resamples).astype(float)
    found = statistic(weights)
    found = found[np.isfinite(found)]
    if not len(found) or not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def agreement_interval(counts: Array, *, num_resamples: int, seed: int) -> Interval:
    """Per cent agreement as a fraction, over the units that have two votes or more."""
    several = counts[counts.sum(1) > 1]
    return with_interval(partial(percent_agreement, several), len(several), num_resamples=num_resamples, seed=seed)


def alpha_interval(counts: Array, scale: Scale, *, num_resamples: int, seed: int) -> Interval:
    several = counts[counts.sum(1) > 1]
    statistic = partial(krippendorff_alpha, several, scale=scale)
    return with_interval(statistic, len(several), num_resamples=num_resamples, seed=seed)


def kappa_interval(
    first: Sequence[int], second: Sequence[int], num_values: int, *, num_resamples: int, seed: int
) -> Interval:
    statistic = partial(cohen_kappa, first, second, num_values)
    return with_interval(statistic, len(first), num_resamples=num_resamples, seed=seed)


def binomial_test(successes: int, trials: int, probability: float = 0.5) -> float:
    """Exact two-sided p-value: the chance of all counts that are no likelier than this one. 1 for no trials."""
    log_p = np.array([_log_binomial(k, trials, probability) for k in range(trials + 1)])
    # R's binom.test allows the same relative slack, so that equal chances count as equal
    return min(1.0, float(np.exp(log_p[log_p <= log_p[successes] + 1e-7]).sum()))


def chance_of_at_least(successes: int, trials: int, probability: float = 0.5) -> float:
    """One-sided: how often mere chance does at least as well."""
    return min(1.0, math.fsum(math.exp(_log_binomial(k, trials, probability)) for k in range(successes, trials + 1)))


def _log_binomial(k: int, n: int, p: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(p) + (n - k) * math.log1p(-p)


def _squared_distances(marginals: Array, scale: Scale) -> Array:
    """(R, V, V). Nominal: 0 or 1. Ordinal: the votes between two values, half of those on both, squared."""
    num_values = marginals.shape[1]
    if scale == "nominal":
        return np.broadcast_to(1 - np.eye(num_values), (len(marginals), num_values, num_values))
    middles = np.cumsum(marginals, axis=1) - marginals / 2
    return (middles[:, :, None] - middles[:, None, :]) ** 2


def _divide(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.full(np.shape(a), math.nan), where=np.abs(b) > 1e-12)
