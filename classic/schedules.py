"""A number that changes while training goes on: a step size, an exploration rate.

Left out: step sizes that count the visits of each state and action; those live in `classic.q_learning`, which counts.

    python -c "from classic.schedules import Schedule; print(Schedule(1.0, 0.1, 'linear', 0.5)(0.25))"
"""

from dataclasses import dataclass
from typing import Literal

from classic.errors import LessonError

Decay = Literal["constant", "linear", "exponential"]


@dataclass(frozen=True)
class Schedule:
    """From `start` to `end` over the first `fraction` of the training, then `end`."""

    start: float
    end: float | None = None  # None: the same as start
    decay: Decay = "constant"
    fraction: float = 1.0  # of the budget, above 0 and at most 1

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise LessonError(f"got a decay over the fraction {self.fraction} of the training; it must be in (0, 1]")
        if self.decay == "exponential" and (self.start <= 0 or (self.end is not None and self.end <= 0)):
            raise LessonError(f"an exponential decay can not start or end at 0: got {self.start} to {self.end}")

    def __call__(self, progress: float) -> float:
        """The value when `progress` (0 to 1) of the training is done."""
        end = self.start if self.end is None else self.end
        done = min(progress / self.fraction, 1.0)
        if self.decay == "constant":
            return float(self.start)
        if self.decay == "linear":
            return float(self.start + (end - self.start) * done)
        return float(self.start * (end / self.start) ** done)
