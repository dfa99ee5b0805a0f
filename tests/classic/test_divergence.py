"""A training that diverges ends there and says what to type; the seeds before it stay."""

import json
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from classic import dqn_command, policy_gradient_command, ppo_command
from classic.divergence import require_finite
from classic.errors import Diverged
from classic.policy_gradient import Settings
from classic.ppo import Settings as PpoSettings
from classic.q_learning import Settings as TableSettings
from classic.rlhf_sandbox import Settings as SandboxSettings

SMALL = ["--num-evaluation-episodes", "4", "--hidden", "16", "--quiet"]
# Lesson, what is typed, what is told. After one step by 1e30 the next numbers do not fit into a float.
TOO_FAST: dict[str, tuple[Any, list[str], str]] = {
    "dqn": (
        dqn_command,
        ["--steps", "600", "--learning-starts", "100", "--learning-rate", "1e30"],
        "lower --learning-rate than 1e+30, for example --learning-rate 0.001",
    ),
    "policy_gradient": (
        policy_gradient_command,
        ["--steps", "2048", "--critic-learning-rate", "1e30"],
        "lower --critic-learning-rate than 1e+30, for example --critic-learning-rate 0.01",
    ),
    "ppo": (
        ppo_command,
        ["--steps", "4096", "--learning-rate", "1e30", "--max-grad-norm", "inf"],
        "for example --learning-rate 0.003, or clip the gradients: --max-grad-norm 0.5",
    ),
}


@pytest.mark.parametrize("lesson", TOO_FAST)
def test_a_training_that_diverges_ends_with_what_to_type(lesson: str, tmp_path: Path) -> None:
    module, words, told = TOO_FAST[lesson]
    (tmp_path / "found.json").write_text("mine", encoding="utf-8")
    with pytest.raises(Diverged) as ended:
        module.main([*words, *SMALL, "--json", str(tmp_path / "found.json"), "--save", str(tmp_path / "best.pt")])
    assert "with seed 0 the training diverged: after " in str(ended.value)
    assert "loss is " in str(ended.value)
    assert "weights are not finite" in str(ended.value)
    assert told in str(ended.value)
    assert [file.name for file in tmp_path.iterdir()] == ["found.json"]
    assert (tmp_path / "found.json").read_text(encoding="utf-8") == "mine"


def diverging_at(seed: int, train: Callable[..., Any]) -> Callable[..., Any]:
    """The training, with a learning rate of its own for this seed."""

    def trained(env_id: str, settings: Any, its: int, **how: Any) -> Any:
        return train(env_id, replace(settings, learning_rate=1e30) if its == seed else settings, its, **how)

    return trained


def test_seeds_before_it_are_kept_and_those_behind_it_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--steps", "4096", *SMALL, "--seed", "3", "--seeds", "4"]
    files = ["--json", str(tmp_path / "found.json"), "--out", str(tmp_path / "pictures")]
    with monkeypatch.context() as patched:
        lesson = replace(ppo_command.LESSON, train=diverging_at(5, ppo_command.LESSON.train))
        patched.setattr(ppo_command, "LESSON", lesson)
        with pytest.raises(SystemExit) as ended:
            ppo_command.main([*words, *files, "--save", str(tmp_path / "best.pt")])
    assert ended.value.code == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0].startswith("error: with seed 5 the training diverged: after ")
    assert lines[1] == "2 of 4 seeds are in the table and in the files; for the seeds behind 5 type"
    assert re.findall(r"^ +(\d) +ours", said.out, re.MULTILINE) == ["3", "4"]
    assert [seed["seed"] for seed in json.loads((tmp_path / "found.json").read_text())["seeds"]] == [3, 4]
    assert {"best.pt", "pictures"} <= {file.name for file in tmp_path.iterdir()}

    ppo_command.main(shlex.split(lines[2])[3:])
    assert [seed["seed"] for seed in json.loads((tmp_path / "found_from_6.json").read_text())["seeds"]] == [6]


def test_where_the_last_seed_diverges_nothing_is_left_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lesson = replace(ppo_command.LESSON, train=diverging_at(1, ppo_command.LESSON.train))
    monkeypatch.setattr(ppo_command, "LESSON", lesson)
    with pytest.raises(SystemExit) as ended:
        ppo_command.main(["--steps", "4096", *SMALL, "--seeds", "2"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["1 of 2 seeds are in the table"]


def test_a_measurement_that_diverges_costs_no_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policy whose gradients are measured is trained anew, after all seeds."""
    monkeypatch.setattr(policy_gradient_command, "train", diverging_at(0, policy_gradient_command.train))
    monkeypatch.setattr(
        policy_gradient_command,
        "half_trained",
        lambda settings: replace(settings, num_steps=2048, critic_learning_rate=1e30),
    )
    words = ["--steps", "1024", *SMALL, "--gradient-variance", "--json", str(tmp_path / "found.json")]
    with pytest.raises(SystemExit) as ended:
        policy_gradient_command.main(words)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: with seed 0 the training diverged")
    assert "1 of 1 seeds are in the table and in the files; what --gradient-variance measures is missing" in told
    assert json.loads((tmp_path / "found.json").read_text())["gradient_variance"] is None


WEIGHTS = {"actor.weight": torch.zeros(2), "critic.weight": torch.zeros(2)}


@pytest.mark.parametrize(
    ("metrics", "lost", "settings", "told"),
    [
        ({"value_loss": math.inf}, [], Settings(), "lower --critic-learning-rate than 0.01, for example --critic-l"),
        ({"value_loss": math.inf}, [], PpoSettings(), "lower --learning-rate than 0.003"),
        ({"value_loss": 1.0}, ["critic.weight"], Settings(), "critic.weight the first of them; type a lower --critic"),
        ({"value_loss": 1.0}, ["actor.weight", "critic.weight"], Settings(), "2 of 2 weights .* lower --learning-rate"),
        ({"td_loss": math.nan}, [], Settings(learning_rate=1e-5), "for example --learning-rate 1e-06"),
    ],
)
def test_the_number_that_was_lost_says_which_rate_to_lower(
    metrics: dict[str, float], lost: list[str], settings: Any, told: str
) -> None:
    weights = {**WEIGHTS, **{name: torch.tensor([0.0, math.nan]) for name in lost}}
    with pytest.raises(Diverged, match=told):
        require_finite(metrics, weights, settings=settings, seed=0, num_steps=1)


def test_figures_without_a_meaning_are_no_divergence() -> None:
    """No doomed state was seen yet; one update moved a policy far, and it is still one."""
    metrics = {"doomed_q": math.nan, "kl": math.inf, "td_loss": 0.1}
    require_finite(metrics, WEIGHTS, settings=Settings(), seed=0, num_steps=1)


@pytest.mark.parametrize(
    ("settings", "changes", "told"),
    [
        (TableSettings, {"initial_value": 1e308}, "got initial_value 1e[+]308; .* type --initial-value 0"),
        (SandboxSettings, {"flaw": -1e308}, "got flaw -1e[+]308; .* type --flaw 0.5"),
        (Settings, {"reward_scale": 1e308}, "got reward_scale 1e[+]308; .* type --reward-scale 1.0"),
        (SandboxSettings, {"kl_coef": 1e308}, "got kl_coef 1e[+]308; .* type --beta 0.2"),
    ],
)
def test_lessons_whose_numbers_stay_within_what_was_given_refuse_it_at_once(
    settings: Any, changes: dict[str, float], told: str
) -> None:
    """Of the table and of the sandbox nothing else can grow without bound: rates and discounts are at most 1."""
    with pytest.raises(ValueError, match=told):
        settings(**changes)
