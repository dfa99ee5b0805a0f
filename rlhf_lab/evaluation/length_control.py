"""The win rate at equal length: what is left of it when no answer is longer than the other.

Dubois et al. 2024, arXiv 2404.04475 (AlpacaEval 2): a logistic regression of who is preferred on who wrote it and on
the difference of lengths, read where that difference is 0. The length enters as tanh(difference / its standard
deviation), so that one very long answer does not rule. Left out is their third term, the difficulty of each prompt,
which needs many models' answers to the same prompts.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# A normal prior of standard deviation 10 on both coefficients, in logits: it does nothing to an ordinary fit, and keeps
# one finite in which a policy wins every time.
PENALTY = 0.01
NEWTON_STEPS = 60
LARGEST_STEP = 2.0  # logits; full steps can overshoot where all wins lie on one side
CHUNK = 100  # resamples at once


def length_term(differences: Tensor) -> Tensor:
    """(N,) tanh of the differences in units of their own standard deviation; 0 where lengths never differ."""
    spread = differences.std(correction=0)
    return torch.tanh(differences / spread) if spread > 0 else torch.zeros_like(differences)


def fitted_logits(term: Tensor, wins: Tensor, weights: Tensor) -> Tensor:
    """(R, 2) intercept and slope of the logistic regression of `wins` (N,), 0 to 1, on `term` (N,), for R weightings.

    Newton's method on the penalised log-likelihood; `weights` is (R, N). A tie is half a win, as if it were both.
    """
    design = torch.stack([torch.ones_like(term), term], dim=1)
    found = torch.zeros(len(weights), 2, dtype=term.dtype)
    penalty = PENALTY * torch.eye(2, dtype=term.dtype)
    for _ in range(NEWTON_STEPS):
        chances = torch.sigmoid(found @ design.T)
        slope = (weights * (wins - chances)) @ design - PENALTY * found
        bend = torch.einsum("rn,ni,nj->rij", weights * chances * (1 - chances), design, design) + penalty
        step = torch.linalg.solve(bend, slope).clamp(-LARGEST_STEP, LARGEST_STEP)
        found = found + step
        if step.abs().max() < 1e-10:
            break
    return found


def length_controlled(
    wins: Sequence[float],
    length_differences: Sequence[float],
    clusters: Sequence[str],
    *,
    num_resamples: int,
    seed: int,
    level: float = 0.95,
) -> dict[str, Any]:
    """The win rate at equal length with its interval from resampling whole clusters (prompts), and the length's effect.

    `length_differences` are ours less theirs. `length_effect` is the slope in logits: above 0, longer is preferred.
    """
    term = length_term(torch.tensor(length_differences, dtype=torch.float64))
    y = torch.tensor(wins, dtype=torch.float64)
    number: dict[str, int] = {}
    cluster = torch.tensor([number.setdefault(name, len(number)) for name in clusters])
    at_zero, effect = fitted_logits(term, y, torch.ones(1, len(y), dtype=torch.float64))[0].tolist()
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for start in range(0, num_resamples, CHUNK):
        rows = min(CHUNK, num_resamples - start)
        picks = torch.randint(len(number), (rows, len(number)), generator=generator)
        times = torch.zeros(rows, len(number), dtype=torch.float64)
        times.scatter_add_(1, picks, torch.ones_like(times))
        drawn.append(fitted_logits(term, y, times[:, cluster])[:, 0])
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.sigmoid(torch.cat(drawn).quantile(tails)).tolist()
    return {
        "mean": 1 / (1 + math.exp(-at_zero)),
        "low": low,
        "high": high,
        "length_effect": effect,
    }
