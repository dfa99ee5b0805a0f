"""PPO: advantages against brute force, the loss against identities, probes with known answers, and the pole."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from classic.actor_critic import ActorCritic
from classic.clip_picture import objective
from classic.errors import LessonError
from classic.ppo import Batch, Settings, Trainer, centred, make_batch, minibatches, ppo_loss, train, update
from classic.ppo_command import main
from classic.training_runs import Result
from classic.vector_rollouts import VectorStreams, make_vector
from rlhf_lab.functional import policy_gradient
from tests.classic.probes import register_probes

register_probes()
SMALL = Settings(
    num_steps=4000,
    num_envs=8,
    rollout_length=32,
    minibatch_size=64,
    num_ppo_epochs=10,
    learning_rate=1e-2,
    gamma=0.9,
    evaluate_every=1_000_000,  # at the end only
    num_evaluation_episodes=8,
)


# --- advantages ----------------------------------------------------------------------------------------------------


def test_advantages_equal_brute_force_over_the_environments_own_record() -> None:
    """Terminations, truncations and both at once, at random; V of each state is asked for one by one.

    In double precision, so that ten digits can be compared; what the rollout keeps in single precision is rounded so.
    """
    torch.manual_seed(0)
    policy = ActorCritic(1, 2).double()
    settings = replace(SMALL, gae_lambda=0.8, reward_scale=2.0)
    streams = VectorStreams(make_vector("ProbeSentinel-v0", 3), seed=0)
    generator = np.random.default_rng(0)
    rollout = streams.collect(lambda seen: generator.integers(2, size=3), 40)
    precise = {name: getattr(rollout, name).astype(np.float64) for name in ("observations", "rewards")}
    batch = make_batch(replace(rollout, **precise), policy, settings)
    expected = [
        advantage
        for env in streams.env.unwrapped.envs
        for advantage in brute_force(env.unwrapped.log, policy, settings)
    ]
    assert batch.advantages.dtype == torch.float64
    assert batch.advantages.tolist() == pytest.approx(expected, rel=0, abs=1e-10)
    torch.testing.assert_close(batch.returns, batch.advantages + batch.old_values)


def brute_force(log: list, policy: ActorCritic, settings: Settings) -> list[float]:
    def value(observation: float) -> float:
        return policy.values(torch.tensor([[np.float32(observation)]], dtype=torch.float64)).item()

    advantages = []
    for start in range(len(log)):
        total, weight = 0.0, 1.0
        for before, _, reward, after, terminated, truncated in log[start:]:
            bootstrap = 0.0 if terminated else settings.gamma * value(after)
            total += weight * (settings.reward_scale * float(np.float32(reward)) + bootstrap - value(before))
            weight *= settings.gamma * settings.gae_lambda
            if terminated or truncated:
                break
        advantages.append(total)
    return advantages


# --- loss ----------------------------------------------------------------------------------------------------------


def random_batch(policy: ActorCritic, num_rows: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(num_rows, 4, generator=generator)
    actions = torch.randint(2, (num_rows,), generator=generator)
    with torch.no_grad():
        log_probs, _ = policy.log_probs_and_entropy(observations, actions)
        values = policy.values(observations)
    advantages = torch.randn(num_rows, generator=generator)
    return Batch(observations, actions, log_probs, values, advantages, advantages + values)


def policy_with_opinions() -> ActorCritic:
    torch.manual_seed(0)
    policy = ActorCritic(4, 2)
    with torch.no_grad():
        policy.actor[-1].weight.mul_(100)
    return policy


def test_the_first_step_is_the_plain_policy_gradient() -> None:
    policy = policy_with_opinions()
    batch = random_batch(policy)
    loss, metrics = ppo_loss(policy, batch, replace(SMALL, vf_coef=0.0, ent_coef=0.0))
    loss.backward()
    ours = [parameter.grad.clone() for parameter in policy.actor.parameters() if parameter.grad is not None]
    policy.zero_grad()
    log_probs, _ = policy.log_probs_and_entropy(batch.observations, batch.actions)
    policy_gradient(log_probs, centred(batch.advantages)).mean().backward()
    for mine, plain in zip(ours, policy.actor.parameters(), strict=True):
        torch.testing.assert_close(mine, plain.grad)
    assert metrics["kl"] == 0
    assert metrics["clip_fraction"] == 0


def test_where_all_is_clipped_nothing_moves() -> None:
    policy = policy_with_opinions()
    batch = random_batch(policy)
    # The old policy held good actions for far less likely, and bad ones for far more likely, than the new one does.
    moved = batch.old_log_probs - centred(batch.advantages).sign()
    loss, metrics = ppo_loss(policy, replace(batch, old_log_probs=moved), replace(SMALL, vf_coef=0.0))
    loss.backward()
    assert metrics["clip_fraction"] == 1
    assert all(not parameter.grad.any() for parameter in policy.actor.parameters() if parameter.grad is not None)


def test_the_loss_is_the_sum_of_its_parts() -> None:
    policy = policy_with_opinions()
    batch = random_batch(policy)
    loss, metrics = ppo_loss(policy, batch, replace(SMALL, vf_coef=0.25, ent_coef=0.03))
    parts = metrics["policy_loss"] + 0.25 * metrics["value_loss"] - 0.03 * metrics["entropy"]
    torch.testing.assert_close(loss.detach(), parts)
    # Returns are values plus advantages, so half the mean squared advantage is what the critic is off by.
    torch.testing.assert_close(metrics["value_loss"], 0.5 * batch.advantages.square().mean())


def test_minibatches_use_every_step_once() -> None:
    parts = minibatches(1003, 256, np.random.default_rng(0))
    assert sorted(torch.cat(parts).tolist()) == list(range(1003))
    assert {len(part) for part in parts} <= {250, 251}
    assert torch.cat(parts).tolist() != list(range(1003))


@pytest.mark.parametrize(("num_rows", "size"), [(2000, 1400), (2000, 450), (2000, 512), (7, 7), (3, 2)])
def test_no_minibatch_is_larger_than_its_size(num_rows: int, size: int) -> None:
    lengths = [len(part) for part in minibatches(num_rows, size, np.random.default_rng(0))]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


def test_advantages_are_centred_by_minibatch_and_a_single_one_survives() -> None:
    scaled = centred(torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(scaled, torch.tensor([-1.0, 0.0, 1.0]))
    assert centred(torch.tensor([3.0])).tolist() == [3.0]


def test_the_picture_shows_the_objective_of_figure_1() -> None:
    """Read off the paper: 1.2 is the roof for a good action, and a bad one is never worth more than -0.8."""
    ratios = torch.tensor([0.5, 1.0, 1.1, 1.2, 1.5])
    good, bad = (objective(ratios, advantage, 0.2).tolist() for advantage in (1.0, -1.0))
    assert good == pytest.approx([0.5, 1.0, 1.1, 1.2, 1.2])
    assert bad == pytest.approx([-0.8, -1.0, -1.1, -1.2, -1.5])


def test_details_that_are_easily_lost() -> None:
    """Huang et al. 2022, "The 37 implementation details of PPO": 3 Adam's eps, 4 annealing, 11 the gradient's norm."""
    trainer = Trainer("CartPole-v1", SMALL, 0, {})
    (group,) = trainer._optimizer.param_groups
    assert group["eps"] == 1e-5
    trainer.iterate(0.75)
    assert group["lr"] == pytest.approx(SMALL.learning_rate / 4)
    before = [weight.clone() for weight in trainer.policy.parameters()]
    trainer.iterate(1.0)  # all is spent
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.policy.parameters(), strict=True))
    assert Settings().max_grad_norm == 0.5
    still = Trainer("CartPole-v1", replace(SMALL, max_grad_norm=1e-30), 0, {})
    before = [weight.clone() for weight in still.policy.parameters()]
    still.iterate(0.0)
    # Adam divides by the gradient's own size, but not by less than its eps.
    assert all(
        torch.allclose(old, new, rtol=0, atol=1e-15) for old, new in zip(before, still.policy.parameters(), strict=True)
    )


def test_the_gradient_of_policy_and_critic_together_is_clipped_to_a_norm_of_one_half() -> None:
    policy = policy_with_opinions()
    batch = random_batch(policy)
    far = replace(batch, returns=batch.returns + 1000)  # a critic that is far off
    optimizer = torch.optim.SGD(policy.parameters(), 0.0)
    update(policy, optimizer, far, replace(SMALL, num_ppo_epochs=1), np.random.default_rng(0))
    gradients = [weight.grad for weight in policy.parameters() if weight.grad is not None]
    assert torch.cat([gradient.flatten() for gradient in gradients]).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_what_was_known_when_sampling_stays_as_it_was_for_all_epochs() -> None:
    policy = policy_with_opinions()
    batch = random_batch(policy)
    frozen = [column.clone() for column in vars(batch).values()]
    optimizer = torch.optim.Adam(policy.parameters(), 0.01)
    update(policy, optimizer, batch, replace(SMALL, minibatch_size=16), np.random.default_rng(0))
    assert not any(column.requires_grad for column in vars(batch).values())
    assert all(torch.equal(old, new) for old, new in zip(frozen, vars(batch).values(), strict=True))


def test_value_clipping_is_an_option_and_off_by_default() -> None:
    policy = policy_with_opinions()
    batch = random_batch(policy)
    far = replace(batch, old_values=batch.old_values + 10)  # now 10 above what was said when sampling is "too far"
    assert Settings().value_clip_range is None
    plain, clipped = (ppo_loss(policy, far, replace(SMALL, value_clip_range=c))[1]["value_loss"] for c in (None, 0.2))
    assert clipped > 2 * plain


# --- probes --------------------------------------------------------------------------------------------------------


def trained(probe: str, **changes: float) -> ActorCritic:
    return train(f"Probe{probe}-v0", replace(SMALL, **changes), seed=0).policy  # type: ignore[arg-type]


def values_at(policy: ActorCritic, *observations: float) -> list[float]:
    return policy.values(torch.tensor(observations).unsqueeze(-1)).tolist()


VALUE_PROBES = [
    ("ConstantReward", (0.0,), [1.0]),
    ("SeenReward", (-1.0, 1.0), [-1.0, 1.0]),
    ("LateReward", (0.0, 1.0), [0.9, 1.0]),
    ("ForEver", (0.0,), [10.0]),  # 1 / (1 - gamma): a time limit is no end
    ("FiveSteps", (0.0, 0.8), [4.0951, 1.0]),  # (1 - gamma^5) / (1 - gamma), and the last step's reward
]


@pytest.mark.parametrize(("probe", "observations", "expected"), VALUE_PROBES)
def test_the_critic_finds_the_value(probe: str, observations: tuple[float, ...], expected: list[float]) -> None:
    assert values_at(trained(probe, num_steps=3000), *observations) == pytest.approx(expected, rel=0.05, abs=0.05)


def test_the_better_action_is_found() -> None:
    assert trained("TwoActions", num_steps=512).best(np.zeros((1, 1), dtype=np.float32)).tolist() == [1]


def test_the_better_action_depends_on_what_is_seen() -> None:
    seen = np.array([[-1.0], [1.0]], dtype=np.float32)
    assert trained("MatchAction", num_steps=1500).best(seen).tolist() == [0, 1]


def test_a_continuous_action_is_found_and_kept_within_its_bounds() -> None:
    seen = np.array([[-0.6], [0.0], [0.6]], dtype=np.float32)
    assert trained("Reach", num_steps=5000).best(seen) == pytest.approx(seen, abs=0.2)


# --- the pole ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pole() -> Result[ActorCritic]:
    return train("CartPole-v1", replace(Settings(), num_steps=60_000), seed=0, stop_at=500)


def test_the_pole_stays_up(pole: Result[ActorCritic]) -> None:
    assert pole.best.mean_return == 500
    reached = pole.first_at(475)
    assert reached is not None
    assert reached.step <= 60_000


def test_figures_of_a_healthy_run(pole: Result[ActorCritic]) -> None:
    metrics = [point.metrics for point in pole.points]
    assert metrics[0]["entropy"] == pytest.approx(math.log(2), abs=0.03)
    assert metrics[-1]["entropy"] < metrics[0]["entropy"]
    assert max(row["explained_variance"] for row in metrics) > 0.5
    assert all(0 <= row["kl"] < 0.1 for row in metrics)
    assert all(0 <= row["clip_fraction"] < 0.5 for row in metrics)


def test_an_iteration_longer_than_the_last_does_not_exceed_the_budget() -> None:
    """Poles that stand longer leave fewer places to resets, so that the second rollout has more steps."""
    settings = replace(Settings(), num_evaluation_episodes=1)
    trainer = Trainer("CartPole-v1", settings, 0, {})
    sizes = [0]
    for _ in range(2):
        trainer.iterate(0.0)
        sizes.append(trainer.streams.num_steps - sum(sizes))
    assert sizes[2] > sizes[1]
    budget = 2 * sizes[1]
    assert train("CartPole-v1", replace(settings, num_steps=budget), 0).num_steps <= budget


def test_one_seed_gives_one_run_and_another_seed_another() -> None:
    short = replace(Settings(), num_steps=4096, num_evaluation_episodes=10)
    first, again, other = (train("CartPole-v1", short, seed) for seed in (3, 3, 4))
    assert [point.mean_return for point in first.points] == [point.mean_return for point in again.points]
    assert all(torch.equal(first.last_weights[name], again.last_weights[name]) for name in first.last_weights)
    assert not torch.equal(first.last_weights["actor.0.weight"], other.last_weights["actor.0.weight"])


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "100"], "--steps 2048"),
        (["--minibatch-size", "5000"], "--minibatch-size 512"),
        (["--gae-lambda", "1.5"], "--gae-lambda 0.95"),
        (["--env", "FrozenLake-v1"], r"classic\.q_learning"),
        (["--env", "Pendulum-v1", "--against-sb3", "tuned"], "--env CartPole-v1"),
        (["--load", "nowhere.pt"], "--save nowhere.pt"),
    ],
)
def test_what_can_not_work_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(LessonError, match=message):
        main([*arguments, "--quiet"])
