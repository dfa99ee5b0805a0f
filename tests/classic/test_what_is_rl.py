"""The first lesson: the loop, the three agents, and the keyboard."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classic.environments import make_environment
from classic.errors import LessonError
from classic.keyboard import named_keys, read_keys
from classic.luck import success_interval
from classic.tabular_model import tabular_model
from classic.what_is_rl import (
    Driver,
    StopDrivingError,
    TableAgent,
    agents_of,
    drive,
    interval_of,
    keys_of,
    play,
    play_on,
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
    low, high = sampling_interval(np.array([0.0, 1.0, 0.0, 1.0]))  # deviation 0.5, four episodes
    assert (low, high) == pytest.approx((0.5 - 0.49, 0.5 + 0.49))


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--episodes", "20", "--quiet", "--json", str(tmp_path / "rl.json"), "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "0.74419" in out
    assert "0.740165" in out
    agents = json.loads((tmp_path / "rl.json").read_text())["agents"]
    assert [agent["agent"] for agent in agents] == ["random", "best table", "best with a clock"]
    assert {"curve.png", "values.png", "replay.gif", "replay.html"} <= {file.name for file in tmp_path.iterdir()}


def test_several_seeds_give_an_interval_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--episodes", "30", "--quiet", "--seed", "4", "--json", str(tmp_path / "rl.json")]
    main([*words, "--seeds", "5"])
    written = json.loads((tmp_path / "rl.json").read_text())
    assert [seed["seed"] for seed in written["seeds"]] == [4, 5, 6, 7, 8]
    means = sorted(seed["agents"]["best table"]["mean_return"] for seed in written["seeds"])
    row = written["agents"][1]
    assert row["played"] == pytest.approx(sum(means[1:4]) / 3)  # of five values the middle three
    assert means[0] <= row["from"] < row["played"] < row["to"] <= means[4]
    assert "with each of 5 seeds" in capsys.readouterr().out
    main(words)
    alone = json.loads((tmp_path / "rl.json").read_text())
    assert alone["seeds"][0] == written["seeds"][0]


def test_a_budget_of_steps_plays_whole_episodes(tmp_path: Path) -> None:
    main(["--steps", "700", "--quiet", "--json", str(tmp_path / "rl.json"), "--out", str(tmp_path)])
    (seed,) = json.loads((tmp_path / "rl.json").read_text())["seeds"]
    for found in seed["agents"].values():
        assert sum(found["lengths"]) >= 700
        assert sum(found["lengths"][:-1]) < 700  # the last one was under way when the budget was spent
        assert len(found["returns"]) == len(found["lengths"])
    assert len(seed["agents"]["random"]["returns"]) > 2 * len(seed["agents"]["best table"]["returns"])
    assert (tmp_path / "curve.png").is_file()


def test_a_budget_of_steps_is_not_biased_towards_short_episodes() -> None:
    """The return is the length: 1 or 9 steps, as likely. Without the last episode the mean would be 4.3, not 5."""
    totals = []
    for seed in range(2000):
        played = play_on(OneOrNine(), TableAgent([0]), seed, num_steps=10)
        totals.append((played.returns.sum(), len(played.returns)))
    returns, episodes = np.sum(totals, axis=0)
    assert returns / episodes == pytest.approx(5, abs=0.3)  # Wald; five standard errors


class OneOrNine:
    """Episodes of one or of nine steps, each of which pays 1."""

    class action_space:
        @staticmethod
        def seed(seed: int) -> None:
            pass

    def reset(self, seed: int | None = None) -> tuple[int, dict[str, object]]:
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        self._left = int(self._generator.choice([1, 9]))
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, object]]:
        self._left -= 1
        return 0, 1.0, self._left == 0, False, {}


def test_the_curve_is_the_running_mean_between_the_exact_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr("classic.curves.draw_curves", lambda path, curves, **rest: drawn.update(curves=curves, **rest))
    main(["--episodes", "40", "--seeds", "2", "--quiet", "--json", str(tmp_path / "rl.json"), "--out", str(tmp_path)])
    seeds = json.loads((tmp_path / "rl.json").read_text())["seeds"]
    curve = drawn["curves"]["best with a clock"]
    assert list(curve.steps) == list(range(1, 41))
    for row, seed in zip(curve.values, seeds, strict=True):
        returns = seed["agents"]["best with a clock"]["returns"]
        assert row == pytest.approx([sum(returns[:number]) / number for number in range(1, 41)])
    assert sorted(drawn["limits"].values()) == pytest.approx([0.013940, 0.740165, 0.744190], abs=6e-7)


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_of_success_rates_as_published(successes: int, episodes: int, low: float, high: float) -> None:
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3 (Wilson's score)."""
    assert success_interval(successes, episodes) == pytest.approx((low, high), abs=5e-5)
    returns = np.array([1.0] * successes + [0.0] * (episodes - successes))
    assert interval_of(returns) == success_interval(successes, episodes)


def test_one_episode_leaves_much_open(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--episodes", "1", "--quiet"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("random")).split()
    assert [float(number) for number in row[-3:-1]] == [0, 0]
    assert float(row[-1]) == pytest.approx(0.7935, abs=1e-4)  # 1.96^2 / (1 + 1.96^2)
    assert all(math.isnan(end) for end in interval_of(np.array([-13.0])))
    assert interval_of(np.array([-13.0, -15.0])) == sampling_interval(np.array([-13.0, -15.0]))


def test_the_command_lets_you_play(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("wddddddddddds\nq\n"))
    main(["--play", "--env", "CliffWalking-v1"])
    assert "mean return -13.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "10", "--episodes", "5"], "got --episodes 5 and --steps 10"),
        (["--play", "--seeds", "2"], "got --seeds 2 and --play"),
        (["--play", "--out", "pictures"], "got --out pictures and --play"),
        (["--env", "Taxi-v3"], "--env Taxi-v4"),
    ],
)
def test_what_can_not_work_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(LessonError, match=message):
        main(arguments)


def test_environments_without_keys_are_refused() -> None:
    with pytest.raises(LessonError, match="--env FrozenLake-v1"):
        keys_of("CartPole-v1")
