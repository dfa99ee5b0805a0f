"""One run is an anecdote: the interquartile mean over seeds, and how far it would move with other seeds.

After Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice", arXiv 2108.13264: the mean of the middle
half is hardly moved by one lucky seed, and uses more of the data than the median.

Left out: stratified intervals over several environments; every lesson reports one environment at a time.

    python -c "from classic.seeds import interquartile_mean; print(interquartile_mean([1, 2, 3, 400]))"
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Spread(NamedTuple):
    """The summary of one number over seeds."""

    interquartile_mean: float
    low: float  # the interval of 95 % for the interquartile mean
    high: float
    num_seeds: int

    def __str__(self) -> str:
        if self.num_seeds < 2:
            return f"{self.interquartile_mean:.6g}"
        return f"{self.interquartile_mean:.6g} [{self.low:.6g}, {self.high:.6g}]"


def interquartile_mean(values: ArrayLike) -> float:
    """The mean without the lowest and the highest quarter (rounded down) of the values, (N,) or a sequence."""
    return float(_middle_means(np.sort(np.asarray(values, dtype=np.float64))[None])[0])


def spread(values: Sequence[float], *, num_resamples: int = 2000) -> Spread:
    """Interquartile mean with its percentile bootstrap interval of 95 %: seeds are drawn again, with replacement.

    The draws have a fixed seed, so that the same results always print the same interval.
    """
    numbers = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(0).choice(numbers, size=(num_resamples, len(numbers)))
    low, high = np.quantile(_middle_means(np.sort(draws, axis=1)), [0.025, 0.975], method="nearest")
    return Spread(interquartile_mean(numbers), float(low), float(high), len(numbers))


def _middle_means(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, N) ascending rows to (R,) means of their middle half."""
    cut = ordered.shape[1] // 4
    return np.asarray(ordered[:, cut : ordered.shape[1] - cut].mean(1))
