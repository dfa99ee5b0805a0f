"""The whole path on real input, small: the embedded default and real human preferences, through the command line."""

import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from rlhf_lab import pipeline
from rlhf_lab.cli import app
from rlhf_lab.errors import UserError
from rlhf_lab.stages.reward import encode_pairs

ROOT = Path(__file__).parents[1]
HH = ROOT.parent / "shared" / "data" / "hh_rlhf_harmless" / "test.jsonl"
GPT2_TOKENIZER = ROOT.parent / "shared" / "data" / "gpt2_tokenizer"

SMALL = [
    "model.config={n_layer: 1, n_embd: 32, n_head: 2, n_positions: 64}",
    "model.pretraining.num_rows=64",
    "data.num_demonstrations=400",
    "data.num_comparison_prompts=40",
    "data.samples_per_prompt=3",
    "sft.num_epochs=1",
    "sft.eval_steps=5",
    "sft.save_steps=5",
    "reward.num_epochs=1",
    "reward.num_normalization_samples=32",
    "ppo.total_episodes=48",
    "ppo.rollout_batch_size=16",
    "ppo.minibatch_size=8",
    "ppo.micro_batch_size=8",
    "ppo.num_ppo_epochs=2",
    "ppo.eval_steps=2",
    "ppo.save_steps=1",
    "evaluation.num_prompts=40",
    "evaluation.num_bootstrap=50",
    "frontier.num_prompts=16",
    "frontier.best_of=[1, 2, 4]",
    "frontier.best_of_samples=4",
]


