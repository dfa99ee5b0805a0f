"""Ctrl-C between seeds: what is finished is shown and written, and the rest can be had by typing what is told."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from classic import (
    agent_command,
    dqn_command,
    policy_gradient_command,
    ppo_command,
    q_learning_command,
    real_world_command,
    what_is_rl_command,
)
from classic.errors import LessonError
from classic.stopped_runs import beside, each_seed, told_at_the_end
from classic.training_runs import Point

SMALL = ["--num-evaluation-episodes", "4", "--hidden", "16"]
# Module, what is typed, where its trainings begin, a picture.
LESSONS: dict[str, tuple[Any, list[str], str, str]] = {
    "what_is_rl": (what_is_rl_command, ["--episodes", "5"], "play_on", "curve.png"),
    "q_learning": (
        q_learning_command,
        ["--env", "CliffWalking-v1", "--steps", "50000", "--evaluations", "2"],
        "learn",
        "curve.png",
    ),
    "dqn": (dqn_command, ["--steps", "600", "--learning-starts", "100", *SMALL], "LESSON", "curve.png"),
    "policy_gradient": (policy_gradient_command, ["--steps", "1024", *SMALL], "LESSON", "curve.png"),
    "ppo": (ppo_command, ["--steps", "2048", *SMALL], "LESSON", "curve.png"),
    "real_world": (real_world_command, ["--env", "bidding", "recommendations"], "SKETCHES", "bidding.png"),
}


def stop_at(seed: int, position: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with Ctrl-C where its argument at the position is this seed."""

    def stopped(*args: Any, **kwargs: Any) -> Any:
        if args[position] == seed:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return stopped


