"""Policy gradients: against the exact gradient of a small problem, identities, probes with known answers, the pole."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from classic.actor_critic import ActorCritic
from classic.errors import LessonError
from classic.gradient_variance import METHODS, Gradients, gradient_of, measure_gradients
from classic.policy_gradient import Batch, Settings, Trainer, advantages_of, make_batch, policy_loss, scaled, train
from classic.policy_gradient_command import SETTINGS, main
from classic.vector_rollouts import Rollout, VectorStreams, make_vector, whole_episodes
from rlhf_lab.functional import gae
from tests.classic.probes import MAGIC, register_probes

register_probes()
SMALL = Settings(
    num_steps=6000,
    num_envs=16,
    rollout_length=4,
    learning_rate=1e-2,
    critic_learning_rate=2e-2,
    num_critic_steps=4,
    gamma=0.9,
    evaluate_every=1_000_000,  # at the end only
    num_evaluation_episodes=8,
)


def sentinel_episodes(num_envs: int = 6) -> tuple[VectorStreams, Rollout]:
    streams = VectorStreams(make_vector("ProbeSentinel-v0", num_envs), seed=0)
    generator = np.random.default_rng(0)
    return streams, whole_episodes(streams, lambda seen: generator.integers(2, size=len(seen)), seed=1)


# --- whole episodes --------------------------------------------------------------------------------------------------


def test_whole_episodes_are_the_first_of_each_stream_and_nothing_else() -> None:
    streams, rollout = sentinel_episodes()
    for index, env in enumerate(streams.env.unwrapped.envs):
        log = env.unwrapped.log
        length = 1 + next(row for row, entry in enumerate(log) if entry[4] or entry[5])
        assert np.flatnonzero(rollout.is_step[index]).tolist() == list(range(length))
        assert rollout.rewards[index, :length] == pytest.approx([entry[2] for entry in log[:length]], abs=1e-6)
        assert rollout.observations[index, length, 0] == MAGIC
        assert rollout.terminated[index, length - 1] == log[length - 1][4]
    assert streams.num_steps == rollout.is_step.sum()
    totals = np.where(rollout.is_step, rollout.rewards, 0).sum(1)
    assert streams.episode_returns == pytest.approx(totals.tolist())


def test_another_seed_gives_other_episodes() -> None:
    env = make_vector("CartPole-v1", 4)
    streams = VectorStreams(env, 0)
    first, again, other = (
        whole_episodes(streams, lambda seen: np.zeros(4, dtype=np.int64), seed).observations[:, 0] for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_smaller_batch_is_the_first_of_the_same_episodes() -> None:
    def act(seen: np.ndarray) -> np.ndarray:
        return (seen[:, 2] > 0).astype(np.int64)

    streams = VectorStreams(make_vector("CartPole-v1", 5), 0)
    every = whole_episodes(streams, act, 3)
    assert streams.episode_returns == every.is_step.sum(1).tolist()
    some = whole_episodes(streams, act, 3, num_episodes=2)
    assert some.is_step.sum(1).tolist() == [*every.is_step.sum(1).tolist()[:2], 0, 0, 0]
    assert np.array_equal(some.observations[:2], every.observations[:2, : some.observations.shape[1]])
    assert streams.num_steps == every.is_step.sum() + some.is_step.sum()
    assert streams.episode_returns[5:] == streams.episode_returns[:2]


# --- advantages ------------------------------------------------------------------------------------------------------


def test_reinforce_sums_the_rewards_to_come() -> None:
    """By brute force over what each environment wrote down."""
    streams, rollout = sentinel_episodes()
    found, _ = advantages_of("reinforce", rollout, ActorCritic(1, 2), replace(SMALL, reward_scale=2.0))
    for index, env in enumerate(streams.env.unwrapped.envs):
        length = int(rollout.is_step[index].sum())
        rewards = [2.0 * entry[2] for entry in env.unwrapped.log[:length]]
        expected = [sum(0.9**k * reward for k, reward in enumerate(rewards[start:])) for start in range(length)]
        assert found[index, :length].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_baseline_is_actor_critic_that_trusts_the_rewards_alone() -> None:
    """GAE with lambda 1 (equation 18 of its paper): return minus value, with the critic's word beyond a time limit."""
    torch.manual_seed(0)
    _, rollout = sentinel_episodes(12)
    policy = ActorCritic(1, 2)
    baseline, returns = advantages_of("baseline", rollout, policy, SMALL)
    critic, targets = advantages_of("actor_critic", rollout, policy, replace(SMALL, gae_lambda=1.0))
    is_step = torch.from_numpy(rollout.is_step)
    torch.testing.assert_close(baseline[is_step], critic[is_step])
    torch.testing.assert_close(returns[is_step], targets[is_step])
    assert (rollout.truncated & ~rollout.terminated & rollout.is_step).any(), "nothing was cut off"


