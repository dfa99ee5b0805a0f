"""Gymnasium environments by id, with errors that name the id or option to type instead.

Left out: rendering. Gymnasium draws with pygame and a display; `classic.pictures` draws without either. What an option
may be is in `classic.environment_options`.

    python -c "from classic.environments import make_environment; print(make_environment('Taxi-v4'))"
"""

import difflib
import importlib.util
from typing import Any

import gymnasium as gym

from classic.environment_options import refused_by, require_options
from classic.errors import LessonError


def specification(env_id: str) -> Any:
    """The `EnvSpec` of an id: time limit, threshold, entry point.

    Raises:
        LessonError: the id is unknown, renamed or of another version; the message names the one to type.
    """
    try:
        return gym.spec(env_id)
    except (gym.error.Error, ValueError):
        instead = current_id(env_id)
        raise LessonError(
            f"got the environment {env_id!r}, which Gymnasium {gym.__version__} does not have; "
            f"{f'type --env {instead}' if instead else 'type --env FrozenLake-v1, Taxi-v4 or CartPole-v1'}"
        ) from None


def current_id(env_id: str) -> str | None:
    """The id that was most likely meant, or None: the newest version of that very name, else a similar name.

    A similar name is only a guess, so that it must be of an environment that works with what is installed here.
    """
    ids = [id for id, spec in gym.registry.items() if spec.namespace is None]
    newest = {_name(id): id for id in sorted(ids, key=lambda id: int(id.rpartition("-v")[2]))}
    name = _name(env_id)
    if name in newest:
        return newest[name]
    alike = difflib.get_close_matches(
        name, [other for other, id in newest.items() if _works_here(id)], n=1, cutoff=0.75
    )
    return newest[alike[0]] if alike else None


def _name(env_id: str) -> str:
    """Without the version, in small letters."""
    return (env_id.rpartition("-v")[0] or env_id).lower()


def _works_here(env_id: str) -> bool:
    """Whether the library behind it is installed; asked without importing it."""
    family = str(gym.registry[env_id].entry_point).removeprefix("gymnasium.envs.").partition(".")[0]
    needs = {"classic_control": "gymnasium", "toy_text": "gymnasium", "box2d": "Box2D", "mujoco": "mujoco"}
    return family in needs and importlib.util.find_spec(needs[family]) is not None


def make_environment(env_id: str, *, max_episode_steps: int | None = None, **options: Any) -> gym.Env[Any, Any]:
    """`gymnasium.make`, with errors for learners.

    Args:
        env_id: for example "FrozenLake8x8-v1". `FrozenLake-v1` with `map_name="8x8"` keeps the limit of 100 steps.
        max_episode_steps: another time limit than the registered one; None keeps it.
        options: arguments of the environment, such as `is_slippery=False`.

    Raises:
        LessonError: no such id, no such option, or a library that the environment needs is not installed.
    """
    spec = specification(env_id)
    require_options(spec, {name: value for name, value in options.items() if name != "render_mode"})
    limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    try:
        return gym.make(spec, **limit, **options)
    except gym.error.DependencyNotInstalled as error:
        raise LessonError(f"{env_id} needs a library that is not installed: {error}") from None
    except Exception as error:
        if not options:  # nothing that was typed
            raise
        raise refused_by(env_id, options, error) from None
