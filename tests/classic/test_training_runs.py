"""The loop around lessons 3 to 5: budget, evaluations, best and last weights."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from classic.agent_pictures import curve_of
from classic.agent_report import Runs, race_text, record, report
from classic.curves import Curve
from classic.ppo import Settings
from classic.training_runs import Point, Result, evaluation_seed, first_at, run_training
from classic.vector_rollouts import VectorStreams, make_vector
from tests.classic.probes import register_probes

register_probes()


class Chooser(nn.Module):
    """Always action 1 where its weight is above 0, else action 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def best(self, observations: np.ndarray) -> np.ndarray:
        return np.full(len(observations), int(self.weight.item() > 0))


@dataclass(frozen=True)
class Short:
    num_steps: int = 100
    evaluate_every: int = 1
    num_evaluation_episodes: int = 8


class Scripted:
    """A trainer whose weight follows a script; each iteration takes 10 steps in 4 streams."""

    def __init__(self, script: list[float]) -> None:
        self.made_for: tuple[str, int, dict[str, Any]] | None = None
        self.streams = VectorStreams(make_vector("ProbeTwoActions-v0", 4), seed=0)
        self.policy = Chooser()
        self.script = iter(script)
        self.progress: list[float] = []
        self.num_steps = 0  # of the budget

    def __call__(self, env_id: str, settings: Short, seed: int, options: dict[str, Any]) -> "Scripted":
        self.made_for = (env_id, seed, options)
        self.num_steps = settings.num_steps
        return self

    def fits(self) -> bool:
        return self.streams.num_steps + 20 <= self.num_steps

    def iterate(self, progress: float) -> dict[str, float]:
        self.progress.append(progress)
        # An episode is one step, so every other row is a reset: 10 columns of 4 streams are 20 steps.
        self.streams.collect(lambda seen: np.zeros(4, dtype=np.int64), 10)
        with torch.no_grad():
            self.policy.weight.fill_(next(self.script))
        return {"weight": self.policy.weight.item()}


def run(script: list[float], stop_at: float | None = None, **changes: int) -> tuple[Scripted, Result[Chooser]]:
    trainer = Scripted(script)
    return trainer, run_training(trainer, "ProbeTwoActions-v0", Short(**changes), 0, stop_at=stop_at)


def test_the_budget_is_spent_and_not_exceeded() -> None:
    trainer, result = run([-1.0] * 10, num_steps=119)
    assert [point.step for point in result.points] == [20, 40, 60, 80, 100]
    assert trainer.progress == pytest.approx([0, 20 / 119, 40 / 119, 60 / 119, 80 / 119])
    assert result.num_steps == 100


def test_the_trainer_is_made_for_what_was_asked() -> None:
    trainer = Scripted([-1.0] * 10)
    run_training(trainer, "ProbeTwoActions-v0", Short(), 7, options={"max_episode_steps": 3})
    assert trainer.made_for == ("ProbeTwoActions-v0", 7, {"max_episode_steps": 3})


