"""A policy on disk: the lesson and the environment that it belongs to, the shape of its networks, their weights.

Left out: optimizers and replay buffers; what is saved can act, not go on learning.

    python -m classic.ppo --save runs/ppo.pt
    python -m classic.ppo --load runs/ppo.pt
"""

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from classic.errors import LessonError

Network = TypeVar("Network", bound=nn.Module)


def save_policy(path: Path, policy: nn.Module, *, env_id: str, lesson: str) -> None:
    """Write the networks with the lesson and the environment that they belong to; `policy.shape` rebuilds them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"lesson": lesson, "env": env_id, "shape": policy.shape, "weights": policy.state_dict()}, path)


def load_policy(path: Path, kind: type[Network], *, env_id: str, lesson: str) -> Network:
    """Read what `save_policy` wrote.

    Raises:
        LessonError: no such file, not one of ours, or a policy of another environment or lesson.
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
    policy = kind(**shape)
    policy.load_state_dict(weights)
    return policy
