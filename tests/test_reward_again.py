"""The learning curve and the ensemble: what is trained, on what, from where, and that nothing is trained twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lab.config import Experiment, load_experiment
from rlhf_lab.errors import UserError
from rlhf_lab.models.scalar import load_scalar_model
from rlhf_lab.rate_votes import with_votes
from rlhf_lab.studies import reward_again
from rlhf_lab.studies.reward_again import data_of_run, in_short
from rlhf_lab.training.records import read_json, read_run, record_stage, write_json, write_jsonl
from tests.evidence_run import made_run, save_policy
from tests.test_pipeline import invoke

PAIRS = 64


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made_run(tmp_path_factory.mktemp("runs")).run_folder
    invoke("evaluate", str(folder))
    return folder


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "made")
    return tmp_path / "made"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every training that happens: rows, seed, folder."""
    seen: list[dict[str, Any]] = []
    real = reward_again.train_reward_model

    def watched(experiment: Experiment, data: Any, folder: Path, *, seed: int) -> Any:
        seen.append({"pairs": len(data.train), "prompts": set(data.train["prompt"]), "seed": seed, "folder": folder})
        return real(experiment, data, folder, seed=seed)

    monkeypatch.setattr(reward_again, "train_reward_model", watched)
    return seen


def curve(run: Path) -> list[dict[str, Any]]:
    return list(read_json(run / "evaluation" / "learning_curve.json")["points"])


def test_an_older_run_gets_the_figures_that_its_step_2_did_not_write(template: Path) -> None:
    found = read_json(template / "evaluation" / "reward_model.json")
    assert {"by_margin", "by_gold_gap", "by_length", "length_bias", "calibration", "gold_accuracy"} <= set(found)
    assert found["num_pairs"] == 12


def test_the_curve_has_a_point_for_each_doubling_and_ends_at_the_run_s_own_model(
    run: Path, trained: list[dict[str, Any]]
) -> None:
    said = invoke("evaluate", str(run), "--learning-curve")
    assert "learning curve  1 of 2: reward model on 16 of 64 pairs" in said
    assert [one["pairs"] for one in trained] == [16, 32], "a sixteenth and an eighth of 64 pairs say nothing"
    assert trained[0]["prompts"] < trained[1]["prompts"], "a larger part holds the smaller one"
    points = curve(run)
    assert [point["num_pairs"] for point in points] == [16, 32, PAIRS]
    own = in_short(read_json(run / "evaluation" / "reward_model.json"))
    assert {key: points[-1][key] for key in own} == own
    assert all(0 <= point["accuracy"]["mean"] <= 1 and point["gold_accuracy"] for point in points)
    assert not list((run / "evaluation" / "learning_curve").iterdir()), "no models are left behind"


