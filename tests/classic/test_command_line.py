"""What can not be is told before anything is trained, in every lesson; what can not be written costs nothing else.

Where a check is missing these tests fail at once: whatever would train raises instead.
"""

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from classic import (
    dqn_command,
    policy_gradient_command,
    ppo_command,
    q_learning_command,
    real_world_command,
    what_is_rl_command,
)
from classic.command_line import lesson_parser, read_arguments, run_lesson, write_each
from classic.errors import LessonError
from classic.records import write_json
from tests.full_disk import files_of_at_most

LESSONS = {
    "what_is_rl": what_is_rl_command,
    "q_learning": q_learning_command,
    "dqn": dqn_command,
    "policy_gradient": policy_gradient_command,
    "ppo": ppo_command,
    "real_world": real_world_command,
}
AGENTS = ["dqn", "policy_gradient", "ppo"]
ALL = list(LESSONS)


@pytest.fixture(autouse=True)
def nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained, played or measured here."""

    def train(*_: object, **__: object) -> None:
        raise AssertionError("training began")

    for name in AGENTS:
        monkeypatch.setattr(LESSONS[name], "LESSON", replace(LESSONS[name].LESSON, train=train))
    monkeypatch.setattr("classic.agent_command.train_sb3", train)
    monkeypatch.setattr(q_learning_command, "learn", train)
    monkeypatch.setattr(what_is_rl_command, "play_on", train)
    monkeypatch.setattr(what_is_rl_command, "drive", train)
    monkeypatch.setattr(real_world_command, "reach", train)
    monkeypatch.setattr(real_world_command, "SKETCHES", dict.fromkeys(real_world_command.SKETCHES, train))


@pytest.mark.parametrize("lesson", ALL)
def test_without_a_mistake_it_would_train(lesson: str) -> None:
    with pytest.raises(AssertionError, match="training began"):
        LESSONS[lesson].main(["--quiet"])


@pytest.mark.parametrize("lesson", ALL)
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seed", "-1"], "got -1; it must be 0 or a whole number above it"),
        (["--seed", "1.5"], "got 1.5; it must be 0 or a whole number above it"),
        (["--seed", "1000000"], "seeds from 1000000 on belong to test episodes"),
        (["--seed", "zero"], "got zero; it must be a number"),
        (["--seeds", "inf"], "got inf; it must be a whole number above 0"),
        (["--seeds", "0"], "got 0; it must be a whole number above 0"),
        (["--steps", "nan"], "got nan; it must be a whole number above 0"),
        (["--json", "FOLDER"], "is a folder; it must be the name of a file to write"),
        (["--json", "FILE/x/y.json"], "is a file; type another place"),
        (["--out", "FILE"], "is a file; it must be a folder to write into"),
        (["--out", "FILE/x/y"], "is a file; type another place"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_trained(
    lesson: str, words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    places = {"FOLDER": str(tmp_path), "FILE": str(tmp_path / "file")}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    with pytest.raises(SystemExit) as ended:
        LESSONS[lesson].main(words)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("lesson", ALL)
def test_seeds_do_not_reach_into_those_of_test_episodes(lesson: str) -> None:
    with pytest.raises(LessonError, match="seeds from 1000000 on belong to test episodes: type --seeds 2 or less"):
        LESSONS[lesson].main(["--seed", "999998", "--seeds", "1e12", "--quiet"])
    with pytest.raises(AssertionError, match="training began"):
        LESSONS[lesson].main(["--seed", "999998", "--seeds", "2", "--quiet"])


@pytest.mark.parametrize("lesson", AGENTS)
def test_a_policy_needs_a_place_too(lesson: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        LESSONS[lesson].main(["--save", str(tmp_path)])
    assert "is a folder; it must be the name of a file to write" in capsys.readouterr().err


# Lesson, what is typed, what is told.
NUMBERS = [
    *[(lesson, ["--learning-rate", number], r"above 0: type --learning-rate 0\.00\d")
      for lesson in AGENTS for number in ("nan", "-1", "0")],
    *[(lesson, ["--learning-rate", "inf"], "a finite number: type --learning-rate") for lesson in AGENTS],
    *[(lesson, ["--max-grad-norm", "0"], r"above 0 \(inf: no clipping\): type --max-grad-norm") for lesson in AGENTS],
    *[(lesson, ["--gamma", "nan"], "--gamma 0.99") for lesson in [*AGENTS, "q_learning"]],
    ("policy_gradient", ["--critic-learning-rate", "nan"], "above 0: type --critic-learning-rate 0.01"),
    ("policy_gradient", ["--reward-scale", "nan"], "above 0: type --reward-scale 1.0"),
    ("policy_gradient", ["--ent-coef", "-1"], "0 or above: type --ent-coef 0.0"),
    ("ppo", ["--clip-range", "-0.2"], "above 0: type --clip-range 0.2"),
    ("ppo", ["--clip-range", "nan"], "above 0: type --clip-range 0.2"),
    ("ppo", ["--value-clip-range", "-1"], "above 0: type --value-clip-range 0.2"),
    ("ppo", ["--reward-scale", "nan"], "above 0: type --reward-scale 1.0"),
    ("ppo", ["--vf-coef", "nan"], "0 or above: type --vf-coef 0.5"),
    ("ppo", ["--adam-eps", "0"], "above 0: type --adam-eps 1e-05"),
    ("dqn", ["--epsilon-fraction", "nan"], "a finite number: type --epsilon-fraction 0.16"),
    ("dqn", ["--epsilon-fraction", "2"], "between 0 and 1: type --epsilon-fraction 0.16"),
    ("q_learning", ["--alpha", "nan"], "--alpha 0.1"),
    ("q_learning", ["--initial-value", "nan"], "got initial_value nan; it must be a finite number"),
    ("q_learning", ["--initial-value", "inf"], "a finite number: type --initial-value 0.0"),
    ("real_world", ["--beta", "1", "0"], "--beta 0.2"),
    # Options of the environment.
    ("q_learning", ["--env-option", "map_name=9x9"], "one of 4x4, 8x8: type --env-option map_name=4x4"),
    ("q_learning", ["--env-option", "is_slippery=maybe"], "true or false: type --env-option is_slippery=true"),
    ("q_learning", ["--env-option", "success_rate=2"], "a probability between 0 and 1"),
    ("q_learning", ["--env-option", "success_rate=0.5", "--env-option", "is_slippery=false"], "is_slippery=true too"),
    ("q_learning", ["--env-option", "desc=SFFG"], "type --env-option map_name=8x8"),
    ("q_learning", ["--env-option", "reward_schedule=1"], "only Python can give: leave it out"),
    ("q_learning", ["--env-option", "is_slippery=true", "--env-option", "is_slippery=false"], "is_slippery twice"),
    ("q_learning", ["--env", "Taxi-v4", "--env-option", "rainy_probability=0.5"], "type --env-option is_rainy=true"),
    ("q_learning", ["--env", "Blackjack-v1"], "separate states: type --env FrozenLake-v1, FrozenLake8x8-v1, Taxi-v4"),
    ("ppo", ["--env", "Blackjack-v1"], "type --env CartPole-v1"),
    ("ppo", ["--env", "Pendulum-v1", "--env-option", "g=nan"], "a finite number: type --env-option g=10"),
    ("dqn", ["--env-option", "gravity=1"], "CartPole-v1 has no such option: it has sutton_barto_reward"),
]  # fmt: skip


@pytest.mark.parametrize(("lesson", "words", "told"), NUMBERS)
def test_numbers_and_options_that_teach_nothing_are_refused(lesson: str, words: list[str], told: str) -> None:
    with pytest.raises(LessonError, match=told):
        LESSONS[lesson].main([*words, "--quiet"])


@pytest.mark.parametrize("lesson", [lesson for lesson in ALL if lesson != "real_world"])
@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("max_episode_steps=5", "type --max-episode-steps 200 instead"),
        ("render_mode=human", "type --out FOLDER instead"),
        ("num_envs=3", r"an option of the lesson where there is one \(--num-envs, --streams\)"),
        ("vectorization_mode=async", "the lessons choose it themselves: leave it out"),
    ],
)
def test_what_gymnasium_would_take_for_its_own_is_no_option(lesson: str, word: str, told: str) -> None:
    with pytest.raises(LessonError, match=told):
        LESSONS[lesson].main(["--env-option", word, "--quiet"])


@pytest.mark.parametrize(
    ("lesson", "words"),
    [
        *[(lesson, ["--stop-at", "nan"]) for lesson in AGENTS],
        ("real_world", ["--beta", "nan"]),
        ("real_world", ["--flaw", "nan"]),
        ("real_world", ["--flaw", "inf"]),
    ],
)
def test_what_is_no_number_is_refused(lesson: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        LESSONS[lesson].main(words)
    assert ended.value.code == 2
    assert f"got {words[1]}; it must be a finite number" in capsys.readouterr().err


@pytest.mark.parametrize("lesson", AGENTS)
def test_no_clipping_of_gradients_is_allowed(lesson: str) -> None:
    with pytest.raises(AssertionError, match="training began"):
        LESSONS[lesson].main(["--max-grad-norm", "inf", "--quiet"])


# --- what is typed is honoured or refused --------------------------------------------------------------------------

IGNORED = [
    *[(lesson, ["--load", "x.pt", *typed]) for lesson in AGENTS for typed in (
        ["--learning-rate", "0.1"], ["--steps", "9"], ["--seeds", "1"], ["--out", "x"], ["--save", "x.pt"],
        ["--stop-at", "475.0"], ["--against-sb3", "tuned"], ["--sb3-steps", "9"], ["--cpu-seconds"], ["--no-anneal"],
    )],
    ("policy_gradient", ["--load", "x.pt", "--gradient-variance"]),
    ("policy_gradient", ["--method", "reinforce", "--gae-lambda", "0.9"]),
    ("policy_gradient", ["--method", "reinforce", "--critic-learning-rate", "0.1"]),
    ("policy_gradient", ["--method", "reinforce", "--num-critic-steps", "2"]),
    ("policy_gradient", ["--method", "baseline", "--gae-lambda", "0.9"]),
    ("policy_gradient", ["--method", "baseline", "--rollout-length", "8"]),
    *[("q_learning", ["--step-size", kind, *typed]) for kind in ("one_over_n", "rescaled") for typed in (
        ["--alpha", "0.1"], ["--alpha-end", "0.01"],
    )],
    ("dqn", ["--no-replay", "--buffer-size", "1000"]),
    ("dqn", ["--no-target-network", "--target-step", "0.5"]),
    ("dqn", ["--no-target-network", "--target-update-interval", "5"]),
    ("dqn", ["--no-target-network", "--double"]),
    ("dqn", ["--no-exploration", "--epsilon-end", "0.1"]),
    *[("real_world", ["--run", "folder", *typed]) for typed in (
        ["--env", "bidding"], ["--seed", "0"], ["--seeds", "1"], ["--steps", "9"], ["--beta", "1.0"], ["--flaw", "0.5"],
    )],
    *[("real_world", ["--env", "bidding", *typed]) for typed in (
        ["--steps", "9"], ["--beta", "1.0"], ["--flaw", "0.5"],
    )],
    *[("what_is_rl", ["--play", *typed]) for typed in (
        ["--episodes", "9"], ["--steps", "9"], ["--seeds", "1"], ["--json", "x"], ["--out", "x"],
    )],
    ("what_is_rl", ["--steps", "9", "--episodes", "9"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("lesson", "words"), IGNORED, ids=lambda given: given if isinstance(given, str) else " ".join(given)
)
def test_a_flag_that_would_do_nothing_is_refused_by_name(lesson: str, words: list[str]) -> None:
    with pytest.raises(LessonError) as refused:
        LESSONS[lesson].main([*words, *([] if "--play" in words else ["--quiet"])])
    flags = [word for word in words if word.startswith("--")]
    assert all(flag in str(refused.value) for flag in flags)
    assert "would do nothing" in str(refused.value)


@pytest.mark.parametrize(
    ("lesson", "words"),
    [
        ("policy_gradient", ["--method", "reinforce", "--gae-lambda", "0.9", "--gradient-variance"]),
        ("policy_gradient", ["--method", "baseline", "--critic-learning-rate", "0.1"]),
        ("policy_gradient", ["--gae-lambda", "0.9"]),
        ("q_learning", ["--step-size", "schedule", "--alpha", "0.1"]),
        ("q_learning", ["--alpha-end", "0.01", "--alpha-fraction", "0.5"]),
        ("dqn", ["--replay", "--buffer-size", "1000"]),
        ("dqn", ["--no-replay", "--batch-size", "32"]),
        ("real_world", ["--env", "sandbox", "--steps", "9"]),
        ("real_world", ["--only", "sandbox", "bidding", "--flaw", "0.5"]),
    ],
)
def test_a_flag_that_does_something_is_not_refused(lesson: str, words: list[str]) -> None:
    with pytest.raises(AssertionError, match="training began"):
        LESSONS[lesson].main([*words, "--quiet"])


@pytest.mark.parametrize(
    ("lesson", "words", "told"),
    [
        *[(lesson, ["--episodes", "5"], "--load FILE too") for lesson in AGENTS],
        ("q_learning", ["--env", "Taxi-v4", "--alpha-fraction", "0.5"], "type --alpha-end 0.01 too"),
        ("q_learning", ["--env", "CliffWalking-v1", "--epsilon-decay", "linear"], "type --epsilon-end 0.01 too"),
    ],
)
def test_a_flag_that_needs_another_says_so(lesson: str, words: list[str], told: str) -> None:
    with pytest.raises(LessonError, match=told):
        LESSONS[lesson].main([*words, "--quiet"])


def test_what_was_typed_can_be_said_again() -> None:
    parser = lesson_parser("", env="CartPole-v1")
    parser.add_argument("--double", action=argparse.BooleanOptionalAction)
    parser.add_argument("--beta", type=float, nargs="+")
    words = "--env-option a=1 --env-option b=2 --seed 0 --steps 1e3 --quiet --no-double --beta 1 0.5 --json 'my file'"
    args = read_arguments(parser, shlex.split(words))
    said = [word for part in args.typed.values() for word in part]
    assert "seeds" not in args.typed
    assert args.typed["seed"] == ["--seed", "0"]  # the default, but typed
    again = read_arguments(parser, said)
    assert vars(again) == vars(args)
    assert args.env_option == ["a=1", "b=2"]
    assert args.double is False


# --- how a lesson ends ---------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[Sequence[str] | None], None]:
    def main(_: Sequence[str] | None) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (LessonError("got 5"), 2, "error: got 5"),
        (OSError(28, "No space left", "/disk/x"), 2, "error: the machine refused: /disk/x (No space left)"),
        (MemoryError(), 2, "error: this takes more memory than there is; type smaller numbers"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (KeyboardInterrupt("stopped by Ctrl-C before seed 0"), 130, "stopped by Ctrl-C before seed 0"),
    ],
)  # fmt: skip
def test_it_ends_with_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_lesson(raising(error))
    assert ended.value.code == code
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--save", "a.pt", "--json", "a.pt"], "--save a.pt and --json a.pt: one would be written over the other"),
        (["--load", "a.pt", "--json", "./a.pt"], "--json a.pt and --load a.pt|--load a.pt and --json a.pt"),
        (["--json", "runs", "--out", "runs"], "--json runs and --out runs"),
        (["--json", "runs/curve.png", "--out", "runs"], "a picture might take its place: type --json runs/curve.json"),
    ],
)
def test_no_file_takes_the_place_of_another(words: list[str], told: str) -> None:
    with pytest.raises(LessonError, match=told):
        ppo_command.main([*words, "--quiet"])


def test_numbers_stand_in_the_folder_of_the_pictures() -> None:
    with pytest.raises(AssertionError, match="training began"):
        ppo_command.main(["--json", "runs/found.json", "--out", "runs", "--quiet"])


def test_what_can_not_be_written_costs_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "big.json").write_text("before", encoding="utf-8")
    content: dict[str, Any] = {"numbers": list(range(10_000))}
    with files_of_at_most(5000), pytest.raises(LessonError) as told:
        write_each(
            {
                "big.json": lambda: write_json(tmp_path / "big.json", content),
                "small.json": lambda: write_json(tmp_path / "small.json", {}),
            }
        )
    assert "could not write big.json (File too large); the table above stands, and 1 of 2 were written" in str(
        told.value
    )
    assert (tmp_path / "big.json").read_text(encoding="utf-8") == "before"
    assert {file.name for file in tmp_path.iterdir()} == {"big.json", "small.json"}
