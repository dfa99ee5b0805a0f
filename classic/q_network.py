"""Q(s, .) as a network: one number for each separate action.

As in `classic.actor_critic`, acting goes through NumPy on the very memory of the torch parameters.

Left out: dueling heads, distributions over returns, pictures as observations.

    python -m pytest tests/classic/test_dqn.py
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from classic.actor_critic import Floats, NumpyMlp, mlp
from classic.errors import LessonError


class QNetwork(nn.Module):
    """Two hidden layers on observations of D numbers; A actions."""

    def __init__(self, num_inputs: int, num_actions: int, *, hidden: int = 64) -> None:
        super().__init__()
        self.shape = {"num_inputs": num_inputs, "num_actions": num_actions, "hidden": hidden}
        self.layers = mlp([num_inputs, hidden, hidden, num_actions], 1.0, nn.ReLU)
        self.rows = NumpyMlp(self.layers)  # (B, D) to (B, A), without gradients

    def forward(self, observations: Tensor) -> Tensor:
        """(B, D) to (B, A) in units of return."""
        values: Tensor = self.layers(observations)
        return values

    def best(self, observations: Floats) -> NDArray[Any]:
        """(B, D) to (B,) the actions with the largest Q."""
        return np.asarray(self.rows(observations).argmax(-1))


def q_network_for(env: Any, env_id: str, hidden: int) -> QNetwork:
    """A network of the right shape for a vector environment that `make_vector` made.

    Raises:
        LessonError: the actions are continuous, so that there is no largest Q to be read off.
    """
    space = env.single_action_space
    if not hasattr(space, "n"):
        raise LessonError(
            f"{env_id} has the continuous actions {space}; DQN compares the Q of separate actions: type "
            f"python -m classic.policy_gradient --env {env_id}, or python -m classic.dqn --env CartPole-v1"
        )
    return QNetwork(env.single_observation_space.shape[0], int(space.n), hidden=hidden)
