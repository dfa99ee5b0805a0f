"""The sweep on a run made by hand: one layer, random weights, bytes as tokens. What is done stays done."""

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)
from typer.testing import CliRunner

from rlhf_lab.cli import app
from rlhf_lab.config import Experiment, load_experiment
from rlhf_lab.data.assistant.world import heldout_questions, training_questions
from rlhf_lab.errors import UserError
from rlhf_lab.functional import best_of_n_kl
from rlhf_lab.results import print_frontier
from rlhf_lab.studies import sweep, sweep_trl
from tests.byte_tokenizer import byte_tokenizer

EOS, PAD = 0, 1
SIZES = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 80, "vocab_size": 258, "initializer_range": 0.3}
IDS = {"eos_token_id": EOS, "bos_token_id": EOS, "pad_token_id": PAD}
SMALL = [
    "ppo.rollout_batch_size=8",
    "ppo.minibatch_size=4",
    "ppo.micro_batch_size=4",
    "ppo.max_completion_length=6",
    "ppo.max_prompt_length=60",
    "reward.max_length=80",
    "evaluation.num_bootstrap=20",
    "frontier.kl_coefs=[0.1]",
    "frontier.num_seeds=1",
    "frontier.total_episodes=16",
    "frontier.rloo_num_generations=2",
    "frontier.dpo_num_pairs=8",
    "frontier.dpo_batch_size=4",
    "frontier.dpo_micro_batch_size=4",
    "frontier.num_prompts=6",
    "frontier.samples_per_prompt=2",
    "frontier.best_of=[2, 4]",
    "frontier.best_of_samples=4",
]


def pair(prompt: str, split: str) -> dict[str, str]:
    row = {"prompt": prompt, "chosen": "It is so.", "rejected": "What a stupid question."}
    return {**row, "split": split, "rater": "simulated"}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the embedded default up to its reward model."""
    folder = tmp_path_factory.mktemp("runs") / "begun"
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**SIZES, **IDS)).save_pretrained(folder / "sft")
    judge = GPT2ForSequenceClassification(GPT2Config(**SIZES, **IDS, num_labels=1))
    judge.save_pretrained(folder / "reward")
    for stage in ("sft", "reward"):
        byte_tokenizer().save_pretrained(folder / stage)
    rows = [pair(q.prompt, "train") for q in training_questions()[:40]]
    rows += [pair(q.prompt, "heldout") for q in heldout_questions()[:10]]
    scale_fits = sweep_trl.scale_of(judge.eval(), byte_tokenizer(), Dataset.from_list(rows[40:]), max_length=80) > 0
    if not scale_fits:  # pragma: no cover - the weights above decide it
        pytest.fail("the random reward model prefers what was rejected; take another seed")
    (folder / "comparisons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stages = {stage: {"seconds": 1.0, "finished": "then"} for stage in ("base", "sft", "comparisons", "reward")}
    (folder / "run.json").write_text(json.dumps({"stages": stages}))
    return folder


def experiment_of(folder: Path, *settings: str) -> Experiment:
    return load_experiment(None, [f"runs_dir={folder.parent}", f"name={folder.name}", *SMALL, *settings])


def invoke(folder: Path, *settings: str) -> str:
    words = ["evaluate", "--frontier", f"runs_dir={folder.parent}", f"name={folder.name}", *SMALL, *settings]
    result = CliRunner().invoke(app, words)
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(scope="module")
def swept(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole small sweep, and what it said."""
    folder = tmp_path_factory.mktemp("swept") / "run"
    shutil.copytree(begun, folder)
    return folder, invoke(folder)


def test_a_sweep_measures_all_four_methods(swept: tuple[Path, str]) -> None:
    folder, said = swept
    found = json.loads((folder / "evaluation" / "frontier.json").read_text())
    assert [point["method"] for point in found["points"]] == ["ppo", "rloo", "dpo", "best_of_n", "best_of_n"]
    assert set(found["areas"]["methods"]) == {"ppo", "rloo", "dpo", "best_of_n"}
    assert {one["kl_of_best_of_n"] for one in found["ppo_against_best_of_n"]} == {"estimated", "formula"}
    for point in found["points"]:
        for metric in ("kl", "gold", "score"):
            assert point[metric]["low"] <= point[metric]["mean"] <= point[metric]["high"]
    assert [point["formula_kl"] for point in found["points"][3:]] == [best_of_n_kl(2), best_of_n_kl(4)]
    assert found["judge"] == "gold"
    assert found["num_prompts"] == 6
    assert "frontier  3 trainings, 0 of them done" in said
    assert re.search(r"frontier  2 of 3  rloo/0\.1-seed0  starts", said)
    assert re.search(r"ppo/0\.1-seed0  finished after \d+ s: KL .*gold .*; 2 left, about \d+ min", said)


