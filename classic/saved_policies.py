"""A policy on disk: the lesson and the environment that it belongs to, the shape of its networks, their weights.

Left out: optimizers and replay buffers; what is saved can act, not go on learning.

    python -m classic.ppo --save runs/ppo.pt
    python -m classic.ppo --load runs/ppo.pt
"""

import io
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from classic.errors import LessonError
from classic.records import write_whole

Network = TypeVar("Network", bound=nn.Module)


def save_policy(path: Path, policy: nn.Module, *, env_id: str, lesson: str) -> None:
    """Write the networks with the lesson and the environment that they belong to; `policy.shape` rebuilds them."""
    saved = {"lesson": lesson, "env": env_id, "shape": policy.shape, "weights": policy.state_dict()}
    # Through memory: what torch says of a full disk does not name the disk.
    in_memory = io.BytesIO()
    torch.save(saved, in_memory)
    write_whole(path, in_memory.getvalue())


def fresh_seed(seed: int) -> int:
    """Of test episodes that chose nothing: far from those of training and from those of its evaluations."""
    return 3_000_000 + seed


def load_policy(path: Path, kind: type[Network], *, env_id: str, lesson: str) -> Network:
    """Read what `save_policy` wrote.

    Raises:
        LessonError: no such file, not one of ours, a policy of another environment or lesson, or weights that do not
            fit the shape beside them.
    """
    again = f"python -m classic.{lesson} --env {env_id} --save {path}"
    if not path.is_file():
        raise LessonError(f"there is no saved policy at {path}: make one with {again}")
    try:
        # Weights only: a file from elsewhere can not run code here.
        saved: dict[str, Any] = torch.load(path, weights_only=True)
        found, by, shape, weights = saved["env"], saved["lesson"], saved["shape"], saved["weights"]
    except Exception as error:
        raise LessonError(
            f"{path} is not a policy that these lessons saved ({type(error).__name__}): make one with {again}"
        ) from None
    if by != lesson:
        raise LessonError(
            f"{path} holds a policy of the lesson {by}, and this is {lesson}: type python -m classic.{by} --env "
            f"{found} --load {path}, or train one with {again}"
        )
    if found != env_id:
        raise LessonError(
            f"{path} holds a policy of {found}, and the environment is {env_id}: type --env {found}, or train one with "
            f"{again}"
        )
    try:
        policy = kind(**shape)
        policy.load_state_dict(weights)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        why = str(error).splitlines()[0]
        raise LessonError(
            f"{path} holds weights that do not fit their shape {shape} ({why}): make one with {again}"
        ) from None
    return policy


def require_fit(policy: Any, env: Any, *, path: Path, env_id: str) -> None:
    """Raise LessonError unless the networks take the observations and give the actions of a vector environment."""
    space = env.single_action_space
    needed = {
        "num_inputs": env.single_observation_space.shape[0],
        "num_actions": int(space.n) if hasattr(space, "n") else int(space.shape[0]),
        "continuous": not hasattr(space, "n"),
    }
    wrong = [name for name, value in policy.shape.items() if name in needed and needed[name] != value]
    if wrong:
        found = ", ".join(f"{name} {policy.shape[name]}" for name in wrong)
        right = ", ".join(f"{name} {needed[name]}" for name in wrong)
        raise LessonError(
            f"{path} holds networks with {found}; {env_id} needs {right}: give the --env and --env-option that it was "
            "trained with, or train one anew with --save"
        )
