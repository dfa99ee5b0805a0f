"""A policy and a critic as two small networks, for separate actions and for continuous ones.

The rollout needs no gradients and, one small batch at a time, torch costs more in calls than in sums. So the policy
acts through `NumpyMlp`, which reads the very memory of the torch parameters and so follows every optimizer step. The
trap: `copy.deepcopy` and `.to(device)` would part the two. Copy weights with `state_dict` and `load_state_dict`.

Left out: shared trunks, recurrent policies, pictures as observations.

    python -m pytest tests/classic/test_actor_critic.py
"""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float32]


def mlp(sizes: Iterable[int], output_gain: float, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers with tanh (or ReLU) between them; orthogonal weights of gain sqrt(2), no bias.

    The last layer has the gain `output_gain`.

    The gains are those of OpenAI's baselines; see Huang et al. 2022, "The 37 implementation details of PPO", detail 2.
    """
    widths = list(sizes)
    layers: list[nn.Module] = []
    for index, (inner, outer) in enumerate(itertools.pairwise(widths)):
        is_last = index == len(widths) - 2
        linear = nn.Linear(inner, outer)
        nn.init.orthogonal_(linear.weight, output_gain if is_last else math.sqrt(2))
        nn.init.zeros_(linear.bias)
        layers += [linear] if is_last else [linear, activation()]
    return nn.Sequential(*layers)


class NumpyMlp:
    """The forward pass of `mlp` in NumPy, on the parameters' own memory."""

    def __init__(self, network: nn.Sequential) -> None:
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        self._is_tanh = any(isinstance(layer, nn.Tanh) for layer in network)
        self._layers = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in linears]

    def __call__(self, x: Floats) -> Floats:
        """(B, D) to (B, outputs)."""
        for weight, bias in self._layers[:-1]:
            x = x @ weight
            x += bias
            if self._is_tanh:
                np.tanh(x, out=x)
            else:
                np.maximum(x, 0.0, out=x)
        weight, bias = self._layers[-1]
        return np.asarray(x @ weight + bias)


class ActorCritic(nn.Module):
    """Policy and critic on observations of D numbers.

    Args:
        num_inputs: D.
        num_actions: how many separate actions, or the length of a continuous action.
        continuous: the policy is a normal distribution whose mean depends on the state and whose deviation does not.
        hidden: width of the two hidden layers of each network.
    """

    def __init__(self, num_inputs: int, num_actions: int, *, continuous: bool = False, hidden: int = 64) -> None:
        super().__init__()
        self.shape = {"num_inputs": num_inputs, "num_actions": num_actions, "continuous": continuous, "hidden": hidden}
        # The small last gain makes the first policy nearly uniform, whatever the observation.
        self.actor = mlp([num_inputs, hidden, hidden, num_actions], 0.01)
        self.critic = mlp([num_inputs, hidden, hidden, 1], 1.0)
        self.log_std = nn.Parameter(torch.zeros(num_actions)) if continuous else None
        self._numpy_actor = NumpyMlp(self.actor)

    def values(self, observations: Tensor) -> Tensor:
        """(..., D) to (...) V, in units of return."""
        return self.critic(observations).squeeze(-1)

    def log_probs_and_entropy(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability (density, where continuous) of the actions, and the entropy of the policy, in nats.

        Args:
            observations: (N, D).
            actions: (N,) whole numbers, or (N, A).

        Returns:
            Two of shape (N,). Never (N, 1): against (N,) advantages that would broadcast to (N, N) without an error.
        """
        outputs = self.actor(observations)
        if self.log_std is None:
            log_probs = outputs.log_softmax(-1)
            entropy = -(log_probs.exp() * log_probs).sum(-1)
            return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1), entropy
        distance = (actions - outputs) * (-self.log_std).exp()
        log_densities = -0.5 * distance.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        entropy = (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(observations))
        return log_densities.sum(-1), entropy

    def sample(self, observations: Floats, generator: np.random.Generator) -> NDArray[Any]:
        """(B, D) to actions drawn from the policy: (B,) whole numbers or (B, A)."""
        outputs = self._numpy_actor(observations)
        if self.log_std is None:
            # The largest of logits plus Gumbel noise is a draw from their softmax.
            return np.asarray((outputs + generator.gumbel(size=outputs.shape)).argmax(-1))
        deviation = np.exp(self.log_std.detach().numpy())
        return np.asarray(outputs + deviation * generator.standard_normal(outputs.shape, dtype=np.float32))

    def best(self, observations: Floats) -> NDArray[Any]:
        """(B, D) to the likeliest actions: (B,) or (B, A). No chance, so a saved policy repeats itself exactly."""
        outputs = self._numpy_actor(observations)
        return outputs if self.log_std is not None else np.asarray(outputs.argmax(-1))


def actor_critic_for(env: Any, hidden: int = 64) -> ActorCritic:
    """Networks of the right shape for a vector environment that `make_vector` made."""
    space = env.single_action_space
    continuous = not hasattr(space, "n")
    num_actions = int(space.shape[0]) if continuous else int(space.n)
    return ActorCritic(env.single_observation_space.shape[0], num_actions, continuous=continuous, hidden=hidden)
