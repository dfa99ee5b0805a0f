"""DQN: targets and loss by hand, promised counts, probes with known answers, the crutches, the pole."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from classic.dqn import Settings, Trainer, dqn_loss, td_targets, train
from classic.dqn_command import main, monitor_text, switches_text
from classic.errors import LessonError
from classic.forgetting import forgetting_figures, yardstick_of
from classic.forgetting_picture import _exact_lines
from classic.q_network import QNetwork
from classic.replay_buffer import ReplayBuffer, Transitions
from classic.training_runs import Point
from tests.classic.probes import register_probes

register_probes()
SMALL = Settings(
    num_steps=3000,
    num_envs=4,
    rollout_length=8,
    num_gradient_steps=16,
    batch_size=32,
    learning_starts=100,
    target_update_interval=16,
    target_step=1.0,
    learning_rate=3e-3,
    anneal=False,
    loss="squared",  # exact where all else is; Huber's pulls a rare error with a weight of 1 at most
    gamma=0.9,
    hidden=32,
    epsilon_end=0.2,
    evaluate_every=1_000_000,  # at the end only
    num_evaluation_episodes=4,
)


class Constant(torch.nn.Module):
    """The same Q everywhere."""

    def __init__(self, *q: float) -> None:
        super().__init__()
        self.q = torch.nn.Parameter(torch.tensor(q))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.q.expand(len(observations), -1)


def batch_of(*, terminated: bool = False) -> dict[str, torch.Tensor]:
    return {
        "observations": torch.zeros(3, 1),
        "actions": torch.tensor([0, 1, 1]),
        "rewards": torch.tensor([1.0, 2.0, 3.0]),
        "next_observations": torch.zeros(3, 1),
        "terminated": torch.full((3,), terminated),
    }


# --- targets and loss ------------------------------------------------------------------------------------------------


def test_targets_by_hand() -> None:
    target, online = Constant(10.0, 20.0), Constant(5.0, 4.0)
    plain = td_targets(target, online, batch_of(), gamma=0.5, double=False)  # type: ignore[arg-type]
    assert plain.tolist() == [11.0, 12.0, 13.0]  # the target network's best, 20
    double = td_targets(target, online, batch_of(), gamma=0.5, double=True)  # type: ignore[arg-type]
    assert double.tolist() == [6.0, 7.0, 8.0]  # the online network's best action is 0, which the target prices at 10


def test_nothing_follows_a_termination() -> None:
    nothing = Constant(math.nan, math.nan)
    targets = td_targets(nothing, nothing, batch_of(terminated=True), gamma=0.5, double=False)  # type: ignore[arg-type]
    assert targets.tolist() == [1.0, 2.0, 3.0]


def test_no_gradient_flows_through_the_targets() -> None:
    network = Constant(1.0, 2.0)
    assert not td_targets(network, network, batch_of(), gamma=0.9, double=True).requires_grad  # type: ignore[arg-type]


def test_the_loss_is_hubers_on_the_actions_taken() -> None:
    network = Constant(1.0, 2.0)
    loss, mean_q = dqn_loss(network, batch_of(), torch.tensor([1.5, 2.0, 5.0]), "huber")  # type: ignore[arg-type]
    assert loss.shape == ()
    # Errors 0.5, 0 and 3: half the square within 1, the distance less a half beyond.
    assert loss.item() == pytest.approx((0.125 + 0 + 2.5) / 3)
    assert mean_q.item() == pytest.approx(5 / 3)
    loss.backward()
    assert network.q.grad is not None
    assert network.q.grad.tolist() == pytest.approx([-0.5 / 3, -1 / 3])  # clipped to 1, as Nature clips the TD error


def test_the_squared_loss_is_the_same_within_1_and_steeper_beyond() -> None:
    network = Constant(1.0, 2.0)
    loss, _ = dqn_loss(network, batch_of(), torch.tensor([1.5, 2.0, 5.0]), "squared")  # type: ignore[arg-type]
    assert loss.item() == pytest.approx((0.125 + 0 + 4.5) / 3)
    loss.backward()
    assert network.q.grad is not None
    assert network.q.grad.tolist() == pytest.approx([-0.5 / 3, -3 / 3])


# --- what is promised ------------------------------------------------------------------------------------------------


def trainer_of(**changes: object) -> Trainer:
    return Trainer("CartPole-v1", replace(SMALL, **changes), 0, {})  # type: ignore[arg-type]


def run(trainer: Trainer, num_bursts: int) -> list[dict[str, float]]:
    return [trainer.iterate(burst / 100) for burst in range(num_bursts)]


def test_no_gradient_step_before_learning_starts() -> None:
    trainer = trainer_of(learning_starts=200)
    before = {name: weight.clone() for name, weight in trainer.policy.state_dict().items()}
    while trainer.streams.num_steps < 200:
        assert "td_loss" not in trainer.iterate(0.0)
    assert all(torch.equal(before[name], weight) for name, weight in trainer.policy.state_dict().items())
    assert trainer.num_gradient_steps == 0
    assert "td_loss" in trainer.iterate(0.0)
    assert trainer.num_gradient_steps == 16


def test_the_target_follows_at_the_promised_gradient_steps() -> None:
    trainer = trainer_of(target_update_interval=24, learning_starts=1)
    run(trainer, 2)  # one burst to warm up, one of 16 gradient steps: the target has not moved
    first = trainer._target.state_dict()["layers.0.weight"].clone()
    online = trainer.policy.state_dict()["layers.0.weight"]
    assert not torch.equal(first, online)
    run(trainer, 1)  # 32 steps: moved at the 24th
    assert not torch.equal(first, trainer._target.state_dict()["layers.0.weight"])
    assert not torch.equal(online, trainer._target.state_dict()["layers.0.weight"])
    run(trainer, 1)  # 48 steps: the last one is a multiple of 24
    assert torch.equal(trainer._target.state_dict()["layers.0.weight"], trainer.policy.state_dict()["layers.0.weight"])


def test_the_target_goes_a_part_of_the_way_at_each_update() -> None:
    trainer = trainer_of(target_update_interval=16, target_step=0.25, learning_starts=1)
    before = trainer._target.state_dict()["layers.0.weight"].clone()
    run(trainer, 2)  # one burst to warm up, one of 16 gradient steps: one update
    online = trainer.policy.state_dict()["layers.0.weight"]
    moved = trainer._target.state_dict()["layers.0.weight"] - before
    assert torch.allclose(4 * moved, online - before, atol=1e-6)
    assert moved.abs().max() > 1e-3


def test_the_learning_rate_falls_to_0_at_the_last_update() -> None:
    trainer, steady = (trainer_of(learning_starts=1, anneal=anneal) for anneal in (True, False))
    for each in (trainer, steady):
        each.iterate(0.0)
        each.iterate(0.75)
    assert trainer._optimizer.param_groups[0]["lr"] == pytest.approx(SMALL.learning_rate / 4)
    assert steady._optimizer.param_groups[0]["lr"] == SMALL.learning_rate
    before = [weight.clone() for weight in trainer.policy.parameters()]
    trainer.iterate(1.0)  # all is spent
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.policy.parameters(), strict=True))


def test_the_gradient_is_clipped_to_a_norm_of_10() -> None:
    """As in Stable-Baselines3; with the squared loss, because Huber's has no large gradients."""
    assert Settings().max_grad_norm == 10
    trainer = trainer_of(loss="squared", learning_starts=1, num_gradient_steps=1)
    with torch.no_grad():
        trainer._target.layers[-1].bias.add_(1e4)  # a target far away
    run(trainer, 2)
    gradients = [weight.grad for weight in trainer.policy.parameters() if weight.grad is not None]
    assert torch.cat([gradient.flatten() for gradient in gradients]).norm().item() == pytest.approx(10, rel=1e-4)


