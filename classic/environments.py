"""Gymnasium environments by id, with errors that name the id or option to type instead.

Left out: rendering. Gymnasium draws with pygame and a display; `classic.pictures` draws without either.

    python -c "from classic.environments import make_environment; print(make_environment('Taxi-v4'))"
"""

import difflib
from typing import Any

import gymnasium as gym

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
    """The installed id that was most likely meant, or None: another version first, then a similar name."""
    # Left out are environments that need libraries of their own (jax, mujoco): nobody types those by mistake.
    ids = [id for id, spec in gym.registry.items() if spec.namespace is None]
    name = env_id.rpartition("-v")[0] or env_id
    versions = [id for id in ids if id.rpartition("-v")[0].lower() == name.lower()]
    if versions:
        return max(versions, key=lambda id: int(id.rpartition("-v")[2]))
    return next(iter(difflib.get_close_matches(env_id, ids, n=1)), None)


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
    limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    try:
        return gym.make(spec, **limit, **options)
    except TypeError as error:
        given = " ".join(f"{key}={value}" for key, value in options.items())
        raise LessonError(f"{env_id} was given the options {given}, and answers: {error}") from None
    except gym.error.DependencyNotInstalled as error:
        raise LessonError(f"{env_id} needs a library that is not installed: {error}") from None


def environment_options(pairs: list[str]) -> dict[str, Any]:
    """`["is_slippery=false", "success_rate=0.8"]` as a dict; true, false, whole and decimal numbers are read as such.

    Raises:
        LessonError: a pair without `=`.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise LessonError(f"got --env-option {pair!r}; it must be KEY=VALUE: type --env-option is_slippery=false")
        options[key] = option_value(text)
    return options


def option_value(text: str) -> bool | int | float | str:
    """The value that a text on the command line stands for."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text
