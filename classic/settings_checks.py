"""What no lesson with rollouts can learn from is refused when its settings are made, before anything is trained.

Left out: what only one lesson needs, which stands in its own `Settings`.

    python -m classic.ppo --steps 100
"""

import math
from dataclasses import fields
from typing import Any

from classic.errors import LessonError

# Fields of the lessons' settings by what their numbers must be.
ABOVE_0 = (
    "learning_rate",
    "critic_learning_rate",
    "value_learning_rate",
    "clip_range",
    "value_clip_range",
    "adam_eps",
    "reward_scale",
    "max_grad_norm",
)
AT_LEAST_0 = ("ent_coef", "vf_coef")
# What the numbers of a training are made of: with 1e308 of it they soon do not fit into a float, and no learning rate
# is low enough to mend that.
AT_MOST_A_MILLION = ("initial_value", "flaw", "kl_coef", "reward_scale")
FLAGS = {"kl_coef": "--beta"}  # where it is not the name of the field
MAY_BE_INFINITE = ("max_grad_norm",)  # no clipping


def require_numbers(settings: Any) -> None:
    """Raise LessonError where a number of a lesson's settings is nan or infinite, or on the wrong side of 0.

    Args:
        settings: a dataclass; what to type is the default of the field.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if needed := _needed(field.name, value):
            flag = FLAGS.get(field.name, f"--{field.name.replace('_', '-')}")
            default = 0.2 if field.default is None else field.default
            raise LessonError(f"got {field.name} {value}; it must be {needed}: type {flag} {default}")


def _needed(name: str, value: float) -> str:
    """What the number of this field must be; empty where it is that."""
    may_be_infinite = name in MAY_BE_INFINITE
    if name in ABOVE_0 and not value > 0:
        return "above 0" + (" (inf: no clipping)" if may_be_infinite else "")
    if name in AT_LEAST_0 and not value >= 0:
        return "0 or above"
    if not (math.isfinite(value) or (may_be_infinite and value > 0)):
        return "a finite number"
    return "at most 1e6 on either side of 0" if name in AT_MOST_A_MILLION and abs(value) > 1e6 else ""


def require_rollout(num_steps: int, num_envs: int, rollout_length: int) -> None:
    """Raise LessonError where the budget ends before the first rollout."""
    needed = num_envs * rollout_length
    if num_steps < needed:
        raise LessonError(
            f"got a budget of {num_steps:,} steps; one rollout of {num_envs} x {rollout_length} needs {needed:,}: type "
            f"--steps {needed} or more"
        )


def require_discounts(gamma: float, gae_lambda: float) -> None:
    """Raise LessonError where a discount is not between 0 and 1."""
    if not (0 <= gamma <= 1 and 0 <= gae_lambda <= 1):
        raise LessonError(
            f"got gamma {gamma} and gae_lambda {gae_lambda}; both lie between 0 and 1: type --gamma 0.99 --gae-lambda "
            "0.95"
        )
