"""`torch.compile` for what models do with a rollout: forwards of the trunk, and backwards through it.

Compiled in place and with shapes left open, so that weights, names and files stay as they are and batches of every
width take one compilation. Leaves out heads, and generation, whose caches grow: `uncompiled` is around it.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from rlhf_lab.errors import UserError

BACKEND = "inductor"


def compile_trunks(models: Iterable[Any]) -> None:
    """Compile the trunk of every model. Raises UserError where this machine can not compile."""
    _require_compiler()
    for model in models:
        _trunk(model).compile(dynamic=True, backend=BACKEND)


def uncompiled(model: Any) -> AbstractContextManager[Any]:
    """Within it, a model whose trunk is compiled runs as it was written."""
    is_compiled = _trunk(model)._compiled_call_impl is not None
    return torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()


def _trunk(model: Any) -> Any:
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model


def _require_compiler() -> None:
    """Compile a sum: without a compiler the first update would fail, after a rollout that took minutes."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.compile(lambda x: x + 1, backend=BACKEND)(torch.zeros(2, device=device))
    except Exception as error:  # whatever it is: the compiler's own errors have no common base
        raise UserError(
            f"torch_compile=true, but torch can not compile here: {str(error).splitlines()[0]}. Install a C++ compiler "
            "(Debian: apt install g++), on a GPU triton too, or type torch_compile=false"
        ) from error
