"""How far a test by playing strays from the truth: the exact distribution of a success rate over n episodes, and back.

Left out: returns that are not 0 or 1; `classic.what_is_rl.sampling_interval` is the approximation for those.

    python -c "from classic.luck import chance_below; print(chance_below(0.70, 0.740165, 100))"
"""

import math

import numpy as np

from classic.tabular_model import Floats


def success_counts(success_rate: float, num_episodes: int) -> Floats:
    """(n + 1,) probability of each number of successes in n episodes: the binomial distribution."""
    counts = range(num_episodes + 1)
    ways = [math.lgamma(num_episodes + 1) - math.lgamma(k + 1) - math.lgamma(num_episodes - k + 1) for k in counts]
    # In logarithms: 1,000 episodes have more orders than a float can count.
    successes = np.arange(num_episodes + 1, dtype=np.float64)
    likely = np.array(ways) + _times_log(successes, success_rate)
    return np.asarray(np.exp(likely + _times_log(num_episodes - successes, 1 - success_rate)))


def _times_log(count: Floats, probability: float) -> Floats:
    """count * log(probability), with 0 * log(0) = 0."""
    if probability > 0:
        return count * math.log(probability)
    return np.where(count > 0, -np.inf, 0.0)


def chance_below(threshold: float, success_rate: float, num_episodes: int) -> float:
    """The probability that a test of n episodes shows a rate below the threshold, by luck alone."""
    rates = np.arange(num_episodes + 1) / num_episodes
    return float(success_counts(success_rate, num_episodes)[rates < threshold - 1e-12].sum())


def success_interval(num_successes: int, num_episodes: int) -> tuple[float, float]:
    """The success rates that this test does not contradict at 95 %: Wilson's score interval.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22, p. 209. One episode that failed says [0, 0.79]; a mean -+ 1.96 standard errors would say
    [0, 0], as if it were known.
    """
    rate, doubt = num_successes / num_episodes, 1.959964**2 / num_episodes
    middle = (rate + doubt / 2) / (1 + doubt)
    margin = math.sqrt(doubt * (rate * (1 - rate) + doubt / 4)) / (1 + doubt)
    return max(0.0, middle - margin), min(1.0, middle + margin)
