"""Is one policy better than another, and how many prompts would say so: the sign test, McNemar's test, sample sizes.

Exact tests, in whole numbers: no approximation for small counts. Leaves out intervals (`bootstrap.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

HALF_WIDTHS = (0.05, 0.03, 0.01)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of `wins` against `losses` where either is as likely; ties are left out before (Dixon and Mood
    1946). 1 for none.

    The binomial with probability one half is symmetric, so that both tails are twice the smaller one.
    """
    number, fewer = wins + losses, min(wins, losses)
    ways = term = 1
    for k in range(1, fewer + 1):
        term = term * (number - k + 1) // k
        ways += term
    return min(1.0, 2 * ways / 2**number) if number else 1.0


@dataclass(frozen=True)
class Discordant:
    """Prompts on which two policies were each right (1) or wrong (0), and McNemar's exact p-value.

    Only prompts on which exactly one of them was right tell the two apart (McNemar 1947); whether as many fell to the
    one as to the other is a sign test.
    """

    num_prompts: int
    only_ours: int
    only_theirs: int

    @property
    def p_value(self) -> float:
        return sign_test(self.only_ours, self.only_theirs)


def mcnemar(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Discordant:
    """Count the prompts that both policies were judged on (None: was not). Raises ValueError for other than 0, 1."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    if odd := [value for pair in pairs for value in pair if value not in (0, 1)]:
        raise ValueError(f"got {odd[0]}; McNemar's test needs 0 (wrong) or 1 (right)")
    return Discordant(
        num_prompts=len(pairs),
        only_ours=sum(a > b for a, b in pairs),
        only_theirs=sum(a < b for a, b in pairs),
    )


def prompts_needed(
    values: Sequence[float], clusters: Sequence[str], half_width: float, level: float = 0.95
) -> int | None:
    """How many clusters (prompts) make the interval of the mean at most ± `half_width`, by the variance found here.

    The mean of all values is a ratio, sum over count; its variance comes from what each cluster adds to the sum beyond
    the mean times its count (Cochran 1977, section 6.3), so judgements that hang together count as the little that
    they tell. None where all values are equal, or there are fewer than two clusters: then nothing says how they vary.
    """
    mean = sum(values) / len(values) if values else 0.0
    beyond: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        beyond[cluster] = beyond.get(cluster, 0.0) + value - mean
    number = len(beyond)
    squares = math.fsum(excess * excess for excess in beyond.values())
    if number < 2 or squares < 1e-12:
        return None
    variance_of_mean = squares / len(values) ** 2 * number / (number - 1)
    deviations = NormalDist().inv_cdf((1 + level) / 2)
    return math.ceil(number * variance_of_mean * (deviations / half_width) ** 2 - 1e-9)