def test_actor_critic_is_gae_on_the_steps_alone() -> None:
    torch.manual_seed(0)
    streams = VectorStreams(make_vector("ProbeSentinel-v0", 3), seed=0)
    generator = np.random.default_rng(0)
    rollout = streams.collect(lambda seen: generator.integers(2, size=3), 40)
    policy = ActorCritic(1, 2)
    batch = make_batch("actor_critic", rollout, policy, replace(SMALL, gae_lambda=0.5))
    expected = []
    for env in streams.env.unwrapped.envs:
        columns = [torch.tensor([column]) for column in zip(*env.unwrapped.log, strict=True)]
        before, _, rewards, after, terminated, truncated = columns
        with torch.no_grad():
            values, next_values = (policy.values(seen.float().unsqueeze(-1)) for seen in (before, after))
        ends = {"terminated": terminated, "truncated": truncated}
        expected.append(gae(rewards.float(), values, next_values, **ends, gamma=0.9, gae_lambda=0.5)[0])
    torch.testing.assert_close(batch.advantages, torch.cat(expected))
    assert not batch.advantages.requires_grad
    assert not batch.returns.requires_grad


def test_scaling_of_advantages() -> None:
    numbers = torch.tensor([1.0, 2.0, 6.0])
    assert scaled(numbers, "none").tolist() == [1.0, 2.0, 6.0]
    rescaled, standardized = scaled(numbers, "rescale"), scaled(numbers, "standardize")
    for found in (rescaled, standardized):
        assert found.std(unbiased=False).item() == pytest.approx(1.0)
    assert rescaled.mean().item() == pytest.approx(3.0)
    assert standardized.mean().item() == pytest.approx(0.0, abs=1e-6)


def test_no_gradient_reaches_the_critic_through_the_policys_loss() -> None:
    torch.manual_seed(0)
    policy = ActorCritic(1, 2)
    _, rollout = sentinel_episodes()
    loss, *_ = policy_loss(policy, make_batch("baseline", rollout, policy, SMALL), SMALL)
    loss.backward()
    assert all(parameter.grad is None for parameter in policy.critic.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in policy.actor.parameters())


def test_the_entropy_bonus_makes_the_policy_less_sure() -> None:
    torch.manual_seed(0)
    policy = ActorCritic(1, 2)
    with torch.no_grad():
        policy.actor[-1].bias.copy_(torch.tensor([2.0, 0.0]))
    nothing = Batch(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long), *(torch.zeros(4) for _ in range(3)))
    loss, _, entropy = policy_loss(policy, nothing, replace(SMALL, ent_coef=0.1, scaling="none"))
    assert loss.item() == pytest.approx(-0.1 * entropy.mean().item())
    loss.backward()
    gradient = policy.actor[-1].bias.grad
    assert gradient is not None
    assert gradient[0] > 0 > gradient[1]  # a step against it brings the two logits together


# --- the gradient itself, on a problem small enough to enumerate -----------------------------------------------------


def exact_gradient(policy: ActorCritic) -> np.ndarray:
    """Of the mean return of the probe MatchAction: both observations, both actions, by hand."""
    seen = torch.tensor([[-1.0], [1.0]])
    pays = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])  # action 0 where -1 is seen, action 1 where 1 is seen
    value = (policy.actor(seen).softmax(-1) * pays).sum(-1).mean()
    parts = torch.autograd.grad(value, list(policy.actor.parameters()))
    return torch.cat([part.flatten() for part in parts]).double().numpy()


@pytest.fixture(scope="module")
def measured() -> tuple[ActorCritic, Gradients]:
    torch.manual_seed(0)
    policy = ActorCritic(1, 2, hidden=4)
    with torch.no_grad():
        policy.actor[-1].weight.mul_(50)
        policy.actor[-1].bias.copy_(torch.tensor([0.3, -0.3]))
        policy.critic[-1].bias.fill_(-0.2)  # a critic that is wrong, but not wild
    return policy, measure_gradients("ProbeMatchAction-v0", policy, SMALL, 0, num_batches=200, num_episodes=16)


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_gradient_is_the_exact_one(measured: tuple[ActorCritic, Gradients], method: str) -> None:
    policy, gradients = measured
    exact = exact_gradient(policy)
    found = gradients.by_method[method]  # type: ignore[index]
    error = np.linalg.norm(found.mean(0) - exact)
    standard_error = math.sqrt(((found - found.mean(0)) ** 2).sum(1).mean() / len(found))
    assert error < 3 * standard_error
    assert error < 0.1 * np.linalg.norm(exact)


