"""The Bradley-Terry model of comparisons: its loss, how often it is right, and whether it knows how often.

P(chosen is preferred) = sigmoid(score of chosen - score of rejected). Only differences of scores mean anything: adding
a constant to all scores changes nothing here.

Left out: rankings of more than two completions (make all pairs of them) and the reward model itself.

    pytest tests/functional/test_preference.py
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rlhf_lab.functional.masking import require_same_shape


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None) -> Tensor:
    """-log sigmoid(chosen - rejected - margin): Ouyang et al. 2022, arXiv 2203.02155, equation 1.

    The margin is that of Llama 2 (Touvron et al. 2023, arXiv 2307.09288, equation 2): pairs that raters found clearly
    different must be further apart.

    Args:
        chosen: (B,), or any shape, scores of the preferred completions.
        rejected: same shape.
        margin: same shape, in units of score, or None for 0.

    Returns:
        Same shape, nats; log 2 at equal scores.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(chosen=chosen, rejected=rejected)
    difference = chosen - rejected
    if margin is not None:
        require_same_shape(chosen=chosen, margin=margin)
        difference = difference - margin
    return -F.logsigmoid(difference)


def preference_accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """1 where the chosen completion has the higher score, 0 where the lower, 0.5 at a tie.

    Half for a tie, so that a model that gives every text the same score gets 0.5, the figure for knowing nothing.

    Args:
        chosen: (B,), or any shape, scores of the preferred completions.
        rejected: same shape.

    Returns:
        Same shape, float32.

    Raises:
        ValueError: shapes differ.
    """
    require_same_shape(chosen=chosen, rejected=rejected)
    return torch.where(chosen == rejected, 0.5, (chosen > rejected).float())


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram of a reward model: bins of equal width over the predicted probability, [0.5, 1].

    Attributes:
        predicted: (num_bins,) mean predicted probability of the side that the model prefers; NaN in an empty bin.
        observed: (num_bins,) fraction of pairs in which raters chose that side; NaN in an empty bin.
        num_pairs: (num_bins,) int64.
    """

    predicted: Tensor
    observed: Tensor
    num_pairs: Tensor

    @property
    def expected_error(self) -> float:
        """Mean over pairs of |predicted - observed| of their bin, the expected calibration error.

        Guo et al. 2017, arXiv 1706.04599, equation 3. In units of probability: 0 is perfect. Empty bins do not count.
        """
        used = self.num_pairs > 0
        gap = (self.predicted - self.observed).abs()[used]
        return float((gap * self.num_pairs[used]).sum() / self.num_pairs.sum())


def calibration(chosen: Tensor, rejected: Tensor, num_bins: int = 10) -> Calibration:
    """How often the side that the model prefers was chosen, against how sure the model was.

    Pairs have no order of their own, so the model's probability is read for the side that it prefers and lies in
    [0.5, 1]. A reward model that says 0.8 is calibrated if raters agree with it on 80 % of those pairs. At a tie the
    model prefers neither, and the pair counts as half chosen, half not.

    Args:
        chosen: (N,), or any shape, scores of the preferred completions.
        rejected: same shape.
        num_bins: bins of equal width on [0.5, 1]; a bin holds its lower edge, the last one 1 too.

    Raises:
        ValueError: shapes differ, no pairs, a difference that is NaN, or num_bins below 1.
    """
    agreed = preference_accuracy(chosen, rejected).flatten().double()
    # In float64: sums over many pairs, and differences of bf16 scores.
    confidence = (chosen.double() - rejected.double()).abs().sigmoid().flatten()
    if not len(confidence) or bool(confidence.isnan().any()):
        raise ValueError(f"got {len(confidence)} pairs of scores; need 1 or more, and none of them NaN")
    if num_bins < 1:
        raise ValueError(f"got num_bins={num_bins}; need 1 or more")
    bins = ((confidence - 0.5) * 2 * num_bins).long().clamp(max=num_bins - 1)
    num_pairs = bins.bincount(minlength=num_bins)
    return Calibration(
        predicted=bins.bincount(confidence, minlength=num_bins) / num_pairs,
        observed=bins.bincount(agreed, minlength=num_bins) / num_pairs,
        num_pairs=num_pairs,
    )
