"""What surrounds PPO: trackers and their tables, the best record, randomness of rewards, memory, the hub."""

import gc
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from rlhf_lab.errors import UserError
from rlhf_lab.training import hub
from rlhf_lab.training.checkpoint import checkpoints, step_of
from rlhf_lab.training.records import read_metrics
from tests.tiny_ppo import (
    PROMPTS,
    all_weights,
    first_rollout,
    largest_difference,
    metrics_of,
    share_of_a,
    tiny_trainer,
)

EVALUATION = {"eval_dataset": Dataset.from_dict({"prompt": PROMPTS[:3]})}


class FakeTracker:
    """Takes what accelerate would send to wandb."""

    name = "wandb"

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.tables: list[dict[str, Any]] = []
        self.finished = False

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self.logged.append((values, step or 0))

    def log_table(self, name: str, columns: list[str], data: list[list[str]], step: int) -> None:
        self.tables.append({"name": name, "columns": columns, "data": data, "step": step})

    def finish(self) -> None:
        self.finished = True


def test_f24_samples_reach_trackers_as_a_table(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, eval_steps=2, arguments=EVALUATION)
    tracker = FakeTracker()
    trainer.accelerator.trackers.append(tracker)
    trainer.train()
    assert [table["step"] for table in tracker.tables] == [0, 2, 4]
    assert tracker.tables[0]["columns"] == ["prompt", "completion", "score", "kl"]
    assert [row[0] for row in tracker.tables[0]["data"]] == PROMPTS[:3]
    assert all(float(row[3]) == pytest.approx(0.0, abs=1e-5) for row in tracker.tables[0]["data"])
    assert [step for values, step in tracker.logged if "objective/kl" in values] == [1, 2, 3, 4]
    assert tracker.finished


@pytest.mark.parametrize(
    ("report_to", "run_name", "expected"),
    [
        (["wandb"], "mine", ("rlhf_lab", "mine")),
        (["wandb"], None, ("rlhf_lab", "folder_of_the_run")),
        (["tensorboard"], "mine", ("mine", "mine")),
    ],
)
def test_b28_trackers_show_the_given_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report_to: list[str], run_name: str | None, expected: Any
) -> None:
    started: dict[str, Any] = {}

    def note(self: Any, project: str, config: Any = None, init_kwargs: Any = None) -> None:
        started.update(project=project, config=config, init_kwargs=init_kwargs)

    monkeypatch.setattr("accelerate.accelerator.filter_trackers", lambda log_with, *a, **k: list(log_with or []))
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", note)
    tiny_trainer(tmp_path / "folder_of_the_run", report_to=report_to, run_name=run_name, kl_coef=0.25)
    assert started["project"] == expected[0]
    assert started["init_kwargs"]["wandb"]["name"] == expected[1]
    assert started["config"]["kl_coef"] == 0.25


def test_without_report_to_no_tracker_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", lambda *a, **k: pytest.fail("a tracker was started"))
    tiny_trainer(tmp_path)


def test_the_best_evaluation_is_remembered_kept_and_resumed(tmp_path: Path) -> None:
    scores = iter([0.5, 0.9, 0.1, 0.2, 0.3])

    def make(folder: Path) -> Any:
        trainer = tiny_trainer(folder, eval_steps=1, save_steps=1, save_total_limit=1, arguments=EVALUATION)
        evaluate = trainer.evaluate
        trainer.evaluate = lambda: {**evaluate(), "eval_scores": next(scores)}
        return trainer

    trainer = make(tmp_path)
    trainer.train()
    assert [step_of(path) for path in checkpoints(tmp_path)] == [1, 4], "the best one outlives the limit"
    resumed = make(tmp_path)
    resumed.life.begin(True)
    assert (resumed.life.state.best_metric, resumed.life.state.best_global_step) == (0.9, 1)
    evaluations = [line["best_eval_scores"] for line in read_metrics(tmp_path) if "eval_scores" in line]
    assert evaluations == [0.5, 0.9, 0.9, 0.9, 0.9]