def test_the_gradient_of_one_step_by_hand() -> None:
    """Two logits without a hidden layer's help: grad log pi is 1 - p on the action taken, -p on the other."""
    policy = ActorCritic(1, 2, hidden=4)
    with torch.no_grad():
        for parameter in policy.actor.parameters():
            parameter.zero_()
        policy.actor[-1].bias.copy_(torch.tensor([math.log(3.0), 0.0]))  # probabilities 3/4 and 1/4
    one = Batch(torch.zeros(1, 1), torch.tensor([1]), torch.tensor([2.0]), torch.zeros(1), torch.zeros(1))
    assert gradient_of(policy, one, 1)[-2:] == pytest.approx([2.0 * -0.75, 2.0 * 0.75])


def test_a_baseline_takes_noise_away_and_a_critic_more() -> None:
    """On the pole all rewards are 1, so that nearly all of REINFORCE's gradient is noise."""
    torch.manual_seed(0)
    settings = replace(SMALL, method="baseline", learning_rate=1e-9)  # the critic learns, the policy stays
    policy = train("CartPole-v1", replace(settings, num_steps=15_000, gamma=0.99, num_critic_steps=20), 0).policy
    gradients = measure_gradients("CartPole-v1", policy, replace(settings, gamma=0.99), 0, num_batches=40)
    noise = {method: gradients.variance(method) for method in METHODS}
    assert noise["baseline"] < 0.7 * noise["reinforce"]
    assert noise["actor_critic"] < noise["baseline"]
    cosine = np.dot(*(mean / np.linalg.norm(mean) for mean in (gradients.by_method[m].mean(0) for m in METHODS[:2])))
    assert cosine > 0.5  # they point the same way all the same


# --- probes ----------------------------------------------------------------------------------------------------------


def trained(probe: str, **changes: object) -> ActorCritic:
    return train(f"Probe{probe}-v0", replace(SMALL, **changes), seed=0).policy  # type: ignore[arg-type]


VALUE_PROBES = [
    ("ConstantReward", (0.0,), [1.0], 2000),
    ("SeenReward", (-1.0, 1.0), [-1.0, 1.0], 2000),
    ("LateReward", (0.0, 1.0), [0.9, 1.0], 6000),
    ("ForEver", (0.0,), [10.0], 6000),  # 1 / (1 - gamma): a time limit is no end
    ("FiveSteps", (0.0, 0.8), [4.0951, 1.0], 6000),  # (1 - gamma^5) / (1 - gamma), and the last step's reward
]


@pytest.mark.parametrize("method", ["baseline", "actor_critic"])
@pytest.mark.parametrize(("probe", "observations", "expected", "num_steps"), VALUE_PROBES)
def test_the_critic_finds_the_value(
    probe: str, observations: tuple[float, ...], expected: list[float], num_steps: int, method: str
) -> None:
    policy = trained(probe, method=method, num_steps=num_steps)
    values = policy.values(torch.tensor(observations).unsqueeze(-1)).tolist()
    assert values == pytest.approx(expected, rel=0.05, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_the_better_action_is_found(method: str) -> None:
    assert trained("TwoActions", method=method, num_steps=640).best(np.zeros((1, 1), dtype=np.float32)).tolist() == [1]


@pytest.mark.parametrize("method", METHODS)
def test_the_better_action_depends_on_what_is_seen(method: str) -> None:
    seen = np.array([[-1.0], [1.0]], dtype=np.float32)
    assert trained("MatchAction", method=method, num_steps=2000).best(seen).tolist() == [0, 1]


def test_a_continuous_action_is_found_and_kept_within_its_bounds() -> None:
    seen = np.array([[-0.6], [0.0], [0.6]], dtype=np.float32)
    policy = trained("Reach", num_steps=16_000, num_envs=32)
    assert policy.best(seen) == pytest.approx(seen, abs=0.25)


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_one_seed_gives_one_run_and_another_seed_another(method: str) -> None:
    short = replace(SMALL, method=method, num_steps=1500)  # type: ignore[arg-type]
    first, again, other = (train("CartPole-v1", short, seed) for seed in (3, 3, 4))
    assert first.points[-1].metrics == again.points[-1].metrics
    assert all(torch.equal(first.last_weights[name], again.last_weights[name]) for name in first.last_weights)
    assert not torch.equal(first.last_weights["actor.0.weight"], other.last_weights["actor.0.weight"])


def test_reinforce_never_trains_the_critic() -> None:
    trainer = Trainer("CartPole-v1", replace(SMALL, method="reinforce"), 0, {})
    before = [parameter.clone() for parameter in trainer.policy.critic.parameters()]
    metrics = trainer.iterate(0.0)
    assert "value_loss" not in metrics
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.policy.critic.parameters(), strict=True))
    assert metrics["kl"] > 0


