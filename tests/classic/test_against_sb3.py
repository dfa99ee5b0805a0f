"""Stable-Baselines3 beside ours: the course's two lines are its defaults, and it is judged as ours is."""

import inspect
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from classic import dqn_command, policy_gradient_command, ppo_command
from classic.against_sb3 import PRESETS, require_fair_race, train_sb3
from classic.agent_command import agent_parser, race, sb3_budgets
from classic.agent_report import report
from classic.errors import LessonError
from classic.ppo import Settings
from classic.ppo_command import LESSON, main
from classic.training_runs import Budget, Point, Result

stable_baselines3 = pytest.importorskip("stable_baselines3")


@pytest.mark.parametrize("algorithm", list(PRESETS))
def test_settings_are_arguments_that_the_class_has(algorithm: str) -> None:
    known = inspect.signature(getattr(stable_baselines3, algorithm)).parameters
    for preset in PRESETS[algorithm].values():
        assert preset.arguments.keys() <= known.keys()


def test_the_course_uses_the_defaults() -> None:
    assert PRESETS["DQN"]["course"].arguments == {}
    default = inspect.signature(stable_baselines3.PPO).parameters["learning_rate"].default
    assert PRESETS["PPO"]["course"].arguments == {"learning_rate": default}


@pytest.mark.parametrize("algorithm", list(PRESETS))
def test_it_is_trained_and_judged(algorithm: str, tmp_path: Path) -> None:
    points = train_sb3(
        "CartPole-v1",
        0,
        algorithm=algorithm,
        preset=PRESETS[algorithm]["tuned"],
        num_steps=1300,
        evaluate_every=1000,
        num_evaluation_episodes=4,
        save=tmp_path / "model.zip",
        clock=iter(range(1000)).__next__,
    )
    # The clock is read when training begins and before and after each evaluation: 0; 1, 2; 3, 4.
    assert [(point.seconds, point.training_seconds) for point in points] == [(2, 1), (4, 2)]
    assert [point.step >= 1000 for point in points] == [True, True]  # after 1,000 steps, and at the end
    assert all(8 <= point.mean_return <= 500 for point in points)
    assert (tmp_path / "model.zip").is_file()


def test_evaluations_are_as_far_apart_as_they_are_told_to() -> None:
    preset = replace(PRESETS["PPO"]["tuned"], arguments={"n_steps": 8, "batch_size": 64, "n_epochs": 1})  # 64 steps
    how = {"algorithm": "PPO", "preset": preset, "num_steps": 640, "num_evaluation_episodes": 2}
    points = train_sb3("CartPole-v1", 0, evaluate_every=150, **how)
    assert [point.step for point in points] == [192, 384, 576, 640]  # rollouts are not interrupted


@pytest.mark.parametrize(
    ("lesson", "settings", "apart"),
    [
        (ppo_command, Settings(), 2048),  # every iteration
        (ppo_command, Settings(evaluate_every=5000), 5000),
        (dqn_command, dqn_command.SETTINGS["CartPole-v1"], 500),
        (policy_gradient_command, policy_gradient_command.SETTINGS["CartPole-v1", "actor_critic"], 10_000),
    ],
)
def test_both_are_evaluated_as_many_steps_apart(
    lesson: ModuleType, settings: Budget, apart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is looked at more often is seen at the threshold sooner."""
    asked: list[int] = []
    points = [Point(apart, 1.0, 20.0, {}, 1.0)]

    def theirs(*_: object, evaluate_every: int, **__: object) -> list[Point]:
        asked.append(evaluate_every)
        return points

    monkeypatch.setattr("classic.agent_command.train_sb3", theirs)
    ours = replace(lesson.LESSON, train=lambda *_, **__: Result(None, {}, points, apart, 1.0))
    args = agent_parser("", type(settings), ours).parse_args(["--against-sb3", "tuned", "course", "--quiet"])
    runs = race(ours, args, settings, "a race")
    assert asked == [apart, apart]
    assert f"for everybody every {apart:,} steps or so" in report(runs)


def test_a_model_that_was_saved_acts_the_same_to_the_last_bit(tmp_path: Path) -> None:
    """`model.save` and `load` with deterministic=True, as the course has it; written by our command."""
    arguments = ["--steps", "2048", "--sb3-steps", "300", "--num-evaluation-episodes", "4", "--quiet"]
    main([*arguments, "--against-sb3", "tuned", "--save", str(tmp_path / "ppo.pt")])
    seen = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    file = tmp_path / "ppo.sb3_tuned.zip"
    first, again = (stable_baselines3.PPO.load(file, device="cpu") for _ in range(2))
    assert first.num_timesteps >= 300
    assert np.array_equal(first.predict(seen, deterministic=True)[0], again.predict(seen, deterministic=True)[0])
    weights = zip(first.policy.state_dict().values(), again.policy.state_dict().values(), strict=True)
    assert all(bool((mine == other).all()) for mine, other in weights)


def test_it_stops_where_it_is_told_to() -> None:
    points = train_sb3(
        "CartPole-v1",
        0,
        algorithm="PPO",
        preset=PRESETS["PPO"]["tuned"],
        num_steps=50_000,
        evaluate_every=2000,
        num_evaluation_episodes=4,
        stop_at=5.0,  # anybody's first evaluation
    )
    assert len(points) == 1


@pytest.mark.parametrize(("env_id", "options"), [("Pendulum-v1", {}), ("CartPole-v1", {"sutton_barto_reward": True})])
def test_an_unfair_race_is_refused(env_id: str, options: dict[str, object]) -> None:
    with pytest.raises(LessonError, match="--env CartPole-v1 without options"):
        require_fair_race(env_id, ["tuned"], options)
    require_fair_race(env_id, [], options)


@pytest.mark.parametrize(
    ("typed", "budgets"),
    [
        (["--against-sb3", "tuned", "course"], {"tuned": 100_000, "course": 500_000}),  # the zoo's, and the course's
        (["--against-sb3", "tuned", "course", "--sb3-steps", "300"], {"tuned": 300, "course": 300}),
        (["--against-sb3", "course", "tuned", "--sb3-steps", "300", "4e3"], {"course": 300, "tuned": 4000}),
        ([], {}),
    ],
)
def test_budgets_of_the_race(typed: list[str], budgets: dict[str, int]) -> None:
    assert sb3_budgets(LESSON, agent_parser("", Settings, LESSON).parse_args(typed)) == budgets


def test_processor_seconds_are_counted_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor's clock stands still here, so that neither training takes any time."""
    monkeypatch.setattr("time.process_time", lambda: 7.0)
    short = ["--steps", "2048", "--sb3-steps", "300", "--against-sb3", "tuned", "--num-evaluation-episodes", "4"]
    args = agent_parser("", Settings, LESSON).parse_args([*short, "--cpu-seconds", "--quiet"])
    runs = race(LESSON, args, Settings(num_steps=2048, num_evaluation_episodes=4), "PPO")
    assert runs.cpu_seconds
    assert [[point.seconds for point in curves[0]] for curves in runs.points().values()] == [[0.0], [0.0]]


@pytest.mark.parametrize("typed", [["--sb3-steps", "300"], ["--against-sb3", "tuned", "--sb3-steps", "300", "400"]])
def test_budgets_for_nobody_are_refused(typed: list[str]) -> None:
    with pytest.raises(LessonError, match="one number for all, or one for each"):
        main([*typed, "--quiet"])
