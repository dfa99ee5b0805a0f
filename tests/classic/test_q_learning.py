"""Q-learning and its two relatives: what they reach, exactly; the command; no torch."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classic import q_learning_command
from classic.dynamic_programming import epsilon_greedy_policy, expected_return, greedy_policy, value_iteration
from classic.errors import LessonError
from classic.q_learning import Result, Settings, learn, round_of_evaluation
from classic.q_learning_command import SETTINGS, TUNED, main
from classic.schedules import Schedule
from classic.tabular_model import TabularModel, tabular_model

FEW = {"num_evaluations": 2}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_frozen_lake_reaches_the_best_a_table_can_do(seed: int) -> None:
    settings = replace(SETTINGS["FrozenLake-v1"], **FEW)
    result = learn(tabular_model("FrozenLake-v1"), settings, seed)
    assert result.points[-1].greedy_return == pytest.approx(0.740165, abs=6e-7)


@pytest.mark.slow
def test_the_large_lake_reaches_the_best_table_for_the_courses_discount_and_for_a_better_one() -> None:
    """Two actions of the start differ by 0.001 in Q, so a seed in five or so takes the second best: two of three."""
    for settings, bar in ((SETTINGS["FrozenLake8x8-v1"], 0.862955), (TUNED["FrozenLake8x8-v1"], 0.8935)):
        runs = [learn(tabular_model("FrozenLake8x8-v1"), replace(settings, **FEW), seed) for seed in (1, 2, 3)]
        assert sum(run.points[-1].greedy_return >= bar for run in runs) >= 2


def test_taxi_reaches_the_shortest_paths() -> None:
    result = learn(tabular_model("Taxi-v4"), replace(SETTINGS["Taxi-v4"], **FEW), 0)
    assert result.points[-1].greedy_return == pytest.approx(7.93, abs=1e-9)


def test_on_the_cliff_q_learning_walks_the_edge_and_the_others_keep_away() -> None:
    model = tabular_model("CliffWalking-v1")
    settings = replace(SETTINGS["CliffWalking-v1"], **FEW)
    edge = learn(model, settings, 0).points[-1]
    assert edge.greedy_return == pytest.approx(-13)
    assert edge.online_return < -40  # it falls while it explores
    away = learn(model, replace(settings, method="expected_sarsa"), 0).points[-1]
    assert away.greedy_return == pytest.approx(-15)
    assert away.online_return == pytest.approx(-20.708, abs=0.3)
    sarsa = learn(model, replace(settings, method="sarsa", alpha=Schedule(0.1, 0.0, "linear")), 0).points[-1]
    assert sarsa.online_return > -25


def test_the_table_comes_to_rest_at_the_oracle() -> None:
    """On a small lake every entry is visited often enough to see Q itself arrive, not only its policy."""
    model = tabular_model("FrozenLake-v1", desc=["SF", "HG"])
    settings = Settings(gamma=0.9, epsilon=Schedule(1.0), alpha=Schedule(0.1, 0.0, "linear"), num_steps=400_000, **FEW)
    result = learn(model, settings, 0)
    best = value_iteration(model, 0.9)
    assert result.q[:2] == pytest.approx(best[:2], abs=0.01)
    assert result.points[-1].q_error < 0.01


def test_a_step_size_that_falls_finds_q_and_a_constant_one_keeps_trembling() -> None:
    model = tabular_model("FrozenLake-v1", desc=["SF", "HG"])
    settings = Settings(gamma=0.9, epsilon=Schedule(1.0), alpha=Schedule(0.1), num_steps=200_000, **FEW)
    errors = {
        name: learn(model, replace(settings, step_size=name), 0).points[-1].q_error
        for name in ("schedule", "one_over_n", "rescaled")
    }
    assert errors["rescaled"] < 0.2 * errors["schedule"]
    # The plain mean of all targets never forgets the first, wrong ones: on the long way it is the slowest.
    assert errors["rescaled"] < errors["one_over_n"]


def test_a_time_limit_is_no_end_and_a_termination_is_one() -> None:
    """Reward 1 a step, gamma 0.9. Cut off after 5 steps: 1 / (1 - 0.9). Over after 5: (1 - 0.9^5) / (1 - 0.9)."""
    settings = Settings(gamma=0.9, alpha=Schedule(0.5), epsilon=Schedule(0.1), num_steps=20_000, num_evaluations=1)
    for_ever = corridor(np.array([0]), np.array([False]), max_episode_steps=5)
    assert learn(for_ever, settings, 0).q[0, 0] == pytest.approx(10)
    ends = corridor(np.array([1, 2, 3, 4, 4]), np.array([False] * 4 + [True]), max_episode_steps=5)
    assert learn(ends, settings, 0).q[:, 0] == pytest.approx(np.array([4.0951, 3.439, 2.71, 1.9, 1.0]))


def corridor(next_states: np.ndarray, terminated: np.ndarray, max_episode_steps: int) -> TabularModel:
    """One action, reward 1, from state 0 along `next_states`."""
    shape = (len(next_states), 1, 1)
    return TabularModel(
        "corridor",
        probabilities=np.ones(shape),
        next_states=next_states.reshape(shape),
        rewards=np.ones(shape),
        terminated=terminated.reshape(shape),
        start=np.eye(len(next_states))[0],
        max_episode_steps=max_episode_steps,
    )


def test_one_seed_gives_one_table_to_the_last_bit() -> None:
    model, settings = tabular_model("FrozenLake-v1"), replace(SETTINGS["FrozenLake-v1"], num_steps=50_000, **FEW)
    first, again, other = (learn(model, settings, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.q, again.q)
    assert first.num_episodes == again.num_episodes
    assert not np.array_equal(first.q, other.q)


def test_points_are_exact_and_at_their_steps() -> None:
    model = tabular_model("FrozenLake-v1")
    settings = replace(SETTINGS["FrozenLake-v1"], num_steps=64_000, num_evaluations=4, num_streams=64)
    result = learn(model, settings, 0)
    assert [point.step for point in result.points] == [16_000, 32_000, 48_000, 64_000]
    assert result.points[-1].greedy_return == expected_return(model, greedy_policy(result.q))
    online = epsilon_greedy_policy(result.q, settings.epsilon(1.0))
    assert result.points[-1].online_return == expected_return(model, online)
    assert result.visits.sum() == result.num_steps == 64_000


def test_one_stream_learns_too() -> None:
    settings = Settings(epsilon=Schedule(0.1), num_streams=1, num_steps=20_000, num_evaluations=1)
    assert learn(tabular_model("CliffWalking-v1"), settings, 0).points[-1].greedy_return == pytest.approx(-13)


# --- the command ---------------------------------------------------------------------------------------------------

SHORT = ["--env", "CliffWalking-v1", "--steps", "100000", "--evaluations", "5", "--quiet"]


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*SHORT, "--seeds", "2", "--json", str(tmp_path / "cliff.json"), "--out", str(tmp_path)])
    written = json.loads((tmp_path / "cliff.json").read_text())
    assert [seed["seed"] for seed in written["seeds"]] == [0, 1]
    assert written["greedy_return"]["interquartile_mean"] == pytest.approx(-13)
    assert len(written["seeds"][0]["curve"]) == 5
    assert {"curve.png", "replay.gif", "replay.html"} <= {file.name for file in tmp_path.iterdir()}
    assert "-13" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["--epsilon", "0.2"], Schedule(0.2)),
        (["--epsilon", "0.2", "--epsilon-end", "0.1"], Schedule(0.2, 0.1, "linear")),
        (["--epsilon-decay", "exponential", "--epsilon-end", "0.01"], Schedule(0.1, 0.01, "exponential")),
    ],
)
def test_schedules_as_they_are_typed(typed: list[str], expected: Schedule, tmp_path: Path) -> None:
    short = ["--env", "CliffWalking-v1", "--steps", "1600", "--evaluations", "1", "--quiet"]
    main([*short, *typed, "--json", str(tmp_path / "out.json")])
    epsilon = json.loads((tmp_path / "out.json").read_text())["settings"]["epsilon"]
    assert Schedule(**epsilon) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Taxi-v3"], "--env Taxi-v4"),
        (["--env", "FrozenLake-v0"], "--env FrozenLake-v1"),
        (["--env", "FrozenLake8x8-v0"], "--env FrozenLake8x8-v1"),
        (["--env", "CliffWalking-v0"], "--env CliffWalking-v1"),
        (["--env", "FrozenLak"], "--env FrozenLake"),
        (["--env", "Pendulum-v1"], r"continuous actions.*python -m classic\.ppo --env Pendulum-v1"),
        (["--env", "CartPole-v1"], r"python -m classic\.ppo --env CartPole-v1"),
        (["--env", "Blackjack-v1"], "separate states"),
        (["--env", "Taxi-v4", "--env-option", "fickle_passenger=true"], "leave the option out"),
        (["--env-option", "slippery=false"], "slippery"),
        (["--env-option", "is_slippery"], "KEY=VALUE"),
        (["--gamma", "1.5"], r"--gamma 0\.99"),
        (["--alpha", "2"], r"--alpha 0\.1"),
        (["--tuned"], "--env FrozenLake8x8-v1"),
        (["--steps", "100"], "--steps 10240"),
        (["--epsilon-end", "0.1", "--epsilon-decay", "constant"], "--epsilon-decay linear"),
        (["--epsilon", "0.5", "--epsilon-end", "0", "--epsilon-decay", "exponential"], "exponential"),
        (["--env", "FrozenLake8x8-v1", "--steps", "1024", "--evaluations", "1"], "no reward was ever seen"),
    ],
)
def test_what_can_not_work_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(LessonError, match=message):
        main([*arguments, "--quiet"])


def test_a_seed_without_any_reward_costs_no_other_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unlucky(model: TabularModel, settings: Settings, seed: int, *more: Any) -> Result:
        return replace(learn(model, settings, seed, *more), saw_reward=seed != 1)

    monkeypatch.setattr(q_learning_command, "learn", unlucky)
    main(["--steps", "10240", "--seeds", "3", "--quiet"])
    said = capsys.readouterr().out
    assert "seed 1 never saw a reward" in said
    assert "seed 0 never" not in said
    assert "interquartile mean" in said


def test_a_mistake_ends_the_command_without_a_traceback() -> None:
    command = [sys.executable, "-m", "classic.q_learning", "--env", "Taxi-v3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: got the environment 'Taxi-v3'")
    assert "Traceback" not in done.stderr


def test_lessons_one_and_two_never_load_torch(tmp_path: Path) -> None:
    """Their whole commands, pictures included, in a new process."""
    program = """
