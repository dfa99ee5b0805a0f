"""Policy and critic against torch.distributions, their start."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal

from classic.actor_critic import ActorCritic, mlp

OBSERVATIONS = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))


def policy_of(*, continuous: bool = False, num_actions: int = 3) -> ActorCritic:
    """A policy with opinions: the small gain of the last layer is undone."""
    torch.manual_seed(0)
    policy = ActorCritic(4, num_actions, continuous=continuous)
    with torch.no_grad():
        policy.actor[-1].weight.mul_(100)
        if policy.log_std is not None:
            policy.log_std.copy_(torch.tensor([-0.5, 0.3, 0.1][:num_actions]))
    return policy


def test_separate_actions_against_torch_distributions() -> None:
    policy = policy_of()
    actions = torch.randint(3, (32,), generator=torch.Generator().manual_seed(1))
    log_probs, entropy = policy.log_probs_and_entropy(OBSERVATIONS, actions)
    oracle = Categorical(logits=policy.actor(OBSERVATIONS))
    assert log_probs.shape == entropy.shape == (32,)
    torch.testing.assert_close(log_probs, oracle.log_prob(actions))
    torch.testing.assert_close(entropy, oracle.entropy())


def test_continuous_actions_against_torch_distributions() -> None:
    policy = policy_of(continuous=True, num_actions=2)
    actions = torch.randn(32, 2, generator=torch.Generator().manual_seed(1))
    log_probs, entropy = policy.log_probs_and_entropy(OBSERVATIONS, actions)
    assert policy.log_std is not None
    oracle = Normal(policy.actor(OBSERVATIONS), policy.log_std.exp())
    assert log_probs.shape == entropy.shape == (32,)
    torch.testing.assert_close(log_probs, oracle.log_prob(actions).sum(-1))
    torch.testing.assert_close(entropy, oracle.entropy().sum(-1))


def test_the_first_policy_is_nearly_uniform() -> None:
    torch.manual_seed(0)
    _, entropy = ActorCritic(4, 2).log_probs_and_entropy(OBSERVATIONS, torch.zeros(32, dtype=torch.long))
    assert entropy.min() >= 0.99 * math.log(2)


def test_weights_are_orthogonal_and_there_is_no_bias() -> None:
    hidden, last = (layer for layer in mlp([64, 64, 1], 1.0) if isinstance(layer, torch.nn.Linear))
    torch.testing.assert_close(hidden.weight @ hidden.weight.T, 2 * torch.eye(64), atol=1e-5, rtol=0)
    assert last.weight.norm().item() == pytest.approx(1.0, abs=1e-5)
    assert not hidden.bias.any()
    assert not last.bias.any()


def test_policy_and_critic_start_with_the_gains_of_the_37_details() -> None:
    """Huang et al. 2022, detail 2: sqrt(2), for the policy's head 0.01, for the critic's 1; two tanh networks apart."""
    policy = ActorCritic(4, 3)
    for network, gain in ((policy.actor, 0.01), (policy.critic, 1.0)):
        assert [type(layer).__name__ for layer in network] == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]
        first, second, head = network[0], network[2], network[4]
        assert (first.out_features, second.out_features) == (64, 64)
        for layer, expected in ((first, math.sqrt(2)), (second, math.sqrt(2)), (head, gain)):
            assert torch.linalg.svdvals(layer.weight).tolist() == pytest.approx(
                [expected] * min(layer.weight.shape), rel=1e-4
            )
            assert not layer.bias.any()
    actor, critic = ({id(weight) for weight in network.parameters()} for network in (policy.actor, policy.critic))
    assert not actor & critic


@pytest.mark.parametrize("continuous", [False, True])
def test_numpy_acts_as_torch_says_also_after_a_step_of_training(continuous: bool) -> None:
    policy = policy_of(continuous=continuous)
    optimizer = torch.optim.Adam(policy.parameters(), 0.05, fused=True)
    for _ in range(2):
        with torch.no_grad():
            outputs = policy.actor(OBSERVATIONS)
        expected = outputs if continuous else outputs.argmax(-1)
        assert policy.best(OBSERVATIONS.numpy()) == pytest.approx(expected.numpy(), abs=1e-5)
        policy.actor(OBSERVATIONS).square().sum().backward()
        optimizer.step()


def test_samples_of_separate_actions_have_their_probabilities() -> None:
    policy = policy_of()
    one = OBSERVATIONS[:1]
    actions = policy.sample(np.tile(one.numpy(), (50_000, 1)), np.random.default_rng(0))
    shares = np.bincount(actions, minlength=3) / 50_000
    assert shares == pytest.approx(policy.actor(one).softmax(-1)[0].detach().numpy(), abs=0.01)


def test_samples_of_continuous_actions_have_their_mean_and_deviation() -> None:
    policy = policy_of(continuous=True, num_actions=2)
    actions = policy.sample(np.tile(OBSERVATIONS[:1].numpy(), (50_000, 1)), np.random.default_rng(0))
    assert actions.mean(0) == pytest.approx(policy.best(OBSERVATIONS[:1].numpy())[0], abs=0.03)
    assert actions.std(0) == pytest.approx(np.exp([-0.5, 0.3]), abs=0.03)
