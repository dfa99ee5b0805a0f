"""The loop around lessons 3 to 5: budget, evaluations, best and last weights."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from classic.agent_pictures import curve_of
from classic.agent_report import race_text, record, report
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


class Scripted:
    """A trainer whose weight follows a script; each iteration takes 10 steps in 4 streams."""

    def __init__(self, script: list[float]) -> None:
        self.streams = VectorStreams(make_vector("ProbeTwoActions-v0", 4), seed=0)
        self.policy = Chooser()
        self.script = iter(script)
        self.progress: list[float] = []

    def iterate(self, progress: float) -> dict[str, float]:
        self.progress.append(progress)
        # An episode is one step, so every other row is a reset: 10 columns of 4 streams are 20 steps.
        self.streams.collect(lambda seen: np.zeros(4, dtype=np.int64), 10)
        with torch.no_grad():
            self.policy.weight.fill_(next(self.script))
        return {"weight": self.policy.weight.item()}


def run(script: list[float], **changes: Any) -> tuple[Scripted, Result[Chooser]]:
    trainer = Scripted(script)
    options = {"num_steps": 100, "evaluate_every": 1, "seed": 0, **changes}
    return trainer, run_training(lambda: trainer, make_vector("ProbeTwoActions-v0", 8), **options)


def test_the_budget_is_spent_and_not_exceeded() -> None:
    trainer, result = run([-1.0] * 10, num_steps=119)
    assert [point.step for point in result.points] == [20, 40, 60, 80, 100]
    assert trainer.progress == pytest.approx([0, 20 / 119, 40 / 119, 60 / 119, 80 / 119])
    assert result.num_steps == 100


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


def result_of(*curve: tuple[int, float, float]) -> Result[Chooser]:
    points = [Point(step, seconds, mean_return, {}) for step, seconds, mean_return in curve]
    return Result(Chooser(), {}, points, points[-1].step, points[-1].seconds)


OURS = [result_of((1000, 1.0, 100.0), (2000, 2.0, 480.0)), result_of((1000, 1.0, 490.0), (2000, 2.0, 300.0))]
THEIRS = [[Point(1000, 10.0, 20.0, {}), Point(2000, 20.0, 500.0, {})], [Point(1000, 10.0, 20.0, {})]]


def test_the_race_is_a_ratio_of_times_and_a_bound_where_one_never_arrived() -> None:
    # 20 s against 2 s; at least 10 s against 1 s. Speed: 1,000 steps a second against 100.
    assert race_text(OURS, THEIRS, 475) == (
        "seconds to 475, SB3 / ours: at least 10.0 (median over seeds); steps per second, ours / SB3: 10.0"
    )
    assert race_text(OURS[:1], THEIRS[:1], 475).startswith("seconds to 475, SB3 / ours: 10.0")
    assert "no ratio of times" in race_text(OURS, THEIRS, 495)


def test_the_report_has_a_line_a_seed_and_algorithm() -> None:
    text = report("PPO", [3, 4], OURS, {"tuned": THEIRS}, threshold=475, num_evaluation_episodes=10)
    rows = [line.split() for line in text.splitlines()[3:7]]
    assert [row[:2] for row in rows] == [["3", "ours"], ["3", "SB3"], ["4", "ours"], ["4", "SB3"]]
    assert rows[0][2:6] == ["480", "480", "2,000", "2.00"]
    assert rows[2][2:6] == ["300", "490", "1,000", "1.00"]
    assert rows[3][-5:-3] == ["never", "never"]
    assert "interquartile mean of ours: last 390 [300, 480], best 485 [480, 490]" in text


def test_the_record_keeps_every_curve() -> None:
    written = record("ppo", "CartPole-v1", Settings(), [3, 4], OURS, {"tuned": THEIRS}, 475)
    assert [row["steps_to_threshold"] for row in written["seeds"]] == [2000, 1000]
    assert [len(row["sb3_curves"]["tuned"]) for row in written["seeds"]] == [2, 1]
    assert written["last_return"]["interquartile_mean"] == 390


def test_a_run_that_stopped_early_stays_at_its_height() -> None:
    curve = curve_of([OURS[0].points, OURS[0].points[:1]])
    assert curve.steps == [1000, 2000]
    assert curve.values == [[100.0, 480.0], [100.0, 100.0]]
