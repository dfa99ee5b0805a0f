"""A run folder belongs to one experiment: what was computed can not be continued with another config."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from rlhf_lab.config import Experiment, load_experiment
from rlhf_lab.errors import UserError
from rlhf_lab.training import run_folder
from rlhf_lab.training.precision import in_bf16
from rlhf_lab.training.records import read_run, record_stage, write_json
from rlhf_lab.training.run_folder import commit, open_run_folder


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """What git says is not the matter here, and asking takes time."""
    monkeypatch.setattr(run_folder, "commit", lambda: "0123456789")


def experiment(tmp_path: Path, *settings: str) -> Experiment:
    return load_experiment(None, [f"runs_dir={tmp_path}", "name=mine", *settings])


def begin(tmp_path: Path, stage: str, *settings: str) -> Path:
    folder = open_run_folder(experiment(tmp_path, *settings))
    (folder / stage).mkdir()
    return folder


def test_a_new_run_folder_holds_its_config_and_its_facts(tmp_path: Path) -> None:
    folder = open_run_folder(experiment(tmp_path, "seed=7"))
    assert folder == tmp_path / "mine"
    assert load_experiment(folder / "config.yaml") == experiment(tmp_path, "seed=7")
    facts = read_run(folder)
    assert (facts["name"], facts["seed"], facts["stages"], facts["commit"]) == ("mine", 7, {}, "0123456789")
    assert {"torch", "transformers", "trl", "python"} <= set(facts["versions"])
    assert facts["machine"]["device"]
    assert facts["machine"]["auto_is_bf16"] is in_bf16("auto")
    assert facts["command"]


def test_continuing_keeps_what_was_done_and_the_first_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/some/where/rlhf-lab", "run", "name=mine"])
    folder = open_run_folder(experiment(tmp_path))
    record_stage(folder, "sft", {"seconds": 1})
    monkeypatch.setattr("sys.argv", ["rlhf-lab", "ppo"])
    open_run_folder(experiment(tmp_path))
    assert read_run(folder)["stages"] == {"sft": {"seconds": 1}}
    assert read_run(folder)["command"] == "rlhf-lab run name=mine"


@pytest.mark.parametrize(
    ("stage", "first", "then", "named"),
    [
        ("sft", "sft.learning_rate=1e-3", "sft.learning_rate=2e-3", "sft.learning_rate was 0.001 and is 0.002"),
        ("sft", "seed=1", "seed=2", "seed was 1 and is 2"),
        ("sft", "data.heldout=0.1", "data.heldout=0.2", "data.heldout was 0.1 and is 0.2"),
        ("base", "model.vocab_size=500", "model.vocab_size=600", "model.vocab_size was 500 and is 600"),
        ("reward", "sft.num_epochs=1", "sft.num_epochs=3", "sft.num_epochs was 1.0 and is 3.0"),
        ("reward", "reward.num_epochs=1", "reward.num_epochs=3", "reward.num_epochs was 1.0 and is 3.0"),
        ("ppo", "ppo.kl_coef=0.1", "ppo.kl_coef=0.2", "ppo.kl_coef was 0.1 and is 0.2"),
        # The reward model is normalised on samples drawn as PPO will draw them.
        ("reward", "ppo.temperature=1", "ppo.temperature=0.7", "ppo.temperature was 1.0 and is 0.7"),
        ("ppo", "ppo.temperature=1", "ppo.temperature=0.7", "ppo.temperature was 1.0 and is 0.7"),
        ("reward", "ppo.stop_tokens=null", "ppo.stop_tokens=[5]", "ppo.stop_tokens was None and is [5]"),
    ],
)
def test_another_config_is_refused_with_both_values(
    tmp_path: Path, stage: str, first: str, then: str, named: str
) -> None:
    folder = begin(tmp_path, stage, first)
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(UserError, match=f"was begun with another config: {re.escape(named)}.*type name=another_name"):
        open_run_folder(experiment(tmp_path, then))
    assert (folder / "config.yaml").read_bytes() == before
    open_run_folder(experiment(tmp_path, first))


def test_all_changes_are_named_at_once(tmp_path: Path) -> None:
    begin(tmp_path, "ppo")
    with pytest.raises(UserError, match=r"ppo\.gamma was 1\.0 and is 0\.9; sft\.max_length was 64 and is 32"):
        open_run_folder(experiment(tmp_path, "ppo.gamma=0.9", "sft.max_length=32"))


@pytest.mark.parametrize(
    "setting",
    [
        "ppo.micro_batch_size=16",
        "sft.micro_batch_size=8",
        "reward.micro_batch_size=8",
        "ppo.logging_steps=3",
        "ppo.save_steps=7",
        "ppo.save_total_limit=5",
        "ppo.report_to=[tensorboard]",
        "tracking.report_to=[tensorboard]",
    ],
)
def test_what_changes_no_result_may_change_at_any_time(tmp_path: Path, setting: str) -> None:
    folder = begin(tmp_path, "ppo")
    open_run_folder(experiment(tmp_path, setting))
    assert load_experiment(folder / "config.yaml") == experiment(tmp_path, setting), "the new value is in the file"


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("base", "sft.learning_rate=9e-3"),
        ("sft", "reward.learning_rate=9e-3"),
        ("sft", "ppo.kl_coef=0.9"),
        ("reward", "ppo.kl_coef=0.9"),
        ("ppo", "evaluation.num_prompts=9"),
    ],
)
def test_a_section_whose_stages_have_not_begun_may_change(tmp_path: Path, stage: str, setting: str) -> None:
    folder = begin(tmp_path, stage)
    open_run_folder(experiment(tmp_path, setting))
    assert load_experiment(folder / "config.yaml") == experiment(tmp_path, setting)


def test_ppo_may_change_after_the_reward_model_was_judged(tmp_path: Path) -> None:
    """Step 2 ends with evaluation/reward_model.json, which does not mean that PPO has been evaluated."""
    folder = begin(tmp_path, "reward")
    write_json(folder / "evaluation" / "reward_model.json", {})
    open_run_folder(experiment(tmp_path, "ppo.kl_coef=0.9"))
    open_run_folder(experiment(tmp_path, "ppo.kl_coef=0.8", "evaluation.temperature=0.5"))


def test_a_finished_stage_counts_as_begun_without_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = open_run_folder(experiment(tmp_path))
    record_stage(folder, "comparisons", {})
    with pytest.raises(UserError, match=r"data\.rater_noise was [\d.]+ and is 0\.1"):
        open_run_folder(experiment(tmp_path, "data.rater_noise=0.1"))
    record_stage(folder, "evaluation", {})
    with pytest.raises(UserError, match=r"evaluation\.temperature was 1\.0 and is 0\.5"):
        open_run_folder(experiment(tmp_path, "evaluation.temperature=0.5"))


def test_before_any_stage_everything_may_change(tmp_path: Path) -> None:
    folder = open_run_folder(experiment(tmp_path))
    open_run_folder(experiment(tmp_path, "seed=9", "model.vocab_size=300"))
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["seed"] == 9


def test_the_commit_is_none_where_git_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **more: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert commit() is None
