"""PPO's clipped objective as a picture, drawn from the function that trains.

Left out: the data; `classic.ppo` logs how many of its samples lie on the flat part (`clip_fraction`).

    python -m classic.ppo --out runs/ppo
"""

from pathlib import Path

import torch

from classic.curves import Curve, draw_curves
from rlhf_lab.functional import clipped_surrogate


def objective(ratios: torch.Tensor, advantage: float, clip_range: float) -> torch.Tensor:
    """(N,) what is maximised, by the ratio of new to old probability: figure 1 of arXiv 1707.06347."""
    return -clipped_surrogate(ratios.log(), torch.full_like(ratios, advantage), clip_range)


def draw_clip_objective(path: Path, clip_range: float) -> None:
    """One line for an action that was better than expected, one for an action that was worse."""
    ratios = torch.linspace(0.05, 2.0, 400)
    curves = {
        f"advantage {advantage:+g}": Curve(ratios.tolist(), [objective(ratios, advantage, clip_range).tolist()])
        for advantage in (1.0, -1.0)
    }
    draw_curves(
        path,
        curves,
        title=f"what PPO maximises, clip range {clip_range:g}: flat where it has moved far enough",
        xlabel="probability of the action, now / when sampled",
        ylabel="objective",
    )
