"""Stable-Baselines3 on the same task, timed and judged as ours is: same clock, same test episodes, as many steps apart.

How often is part of how well: who is looked at more often is seen sooner at the threshold, and pays for it in seconds.

`course` are the two lines that most courses show, with its defaults. `tuned` are the settings of RL Baselines3 Zoo for
CartPole-v1 (hyperparams/dqn.yml, a2c.yml and ppo.yml), each with the budget that goes with them.

Left out: its other algorithms. It is slower for reasons of its own generality (one Python environment at a time, infos,
monitors), not for lack of care; the ratio says what a lean loop is worth on a small task.

    python -m classic.ppo --against-sb3 course tuned
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classic.environments import specification
from classic.errors import LessonError
from classic.training_runs import Point, evaluation_seed
from classic.vector_rollouts import make_vector, returns_of_first_episodes


@dataclass(frozen=True)
class Preset:
    """Arguments of an algorithm's class, and how long and in how many environments it trains."""

    num_steps: int
    num_envs: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)


PRESETS = {
    "DQN": {
        "course": Preset(100_000),
        "tuned": Preset(
            50_000,
            1,
            {
                "learning_rate": 2.3e-3,
                "batch_size": 64,
                "buffer_size": 100_000,
                "learning_starts": 1000,
                "gamma": 0.99,
                "target_update_interval": 10,
                "train_freq": 256,
                "gradient_steps": 128,
                "exploration_fraction": 0.16,
                "exploration_final_eps": 0.04,
                "policy_kwargs": {"net_arch": [256, 256]},
            },
        ),
    },
    "A2C": {"course": Preset(500_000), "tuned": Preset(500_000, 8, {"ent_coef": 0.0})},
    "PPO": {
        "course": Preset(500_000, 1, {"learning_rate": 3e-4}),
        "tuned": Preset(
            100_000,
            8,
            {
                "n_steps": 32,
                "batch_size": 256,
                "n_epochs": 20,
                "gamma": 0.98,
                "gae_lambda": 0.8,
                "ent_coef": 0.0,
                "learning_rate": lambda left: 1e-3 * left,
                "clip_range": lambda left: 0.2 * left,
            },
        ),
    },
}


def require_fair_race(env_id: str, which: list[str], options: Mapping[str, Any]) -> None:
    """Raise LessonError where SB3 is asked for and could not be given the same task."""
    threshold = specification(env_id).reward_threshold
    if which and (threshold is None or options):
        raise LessonError(
            f"--against-sb3 times the way to the threshold of the plain environment; {env_id} has the threshold "
            f"{threshold} and was given the options {dict(options)}: type --env CartPole-v1 without options"
        )


def train_sb3(
    env_id: str,
    seed: int,
    *,
    algorithm: str,
    preset: Preset,
    num_steps: int,
    evaluate_every: int,
    num_evaluation_episodes: int,
    stop_at: float | None = None,
    on_point: Callable[[Point], None] = lambda point: None,
    save: Path | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Point]:
    """Train Stable-Baselines3 and evaluate it now and then, as `classic.training_runs` does.

    Args:
        env_id: a Gymnasium id.
        seed: of SB3's training; the evaluation has the same episodes as ours.
        algorithm: name of the class: DQN, A2C or PPO.
        preset: its settings.
        num_steps: its budget; the last of its rollouts may go beyond.
        evaluate_every: environment steps between evaluations, or a rollout where that is longer; see
            `classic.training_runs.steps_between_evaluations` for those of ours.
        num_evaluation_episodes: of one evaluation.
        stop_at: stop at the first evaluation with this mean return.
        on_point: called at each evaluation.
        save: where `model.save` writes the model as it is at the end.
        clock: in seconds.

    Raises:
        LessonError: Stable-Baselines3 is not installed.
    """
    try:
        import stable_baselines3
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError:
        raise LessonError(
            "Stable-Baselines3 is not installed: type pip install stable-baselines3, or leave --against-sb3 out"
        ) from None
    test_env = make_vector(env_id, num_evaluation_episodes)
    points: list[Point] = []
    evaluating: list[float] = []  # seconds

    class Evaluation(BaseCallback):
        """Between two rollouts, at least `evaluate_every` steps after the last evaluation."""

        def _on_step(self) -> bool:
            return not reached()

        def _on_rollout_start(self) -> None:
            if self.num_timesteps - (points[-1].step if points else 0) >= evaluate_every:
                evaluate(self.model, self.num_timesteps)

    def reached() -> bool:
        return bool(points) and stop_at is not None and points[-1].mean_return >= stop_at

    def evaluate(model: Any, step: int) -> None:
        def act(observations: NDArray[np.float32]) -> NDArray[Any]:
            return np.asarray(model.predict(observations, deterministic=True)[0])

        training = clock() - began - sum(evaluating)
        mean_return = float(returns_of_first_episodes(test_env, act, evaluation_seed(seed)).mean())
        seconds = clock() - began
        evaluating.append(seconds - training - sum(evaluating))
        points.append(Point(step, seconds, mean_return, {}, training))
        on_point(points[-1])

    began = clock()
    env = make_vec_env(env_id, n_envs=preset.num_envs, seed=seed)
    model = getattr(stable_baselines3, algorithm)("MlpPolicy", env, seed=seed, device="cpu", **preset.arguments)
    model.learn(num_steps, callback=Evaluation())
    if not reached():
        evaluate(model, model.num_timesteps)
    if save:
        save.parent.mkdir(parents=True, exist_ok=True)
        model.save(save)
    env.close()
    test_env.close()
    return points