def test_a_curve_that_was_cut_short_goes_on_where_it_was(
    run: Path, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reward_again.judged_reward_model

    def killed(*args: Any) -> Any:
        if trained[-1]["pairs"] == 32:
            raise MemoryError
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(reward_again, "judged_reward_model", killed)
        with pytest.raises(MemoryError):
            invoke("evaluate", str(run), "--learning-curve")
    (first,) = curve(run)
    left = sorted((run / "evaluation" / "learning_curve" / "32_pairs").glob("checkpoint-*"))
    assert left, "the training that was cut short has its checkpoints"
    said = invoke("evaluate", str(run), "--learning-curve")
    assert [one["pairs"] for one in trained] == [16, 32, 32]
    assert "reward  step 1/2" not in said, "its steps are not taken again"
    assert curve(run)[0] == first
    invoke("evaluate", str(run), "--learning-curve")
    assert len(trained) == 3, "a finished curve is not trained again"


def test_other_comparisons_begin_a_new_curve(run: Path, trained: list[dict[str, Any]]) -> None:
    invoke("evaluate", str(run), "--learning-curve")
    lines = (run / "comparisons.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "comparisons.jsonl").write_text("".join(lines[8:]), encoding="utf-8")
    invoke("evaluate", str(run), "--learning-curve")
    assert [one["pairs"] for one in trained] == [16, 32, 28]
    assert [point["num_pairs"] for point in curve(run)] == [28, 56]


def test_too_few_comparisons_have_no_curve(run: Path) -> None:
    lines = (run / "comparisons.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "comparisons.jsonl").write_text("".join(lines[50:]), encoding="utf-8")
    with pytest.raises(UserError, match=r"14 comparisons are too few for a learning curve"):
        invoke("evaluate", str(run), "--learning-curve")


def test_a_curve_rests_on_the_votes_that_the_reward_model_saw_not_on_later_ones(run: Path) -> None:
    experiment = load_experiment(run / "config.yaml", [f"runs_dir={run.parent}"])
    plain = data_of_run(experiment)
    invoke("rate", str(run), "--num-pairs", "6", "--gold-rate", "0", "--simulate", "1")
    assert data_of_run(experiment).facts == plain.facts, "nobody trained on these"
    used = with_votes(experiment, reward_again.comparisons_of(experiment))
    record_stage(run, "reward", {"seconds": 1.0, "data": used.facts})
    again = data_of_run(experiment)
    assert again.facts["sha256"] == used.facts["sha256"]
    assert len(again.train) == PAIRS + len((run / "votes.jsonl").read_text(encoding="utf-8").splitlines())
    invoke("rate", str(run), "--num-pairs", "9", "--gold-rate", "0", "--simulate", "1")
    assert data_of_run(experiment).facts["sha256"] == used.facts["sha256"]


def test_a_run_without_reward_model_says_what_to_type(run: Path) -> None:
    record = read_run(run)
    del record["stages"]["reward"]
    write_json(run / "run.json", record)
    experiment = load_experiment(run / "config.yaml", [f"runs_dir={run.parent}"])
    with pytest.raises(UserError, match=r"is not trained yet; type rlhf-lab reward first"):
        data_of_run(experiment)


# --- the ensemble ------------------------------------------------------------------------------------------------


def test_members_differ_in_their_seed_alone_and_stay_for_the_next_measurement(
    run: Path, trained: list[dict[str, Any]]
) -> None:
    assert "no alarm" in (said := " ".join(invoke("evaluate", str(run), "--ensemble", "3").split()))
    assert "3 reward models disagree" in said
    assert [one["seed"] for one in trained] == [7919, 2 * 7919]
    assert all(one["pairs"] == PAIRS for one in trained)
    found = read_json(run / "evaluation" / "ensemble.json")
    assert found["used"] == [0, 7919, 2 * 7919]
    assert len(found["gain"]["by_member"]) == 3
    heads = [load_scalar_model(one["folder"]).score.weight for one in trained]
    assert not torch.equal(*heads)
    assert not list((run / "evaluation" / "ensemble").rglob("checkpoint-*"))
    before = (run / "evaluation" / "ensemble.json").read_text(encoding="utf-8")
    invoke("evaluate", str(run), "--ensemble", "3")
    assert len(trained) == 2
    assert (run / "evaluation" / "ensemble.json").read_text(encoding="utf-8") == before
    invoke("evaluate", str(run), "--ensemble", "2")
    assert read_json(run / "evaluation" / "ensemble.json")["used"] == [0, 7919]
    invoke("evaluate", str(run), "--ensemble", "4")
    assert [one["seed"] for one in trained] == [7919, 2 * 7919, 3 * 7919], "the members that were there are kept"


def test_another_ppo_is_measured_by_the_members_that_are_there(run: Path, trained: list[dict[str, Any]]) -> None:
    invoke("evaluate", str(run), "--ensemble", "2")
    before = read_json(run / "evaluation" / "ensemble.json")
    save_policy(run / "ppo", seed=7)
    invoke("evaluate", str(run), "--ensemble", "2")
    after = read_json(run / "evaluation" / "ensemble.json")
    assert len(trained) == 1
    assert after["spread"]["sft"] == before["spread"]["sft"]
    assert after["spread"]["ppo"] != before["spread"]["ppo"]


def test_scores_of_the_ensemble_are_those_of_the_run_s_own_judge(run: Path) -> None:
    """By identity: the gain of the first member is the difference of the mean scores that policy.json would hold."""
    from rlhf_lab.evaluation.policy import evaluate_policies
    from rlhf_lab.stages.experiment_data import prompt_data

    invoke("evaluate", str(run), "--ensemble", "2")
    experiment = load_experiment(run / "config.yaml", [f"runs_dir={run.parent}"])
    found = evaluate_policies(
        run,
        prompt_data(experiment).heldout["prompt"],
        ppo=experiment.ppo,
        settings=experiment.evaluation,
        is_embedded=True,
        seed=experiment.seed,
    )
    scores = {name: found["policies"][name]["score"]["mean"] for name in ("sft", "ppo")}
    (own, _) = read_json(run / "evaluation" / "ensemble.json")["gain"]["by_member"]
    assert own == pytest.approx(scores["ppo"] - scores["sft"], abs=1e-5)


def test_parts_are_drawn_by_prompt(run: Path, trained: list[dict[str, Any]]) -> None:
    """Pairs of one prompt go together, so a point says what so many more prompts would bring."""
    rows = [json.loads(line) for line in (run / "comparisons.jsonl").read_text(encoding="utf-8").splitlines()]
    write_jsonl(run / "comparisons.jsonl", rows + rows[:PAIRS])
    invoke("evaluate", str(run), "--learning-curve")
    assert [(one["pairs"], len(one["prompts"])) for one in trained] == [(16, 8), (32, 16), (64, 32)]
    assert [point["num_prompts"] for point in curve(run)] == [8, 16, 32, PAIRS]
