"""Means with bootstrap intervals."""

from collections.abc import Sequence

import torch


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