def test_the_policys_gradient_is_clipped_to_a_norm_of_one_half() -> None:
    assert Settings().max_grad_norm == 0.5
    trainer = Trainer("CartPole-v1", replace(SMALL, method="reinforce", scaling="none"), 0, {})
    assert trainer.iterate(0.0)["gradient_norm"] > 0.5  # as it was before
    gradients = [weight.grad for weight in trainer.policy.actor.parameters() if weight.grad is not None]
    assert torch.cat([gradient.flatten() for gradient in gradients]).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_both_learning_rates_fall_to_0_and_adam_has_its_epsilon() -> None:
    trainer = Trainer("CartPole-v1", replace(SMALL, method="baseline"), 0, {})
    groups = [optimizer.param_groups[0] for optimizer in (trainer._actor_optimizer, trainer._critic_optimizer)]
    assert [group["eps"] for group in groups] == [1e-5, 1e-5]
    trainer.iterate(0.75)
    assert [group["lr"] for group in groups] == pytest.approx([0.01 / 4, 0.02 / 4])
    before = [weight.clone() for weight in trainer.policy.parameters()]
    trainer.iterate(1.0)  # all is spent
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.policy.parameters(), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_whole_episodes_end_where_the_budget_ends(method: str) -> None:
    """Every episode of the pendulum takes 200 steps: 16 of them are more than a budget of 3,000, and 15 are not.

    Actor-critic cuts its streams anywhere: 46 rollouts of 16 x 4 fit, and nothing ends in its first 200 columns.
    """
    settings = replace(SMALL, method=method, num_steps=3000, num_evaluation_episodes=1)  # type: ignore[arg-type]
    assert train("Pendulum-v1", settings, 0).num_steps == (3000 if method != "actor_critic" else 2944)


@pytest.mark.parametrize("method", ["reinforce", "baseline"])
def test_episodes_that_grow_do_not_exceed_the_budget(method: str) -> None:
    """Batches get smaller before they could; the number of episodes never depends on how long they turn out."""
    trainer = Trainer("CartPole-v1", replace(SMALL, method=method, num_steps=4000), 0, {})  # type: ignore[arg-type]
    while trainer.fits():
        settled, left = trainer.num_episodes(), 4000 - trainer.streams.num_steps
        assert settled == min(16, left // 500)
        num_episodes = len(trainer.streams.episode_returns)
        trainer.iterate(0.0)
        assert len(trainer.streams.episode_returns) == num_episodes + settled
    assert 3500 < trainer.streams.num_steps <= 4000


@pytest.mark.slow
@pytest.mark.parametrize("method", ["baseline", "actor_critic"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_pole_stays_up(method: str, seed: int) -> None:
    assert train("CartPole-v1", SETTINGS["CartPole-v1", method], seed, stop_at=475).best.mean_return >= 475


@pytest.mark.slow
def test_the_rod_is_swung_up() -> None:
    assert train("Pendulum-v1", SETTINGS["Pendulum-v1", "actor_critic"], 0).best.mean_return >= -250


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Pendulum-v0"], "--env Pendulum-v1"),
        (["--env", "Taxi-v4"], r"classic\.q_learning"),
        (["--steps", "100"], "--steps 512"),
        (["--method", "reinforce", "--num-envs", "4", "--steps", "400"], "--steps 500 .* --max-episode-steps 400"),
        (["--gamma", "1.5"], "--gamma 0.99"),
        (["--load", "nowhere.pt"], r"python -m classic\.policy_gradient --env CartPole-v1 --save nowhere\.pt"),
        (["--env", "Pendulum-v1", "--against-sb3", "tuned"], "--env CartPole-v1"),
    ],
)
def test_what_can_not_work_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(LessonError, match=message):
        main([*arguments, "--quiet"])
