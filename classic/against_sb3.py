"""Stable-Baselines3's PPO on the same task, timed and judged as ours is: same test episodes, same clock.

`course` are the two lines that most courses show: its defaults with a learning rate of 3e-4. `tuned` are the settings
of RL Baselines3 Zoo for CartPole-v1 (hyperparams/ppo.yml), which reach 500 in 100,000 steps.

Left out: its other algorithms. It is slower for reasons of its own generality (one Python environment at a time, infos,
monitors), not for lack of care; the ratio says what a lean loop is worth on a small task.

    python -m classic.ppo --against-sb3 tuned
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classic.errors import LessonError
from classic.ppo import Point, Settings, evaluation_seed
from classic.vector_rollouts import make_vector, returns_of_first_episodes

COURSE = {"learning_rate": 3e-4}
TUNED = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "ent_coef": 0.0,
    "learning_rate": lambda left: 1e-3 * left,
    "clip_range": lambda left: 0.2 * left,
}
# Environments side by side: the zoo's 8, and the one that `PPO("MlpPolicy", "CartPole-v1")` makes.
NUM_ENVS = {"course": 1, "tuned": 8}


def train_sb3(
    env_id: str,
    settings: Settings,
    seed: int,
    *,
    which: str,
    stop_at: float | None = None,
    on_point: Callable[[Point], None] = lambda point: None,
) -> list[Point]:
    """Train Stable-Baselines3's PPO and evaluate it at every 2,000 steps or so, as `classic.ppo.train` does.

    Args:
        env_id: a Gymnasium id.
        settings: budget and number of evaluation episodes are read from here, the rest is SB3's own.
        seed: of SB3's training; the evaluation has the same episodes as ours.
        which: "course" or "tuned".
        stop_at: stop at the first evaluation with this mean return.
        on_point: called at each evaluation.

    Raises:
        LessonError: Stable-Baselines3 is not installed.
    """
    try:
        from stable_baselines3 import PPO
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.env_util import make_vec_env
    except ImportError:
        raise LessonError(
            "Stable-Baselines3 is not installed: type pip install stable-baselines3, or leave --against-sb3 out"
        ) from None
    test_env = make_vector(env_id, settings.num_evaluation_episodes)
    points: list[Point] = []

    class Evaluation(BaseCallback):
        """After each rollout; with short rollouts, after every 2,000 steps."""

        def _on_step(self) -> bool:
            return not reached()

        def _on_rollout_start(self) -> None:
            if self.num_timesteps - (points[-1].step if points else 0) < 2000:
                return
            evaluate(self.model, self.num_timesteps)

    def reached() -> bool:
        return bool(points) and stop_at is not None and points[-1].mean_return >= stop_at

    def evaluate(model: Any, step: int) -> None:
        def act(observations: NDArray[np.float32]) -> NDArray[Any]:
            return np.asarray(model.predict(observations, deterministic=True)[0])

        mean_return = float(returns_of_first_episodes(test_env, act, evaluation_seed(seed)).mean())
        points.append(Point(step, time.perf_counter() - began, mean_return, {}))
        on_point(points[-1])

    began = time.perf_counter()
    env = make_vec_env(env_id, n_envs=NUM_ENVS[which], seed=seed)
    model = PPO("MlpPolicy", env, seed=seed, device="cpu", **(COURSE if which == "course" else TUNED))
    model.learn(settings.num_steps, callback=Evaluation())
    if not reached():
        evaluate(model, model.num_timesteps)
    env.close()
    test_env.close()
    return points