def test_a_sweep_leaves_results_and_no_models(swept: tuple[Path, str]) -> None:
    folder, _ = swept
    for method in ("ppo", "rloo", "dpo"):
        files = {path.name for path in (folder / "frontier" / method / "0.1-seed0").iterdir()}
        assert "results.json" in files
        assert not [name for name in files if "safetensors" in name or name.startswith("checkpoint")]


def test_trained_policies_have_left_the_sft_model(swept: tuple[Path, str]) -> None:
    folder, _ = swept
    for method in ("ppo", "rloo", "dpo"):
        result = json.loads((folder / "frontier" / method / "0.1-seed0" / "results.json").read_text())
        assert len(result["values"]["kl"]) == 6
        assert sum(map(abs, result["values"]["kl"])) > 1e-3
    assert result["beta"] == pytest.approx(0.1 * result["preference_scale"])


def test_a_finished_sweep_trains_nothing_again(swept: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = swept
    files = sorted((folder / "frontier").rglob("results.json"))
    before = [path.stat().st_mtime_ns for path in files]
    best = folder / "evaluation" / "best_of_n.json"
    summary = (folder / "evaluation" / "frontier.json").read_text()
    sampled = best.stat().st_mtime_ns
    monkeypatch.setattr(sweep, "TRAIN", {})
    assert "3 trainings, 3 of them done" in invoke(folder)
    assert [path.stat().st_mtime_ns for path in files] == before
    assert best.stat().st_mtime_ns == sampled
    assert (folder / "evaluation" / "frontier.json").read_text() == summary


@pytest.mark.parametrize(("max_kl", "is_told"), [(0.0, True), (0.5, False)])
def test_areas_of_nothing_are_explained(
    swept: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], max_kl: float, is_told: bool
) -> None:
    found = json.loads((swept[0] / "evaluation" / "frontier.json").read_text())
    found["areas"]["max_kl"] = max_kl
    (tmp_path / "frontier.json").write_text(json.dumps(found))
    print_frontier(tmp_path / "frontier.json")
    assert ("no area: one of the methods stayed at the SFT model" in capsys.readouterr().out) is is_told


