"""What surrounds PPO: trackers and their tables, the best record, randomness of rewards, memory, the hub."""

import functools
import gc
import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, TrainerCallback

from rlhf_lab import PPOConfig
from rlhf_lab.errors import UserError
from rlhf_lab.training import hub
from rlhf_lab.training.checkpoint import checkpoints, step_of
from rlhf_lab.training.records import read_metrics
from tests.tiny_ppo import (
    EOS,
    PROMPTS,
    A,
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


# --- callbacks ---------------------------------------------------------------------------------------------------


class Events(TrainerCallback):
    """Notes every event that is called, with the updates done; asks for a stop in one of them."""

    def __init__(self, stop_in: str = "") -> None:
        self.seen: list[tuple[str, int]] = []
        self.stop_in = stop_in

    def __getattribute__(self, name: str) -> Any:
        return functools.partial(self.note, name) if name.startswith("on_") else super().__getattribute__(name)

    def note(self, name: str, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append((name, state.global_step))
        control.should_training_stop |= name == self.stop_in


def test_b39_every_event_is_called_in_its_turn(tmp_path: Path) -> None:
    """12 prompts and rollouts of 8: the first epoch ends in the second update, the second in the third."""
    events = Events()
    rows = Dataset.from_dict({"prompt": PROMPTS})
    tiny_trainer(tmp_path, rows=rows, arguments={"callbacks": [events]}, logging_steps=0).train()
    assert events.seen == [
        ("on_init_end", 0),
        ("on_train_begin", 0),
        ("on_epoch_begin", 0),
        ("on_step_begin", 0),
        ("on_step_end", 1),
        ("on_step_begin", 1),
        ("on_step_end", 2),
        ("on_epoch_end", 2),
        ("on_epoch_begin", 2),
        ("on_step_begin", 2),
        ("on_step_end", 3),
        ("on_epoch_end", 3),
        ("on_epoch_begin", 3),
        ("on_step_begin", 3),
        ("on_step_end", 4),
        ("on_epoch_end", 4),
        ("on_train_end", 4),
    ]


def test_b39_an_epoch_that_was_begun_goes_on_after_a_resume(tmp_path: Path) -> None:
    def trainer(*callbacks: TrainerCallback) -> Any:
        rows = Dataset.from_dict({"prompt": PROMPTS + PROMPTS[:8]})
        settings = {"total_episodes": 48, "save_steps": 3, "arguments": {"callbacks": list(callbacks)}}
        return tiny_trainer(tmp_path, rows=rows, **settings)

    trainer(Events(stop_in="on_save")).train()
    events = Events()
    resumed = trainer(events)
    resumed.train(resume_from_checkpoint=True)
    steps = [event for event in events.seen if "epoch" in event[0]]
    assert steps == [("on_epoch_begin", 3), ("on_epoch_end", 5), ("on_epoch_begin", 5), ("on_epoch_end", 6)]
    assert [line["step"] for line in resumed.life.state.log_history] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("event", "updates"), [("on_train_begin", 0), ("on_evaluate", 0), ("on_step_begin", 1)])
def test_b39_a_stop_is_heeded_wherever_it_is_asked_for(tmp_path: Path, event: str, updates: int) -> None:
    arguments = {"callbacks": [Events(stop_in=event)], **EVALUATION}
    trainer = tiny_trainer(tmp_path, eval_steps=4, arguments=arguments)
    trainer.train()
    assert trainer.update_number == updates
    assert len([line for line in read_metrics(tmp_path) if "objective/kl" in line]) == updates


def test_b39_a_stop_does_not_outlive_its_run(tmp_path: Path) -> None:
    events = Events(stop_in="on_step_end")
    trainer = tiny_trainer(tmp_path, arguments={"callbacks": [events]})
    trainer.train()
    assert trainer.update_number == 1
    events.stop_in = ""
    trainer.train()
    assert trainer.update_number == 4


def test_b39_the_state_keeps_the_history_of_logs(tmp_path: Path) -> None:
    lengths = []

    class Count(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            lengths.append(len(state.log_history))
            assert logs.items() <= state.log_history[-1].items()

    trainer = tiny_trainer(tmp_path, eval_steps=2, arguments={"callbacks": [Count()], **EVALUATION})
    trainer.train()
    assert lengths == [1, 2, 3, 4, 5, 6, 7]
    assert trainer.life.state.log_history == read_metrics(tmp_path)


def test_b39_early_stopping_of_transformers_stops_a_run_that_gets_no_better(tmp_path: Path) -> None:
    scores = iter([0.1, 0.5, 0.7, 0.6, 0.65, 0.9])
    arguments = {"callbacks": [EarlyStoppingCallback(early_stopping_patience=2)], **EVALUATION}
    trainer = tiny_trainer(tmp_path, eval_steps=1, total_episodes=8 * 10, arguments=arguments)
    evaluate = trainer.evaluate
    trainer.evaluate = lambda: {**evaluate(), "eval_scores": next(scores)}
    trainer.train()
    assert trainer.update_number == 4
    assert (trainer.life.state.best_metric, trainer.life.state.best_global_step) == (0.7, 2)


def test_b39_early_stopping_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    arguments = {"callbacks": [EarlyStoppingCallback()], **EVALUATION}
    with pytest.raises(
        UserError, match=r"EarlyStoppingCallback watches eval_scores.*pass eval_dataset= and type eval_"
    ):
        tiny_trainer(tmp_path, arguments=arguments, eval_steps=0)


@pytest.mark.parametrize("callbacks", [TrainerCallback(), [print], 3])
def test_what_is_no_list_of_callbacks_is_refused(tmp_path: Path, callbacks: Any) -> None:
    with pytest.raises(UserError, match=r"callbacks.* give a list .*callbacks=\[MyCallback\(\)\]"):
        tiny_trainer(tmp_path, arguments={"callbacks": callbacks})


def test_callbacks_are_given_the_config(tmp_path: Path) -> None:
    given: list[Any] = []

    class Look(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            given.append(args)

    trainer = tiny_trainer(tmp_path, total_episodes=8, kl_coef=0.125, arguments={"callbacks": [Look()]})
    trainer.train()
    assert isinstance(given[0], PPOConfig)
    assert given[0].model_dump() == trainer.args.model_dump()
    assert given[0].num_updates == 1


@pytest.mark.parametrize("callback", [PrinterCallback, ProgressCallback])
def test_b39_transformers_own_callbacks_run(tmp_path: Path, callback: Any) -> None:
    trainer = tiny_trainer(tmp_path, arguments={"callbacks": [callback()]})
    trainer.train()
    assert trainer.update_number == 4


def test_b39_in_an_own_loop_the_stop_is_there_to_be_read(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, arguments={"callbacks": [Events(stop_in="on_step_end")]})
    assert not trainer.life.should_stop
    trainer.step([[A]] * 8, [[A, EOS]] * 8, [1.0] * 8)
    assert trainer.life.should_stop
    trainer.step([[A]] * 8, [[A, EOS]] * 8, [1.0] * 8)
    assert trainer.update_number == 2, "whether to go on is the loop's to decide"


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