def noisy(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """A reward that draws from all three global generators."""
    return [
        score + random.random() + float(numpy.random.rand()) + float(torch.rand(()))
        for score in share_of_a(completion_ids)
    ]


def test_b13_rewards_that_draw_numbers_of_their_own_resume_exactly(tmp_path: Path) -> None:
    def fresh(folder: Path) -> Any:
        random.seed(1)
        numpy.random.seed(1)
        return tiny_trainer(folder, reward=noisy, save_steps=2, save_total_limit=None)

    straight = fresh(tmp_path / "straight")
    straight.train()
    resumed = fresh(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=tmp_path / "straight" / "checkpoint-2")
    assert largest_difference(all_weights(straight), all_weights(resumed)) == 0
    assert metrics_of(tmp_path / "resumed") == metrics_of(tmp_path / "straight")[2:]


def test_b43_nothing_is_kept_from_update_to_update(tmp_path: Path) -> None:
    """As many living tensors after update 30 as after update 3, and as many numbers in them."""
    living: dict[int, tuple[int, int]] = {}

    class Count(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in (3, 30):
                gc.collect()
                tensors = [x for x in gc.get_objects() if isinstance(x, torch.Tensor)]
                living[state.global_step] = (len(tensors), sum(x.numel() for x in tensors))

    # one length for all, so that rollouts are of one size
    trainer = tiny_trainer(tmp_path, total_episodes=8 * 30, stop_tokens=[], arguments={"callbacks": [Count()]})
    trainer.train()
    assert living[30][0] == living[3][0]
    assert abs(living[30][1] - living[3][1]) < 200, "prompts differ in length by a few ids"


def test_f21_no_tensor_of_an_update_holds_logits_of_prompts_or_of_all_rows(tmp_path: Path) -> None:
    """The largest tensor with a vocabulary dimension: micro-batch times completion columns, never the whole rollout."""
    trainer = tiny_trainer(tmp_path, micro_batch_size=2, stop_tokens=[], max_completion_length=4)
    rollout = first_rollout(trainer)
    shapes: list[tuple[int, ...]] = []
    trainer.models.policy.lm_head.register_forward_hook(lambda module, i, output: shapes.append(tuple(output.shape)))
    trainer.update(rollout, trainer.estimate_targets(rollout))
    assert shapes
    assert all(shape[0] <= 2 for shape in shapes)
    spread = int(rollout.prompt_lengths.max() - rollout.prompt_lengths.min())
    assert max(shape[1] for shape in shapes) <= 4 + spread


def test_the_folder_is_pushed_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, Any] = {}

    class Api:
        def create_repo(self, name: str, exist_ok: bool) -> Any:
            return type("Repo", (), {"repo_id": f"me/{name.split('/')[-1]}"})

        def upload_folder(self, **kwargs: Any) -> str:
            calls.update(kwargs, files={path.name for path in Path(kwargs["folder_path"]).iterdir()})
            return "https://huggingface.co/me/mine"

    monkeypatch.setattr(hub, "HfApi", Api)
    trainer = tiny_trainer(tmp_path, push_to_hub=True, hub_model_id="me/mine")
    trainer.save_model()
    assert calls["repo_id"] == "me/mine"
    assert {"model.safetensors", "config.json", "README.md", "value_model"} <= calls["files"]
    assert "checkpoint-*/**" in calls["ignore_patterns"]


def test_b16_a_push_without_a_network_says_what_to_type_and_keeps_the_folder(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "mine", push_to_hub=True)
    with pytest.raises(UserError, match=r"mine is saved, but could not be pushed .* hf upload mine"):
        trainer.save_model()
    assert (tmp_path / "mine" / "model.safetensors").is_file()


@pytest.mark.filterwarnings("ignore:.*no supported trackers.*")
def test_a_missing_tracker_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.accelerator.filter_trackers", lambda *a, **k: [])
    with pytest.raises(UserError, match=r"pip install 'rlhf-lab\[tracking\]'"):
        tiny_trainer(tmp_path, report_to=["trackio"])
