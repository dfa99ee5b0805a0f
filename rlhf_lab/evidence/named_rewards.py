"""Reward functions and reward models that a config names in words: `module:function`, a folder, an id.

    evaluation:
      reward_funcs: ["my_rewards:is_polite", "runs/other/reward"]

A module is looked for in the working directory too, as `python -m` does. Functions are called as PPO calls them
(`stages/scoring.py`).
"""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HFValidationError
from transformers import PreTrainedTokenizerBase

from rlhf_lab.errors import UserError
from rlhf_lab.stages.scoring import Scorer, make_scorers


def named_reward(name: str, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> Scorer:
    """The scorer of one name. Raises UserError for what is not there or can not score."""
    return make_scorers([_source(name)], [], tokenizer, device)[0]


def check_names(names: Sequence[str]) -> None:
    """Raise UserError for a function that is not there, a class, and a path that leads nowhere: before the run's
    config takes note of it, and before hours of training."""
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise UserError(f"evaluation.reward_funcs names {twice[0]!r} twice; name each once")
    for name in names:
        source = _source(name)
        if isinstance(source, type):
            raise UserError(
                f"evaluation.reward_funcs: {name} is a class; make an object of it in its module, "
                f"{source.__name__.lower()} = {source.__name__}(), and name that"
            )
        if isinstance(source, str) and not Path(source).is_dir() and not _is_cached(source):
            raise UserError(
                f"evaluation.reward_funcs: there is no folder {source!r}, and no model of that name on this machine; "
                "give the folder of a reward model, or module:function"
            )


def _is_cached(name: str) -> bool:
    """Whether a model id can be had: it lies in the hub's cache, or the hub may be asked for it."""
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return False
    return not HF_HUB_OFFLINE or isinstance(found, str)


def _source(name: str) -> Any:
    """A function, or the name itself where it is a folder or an id."""
    module_name, colon, function_name = name.rpartition(":")
    if not colon or Path(name).is_dir():
        return name
    if not all(part.isidentifier() for part in [*module_name.split("."), function_name]):
        raise UserError(
            f"evaluation.reward_funcs: {name!r} is no module:function, and there is no folder of that name; type "
            "evaluation.reward_funcs='[my_rewards:is_polite]' for the function is_polite of my_rewards.py"
        )
    with _working_directory_first():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise UserError(f"evaluation.reward_funcs: {module_name} needs {error.name}; install it") from error
            raise UserError(
                f"evaluation.reward_funcs: there is no module {module_name!r}; it is looked for in the working "
                f"directory ({Path.cwd()}) and among installed packages"
            ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        there = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise UserError(
            f"evaluation.reward_funcs: {module_name} has no function {function_name!r}; it has "
            f"{', '.join(there[:10]) or 'none'}"
        )
    return function


@contextmanager
def _working_directory_first() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path[:] = before
