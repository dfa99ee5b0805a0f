"""What may be said of a number that two runs have: by how much it changed, and whether the intervals show it.

Each run wrote a mean and its interval. The interval of the difference follows from these alone by the method of
variance estimates recovery (Zou and Donner 2008, "Construction of confidence limits about effect measures", equations
7 and 8; for two proportions it is method 10 of Newcombe 1998). It takes the two means for independent. Runs that answer
the same prompts move together, so the true interval is narrower: "no clear difference" is said too often, not too
rarely.
"""

from __future__ import annotations

import math
from typing import Literal

from ..estimates import Estimate

Verdict = Literal["better", "worse", "higher", "lower", "no clear difference", "the same", ""]

MORE_IS_BETTER = frozenset({"gold", "helpful", "harmless", "honest", "eos_fraction", "gold_accuracy"})
LESS_IS_BETTER = frozenset({"repetition"})


def difference(before: Estimate, after: Estimate) -> Estimate:
    """`after` less `before` with its interval; without one where either has none."""
    mean = after.mean - before.mean
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return Estimate(mean, None, None)
    low = mean - math.hypot(after.mean - after.low, before.high - before.mean)
    high = mean + math.hypot(after.high - after.mean, before.mean - before.low)
    return Estimate(mean, low, high)


def verdict(metric: str, change: Estimate) -> Verdict:
    """What the interval of the difference shows; "" without an interval. Score, KL and length are neither good nor
    bad by themselves."""
    if change.low is None or change.high is None:
        return ""
    if change.low == change.mean == change.high == 0:
        return "the same"
    if change.low <= 0 <= change.high:
        return "no clear difference"
    is_more = change.mean > 0
    if metric in MORE_IS_BETTER or metric.startswith("win_rate"):
        return "better" if is_more else "worse"
    if metric in LESS_IS_BETTER:
        return "worse" if is_more else "better"
    return "higher" if is_more else "lower"