import sys
from classic.q_learning_command import main as learn
from classic.what_is_rl_command import main as play
files = ["--quiet", "--out", sys.argv[1], "--json", sys.argv[1] + "/out.json"]
learn(["--env", "CliffWalking-v1", "--steps", "40000", *files])
play(["--episodes", "2", *files])
loaded = [name for name in ("torch", "rlhf_lab", "pygame", "stable_baselines3") if name in sys.modules]
sys.exit(" ".join(loaded) or 0)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_progress_is_told_between_evaluations() -> None:
    """A billion steps with one evaluation would show nothing for minutes."""
    settings = Settings(num_streams=2, num_steps=6001, num_evaluations=1)
    told: list[int] = []
    learn(tabular_model("FrozenLake-v1"), settings, 0, lambda point: told.append(-point.step), told.append)
    assert told == [0, 2048, 4096, -6000]


def test_evaluations_are_evenly_spaced_and_the_last_is_at_the_end() -> None:
    settings = Settings(num_streams=64, num_steps=1_000_000, num_evaluations=40)
    rounds = [round_of_evaluation(number, settings) for number in range(1, 41)]
    assert rounds == np.linspace(0, 1_000_000 // 64, 41).astype(int)[1:].tolist()
    # As a float it would be another number.
    assert round_of_evaluation(40, replace(settings, num_streams=1, num_steps=10**18 - 1)) == 10**18 - 1
