"""A training whose numbers are no longer numbers is ended at once, and told what to do about it.

Nothing stops by itself: an optimizer takes a step by nan as it takes any other, the policy that is left always takes
action 0, and the table at the end looks like that of a training that merely learned nothing.

Left out: a training that learns nothing with finite numbers, which only its curve tells.

    python -m classic.dqn --learning-rate 1e30
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from torch import Tensor

from classic.errors import Diverged

OF_THE_CRITIC = ("value_loss", "critic.")


def require_finite(
    metrics: Mapping[str, float], weights: Mapping[str, Tensor], *, settings: Any, seed: int, num_steps: int
) -> None:
    """Raise `Diverged` where a loss or a weight is not finite.

    Other figures may be without meaning at times (the Q of doomed states before any was seen), and the KL of one update
    may be too large for a float while the policy is still one.

    Args:
        metrics: of the last update; losses are those whose name ends so.
        weights: name to tensor, after it.
        settings: of the lesson; read for what to lower.
        seed: of the training.
        num_steps: environment steps so far.
    """
    losses = {name: value for name, value in metrics.items() if name.endswith("loss") and not math.isfinite(value)}
    # In NumPy: this is asked after every update, and torch would take three times as long for such small tensors.
    lost = [name for name, weight in weights.items() if not np.isfinite(weight.numpy()).all()]
    if not losses and not lost:
        return
    told = [f"{name} is {value}" for name, value in losses.items()]
    if lost:
        told.append(f"{len(lost)} of {len(weights)} weights are not finite, {lost[0]} the first of them")
    raise Diverged(
        f"with seed {seed} the training diverged: after {num_steps:,} environment steps {' and '.join(told)}; "
        f"{_remedy(settings, [*losses, *lost])}"
    )


def _remedy(settings: Any, culprits: list[str]) -> str:
    """What to type. The critic has a learning rate of its own in some lessons, and may be the only one that is lost."""
    defaults = {field.name: field.default for field in fields(settings)}
    of_critic = all(name.startswith(OF_THE_CRITIC) for name in culprits)
    name = "critic_learning_rate" if of_critic and "critic_learning_rate" in defaults else "learning_rate"
    rate = getattr(settings, name)
    advice = f"type a lower {_flag(name)} than {rate:g}, for example {_flag(name)} {min(rate / 10, defaults[name]):g}"
    if math.isinf(settings.max_grad_norm):
        advice += f", or clip the gradients: {_flag('max_grad_norm')} {defaults['max_grad_norm']:g}"
    return advice


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
