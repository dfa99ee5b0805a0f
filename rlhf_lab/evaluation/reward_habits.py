"""Where a reward model is right and where it is not: by margin, by gold gap, by length; and whether it likes length.

A reward model reads one completion at a time, so it has no position bias; that of the raters is in `rlhf-lab rate
--report`. Works on scores; reading texts is the business of `reward_model.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_lab.evaluation.bootstrap import bootstrap_ratio, bootstrap_sums
from rlhf_lab.functional import preference_accuracy

NUM_BINS = 5


@dataclass(frozen=True)
class HeldoutPairs:
    """N held-out pairs as the reward model sees them."""

    chosen: Tensor  # (N,) scores
    rejected: Tensor  # (N,)
    chosen_lengths: Tensor  # (N,) tokens of the completion, float64
    rejected_lengths: Tensor  # (N,)
    prompts: list[str]  # keys; pairs of one prompt hang together
    texts: list[tuple[str, str]]  # chosen and rejected, to tell which completions are the same
    gold: Tensor | None = None  # (N, 2) gold scores of chosen and rejected, embedded world only


def habits(pairs: HeldoutPairs, *, num_resamples: int, seed: int) -> dict[str, Any]:
    """What reward_model.json says beyond accuracy and calibration."""
    right = preference_accuracy(pairs.chosen, pairs.rejected).tolist()

    def interval(rows: Sequence[int], values: Sequence[float]) -> dict[str, float]:
        return bootstrap_ratio(
            [values[row] for row in rows], [pairs.prompts[row] for row in rows], num_resamples=num_resamples, seed=seed
        )

    def binned(x: Tensor) -> list[dict[str, Any]]:
        return [_bin(x, rows, interval(rows, right)) for rows in quantile_bins(x, NUM_BINS)]

    found: dict[str, Any] = {
        "by_margin": binned((pairs.chosen - pairs.rejected).abs().double()),
        "by_length": binned(pairs.chosen_lengths - pairs.rejected_lengths),
        "length_bias": length_bias(pairs, interval),
        "score_length_correlation": score_length_correlation(pairs, num_resamples=num_resamples, seed=seed),
    }
    if pairs.gold is not None:
        gaps = (pairs.gold[:, 0] - pairs.gold[:, 1]).abs()
        groups = [(gaps == gap).nonzero().flatten().tolist() for gap in gaps.unique()]
        found["by_gold_gap"] = [_bin(gaps, rows, interval(rows, right)) for rows in groups]
    return found


def quantile_bins(x: Tensor, number: int) -> list[list[int]]:
    """Row numbers of at most `number` bins of about equally many values; equal values stay together."""
    inner = x.quantile(torch.linspace(0, 1, number + 1, dtype=x.dtype))[1:-1].unique()
    place = torch.bucketize(x, inner, right=True)
    return [rows for i in range(len(inner) + 1) if (rows := (place == i).nonzero().flatten().tolist())]


def _bin(x: Tensor, rows: Sequence[int], accuracy: dict[str, float]) -> dict[str, Any]:
    inside = x[list(rows)]
    bounds = {"from": float(inside.min()), "to": float(inside.max()), "mean": float(inside.mean())}
    return {**bounds, "num_pairs": len(rows), "accuracy": accuracy}


def length_bias(
    pairs: HeldoutPairs, interval: Callable[[Sequence[int], Sequence[float]], dict[str, float]]
) -> dict[str, Any] | None:
    """How often the longer completion is preferred, by the reward model and by the raters, and the difference.

    Over pairs of different length; None where there are none. `gold`: over those of them whose gold scores differ.
    """
    longer = pairs.chosen_lengths - pairs.rejected_lengths
    rows = longer.nonzero().flatten().tolist()
    if not rows:
        return None
    chosen_is_longer = (longer > 0).double()
    # 1 where the model prefers the longer one: it prefers the chosen one and that is longer, or neither
    agrees = preference_accuracy(pairs.chosen, pairs.rejected).double()
    model = torch.where(longer > 0, agrees, 1 - agrees)
    found = {
        "num_pairs": len(rows),
        "raters": interval(rows, chosen_is_longer.tolist()),
        "reward_model": interval(rows, model.tolist()),
        "difference": interval(rows, (model - chosen_is_longer).tolist()),
    }
    if pairs.gold is not None:
        gap = pairs.gold[:, 0] - pairs.gold[:, 1]
        decided = [row for row in rows if gap[row] != 0]
        by_gold = ((gap > 0) == (longer > 0)).double().tolist()
        found["gold"] = interval(decided, by_gold) if decided else None
    return found


def score_length_correlation(pairs: HeldoutPairs, *, num_resamples: int, seed: int) -> dict[str, float]:
    """Pearson's correlation of score and length among the answers to one prompt: both less their mean over the
    prompt's different answers, so that prompts with long right answers do not count. NaN where nothing varies."""
    answers: dict[str, dict[str, tuple[float, float]]] = {}
    columns = (pairs.chosen, pairs.rejected), (pairs.chosen_lengths, pairs.rejected_lengths)
    for side in (0, 1):
        scores, lengths = (column[side].tolist() for column in columns)
        for prompt, texts, score, length in zip(pairs.prompts, pairs.texts, scores, lengths, strict=True):
            answers.setdefault(prompt, {})[texts[side]] = (score, length)
    sums = torch.stack(
        [_products(torch.tensor(list(those.values()), dtype=torch.float64)) for those in answers.values()]
    )
    return bootstrap_sums(sums, _correlation, num_resamples=num_resamples, seed=seed)


def _products(points: Tensor) -> Tensor:
    """(3,) sums over one prompt's answers of score x length, score squared, length squared, each less its mean."""
    score, length = (points - points.mean(0)).T
    return torch.stack([(score * length).sum(), score.square().sum(), length.square().sum()])


def _correlation(totals: Tensor) -> Tensor:
    product, scores, lengths = totals.T
    return torch.where((scores > 1e-12) & (lengths > 1e-12), product / (scores * lengths).sqrt(), torch.nan)
