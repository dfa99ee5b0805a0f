"""What no lesson with rollouts can learn from is refused when its settings are made, before anything is trained.

Left out: what only one lesson needs, which stands in its own `Settings`.

    python -m classic.ppo --steps 100
"""

from classic.errors import LessonError


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