def test_time_that_evaluations_take_is_not_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that evaluations move by 100 seconds and iterations by 1."""
    now = [0.0]
    trainer = Scripted([-1.0] * 10)

    def evaluate(*_: Any) -> np.ndarray:
        now[0] += 100
        return np.zeros(8)

    def iterate(progress: float, plain: Any = trainer.iterate) -> dict[str, float]:
        now[0] += 1
        return plain(progress)

    monkeypatch.setattr("classic.training_runs.returns_of_first_episodes", evaluate)
    monkeypatch.setattr(trainer, "iterate", iterate)
    points = run_training(trainer, "ProbeTwoActions-v0", Short(), 0, clock=lambda: now[0]).points
    assert [point.training_seconds for point in points] == [1, 2, 3, 4, 5]
    assert [point.seconds for point in points] == [101, 202, 303, 404, 505]
    assert points[2].steps_per_second == 20


def test_evaluations_are_so_many_steps_apart_and_there_is_one_at_the_end() -> None:
    _, result = run([-1.0] * 10, evaluate_every=40)
    assert [point.step for point in result.points] == [40, 80, 100]


def test_best_and_last_are_told_apart() -> None:
    """Action 1 pays 1, action 0 costs 1; the policy is good in the middle and forgets."""
    _, result = run([-1.0, 2.0, 3.0, -4.0, -5.0])
    assert [point.mean_return for point in result.points] == [-1, 1, 1, -1, -1]
    assert result.best.step == 40  # the first of equally good ones
    assert result.policy.weight.item() == 2.0
    assert result.last_weights["weight"].item() == -5.0
    assert result.points[1].metrics == {"weight": 2.0}


def test_it_stops_at_the_return_that_is_asked_for() -> None:
    _, result = run([-1.0, 2.0, 3.0, -4.0, -5.0], stop_at=1.0)
    assert result.num_steps == 40
    reached = result.first_at(1.0)
    assert reached is not None
    assert reached.step == 40
    assert first_at(result.points[:1], 1.0) is None


def test_each_seed_is_tested_on_episodes_of_its_own() -> None:
    assert len({evaluation_seed(seed) for seed in range(10)} | set(range(10))) == 20


# --- what is said about runs -----------------------------------------------------------------------------------------


def point(step: int, seconds: float, mean_return: float) -> Point:
    """Half of the time went into evaluations."""
    return Point(step, seconds, mean_return, {}, seconds / 2)


def result_of(*curve: tuple[int, float, float]) -> Result[Chooser]:
    points = [point(*numbers) for numbers in curve]
    return Result(Chooser(), {}, points, points[-1].step, points[-1].seconds)


OURS = [result_of((1000, 1.0, 100.0), (2000, 2.0, 480.0)), result_of((1000, 1.0, 490.0), (2000, 2.0, 300.0))]
THEIRS = [[point(1000, 10.0, 20.0), point(2000, 20.0, 500.0)], [point(1000, 10.0, 20.0)]]
RUNS = Runs("PPO", "CartPole-v1", Settings(num_evaluation_episodes=10), [3, 4], OURS, {"tuned": THEIRS})


def test_the_race_is_a_ratio_of_times_and_a_bound_where_one_never_arrived() -> None:
    # 20 s against 2 s; at least 10 s against 1 s. Speed: 1,000 steps a second against 100.
    assert race_text(OURS, THEIRS, 475) == (
        "seconds to 475, SB3 / ours: at least 10.0 (median over seeds); steps per second, ours / SB3: 10.0"
    )
    assert race_text(OURS[:1], THEIRS[:1], 475).startswith("seconds to 475, SB3 / ours: 10.0")
    assert "no ratio of times" in race_text(OURS, THEIRS, 495)


def test_the_report_has_a_line_a_seed_and_algorithm() -> None:
    text = report(RUNS)
    rows = [line.split() for line in text.splitlines()[3:7]]
    assert [row[:2] for row in rows] == [["3", "ours"], ["3", "SB3"], ["4", "ours"], ["4", "SB3"]]
    assert rows[0][2:6] == ["480", "480", "2,000", "2.00"]
    assert rows[2][2:6] == ["300", "490", "1,000", "1.00"]
    assert rows[3][-5:-3] == ["never", "never"]
    assert rows[0][-3:] == ["2,000", "2", "2,000"]  # two seconds, of which the training took one
    assert "interquartile mean of ours: last 390 [300, 480], best 485 [480, 490]" in text
    assert "last of ours: 390.0 +- 90.0 over 2 seeds, lowest 300" in text
    assert text.splitlines()[-1].endswith("above 0: 500")  # four numbers by hand


def test_whose_seconds_are_shown() -> None:
    assert "; seconds include" in report(RUNS)
    assert "; processor seconds include" in report(replace(RUNS, cpu_seconds=True))
    assert record("ppo", replace(RUNS, cpu_seconds=True))["cpu_seconds"] is True


def test_without_a_threshold_nothing_is_said_about_the_way_there() -> None:
    text = report(Runs("A2C", "Pendulum-v1", Settings(num_evaluation_episodes=10), [3, 4], OURS, {}))
    assert text.splitlines()[1].split() == ["seed", "who", "last", "best", "steps", "seconds", "steps/s"]
    assert text.splitlines()[3].split() == ["3", "ours", "480", "480", "2,000", "2", "2,000"]
    assert "never" not in text


@pytest.mark.parametrize(
    ("env_id", "options", "by_hand", "threshold"),
    [
        ("CartPole-v1", {"max_episode_steps": 500}, "500", 475.0),  # typed, but no other than the registered one
        ("CartPole-v1", {"max_episode_steps": 60}, "60", None),
        ("CartPole-v1", {"sutton_barto_reward": True}, "0", None),  # -1 for a fall, else 0
        ("CartPole-v0", {}, "200", 195.0),
    ],
)
def test_threshold_and_baseline_are_those_of_the_environment_that_was_made(
    env_id: str, options: dict[str, Any], by_hand: str, threshold: float | None
) -> None:
    runs = replace(RUNS, env_id=env_id, options=options, theirs={})
    assert runs.threshold == threshold
    lines = report(runs).splitlines()
    assert lines[-1].endswith(f"above 0: {by_hand}")
    assert ("steps to" in lines[1]) == (threshold is not None)
    assert record("ppo", runs)["seeds"][0]["threshold"] == threshold


def test_the_baseline_is_played_in_the_first_seeds_own_test_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def played(env: Any, act: Any, seed: int) -> np.ndarray:
        seeds.append(seed)
        return np.array([7.0] * env.num_envs)

    monkeypatch.setattr("classic.agent_report.returns_of_first_episodes", played)
    assert report(RUNS).endswith("above 0: 7")
    assert seeds == [evaluation_seed(3)]


def test_the_record_keeps_every_curve() -> None:
    written = record("ppo", RUNS)
    assert [row["steps_to_threshold"] for row in written["seeds"]] == [2000, 1000]
    assert [len(row["sb3_curves"]["tuned"]) for row in written["seeds"]] == [2, 1]
    assert written["last_return"]["interquartile_mean"] == 390


# --- curves over seeds -----------------------------------------------------------------------------------------------


def straight(*steps: int) -> list[Point]:
    """A run whose mean return is a hundredth of its steps, evaluated at these."""
    return [Point(step, 1.0, step / 100, {"entropy": step / 1000}, 1.0) for step in steps]


def test_seeds_with_steps_of_their_own_are_averaged_at_the_same_steps() -> None:
    """Runs on one straight line, whatever the steps at which they were looked at: so is their mean."""
    curve = curve_of([straight(1000, 2100, 3300), straight(900, 2500, 2700, 4000), straight(1000, 3500)])
    assert curve.steps == [900, 1000, 2100, 2500, 2700, 3300, 3500, 4000]
    middle = dict(zip(curve.steps, curve.middle(), strict=True))
    assert {step: height for step, height in middle.items() if 1000 <= step <= 3300} == pytest.approx(
        {step: step / 100 for step in (1000, 2100, 2500, 2700, 3300)}
    )


def test_no_mean_is_made_where_a_seed_was_not_measured() -> None:
    curve = curve_of([OURS[0].points, OURS[0].points[:1]])  # the second one stopped early
    assert curve.steps == [1000, 2000]
    assert curve.values == [pytest.approx([100.0, 480.0]), pytest.approx([100.0, np.nan], nan_ok=True)]
    assert curve.middle() == pytest.approx([100.0, np.nan], nan_ok=True)


def test_curves_of_a_metric_leave_out_what_has_none() -> None:
    """DQN's first points come from the warm-up, REINFORCE has no critic whose figures could be drawn."""
    curve = curve_of([[point(500, 1.0, 20.0), *straight(1000, 3000)], straight(1000, 2000, 3000)], "entropy")
    assert curve.steps == [1000, 2000, 3000]
    assert curve.middle() == pytest.approx([1.0, 2.0, 3.0])
    assert curve_of([OURS[0].points], "entropy") == Curve([], [])