def test_epsilon_falls_from_its_start_to_its_end_and_then_stays() -> None:
    trainer = trainer_of(epsilon_start=0.8, epsilon_end=0.1, epsilon_fraction=0.5, learning_starts=1)
    assert trainer.epsilon(0.3) == 1.0  # the warm-up is all random
    trainer.iterate(0.0)
    assert [trainer.epsilon(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.8, 0.45, 0.1, 0.1])


def test_evaluations_are_without_chance_however_much_the_training_explores() -> None:
    always = replace(SMALL, num_steps=600, epsilon_end=1.0, evaluate_every=200, learning_rate=1e-30)
    points = train("CartPole-v1", always, 0).points
    assert len(points) > 1
    assert {point.metrics["epsilon"] for point in points} == {1.0}
    assert len({point.mean_return for point in points}) == 1  # nothing is learned: the same actions every time


def test_without_exploration_the_best_action_is_taken_from_the_first_step() -> None:
    trainer = trainer_of(exploration=False)
    seen = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    assert trainer.iterate(0.0)["epsilon"] == 0.0
    assert (trainer._act(seen) == trainer.policy.best(seen)).all()


def test_without_replay_only_the_latest_steps_are_remembered() -> None:
    trainer = trainer_of(replay=False)
    run(trainer, 8)
    assert len(trainer.buffer) == 32  # 4 streams of 8 columns
    assert len(trainer_of().buffer) == 0
    kept = trainer_of()
    run(kept, 8)
    assert len(kept.buffer) == kept.streams.num_steps > 200


