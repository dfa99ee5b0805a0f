"""Simulated raters: they compare two completions by the gold score seen through noise, as tired people would.

Each look at a completion adds independent Gaussian noise to its gold score, so two raters disagree on close pairs and
sometimes on clear ones. The noise is set so that two raters agree on about three pairs in four, as the labellers of
InstructGPT did (72.6 % among training labellers, 77.3 % among held-out ones; arXiv 2203.02155, section 5.1 / 3.4).
"""

import itertools
import random
from collections.abc import Iterable, Iterator


def prefers_first(gold_first: float, gold_second: float, *, noise: float, rng: random.Random) -> bool:
    """One rater's verdict on one pair; `noise` is the standard deviation of one look, in units of the gold score."""
    return gold_first + rng.gauss(0.0, noise) > gold_second + rng.gauss(0.0, noise)


def all_pairs(completions: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every pair of different completions of one prompt (InstructGPT section 3.5: K answers give K (K-1) / 2 pairs)."""
    return ((a, b) for a, b in itertools.combinations(completions, 2) if a.strip() != b.strip())


def rater_agreement(gold_pairs: Iterable[tuple[float, float]], *, noise: float, rng: random.Random) -> list[float]:
    """For each pair, 1.0 where two independent raters give the same verdict, else 0.0."""
    return [
        float(prefers_first(a, b, noise=noise, rng=rng) == prefers_first(a, b, noise=noise, rng=rng))
        for a, b in gold_pairs
    ]
