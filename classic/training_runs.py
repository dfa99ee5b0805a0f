"""The outer loop of lessons 3 to 5: iterate, evaluate without chance, keep the best weights, stop in time.

What one iteration does is the lesson's own (`classic.dqn`, `classic.policy_gradient`, `classic.ppo`); here stands what
makes their figures comparable: the same clock, the same test episodes, the same idea of "best" and "last".

Left out: checkpoints in the middle of a run; a lesson takes seconds.

    python -m pytest tests/classic/test_training_runs.py
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from classic.divergence import require_finite
from classic.vector_rollouts import Floats, VectorStreams, make_vector, returns_of_first_episodes


class Policy(Protocol):
    """Networks that choose actions; an `nn.Module` besides."""

    def best(self, observations: Floats) -> NDArray[Any]:
        """(B, D) to the actions without chance."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> Any: ...


P = TypeVar("P", bound=Policy)
PolicyOf = TypeVar("PolicyOf", bound=Policy, covariant=True)


class Trainer(Protocol[PolicyOf]):
    """One policy in training: its streams, its optimizer and its chance."""

    streams: VectorStreams

    @property
    def policy(self) -> PolicyOf: ...

    def iterate(self, progress: float) -> dict[str, float]:
        """Collect and learn; `progress` (0 to 1) is how much of the budget is spent."""
        ...

    def fits(self) -> bool:
        """Whether one more iteration stays within the budget, however it goes."""
        ...


class Budget(Protocol):
    """What the loop reads of a lesson's settings."""

    @property
    def num_steps(self) -> int:
        """Environment steps. The loop stops before an iteration that might exceed them: see `Trainer.fits`."""
        ...

    @property
    def evaluate_every(self) -> int:
        """Environment steps between evaluations, or an iteration where that is longer; there is one at the end."""
        ...

    @property
    def num_evaluation_episodes(self) -> int: ...

    @property
    def num_envs(self) -> int: ...

    @property
    def rollout_length(self) -> int:
        """Columns of an iteration."""
        ...


S = TypeVar("S", bound=Budget)


@dataclass(frozen=True)
class Point:
    """One evaluation without chance in the actions."""

    step: int
    seconds: float  # since training began, evaluations included
    mean_return: float
    metrics: dict[str, float]  # of the update before it
    training_seconds: float  # of `seconds`, those that were no evaluation

    @property
    def steps_per_second(self) -> float:
        """Of the training alone: evaluations play far more steps than some trainings do."""
        return self.step / self.training_seconds


@dataclass(frozen=True)
class Result(Generic[P]):
    """The trained policy and its best moment."""

    policy: P  # as it was at its best evaluation
    last_weights: dict[str, Tensor]  # as it was at the end
    points: list[Point]
    num_steps: int
    seconds: float

    @property
    def best(self) -> Point:
        return max(self.points, key=lambda point: point.mean_return)

    def first_at(self, threshold: float) -> Point | None:
        """The first evaluation at or above the threshold."""
        return first_at(self.points, threshold)


def first_at(points: Sequence[Point], threshold: float) -> Point | None:
    """The first of the evaluations at or above the threshold."""
    return next((point for point in points if point.mean_return >= threshold), None)


class How(TypedDict, total=False):
    """What a training may be told besides what it learns."""

    options: dict[str, Any]  # of the environment
    on_point: Callable[[Point], None]  # called at each evaluation, for progress and live plots
    stop_at: float | None  # stop at the first evaluation with this mean return; None uses up the budget
    clock: Callable[[], float]  # in seconds: `time.perf_counter`, or `time.process_time` on a busy machine


def run_training(
    make_trainer: Callable[[str, S, int, dict[str, Any]], Trainer[P]],
    env_id: str,
    settings: S,
    seed: int,
    *,
    options: dict[str, Any] | None = None,
    on_point: Callable[[Point], None] = lambda point: None,
    stop_at: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Result[P]:
    """Iterate, evaluate now and then, and give the policy back as it was at its best.

    Args:
        make_trainer: the lesson's `Trainer`; made on the clock.
        env_id: of an environment with a flat observation.
        settings: of the lesson.
        seed: of all chance in the training; the evaluations have one of their own, the same at each of them.
        options, on_point, stop_at, clock: see `How`.

    Raises:
        Diverged: after an update a loss or a weight is not finite.
    """
    test_env = make_vector(env_id, settings.num_evaluation_episodes, **options or {})
    began, evaluating = clock(), 0.0
    trainer = make_trainer(env_id, settings, seed, options or {})
    points: list[Point] = []
    best_weights = weights_of(trainer.policy)
    streams, next_evaluation, ended = trainer.streams, settings.evaluate_every, False
    while not ended:
        before = streams.num_steps
        metrics = trainer.iterate(before / settings.num_steps)
        weights = trainer.policy.state_dict()
        require_finite(metrics, weights, settings=settings, seed=seed, num_steps=streams.num_steps)
        ended = not trainer.fits()
        if streams.num_steps < next_evaluation and not ended:
            continue
        next_evaluation = streams.num_steps + settings.evaluate_every
        paused = clock()
        mean_return = float(returns_of_first_episodes(test_env, trainer.policy.best, evaluation_seed(seed)).mean())
        if all(mean_return > point.mean_return for point in points):
            best_weights = weights_of(trainer.policy)
        seconds = clock() - began
        points.append(Point(streams.num_steps, seconds, mean_return, metrics, paused - began - evaluating))
        evaluating += seconds - (paused - began)
        on_point(points[-1])
        ended = ended or (stop_at is not None and mean_return >= stop_at)
    streams.env.close()
    test_env.close()
    last_weights = weights_of(trainer.policy)
    trainer.policy.load_state_dict(best_weights)
    return Result(trainer.policy, last_weights, points, streams.num_steps, clock() - began)


def rollout_fits(streams: VectorStreams, settings: Budget) -> bool:
    """Whether one more rollout stays within the budget: a step for every place, fewer where streams reset."""
    return streams.num_steps + settings.num_envs * settings.rollout_length <= settings.num_steps


def steps_between_evaluations(settings: Budget) -> int:
    """How far apart they are: no iteration is interrupted for one. Batches of whole episodes may be longer still."""
    return max(settings.evaluate_every, settings.num_envs * settings.rollout_length)


def evaluation_seed(seed: int) -> int:
    """Far from the seeds of training, and the same at every evaluation, so that two of them differ by the policy."""
    return 1_000_000 + seed


def weights_of(policy: Policy) -> dict[str, Tensor]:
    """A copy of the weights."""
    return {name: weight.detach().clone() for name, weight in policy.state_dict().items()}


def load_optimizers() -> None:
    """The first optimizer of a process imports half of torch, a second that belongs on nobody's clock."""
    torch.optim.Adam([torch.zeros(1, requires_grad=True)], fused=True)


def one_thread() -> None:
    """Matrices of 64 x 64 are too small to share: a second thread only waits for the first."""
    torch.set_num_threads(1)