def test_without_target_network_the_bootstrap_is_the_network_itself() -> None:
    """One gradient step from one place: with an untouched target the two agree, with another target they do not."""

    def after_a_burst(target_network: bool, offset: float) -> torch.Tensor:
        trainer = trainer_of(target_network=target_network, learning_starts=1)
        with torch.no_grad():
            trainer._target.layers[-1].bias.add_(offset)
        run(trainer, 2)
        return trainer.policy.state_dict()["layers.4.weight"]

    assert torch.equal(after_a_burst(False, 0.0), after_a_burst(False, 50.0))
    assert not torch.equal(after_a_burst(True, 0.0), after_a_burst(True, 50.0))


# --- the monitor -----------------------------------------------------------------------------------------------------


def test_figures_of_the_monitor_by_hand() -> None:
    observations = np.array([[0.0], [1.0], [2.0], [3.0]], dtype=np.float32)
    seen = Transitions(
        observations,
        np.array([0, 1, 0, 1]),
        np.array([1.0, 1.0, 5.0, 7.0], dtype=np.float32),
        observations,
        np.array([False, False, True, True]),
    )
    buffer = ReplayBuffer(8, 1)
    buffer.add(seen)
    network = QNetwork(1, 2, hidden=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.layers[-1].bias.copy_(torch.tensor([3.0, 4.5]))  # Q is 3 and 4.5 everywhere
    figures = forgetting_figures(network, buffer, yardstick_of(seen, np.random.default_rng(0)))
    expected = {"terminal_fraction": 0.5, "action_gap": 1.5, "doomed_q": 3.75, "doomed_q_exact": 6.0}
    assert figures == pytest.approx(expected)


def test_a_warm_up_without_ends_has_no_doomed_states() -> None:
    seen = Transitions(
        *(np.zeros((4, 1), np.float32), np.zeros(4, np.int64), np.ones(4, np.float32)) * 1,
        np.zeros((4, 1), np.float32),
        np.zeros(4, np.bool_),
    )
    buffer = ReplayBuffer(8, 1)
    buffer.add(seen)
    figures = forgetting_figures(QNetwork(1, 2), buffer, yardstick_of(seen, np.random.default_rng(0)))
    assert math.isnan(figures["doomed_q"])
    assert figures["terminal_fraction"] == 0


# --- probes ----------------------------------------------------------------------------------------------------------


def trained(probe: str, **changes: object) -> QNetwork:
    return train(f"Probe{probe}-v0", replace(SMALL, **changes), seed=0).policy  # type: ignore[arg-type]


VALUE_PROBES = [
    ("ConstantReward", (0.0,), [1.0], {"num_steps": 1000}),
    ("SeenReward", (-1.0, 1.0), [-1.0, 1.0], {"num_steps": 1000}),
    ("LateReward", (0.0, 1.0), [0.9, 1.0], {"num_steps": 1500}),
    # 1 / (1 - gamma): a time limit is no end. Where all that is seen is 0, only the last bias learns, and Adam moves it
    # by the learning rate a step.
    ("ForEver", (0.0,), [10.0], {"learning_rate": 2e-2}),
    ("FiveSteps", (0.0, 0.8), [4.0951, 1.0], {"num_steps": 2000}),  # (1 - gamma^5) / (1 - gamma), and the last reward
]


@pytest.mark.parametrize(("probe", "observations", "expected", "changes"), VALUE_PROBES)
@pytest.mark.parametrize("double", [pytest.param(False, marks=pytest.mark.slow), True])
def test_q_finds_the_value(
    probe: str, observations: tuple[float, ...], expected: list[float], changes: dict[str, float], double: bool
) -> None:
    network = trained(probe, double=double, **changes)
    found = network.rows(np.array(observations, dtype=np.float32)[:, None]).max(-1)
    assert found == pytest.approx(expected, rel=0.05, abs=0.05)


def test_the_better_action_is_found() -> None:
    network = trained("TwoActions", learning_rate=1e-2, num_steps=1000)
    assert network.rows(np.zeros((1, 1), dtype=np.float32))[0] == pytest.approx([-1, 1], abs=0.05)


def test_the_better_action_depends_on_what_is_seen() -> None:
    rows = trained("MatchAction", num_steps=1500).rows(np.array([[-1.0], [1.0]], dtype=np.float32))
    assert rows == pytest.approx(np.array([[1, -1], [-1, 1]]), abs=0.1)


# --- the pole --------------------------------------------------------------------------------------------------------


def test_one_seed_gives_one_run_and_another_seed_another() -> None:
    short = replace(SMALL, num_steps=800)
    first, again, other = (train("CartPole-v1", short, seed) for seed in (3, 3, 4))
    assert first.points[-1].metrics == again.points[-1].metrics
    assert all(torch.equal(first.last_weights[name], again.last_weights[name]) for name in first.last_weights)
    assert not torch.equal(first.last_weights["layers.0.weight"], other.last_weights["layers.0.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_pole_stays_up(seed: int) -> None:
    result = train("CartPole-v1", Settings(), seed, stop_at=475)
    assert result.best.mean_return >= 475
    assert result.num_steps <= 50_000


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Pendulum-v1"], r"continuous actions.*python -m classic\.policy_gradient --env Pendulum-v1"),
        (["--env", "CartPole-v2"], "--env CartPole-v1"),
        (["--env", "FrozenLake-v1"], r"classic\.q_learning"),
        (["--steps", "900"], "--steps 1128"),
        (["--buffer-size", "50"], "--buffer-size 64"),
        (["--gamma", "1.5"], "--gamma 0.99"),
        (["--epsilon-end", "1.5"], "--epsilon-end 0.05"),
        (["--target-step", "0"], "--target-step 0.01"),
        (["--load", "nowhere.pt"], r"python -m classic\.dqn --env CartPole-v1 --save nowhere\.pt"),
        (["--env", "Acrobot-v1", "--env-option", "x=1", "--against-sb3", "tuned"], "--env CartPole-v1"),
    ],
)
def test_what_can_not_work_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(LessonError, match=message):
        main([*arguments, "--quiet"])


def test_titles_say_what_is_switched_off_and_nothing_that_does_not_act() -> None:
    assert switches_text(Settings()) == ", double"
    assert switches_text(Settings(target_network=False)) == ", no target network"
    assert switches_text(Settings(replay=False, exploration=False, double=False)) == ", no replay, no exploration"


@pytest.mark.parametrize(("reward", "heights"), [(1.0, [1.0, 100.0]), (-1.0, [-1.0, -100.0]), (0.0, [0.0])])
def test_the_picture_of_forgetting_draws_where_q_drifts_to(reward: float, heights: list[float]) -> None:
    """A last reward of 0, as Acrobot's, says nothing of the rewards before it."""
    axes = Figure().subplots()
    _exact_lines(axes, [[Point(10, 1.0, 0.0, {"doomed_q_exact": reward}, 1.0)]], 0.99)
    assert [float(line.get_ydata()[0]) for line in axes.lines] == pytest.approx(heights)


def test_the_monitor_says_where_the_warm_up_saw_no_end() -> None:
    names = ["td_loss", "mean_q", "doomed_q", "action_gap", "terminal_fraction", "epsilon"]
    point = Point(10, 1.0, 0.0, {**dict.fromkeys(names, 0.5), "doomed_q_exact": math.nan}, 1.0)
    assert "nan" not in monitor_text(0, [point])
    assert "no episode of the warm-up came to an end of its own" in monitor_text(0, [point])
