"""Options of an environment as they are typed, checked before Gymnasium sees them.

Gymnasium checks little: a map that it does not know is a `KeyError`, "maybe" counts as true, and a success rate of 2
gives a table with probabilities below 0. What an option is, its default tells.

Left out: arguments that hide behind `**kwargs`; those the environment itself must refuse (`refused_by`).

    python -m classic.q_learning --env-option is_slippery=false
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator
from gymnasium.envs.toy_text.frozen_lake import MAPS

from classic.errors import LessonError

# What Gymnasium would take for an argument of its own, and what to type instead.
RESERVED = {
    "max_episode_steps": "type --max-episode-steps 200 instead",
    "render_mode": "type --out FOLDER instead: the lessons draw themselves",
    "num_envs": "it is an option of the lesson where there is one (--num-envs, --streams)",
    **dict.fromkeys(
        ("id", "vectorization_mode", "vector_kwargs", "wrappers", "autoreset_mode", "disable_env_checker"),
        "the lessons choose it themselves: leave it out",
    ),
}
PROBABILITIES = {"success_rate", "rainy_probability", "fickle_probability"}
# Read only while another option is true.
SWITCHES = {
    "success_rate": "is_slippery",
    "rainy_probability": "is_rainy",
    "fickle_probability": "fickle_passenger",
}


def environment_options(pairs: list[str]) -> dict[str, Any]:
    """`["is_slippery=false", "success_rate=0.8"]` as a dict; true, false, whole and decimal numbers are read as such.

    Raises:
        LessonError: a pair without `=`, a name twice, or one that is not the environment's.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise LessonError(f"got --env-option {pair!r}; it must be KEY=VALUE: type --env-option is_slippery=false")
        if key in RESERVED:
            raise LessonError(f"got --env-option {pair}; {key} is no option of an environment: {RESERVED[key]}")
        if key in options:
            raise LessonError(f"got --env-option {key} twice, {options[key]} and {text}: leave one of the two out")
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


def require_options(spec: Any, options: Mapping[str, Any]) -> None:
    """Raise LessonError unless the environment has these options and can be made with them.

    Args:
        spec: Gymnasium's `EnvSpec`.
        options: name to value.
    """
    if not options:
        return
    creator = spec.entry_point
    try:
        parameters = inspect.signature(creator if callable(creator) else load_env_creator(creator)).parameters.values()
    except (ImportError, gym.error.DependencyNotInstalled):
        return  # it can not be made at all, which whoever makes it says better
    hidden = any(one.kind == one.VAR_KEYWORD for one in parameters)
    known = [one for one in parameters if one.name not in RESERVED and one.kind != one.VAR_KEYWORD]
    defaults = {**{one.name: one.default for one in known}, **spec.kwargs}
    for name, value in options.items():
        if hidden and name not in defaults:
            continue
        _require_known(spec.id, name, value, list(defaults))
        _require_kind(spec.id, name, value, defaults[name])
        switch = SWITCHES.get(name)
        if switch and not options.get(switch, defaults.get(switch)):
            raise LessonError(
                f"got --env-option {name}={value} for {spec.id}, where {switch} is false, so that {name} would do "
                f"nothing: type --env-option {switch}=true too, or leave {name} out"
            )


def refused_by(env_id: str, options: Mapping[str, Any], error: Exception) -> LessonError:
    """What an environment said when it could not be made with these options."""
    given = " ".join(f"{name}={value}" for name, value in options.items())
    return LessonError(
        f"{env_id} was given {given} and can not be made with that ({type(error).__name__}: {error}): leave it out"
    )


def _require_known(env_id: str, name: str, value: Any, known: list[str]) -> None:
    if name not in known:
        some = f"it has {', '.join(known)}" if known else "it has none"
        raise LessonError(f"got --env-option {name}={value}; {env_id} has no such option: {some}")


def _require_kind(env_id: str, name: str, value: Any, default: Any) -> None:
    """The value must be of the default's kind."""
    if needed := _needed(name, value, default):
        raise LessonError(f"got --env-option {name}={value} for {env_id}; it must be {needed}")


def _needed(name: str, value: Any, default: Any) -> str:
    """What the value must be, and what to type; empty where it is that."""
    if isinstance(default, bool) and not isinstance(value, bool):
        return f"true or false: type --env-option {name}={str(default).lower()}"
    if name in PROBABILITIES and not (_is_number(value) and 0 <= value <= 1):
        return f"a probability between 0 and 1: type --env-option {name}={default:.3g}"
    if isinstance(default, (int, float)) and not isinstance(default, bool) and not _is_number(value):
        return f"a finite number: type --env-option {name}={default:g}"
    if name == "map_name" and value not in MAPS:
        return f"one of {', '.join(MAPS)}: type --env-option map_name={default}"
    if name == "desc" and not isinstance(value, (tuple, list)):
        return "the rows of a map, which only Python can give: type --env-option map_name=8x8 instead"
    if isinstance(default, tuple) and not isinstance(value, (tuple, list)):
        return "several numbers, which only Python can give: leave it out"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