def press_ctrl_c(lesson: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as this seed begins."""
    module, _, name, _ = LESSONS[lesson]
    there = getattr(module, name)
    if name == "LESSON":
        monkeypatch.setattr(module, name, replace(there, train=stop_at(seed, 2, there.train)))
    elif name == "SKETCHES":
        monkeypatch.setattr(module, name, {world: stop_at(seed, 0, run) for world, run in there.items()})
    else:
        monkeypatch.setattr(module, name, stop_at(seed, 2, there))


def code_of(main: Callable[[list[str]], None], words: list[str]) -> Any:
    """How the command ended. A Ctrl-C that nobody caught would end all of the tests."""
    try:
        main(words)
    except SystemExit as ended:
        return ended.code
    except KeyboardInterrupt:
        return "a KeyboardInterrupt"
    return 0


def seeds_in(file: Path) -> list[int]:
    seeds = json.loads(file.read_text())["seeds"]
    return [seed["seed"] if isinstance(seed, dict) else seed for seed in seeds]


@pytest.mark.parametrize("lesson", LESSONS)
def test_finished_seeds_are_kept_and_the_rest_can_be_typed(
    lesson: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, words, _, picture = LESSONS[lesson]
    files = ["--json", str(tmp_path / "found.json"), "--out", str(tmp_path / "pictures")]
    with monkeypatch.context() as patched:
        press_ctrl_c(lesson, 5, patched)
        assert code_of(module.main, [*words, "--seed", "3", "--seeds", "4", "--quiet", *files]) == 130
    told = capsys.readouterr()
    assert "stopped by Ctrl-C: 2 of 4 seeds are in the table and in the files" in told.err
    assert seeds_in(tmp_path / "found.json") == [3, 4]
    assert (tmp_path / "pictures" / picture).is_file()
    before = (tmp_path / "found.json").read_bytes()

    rest = shlex.split(told.err.splitlines()[-1])
    assert rest[:3] == ["python", "-m", f"classic.{lesson}"]
    module.main(rest[3:])
    assert seeds_in(tmp_path / "found_from_5.json") == [5, 6]
    assert (tmp_path / "pictures_from_5" / picture).is_file()
    assert (tmp_path / "found.json").read_bytes() == before


@pytest.mark.parametrize("lesson", LESSONS)
def test_where_nothing_is_finished_there_is_one_line(
    lesson: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, words, _, _ = LESSONS[lesson]
    press_ctrl_c(lesson, 3, monkeypatch)
    with pytest.raises(
        KeyboardInterrupt, match=r"before seed 3, the first of 4, was finished, so that there is no table"
    ):
        module.main([*words, "--seed", "3", "--seeds", "4", "--quiet", "--json", str(tmp_path / "found.json")])
    assert not list(tmp_path.iterdir())


def test_other_mistakes_are_not_taken_for_ctrl_c() -> None:
    def learn(seed: int) -> int:
        if seed == 1:
            raise ValueError("broken")
        return seed

    with pytest.raises(ValueError, match="broken"):
        each_seed([0, 1], learn)


def test_a_seed_counts_where_stable_baselines_has_trained_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sb3(env_id: str, seed: int, **_: Any) -> list[Point]:
        if seed == 1:
            raise KeyboardInterrupt
        return [Point(100, 1.0, 20.0, {}, 1.0)]

    monkeypatch.setattr(agent_command, "train_sb3", sb3)
    words = ["--steps", "2048", *SMALL, "--quiet", "--against-sb3", "tuned", "--seeds", "3"]
    assert code_of(ppo_command.main, [*words, "--json", str(tmp_path / "found.json")]) == 130
    assert seeds_in(tmp_path / "found.json") == [0]
    assert "1 of 3 seeds" in capsys.readouterr().err

    # Where it is cut off in the first seed there is no race, but there is a policy.
    monkeypatch.setattr(agent_command, "train_sb3", lambda env_id, seed, **_: sb3(env_id, 1))
    with pytest.raises(KeyboardInterrupt, match="before seed 0"):
        ppo_command.main([*words, "--save", str(tmp_path / "first.pt")])
    capsys.readouterr()
    ppo_command.main(["--load", str(tmp_path / "first.pt"), "--episodes", "3"])
    assert "fresh episodes" in capsys.readouterr().out


def test_the_first_policy_is_saved_and_the_rest_does_not_write_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, words, _, _ = LESSONS["ppo"]
    press_ctrl_c("ppo", 1, monkeypatch)
    assert code_of(module.main, [*words, "--seeds", "2", "--quiet", "--save", str(tmp_path / "first.pt")]) == 130
    told = capsys.readouterr()
    assert (tmp_path / "first.pt").is_file()
    assert "1 of 2 seeds are in the table; for the rest" in told.err
    assert "--save" not in told.err


def test_a_measurement_that_is_cut_off_loses_no_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    module, words, _, _ = LESSONS["policy_gradient"]
    monkeypatch.setattr(module, "measure_gradients", measure)
    files = ["--json", str(tmp_path / "found.json")]
    assert code_of(module.main, [*words, "--gradient-variance", "--quiet", *files]) == 130
    assert seeds_in(tmp_path / "found.json") == [0]
    assert "1 of 1 seeds are in the table and in the files; what --gradient-variance measures is missing" in (
        capsys.readouterr().err
    )


def test_worlds_of_the_only_seed_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reach(*_: Any) -> Any:
        raise KeyboardInterrupt

    words = ["--env", "bidding", "sandbox", "cooling", "--steps", "4", "--quiet"]
    with monkeypatch.context() as patched:
        patched.setattr(real_world_command, "reach", reach)
        assert code_of(real_world_command.main, [*words, "--json", str(tmp_path / "found.json")]) == 130
    told = capsys.readouterr()
    assert "stopped by Ctrl-C in seed 0: the table is without sandbox, cooling" in told.err
    assert "agent: " in told.out
    assert "bidding" in json.loads((tmp_path / "found.json").read_text())
    real_world_command.main(shlex.split(told.err.splitlines()[-1])[3:])
    rest = json.loads((tmp_path / "found_from_0.json").read_text())
    assert {"sandbox", "cooling"} <= rest.keys()
    assert "bidding" not in rest


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("run.json", "run_from_3.json"),
        ("runs/dqn", "runs/dqn_from_3"),
        (".", "from_3"),
        ("a/b.c/d.pt", "a/b.c/d_from_3.pt"),
        ("/dev/stdout", "/dev/stdout"),
    ],
)
def test_the_rest_has_files_of_its_own(path: str, there: str) -> None:
    assert beside(Path(path), 3) == Path(there)


@pytest.mark.parametrize(("shown", "steps", "told"), [
    ("seed 2:", "20000", "seeds are in the table and in the files; for the rest type"),
    ("seed 0:", "1e9", "stopped by Ctrl-C before seed 0, the first of 500, was finished"),
])  # fmt: skip
def test_ctrl_c_in_a_process_of_its_own(shown: str, steps: str, told: str, tmp_path: Path) -> None:
    """The signal is sent when the bar of that seed is there, whenever that is."""
    command = [sys.executable, "-m", "classic.q_learning", "--env", "CliffWalking-v1", "--steps", steps]
    command += ["--evaluations", "1", "--seeds", "500", "--json", str(tmp_path / "found.json")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment) as process:
        assert process.stderr is not None
        seen = b""
        while shown.encode() not in seen and (more := process.stderr.read1(1)):
            seen += more
        process.send_signal(signal.SIGINT)
        seen += process.stderr.read()
        code = process.wait()
    text = seen.decode()
    assert code == 130, text[-2000:]
    assert "Traceback" not in text
    assert told in text
    if "files" in told:
        assert seeds_in(tmp_path / "found.json")[:2] == [0, 1]
    else:
        assert not (tmp_path / "found.json").exists()


def test_the_rest_is_told_also_where_a_file_can_not_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(seed=3, seeds=4, json=Path("a.json"), out=None, typed={"json": ["--json", "a.json"]})
    with pytest.raises(SystemExit) as ended, told_at_the_end("ppo", args, 2):
        raise LessonError("could not write a.json")
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert said.startswith("error: could not write a.json\n")
    assert "2 of 4 seeds are in the table; for the rest type" in said
    assert "--seed 5 --seeds 2" in said
    with pytest.raises(LessonError, match="could not write"), told_at_the_end("ppo", args, 4):
        raise LessonError("could not write a.json")