def test_a_killed_sweep_goes_on_where_it_was(
    swept: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of RLOO: PPO stands as it is, RLOO is trained from the start, to the same numbers."""
    whole, _ = swept
    folder = tmp_path / "killed"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "frontier" / "dpo")
    (folder / "evaluation" / "frontier.json").unlink()
    rloo = folder / "frontier" / "rloo" / "0.1-seed0"
    (rloo / "results.json").unlink()
    (rloo / "checkpoint-1").mkdir()  # whatever was there when it was killed
    ppo = folder / "frontier" / "ppo" / "0.1-seed0" / "results.json"
    before = ppo.stat().st_mtime_ns

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(sweep.TRAIN, "dpo", killed)
    experiment = experiment_of(folder)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(experiment)
    assert not (folder / "evaluation" / "frontier.json").exists(), "half a sweep is no frontier"
    assert not (folder / "frontier" / "dpo" / "0.1-seed0" / "results.json").exists()
    monkeypatch.undo()
    done = (rloo / "results.json").stat().st_mtime_ns
    sweep.sweep(experiment)
    assert ppo.stat().st_mtime_ns == before
    assert (rloo / "results.json").stat().st_mtime_ns == done
    assert not (rloo / "checkpoint-1").exists()
    for method in ("rloo", "dpo"):
        found, then = (
            json.loads((base / "frontier" / method / "0.1-seed0" / "results.json").read_text())["values"]
            for base in (folder, whole)
        )
        assert found["kl"] == pytest.approx(then["kl"], abs=1e-4)


def test_another_seed_is_another_training(begun: Path, tmp_path: Path) -> None:
    folder = tmp_path / "seeds"
    shutil.copytree(begun, folder)
    settings = ("frontier.methods=[ppo]", "frontier.num_seeds=2", "frontier.keep_models=true")
    path = sweep.sweep(experiment_of(folder, *settings))
    found = json.loads(path.read_text())
    assert [point["seed"] for point in found["points"]] == [0, 1]
    assert found["points"][0]["kl"] != found["points"][1]["kl"]
    assert found["ppo_against_best_of_n"] == []
    assert len(found["frontiers"]) == 1
    kept = [AutoModelForCausalLM.from_pretrained(folder / "frontier" / f"ppo/0.1-seed{k}") for k in (0, 1)]
    assert not torch.equal(kept[0].lm_head.weight, kept[1].lm_head.weight)


def test_the_runs_own_policy_is_measured_beside_the_sweep(swept: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    shutil.copytree(swept[0], folder)
    assert json.loads((folder / "evaluation" / "frontier.json").read_text())["run"] is None, "step 3 was not done"
    shutil.copytree(folder / "sft", folder / "ppo")
    run = json.loads((folder / "run.json").read_text())
    run["stages"]["ppo"] = {"seconds": 1.0, "finished": "then"}
    (folder / "run.json").write_text(json.dumps(run))
    found = json.loads(sweep.sweep(experiment_of(folder)).read_text())
    assert found["run"]["kl"]["mean"] == pytest.approx(0.0, abs=1e-5), "a copy of the SFT model"
    assert len([one for one in found["ppo_against_best_of_n"] if one["policy"] == "run"]) in (0, 2)


def test_a_full_disk_says_how_to_go_on(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "full"
    shutil.copytree(begun, folder)
    write = sweep.write_json

    def full(path: Path, value: Any) -> None:
        if path.name == "results.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, value)

    monkeypatch.setattr(sweep, "write_json", full)
    with pytest.raises(UserError, match=r"could not save .*ppo/0\.1-seed0.*No space left.*same command again"):
        sweep.sweep(experiment_of(folder, "frontier.methods=[ppo]"))


def test_results_on_other_settings_are_refused_and_named(swept: tuple[Path, str]) -> None:
    folder, _ = swept
    with pytest.raises(UserError, match=r"frontier.total_episodes was 16 and is 24.*old values.*delete .*frontier"):
        sweep.sweep(experiment_of(folder, "frontier.total_episodes=24"))
    with pytest.raises(UserError, match=r"dpo/0.1-seed0 was trained with other.*dpo_learning_rate"):
        sweep.sweep(experiment_of(folder, "frontier.dpo_learning_rate=0.1"))


def test_a_new_reward_model_makes_old_results_void(swept: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(swept[0], folder)
    run = json.loads((folder / "run.json").read_text())
    run["stages"]["reward"]["finished"] = "now"
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(UserError, match="reward finished was 'then' and is 'now'"):
        sweep.sweep(experiment_of(folder))


def test_more_weights_are_added_to_what_is_there(swept: tuple[Path, str]) -> None:
    names = [point.name for point in sweep.points_of(experiment_of(swept[0], "frontier.kl_coefs=[0.1, 0.1000001]"))]
    assert names == [f"{method}/{weight}-seed0" for weight in ("0.1", "0.1000001") for method in ("ppo", "rloo", "dpo")]


@pytest.mark.parametrize("missing", ["sft", "reward"])
def test_a_run_without_its_models_says_what_to_type(begun: Path, tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "half"
    shutil.copytree(begun, folder)
    run = json.loads((folder / "run.json").read_text())
    del run["stages"][missing]
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(UserError, match=f"the {missing} model, which is not finished in .*type rlhf-lab {missing}"):
        sweep.sweep(experiment_of(folder))
    assert not (folder / "frontier").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("frontier.total_episodes=4", "less than one rollout of 8; type frontier.total_episodes=8"),
        ("frontier.rloo_num_generations=3", "does not divide ppo.rollout_batch_size=8"),
    ],
)
def test_sizes_that_do_not_fit_are_told_before_anything_is_trained(begun: Path, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        sweep.sweep(experiment_of(begun, setting))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("frontier.methods=[ppo, grpo]", "'grpo'"),
        ("frontier.methods=[]", "at least 1 item"),
        ("frontier.methods=[ppo, ppo]", "names one twice"),
        ("frontier.kl_coefs=[]", "at least 1 item"),
        ("frontier.kl_coefs=[-0.1]", "greater than 0"),
        ("frontier.kl_coefs=[0]", "greater than 0"),
        ("frontier.kl_coefs=[.nan]", "finite number"),
        ("frontier.kl_coefs=[0.1, 0.1]", "names one twice"),
        ("frontier.num_seeds=0", "greater than or equal to 1"),
        ("frontier.best_of=[128]", "type best_of_samples=128 or leave out larger n"),
        ("frontier.best_of=[0]", "greater than or equal to 1"),
        ("frontier.rloo_num_generations=1", "greater than or equal to 2"),
        ("frontier.dpo_micro_batch_size=48", "does not divide"),
        ("frontier.kl_coef=[0.1]", "did you mean 'kl_coefs'"),
    ],
)
def test_settings_that_can_not_work_are_refused(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load_experiment(None, [setting])


# --- what TRL's trainers are given -----------------------------------------------------------------------------------


def test_rloo_is_paid_what_ppo_is_paid(begun: Path) -> None:
    """The reward model's own forward on the very tokens, scaled and clipped, less the penalty where no end came."""
    experiment = experiment_of(begun, "ppo.score_scale=2.0", "ppo.score_clip=0.7", "ppo.missing_eos_penalty=0.3")
    tokenizer = byte_tokenizer()
    policy = GPT2LMHeadModel.from_pretrained(begun / "sft")
    reward = sweep_trl.reward_of_ppo(begun, policy, tokenizer, experiment.ppo, torch.device("cpu"))
    prompts = ["Name 1 plus 1.\n", "What is the capital of France?\n"]
    completions = [[40, 41, EOS], [50, 51, 52, 53]]
    judge = GPT2ForSequenceClassification.from_pretrained(begun / "reward").eval()
    expected = []
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = torch.tensor([tokenizer(prompt)["input_ids"] + completion])
        with torch.no_grad():
            score = float(judge(input_ids=ids).logits)
        expected.append(max(-0.7, min(0.7, 2 * score)))
    assert 0.7 in map(abs, expected), "one is clipped"
    assert min(map(abs, expected)) < 0.7, "and one is not"
    expected[1] -= 0.3
    assert reward(prompts=prompts, completion_ids=completions, completions=["", ""]) == pytest.approx(
        expected, abs=1e-5
    )


def test_the_preference_scale_is_the_slope_that_was_put_in() -> None:
    """Preferences drawn with P = sigmoid(2.5 (a - b))."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20_000, 2, generator=generator)
    difference = scores[:, 0] - scores[:, 1]
    first = torch.rand(20_000, generator=generator) < torch.sigmoid(2.5 * difference)
    chosen = torch.where(first, scores[:, 0], scores[:, 1])
    rejected = torch.where(first, scores[:, 1], scores[:, 0])
    assert sweep_trl.preference_scale(chosen, rejected) == pytest.approx(2.5, rel=0.05)
    assert sweep_trl.preference_scale(10 * chosen, 10 * rejected) == pytest.approx(0.25, rel=0.05)


def test_a_reward_model_that_prefers_what_was_rejected_has_no_scale() -> None:
    with pytest.raises(UserError, match=r"rejected answers 0\.450 above chosen.*leave dpo out of frontier\.methods"):
        sweep_trl.preference_scale(torch.tensor([0.0, 0.1]), torch.tensor([1.0, 0.0]))


def test_dpo_learns_from_the_votes_that_the_reward_model_learnt_from(begun: Path, tmp_path: Path) -> None:
    folder = tmp_path / "voted"
    shutil.copytree(begun, folder)
    heldout = heldout_questions()[0].prompt
    votes = [
        {"prompt": "Name it.\n", "chosen": "a", "rejected": "b", "rater": "human", "margin": 1.0},
        {"prompt": heldout, "chosen": "a", "rejected": "b", "rater": "human", "margin": 1.0},
    ]
    (folder / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in votes))
    train, held = sweep_trl.comparisons_of(experiment_of(folder))
    assert len(train) == 41, "the vote on a held-out prompt is not trained on"
    assert train[40]["prompt"] == "Name it.\n"
    assert len(held) == 10
    only, _ = sweep_trl.comparisons_of(experiment_of(folder, "reward.votes=only"))
    assert only["prompt"][:] == ["Name it.\n"]
    ignored, _ = sweep_trl.comparisons_of(experiment_of(folder, "reward.votes=ignore"))
    assert len(ignored) == 40


def test_prompts_that_trl_would_not_cut_are_left_out() -> None:
    rows = Dataset.from_dict({"prompt": ["abc", "abcdef"]})
    assert sweep_trl.that_fit(rows, byte_tokenizer(), 3)["prompt"][:] == ["abc"]


# --- without a gold score --------------------------------------------------------------------------------------------


def test_other_data_has_scores_only_and_says_so(begun: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(begun, folder)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(pair(f"Question {n}?\n", "")) + "\n" for n in range(60)))
    own = [f"data.{kind}={rows}" for kind in ("prompts", "preferences")]
    said = invoke(folder, *own, "data.heldout=0.2", "frontier.methods=[ppo, best_of_n]")
    found = json.loads((folder / "evaluation" / "frontier.json").read_text())
    assert found["judge"] == "score"
    assert all("gold" not in point for point in found["points"])
    assert "no gold score outside the embedded world" in said
    traced = json.loads((folder / "evaluation" / "overoptimization.json").read_text())
    assert traced["best_of_n"]["fit"] is None
    assert "no gold score" in traced["best_of_n"]["words"]
