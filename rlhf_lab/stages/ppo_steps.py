"""What the steps of one update came to: read once, when all of them are done, and refused where it is not finite.

Until then the sums stay where they were computed, so that a GPU is never waited for between two steps. A loss or norm
that is not finite has kept its own step and all later ones from being taken (`Optimization.step`).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlhf_lab.stages.rollout import Rollout
from rlhf_lab.training.run import not_finite

Step = tuple[Tensor, dict[str, Tensor]]  # the rows of a minibatch, and what `PPOTrainer.step_on` said of it


def checked_totals(steps: Sequence[Step], rollout: Rollout, folder: Path, update_number: int) -> dict[str, float]:
    """The sums of all steps, added up, and their number.

    Raises UserError for the first step whose loss or gradient norm is not finite, after saving its batch to `folder`.
    """
    names = list(steps[0][1])
    table = torch.stack([torch.stack([sums[name].double() for name in names]) for _, sums in steps]).tolist()
    for (rows, _), numbers in zip(steps, table, strict=True):
        found = dict(zip(names, numbers, strict=True))
        losses = found["policy_loss"] + found["value_loss"]
        for what, number in (("loss", losses), ("gradient norm", found["grad_norm"])):
            if not math.isfinite(number):
                batch = rollout.rows(rows).to(torch.device("cpu"))
                raise not_finite(folder, vars(batch), f"{what} {number} in PPO update {update_number}")
    return {**dict(zip(names, map(sum, zip(*table, strict=True)), strict=True)), "steps": float(len(steps))}
