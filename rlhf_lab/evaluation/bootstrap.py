"""Means and other statistics with bootstrap intervals."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def bootstrap_mean(values: Sequence[float], *, num_resamples: int, seed: int, level: float = 0.95) -> dict[str, float]:
    """The mean and its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Values are resampled with replacement, so they should be independent: one per prompt. Raises ValueError for none.
    """
    if not len(values):
        raise ValueError("no values to average; need at least one")
    x = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(x), (num_resamples, len(x)), generator=generator)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = x[picks].mean(1).quantile(tails).tolist()
    return {"mean": float(x.mean()), "low": low, "high": high}


def bootstrap_ratio(
    values: Sequence[float], clusters: Sequence[str], *, num_resamples: int, seed: int, level: float = 0.95
) -> dict[str, float]:
    """The mean of `values`, its interval from resampling whole clusters, such as all pairs on one prompt."""
    number: dict[str, int] = {}
    index = torch.tensor([number.setdefault(cluster, len(number)) for cluster in clusters])
    x = torch.tensor(values, dtype=torch.float64)
    sums = torch.zeros(len(number), dtype=torch.float64).index_add(0, index, x)
    counts = torch.zeros(len(number), dtype=torch.float64).index_add(0, index, torch.ones_like(x))
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(number), (num_resamples, len(number)), generator=generator)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = (sums[picks].sum(1) / counts[picks].sum(1)).quantile(tails).tolist()
    return {"mean": float(x.mean()), "low": low, "high": high}


def bootstrap_sums(
    sums: Tensor, statistic: Callable[[Tensor], Tensor], *, num_resamples: int, seed: int, level: float = 0.95
) -> dict[str, float]:
    """`statistic` of what C clusters sum up to, and its interval from resampling whole clusters.

    `sums` (C, K) holds K sums of each cluster; `statistic` takes (R, K) totals to (R,). Resamples in which it is not
    defined (NaN) are left out; all is NaN where it is not defined at all.
    """
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(sums), (num_resamples, len(sums)), generator=generator)
    mean = float(statistic(sums.sum(0, keepdim=True))[0])
    drawn = statistic(sums[picks].sum(1))
    drawn = drawn[drawn.isfinite()]
    if not len(drawn) or mean != mean:
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan")}
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=sums.dtype)
    low, high = drawn.quantile(tails).tolist()
    return {"mean": mean, "low": low, "high": high}
