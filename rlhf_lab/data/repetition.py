"""How much a completion repeats itself: the plainest sign of a policy that found a loop that pays."""

from collections.abc import Sequence


def repetition(tokens: Sequence[int], n: int = 3) -> float:
    """The share of n-grams that occurred before in the same completion; 0: none repeats."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