def invoke(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole small run of the embedded default."""
    runs = tmp_path_factory.mktemp("runs")
    invoke("run", f"runs_dir={runs}", "name=small", *SMALL)
    return runs / "small"


def test_a_run_leaves_every_promised_file(finished: Path) -> None:
    promised = [
        "config.yaml run.json comparisons.jsonl report.html evaluation/policy.json evaluation/reward_model.json",
        "sft/metrics.jsonl sft/README.md reward/metrics.jsonl reward/README.md ppo/metrics.jsonl ppo/README.md",
        "ppo/value_model/config.json ppo/checkpoint-3/trainer.pt base/vocab.json base/merges.txt",
    ]
    missing = [name for line in promised for name in line.split() if not (finished / name).is_file()]
    assert not missing


def test_an_evaluation_traces_gold_against_proxy(finished: Path) -> None:
    path = finished / "evaluation" / "overoptimization.json"
    found = json.loads(path.read_text())
    assert [point["step"] for point in found["ppo"]["points"]] == [0, 2, 3], "the run's own evaluations"
    assert [point["n"] for point in found["best_of_n"]["points"]] == [1, 2, 4]
    assert all(point["gold"] is not None for curve in found.values() for point in curve["points"])
    path.unlink()  # as in a run that was evaluated before this existed
    invoke("evaluate", str(finished))
    assert json.loads(path.read_text()) == found


def test_one_base_with_four_adapters_goes_through_all_three_steps(tmp_path: Path) -> None:
    said = invoke("run", f"runs_dir={tmp_path}", "name=shared", "model.share_base=true", "model.lora_r=4", *SMALL)
    assert re.search(r"one base of [\d,]+ parameters and four adapters of [\d,]+ each: .* four full models: ", said)
    run = tmp_path / "shared"
    assert {"adapter_model.safetensors", "score_head.safetensors"} <= {
        p.name for p in (run / "reward/adapter").iterdir()
    }
    for stage in ("sft", "ppo", "ppo/checkpoint-3"):
        AutoModelForCausalLM.from_pretrained(run / stage)
    AutoModelForSequenceClassification.from_pretrained(run / "reward")
    line = (run / "ppo" / "metrics.jsonl").read_text().splitlines()[1]
    assert abs(json.loads(line)["objective/kl"]) < 1e-4, "policy and reference start as one adapter"
    invoke("report", str(run))


def test_a_run_folder_that_was_moved_is_still_the_one_that_is_meant(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(finished, moved)
    (moved / "report.html").unlink()
    monkeypatch.chdir(tmp_path)
    invoke("report", "elsewhere/renamed")
    assert "helpful" in (moved / "report.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"], "no other run folder was made"


def test_checkpoints_and_tokens_outlive_training_until_the_stage_is_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"runs_dir={tmp_path}", "name=killed", *SMALL, "reward.save_steps=1"]
    invoke("sft", *words)

    def killed(*args: object, **kwargs: object) -> None:
        raise InterruptedError("between training and the record")

    tokenised = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        tokenised.append(len(args[0]))
        return encode_pairs(*args, **kwargs)

    monkeypatch.setattr(pipeline, "encode_pairs", counted)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "evaluate_reward_model", killed)
        with pytest.raises(InterruptedError):
            invoke("reward", *words)
    folder = tmp_path / "killed" / "reward"
    assert list(folder.glob("checkpoint-*")), "a second start has something to continue from"
    invoke("reward", *words)
    assert len(tokenised) == 2, "training and held-out rows, each once"
    assert not list(folder.glob("checkpoint-*"))
    assert not list(folder.glob("tokens"))
    assert (folder / "model.safetensors").is_file()


def test_plain_transformers_loads_every_stage(finished: Path) -> None:
    for stage in ("base", "sft", "ppo", "ppo/checkpoint-3"):
        model, report = AutoModelForCausalLM.from_pretrained(finished / stage, output_loading_info=True)
        assert not report["missing_keys"], stage
        assert not report["unexpected_keys"], stage
        assert model.config.pad_token_id == AutoTokenizer.from_pretrained(finished / stage).pad_token_id
    for stage in ("reward", "ppo/value_model"):
        _, report = AutoModelForSequenceClassification.from_pretrained(finished / stage, output_loading_info=True)
        assert not report["missing_keys"], stage
        assert not report["unexpected_keys"], stage


def test_metrics_put_the_step_first_and_use_the_names_of_trls_ppo(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "ppo" / "metrics.jsonl").read_text().splitlines()]
    assert all(next(iter(line)) == "step" for line in lines)
    names = (ROOT / "tests" / "ppo_metric_names.txt").read_text().split()
    updates = [line for line in lines if "objective/kl" in line]
    assert [line["step"] for line in updates] == [1, 2, 3]
    assert not [name for name in names if name not in updates[-1]]
    evaluations = [line for line in lines if "eval_scores" in line]
    assert [line["step"] for line in evaluations] == [0, 2, 3]
    assert {"eval_kl", "eval_length", "eval_gold", "eval_helpful"} <= set(evaluations[-1])
    assert evaluations[0]["eval_kl"] == pytest.approx(0.0, abs=1e-5)


def test_run_json_holds_seeds_versions_and_data_hashes(finished: Path) -> None:
    record = json.loads((finished / "run.json").read_text())
    assert record["seed"] == 0
    assert record["versions"]["trl"]
    assert list(record["stages"]) == ["base", "sft", "comparisons", "reward", "ppo", "evaluation"]
    data = record["stages"]["sft"]["data"]
    assert len(data["sha256"]) == 64
    assert data["num_rows"] + data["num_heldout"] == 400


def test_comparisons_are_called_simulated_and_hold_no_gold(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "comparisons.jsonl").read_text().splitlines()]
    assert {row["rater"] for row in rows} == {"simulated"}
    assert set(rows[0]) == {"prompt", "chosen", "rejected", "split", "rater"}
    train, heldout = ({row["prompt"] for row in rows if row["split"] == split} for split in ("train", "heldout"))
    assert train
    assert heldout
    assert not train & heldout
    assert "human raters" not in (finished / "report.html").read_text().lower()


def test_a_finished_run_is_not_done_again(finished: Path) -> None:
    before = (finished / "ppo" / "model.safetensors").stat().st_mtime_ns
    assert "already finished" in invoke("run", f"runs_dir={finished.parent}", "name=small", *SMALL)
    assert (finished / "ppo" / "model.safetensors").stat().st_mtime_ns == before


def test_another_config_is_refused_and_says_how_to_go_on(finished: Path) -> None:
    with pytest.raises(UserError, match=r"ppo.kl_coef was [\d.]+ and is 0.5.*name=another_name"):
        invoke("ppo", f"runs_dir={finished.parent}", "name=small", *SMALL, "ppo.kl_coef=0.5")


def test_report_and_evaluation_take_the_run_folder_itself(finished: Path) -> None:
    (finished / "report.html").unlink()
    invoke("report", str(finished))
    assert "<svg" in (finished / "report.html").read_text()


def test_chat_answers_side_by_side(finished: Path) -> None:
    result = CliRunner().invoke(app, ["chat", str(finished)], input="What is the capital of France?\n\n")
    assert result.exit_code == 0, result.output
    assert "SFT" in result.output
    assert "PPO" in result.output


def test_a_step_without_the_one_before_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"comparisons needs base.*rlhf-lab sft"):
        invoke("reward", f"runs_dir={tmp_path}", *SMALL)


def hh_settings(tmp_path: Path) -> list[str]:
    sources = [f"data.{kind}={HH}" for kind in ("demonstrations", "preferences", "prompts")]
    return [
        "hh_rlhf",
        f"runs_dir={tmp_path}",
        *sources,
        "data.data_dir=null",
        f"model.tokenizer={GPT2_TOKENIZER}",
        "model.init=random",
        "model.config={n_layer: 1, n_embd: 16, n_head: 2, n_positions: 128}",
        "data.max_rows=96",
        "data.heldout=0.25",
        "sft.max_length=128",
        "reward.max_length=128",
        "reward.num_normalization_samples=16",
        "ppo.total_episodes=16",
        "ppo.rollout_batch_size=8",
        "ppo.minibatch_size=8",
        "ppo.max_completion_length=8",
        "ppo.max_prompt_length=64",
        "ppo.eval_steps=1",
        "evaluation.num_prompts=8",
        "evaluation.num_bootstrap=20",
    ]


@pytest.mark.skipif(not HH.exists(), reason="the real preferences (shared/data) are not beside this checkout")
def test_real_human_preferences_go_through_all_three_steps(tmp_path: Path) -> None:
    output = invoke("run", *hh_settings(tmp_path))
    folder = tmp_path / "hh_rlhf"
    judged = json.loads((folder / "evaluation" / "reward_model.json").read_text())
    assert judged["rater"] == "human"
    assert judged["gold_accuracy"] is None
    assert 0 <= judged["accuracy"]["low"] <= judged["accuracy"]["high"] <= 1
    found = json.loads((folder / "evaluation" / "policy.json").read_text())
    assert "gold" not in found["policies"]["ppo"]
    traced = json.loads((folder / "evaluation" / "overoptimization.json").read_text())
    assert "no gold score" in traced["ppo"]["words"]
    assert traced["best_of_n"]["points"] == [], "many samples that would show little"
    assert "Human:" not in output  # offensive text: rows never enter logs


@pytest.mark.parametrize("num_processes", [1, 2])
def test_the_scripts_run_under_accelerate(tmp_path: Path, num_processes: int) -> None:
    two = ["--config_file", str(ROOT / "configs" / "accelerate" / "cpu_2proc.yaml")]
    launch = ["-m", "accelerate.commands.launch", *(two if num_processes == 2 else ["--cpu", "--num_processes", "1"])]
    settings = [f"runs_dir={tmp_path}", "name=small", *SMALL]
    for step in ("sft", "reward", "ppo", "evaluate"):
        command = [sys.executable, *launch, str(ROOT / "scripts" / f"{step}.py"), *settings]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "small" / "evaluation" / "policy.json").exists()
    assert json.loads((tmp_path / "small" / "run.json").read_text())["machine"]["num_processes"] == num_processes


def test_rows_that_are_too_long_are_counted_in_both_stages(tmp_path: Path) -> None:
    words = [f"runs_dir={tmp_path}", "name=long", *SMALL, "sft.max_length=12", "reward.max_length=40"]
    said = invoke("sft", *words)
    said += invoke("reward", *words)
    stages = json.loads((tmp_path / "long" / "run.json").read_text())["stages"]
    for stage in ("sft", "reward"):
        number = stages[stage]["data"]["num_long_rows"]
        assert number > 0
        assert f"{stage}  {number} rows have more than" in said
        assert 0 < stages[stage]["data"]["num_long_answers"] < number
    with pytest.raises(UserError, match=r"Type sft\.max_length=\d+, data\.long_prompts=truncate"):
        invoke("sft", *words, "name=refused", "data.long_prompts=refuse")
    invoke("sft", *words, "name=wide", "sft.max_length=64")
    with pytest.raises(UserError, match=r"reward\.max_length=65, .* type reward\.max_length=64"):
        invoke("reward", *words, "name=wide", "sft.max_length=64", "reward.max_length=65")


def test_a_chat_template_that_is_not_there_stops_before_the_base_model_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.chat_template=none\.jinja"):
        invoke("run", f"runs_dir={tmp_path}", "name=early", *SMALL, "model.chat_template=none.jinja")
    assert not (tmp_path / "early" / "base").exists()


def test_a_full_disk_in_the_middle_of_a_stage_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(experiment: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(pipeline.STAGES, "base", full)
    with pytest.raises(UserError, match=r"base could not write to .*No space left.*run the same command again"):
        invoke("sft", f"runs_dir={tmp_path}", *SMALL)
