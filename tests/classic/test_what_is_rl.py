"""The first lesson: the loop, the three agents, and the keyboard."""

import io
import json
from pathlib import Path

import pytest

from classic.environments import make_environment
from classic.errors import LessonError
from classic.keyboard import named_keys, read_keys
from classic.tabular_model import tabular_model
from classic.what_is_rl import (
    Driver,
    StopDrivingError,
    TableAgent,
    agents_of,
    drive,
    keys_of,
    play,
    returns_of_playing,
    sampling_interval,
)
from classic.what_is_rl_command import main


def test_exact_returns_of_the_three_agents() -> None:
    model, env = tabular_model("FrozenLake-v1"), make_environment("FrozenLake-v1")
    exact = {name: value for name, (_, value) in agents_of(model, env).items()}
    expected = {"random": 0.013940, "best table": 0.740165, "best with a clock": 0.744190}
    assert exact == pytest.approx(expected, abs=6e-7)


def test_playing_agrees_with_the_exact_values() -> None:
    """Five standard errors of 400 episodes: 0.11 at most."""
    model, env = tabular_model("FrozenLake-v1"), make_environment("FrozenLake-v1")
    for agent, exact in agents_of(model, env).values():
        assert returns_of_playing(env, agent, 400, seed=0).mean() == pytest.approx(exact, abs=0.11)


def test_the_loop_tells_every_step_of_one_episode() -> None:
    env = make_environment("CliffWalking-v1", max_episode_steps=20)
    actions = [1] * 48  # right
    actions[36], actions[35] = 0, 2  # up at the start, down at the end of the edge
    steps = list(play(env, TableAgent(actions), seed=0))
    assert [step.state for step in steps] == [36, *range(24, 36)]
    assert [step.next_state for step in steps] == [*range(24, 36), 47]
    assert steps[-1].terminated
    assert not steps[-1].truncated
    assert sum(step.reward for step in steps) == -13


def test_a_limit_truncates() -> None:
    env = make_environment("CliffWalking-v1", max_episode_steps=5)
    steps = list(play(env, TableAgent([0] * 48), seed=0))
    assert [step.truncated for step in steps] == [False] * 4 + [True]
    assert not any(step.terminated for step in steps)


def test_one_seed_gives_one_game() -> None:
    env = make_environment("FrozenLake-v1")
    random = agents_of(tabular_model("FrozenLake-v1"), env)["random"][0]
    assert list(play(env, random, seed=3)) == list(play(env, random, seed=3))


def test_driving_over_the_cliff_to_the_goal() -> None:
    env = make_environment("CliffWalking-v1", render_mode="ansi")
    keys = ["up", *["right"] * 11, "x", "down", "q"]
    texts = list(drive(env, iter(keys), keys_of("CliffWalking-v1"), seed=0))
    assert texts[1].endswith("you pressed up: reward -1, return -1")
    assert "terminated; mean return of 1 episodes: -13.000" in texts
    assert texts[-1] == "1 episodes, mean return -13.000"


def test_driving_stops_where_the_keys_end() -> None:
    env = make_environment("Taxi-v4", render_mode="ansi")
    assert list(drive(env, iter(["p"]), keys_of("Taxi-v4"), seed=0))[-1] == "0 episodes"
    with pytest.raises(StopDrivingError):
        Driver(iter("q"), keys_of("Taxi-v4")).act(0, 0)


def test_every_key_does_what_it_says() -> None:
    """On the lake without slipping: the numbers of actions differ from those of the cliff."""
    env = make_environment("FrozenLake-v1", is_slippery=False)
    for key, expected in {"right": 1, "down": 4, "left": 0, "up": 0}.items():
        env.reset(seed=0)
        assert env.step(keys_of("FrozenLake-v1")[key])[0] == expected
    cliff = make_environment("CliffWalking-v1")
    cliff.reset(seed=0)
    assert cliff.step(keys_of("CliffWalking-v1")["up"])[0] == 24


def test_taxi_keys() -> None:
    env = make_environment("Taxi-v4")
    env.reset(seed=0)
    start = env.unwrapped.encode(2, 2, 0, 1)
    moved = {"up": (1, 2), "down": (3, 2), "right": (2, 3), "left": (2, 1)}
    for key, place in moved.items():
        env.unwrapped.s = start
        state = env.unwrapped.step(keys_of("Taxi-v4")[key])[0]
        assert env.unwrapped.decode(state)[:2] == place
    assert (keys_of("Taxi-v4")["p"], keys_of("Taxi-v4")["o"]) == (4, 5)


def test_arrows_and_letters_become_names() -> None:
    typed = "\x1b[A\x1b[B\x1bOC\x1b[DwasdWpq"
    arrows = ["up", "down", "right", "left"]
    assert list(named_keys(iter(typed))) == [*arrows, "up", "left", "down", "right", "up", "p", "q"]


def test_lines_are_read_where_there_is_no_terminal() -> None:
    assert list(read_keys(io.StringIO("dd\ns\n"))) == ["right", "right", "down"]


def test_the_interval_by_hand() -> None:
    import numpy as np

    low, high = sampling_interval(np.array([0.0, 1.0, 0.0, 1.0]))  # deviation 0.5, four episodes
    assert (low, high) == pytest.approx((0.5 - 0.49, 0.5 + 0.49))


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--episodes", "20", "--quiet", "--json", str(tmp_path / "rl.json"), "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "0.74419" in out
    assert "0.740165" in out
    agents = json.loads((tmp_path / "rl.json").read_text())["agents"]
    assert [agent["agent"] for agent in agents] == ["random", "best table", "best with a clock"]
    assert {"values.png", "replay.gif", "replay.html"} <= {file.name for file in tmp_path.iterdir()}


def test_the_command_lets_you_play(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("wddddddddddds\nq\n"))
    main(["--play", "--env", "CliffWalking-v1"])
    assert "mean return -13.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "10"], "--episodes 300"),
        (["--seeds", "2"], "--seed 0"),
        (["--env", "Taxi-v3"], "--env Taxi-v4"),
    ],
)
def test_what_can_not_work_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(LessonError, match=message):
        main(arguments)


def test_environments_without_keys_are_refused() -> None:
    with pytest.raises(LessonError, match="--env FrozenLake-v1"):
        keys_of("CartPole-v1")
