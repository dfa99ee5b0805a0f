"""The race against Stable-Baselines3 goes on where it was cut off, and says how many times longer and slower."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from classic import dqn_command, ppo_command
from classic.agent_command import agent_parser, sb3_budgets

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark_classic.py"


@pytest.fixture
def benchmark() -> ModuleType:
    specification = importlib.util.spec_from_file_location("benchmark_classic", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def curve(*points: tuple[int, float, float]) -> list[dict[str, Any]]:
    """Steps, seconds and mean returns; half of the time went into evaluations."""
    return [
        {"step": step, "seconds": seconds, "training_seconds": seconds / 2, "mean_return": mean_return}
        for step, seconds, mean_return in points
    ]


def piece(which: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"seeds": [{"curve": ours, "sb3_curves": {which: theirs}}], "machine": {"num_cores": 2}}


FAST = curve((1000, 1.0, 100.0), (2000, 2.0, 480.0))  # 2,000 steps a second of training
FASTER = curve((1000, 1.0, 500.0))
TUNED = [
    piece("tuned", FAST, curve((1000, 10.0, 20.0), (2000, 20.0, 475.0))),  # 200 steps a second
    piece("tuned", FASTER, curve((4000, 20.0, 500.0))),  # 400
]
COURSE = [
    piece("course", FAST, curve((4000, 80.0, 20.0))),  # 100, and it never arrives
    piece("course", FASTER, curve((4000, 80.0, 500.0))),
]


def test_rows_are_medians_and_where_one_never_arrived_a_bound(benchmark: ModuleType) -> None:
    ours, tuned, course = benchmark.rows_of("ppo", {"tuned": TUNED, "course": COURSE})
    assert ours == ["ppo", "ours", "4 of 4", "1,500", "1.50", "2,000", "", ""]
    assert tuned == ["", "SB3 tuned", "2 of 2", "3,000", "20.00", "300", "15.0", "7.5"]  # 10 and 20; 10 and 5
    assert course == ["", "SB3 course", "1 of 2", "4,000", "80.00", "100", "> 60.0", "20.0"]  # at least 40, and 80
    never = curve((1000, 1.0, 9.0))
    alone = benchmark.rows_of("ppo", {"tuned": [piece("tuned", never, never)], "course": []})
    assert alone[1] == ["", "SB3 tuned", "0 of 1", "never", "never", "2,000", "-", "1.0"]
    assert alone[2] == ["", "SB3 course", "not run", "", "", "", "", ""]


def test_it_goes_on_where_it_was_cut_off(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def made(command: list[str]) -> dict[str, Any]:
        which = command[command.index("--against-sb3") + 1]
        return piece(which, FAST, FAST)

    def run(command: list[str], **_: Any) -> None:
        started.append(command)
        Path(command[command.index("--json") + 1]).write_text(json.dumps(made(command)))
        if len(started) == 2:
            raise RuntimeError("cut off")

    def call(*typed: str) -> str:
        monkeypatch.setattr(
            sys, "argv", ["benchmark", "--lessons", "ppo", "--seeds", "2", "--folder", str(tmp_path), *typed]
        )
        benchmark.main()
        return capsys.readouterr().out

    monkeypatch.setattr(benchmark.subprocess, "run", run)
    assert "1 of 4 pieces" in call("--pieces", "1")
    with pytest.raises(RuntimeError, match="cut off"):
        call()
    assert "1 of 4 pieces" in call("--pieces", "0")  # what was cut off does not count
    assert "4 of 4 pieces; num_cores 2" in call()
    names = [Path(command[-2]).stem for command in started]
    assert names == ["ppo_tuned_0", "ppo_course_0", "ppo_course_0", "ppo_tuned_1", "ppo_course_1"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"seeds": [',
        "[]",
        "7",
        "{}",
        '{"seeds": []}',
        json.dumps(piece("course", FAST, FAST)),
        '{"seeds": [{"curve": []}]}',
    ],
)
def test_a_broken_piece_is_told_by_name(
    benchmark: ModuleType, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ppo_tuned_0.json").write_text(content)
    words = ["benchmark", "--lessons", "ppo", "--seeds", "1", "--pieces", "0", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match=r"ppo_tuned_0\.json is not what a piece of this race leaves.*delete it"):
        benchmark.main()


@pytest.mark.parametrize("which", ["tuned", "course"])
@pytest.mark.parametrize(("lesson", "command"), [("ppo", ppo_command), ("dqn", dqn_command)])
def test_the_lessons_read_what_a_piece_types(
    benchmark: ModuleType, lesson: str, command: Any, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed: list[str] = []

    def run(words: list[str], **_: Any) -> None:
        typed.extend(words)
        Path(words[words.index("--json") + 1]).touch()

    monkeypatch.setattr(benchmark.subprocess, "run", run)
    benchmark.run_piece(tmp_path / "piece.json", (7, lesson, which))
    assert (tmp_path / "piece.json").is_file()
    assert typed[:3] == [sys.executable, "-m", f"classic.{lesson}"]
    settings = type(command.SETTINGS["CartPole-v1"])
    args = agent_parser("", settings, command.LESSON).parse_args(typed[3:])
    assert (args.seed, args.seeds, args.stop_at, args.cpu_seconds) == (7, 1, 475, True)
    assert sb3_budgets(command.LESSON, args) == {which: benchmark.BUDGETS[lesson][which]}
