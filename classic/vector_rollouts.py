"""Steps from Gymnasium's vector environments, without the rows that are no steps.

Gymnasium resets a stream on the step after its end: that step ignores the action, pays nothing and leads from the last
observation of the old episode to the first of the new one. It is not a transition. Learnt as one, it tells the critic
that a fallen pole is worth what a new episode is worth. `Rollout.is_step` is False there.

One good comes of it: the observation that follows an end is the last one of that episode, so that the value of a
truncated episode's last state needs no extra work: it is the value of the next column.

Left out: the other two ways to reset (refused), observations that are not one flat array of numbers (refused).

    python -m pytest tests/classic/test_vector_rollouts.py
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from classic.environment_options import refused_by, require_options
from classic.environments import specification
from classic.errors import LessonError

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Act = Callable[[Floats], NDArray[Any]]  # (B, D) observations to (B,) or (B, A) actions


@dataclass(frozen=True)
class Rollout:
    """T columns of B streams; episodes cross the edges of a rollout."""

    observations: Floats  # (B, T + 1, D); the last column is where the next rollout begins
    actions: NDArray[Any]  # (B, T) whole numbers, or (B, T, A) as sampled, before they were clipped to the bounds
    rewards: Floats  # (B, T)
    terminated: Bools  # (B, T) nothing is to come
    truncated: Bools  # (B, T) cut off
    is_step: Bools  # (B, T) False where the environment only reset


def make_vector(env_id: str, num_envs: int, *, max_episode_steps: int | None = None, **options: Any) -> Any:
    """A vector environment that resets on the next step: Gymnasium's NumPy one where there is one, else a loop.

    Raises:
        LessonError: unknown id or option, or a space that the lesson can not learn.
    """
    spec = specification(env_id)
    require_options(spec, options)
    limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    try:
        env = gym.make_vec(spec, num_envs=num_envs, **limit, **options)
    except gym.error.DependencyNotInstalled as error:
        raise LessonError(f"{env_id} needs a library that is not installed: {error}") from None
    except Exception as error:
        if not options:  # nothing that was typed
            raise
        raise refused_by(env_id, options, error) from None
    require_learnable(env, env_id)
    return env


def require_learnable(env: Any, env_id: str) -> None:
    """Raise LessonError unless observations are one row of numbers and actions one number or one row of numbers."""
    observation, action = env.single_observation_space, env.single_action_space
    if not isinstance(observation, gym.spaces.Box) or len(observation.shape) != 1:
        tabular = isinstance(observation, gym.spaces.Discrete)
        instead = f"python -m classic.q_learning --env {env_id}" if tabular else "--env CartPole-v1"
        raise LessonError(
            f"{env_id} has the observations {observation}; this lesson needs one row of numbers: type {instead}"
        )
    flat_box = isinstance(action, gym.spaces.Box) and len(action.shape) == 1
    if not (isinstance(action, gym.spaces.Discrete) or flat_box):
        raise LessonError(
            f"{env_id} has the actions {action}; this lesson needs separate actions (Discrete) or one row of numbers "
            "(Box): type --env CartPole-v1 or --env Pendulum-v1"
        )
    mode = env.metadata.get("autoreset_mode")
    if mode != gym.vector.AutoresetMode.NEXT_STEP:
        raise LessonError(
            f"{env_id} resets by {mode}; this lesson reads streams that reset on the next step: leave autoreset_mode "
            "out when you make it"
        )


class VectorStreams:
    """A vector environment in motion; `collect` goes on where the last call ended."""

    def __init__(self, env: Any, seed: int) -> None:
        self.env = env
        space = env.single_action_space
        self._bounds = (space.low, space.high) if isinstance(space, gym.spaces.Box) else None
        self.episode_returns: list[float] = []  # of all episodes that have ended so far, in order
        self.num_steps = 0  # environment steps so far; resets are not counted
        self.restart(seed)

    def restart(self, seed: int) -> None:
        """Begin a new episode in every stream, wherever it stands."""
        self.observations: Floats = self._flat(self.env.reset(seed=seed_or_seeds(self.env, seed))[0])
        self._ended: Bools = np.zeros(self.env.num_envs, dtype=np.bool_)
        self._running_returns = np.zeros(self.env.num_envs)

    def collect(self, act: Act, num_columns: int) -> Rollout:
        """Step all streams `num_columns` times."""
        num_envs, width = self.observations.shape
        observations = np.empty((num_columns + 1, num_envs, width), dtype=np.float32)
        rewards = np.empty((num_columns, num_envs), dtype=np.float32)
        terminated, truncated, is_step = (np.empty((num_columns, num_envs), dtype=np.bool_) for _ in range(3))
        actions = []
        for column in range(num_columns):
            observations[column] = self.observations
            # A stream that ended has its reset before it: whatever it is told to do, this row is not a step.
            is_step[column] = ~self._ended
            actions.append(act(self.observations))
            rewards[column], terminated[column], truncated[column] = self._step(actions[-1])
        observations[num_columns] = self.observations
        self.num_steps += int(is_step.sum())
        return Rollout(
            observations=observations.swapaxes(0, 1),
            actions=np.stack(actions, axis=1),
            rewards=rewards.T,
            terminated=terminated.T,
            truncated=truncated.T,
            is_step=is_step.T,
        )

    def _step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], Bools, Bools]:
        legal = actions if self._bounds is None else np.clip(actions, *self._bounds)
        observations, rewards, terminated, truncated, _ = self.env.step(legal)
        self.observations = self._flat(observations)
        self._ended = terminated | truncated
        self._running_returns += rewards
        if self._ended.any():
            self.episode_returns += self._running_returns[self._ended].tolist()
            self._running_returns[self._ended] = 0.0
        return rewards, terminated, truncated

    @staticmethod
    def _flat(observations: NDArray[Any]) -> Floats:
        return np.asarray(observations, dtype=np.float32)


def seed_or_seeds(env: Any, seed: int) -> int | list[int]:
    """What `reset` is given: a seed for each environment of a loop, and the seed itself where there is one generator.

    The trap: given one number, Gymnasium's loop seeds its environments with that number, the next one and so on. The
    episodes of seed 1 would be those of seed 0 without the first, and an evaluation over seeds hardly more than one.
    """
    if not isinstance(env.unwrapped, gym.vector.SyncVectorEnv):
        return seed
    # 32 bits: other people's environments may hand them on to generators that take no more.
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(env.num_envs)]


def act_by_sign(weights: Sequence[float]) -> Act:
    """The policy of a few numbers: action 1 where the weighted sum of the observation is above 0, else action 0."""
    numbers = np.asarray(weights, dtype=np.float32)
    return lambda observations: (observations @ numbers > 0).astype(np.int64)


def returns_of_first_episodes(env: Any, act: Act, seed: int) -> NDArray[np.float64]:
    """(B,) return of one episode in each of B streams.

    One of each, and not the first B to end: among those, short episodes would be over-represented.

    Raises:
        LessonError: an episode does not end within 100,000 steps.
    """
    streams = VectorStreams(env, seed)
    totals, running = np.zeros(env.num_envs), np.ones(env.num_envs, dtype=np.bool_)
    for _ in range(100_000):
        rewards, terminated, truncated = streams._step(act(streams.observations))
        totals += np.where(running, rewards, 0.0)
        running &= ~(terminated | truncated)
        if not running.any():
            return totals
    raise LessonError("an episode has not ended after 100,000 steps: give a time limit with --max-episode-steps 500")


def whole_episodes(streams: VectorStreams, act: Act, seed: int, *, num_episodes: int | None = None) -> Rollout:
    """One episode of each stream from its beginning to its end, (B, T) with T the length of the longest.

    `is_step` is False after the end of a shorter one; what the stream does meanwhile is thrown away and not counted in
    `num_steps`. The streams are reset with the seed, and stand at odd places afterwards.

    With `num_episodes`, only so many of the streams are played, the first ones; the others have no steps at all.

    Raises:
        LessonError: an episode does not end within 100,000 steps.
    """
    num_steps, num_returns = streams.num_steps, len(streams.episode_returns)
    streams.restart(seed)
    played = streams.env.num_envs if num_episodes is None else num_episodes
    running = np.arange(streams.env.num_envs) < played
    columns: list[Rollout] = []
    while running.any():
        if len(columns) == 100_000:
            raise LessonError(
                "an episode has not ended after 100,000 steps: give a time limit with --max-episode-steps 500"
            )
        column = streams.collect(act, 1)
        columns.append(replace(column, is_step=running[:, None].copy()))
        running &= ~(column.terminated | column.truncated)[:, 0]
    whole = in_a_row(columns)
    streams.num_steps = num_steps + int(whole.is_step.sum())
    del streams.episode_returns[num_returns:]
    streams.episode_returns += np.where(whole.is_step, whole.rewards, 0.0).sum(1)[:played].tolist()
    return whole


def in_a_row(rollouts: Sequence[Rollout]) -> Rollout:
    """Rollouts that were collected one after the other, as one."""
    observations = [*(rollout.observations[:, :-1] for rollout in rollouts), rollouts[-1].observations[:, -1:]]
    names = ("actions", "rewards", "terminated", "truncated", "is_step")
    columns = {name: np.concatenate([getattr(rollout, name) for rollout in rollouts], axis=1) for name in names}
    return Rollout(observations=np.concatenate(observations, axis=1), **columns)
