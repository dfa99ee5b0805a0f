"""The life of a PPO run around the algorithm: resuming, logging, evaluating, saving, callbacks, a progress bar.

transformers' callbacks are called as by its own trainer, a step being one PPO update and an epoch one pass over the
prompts: on_init_end, on_train_begin, on_epoch_begin, on_step_begin, on_step_end, on_log, on_evaluate, on_save,
on_epoch_end, on_train_end. A rollout that straddles two epochs belongs to the first. Never called are the events within
a step, of prediction and of pushing; `should_epoch_stop` changes nothing. An own loop has no on_train_end, and
without a `train_dataset` no epochs.
"""

import logging
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from tqdm import tqdm
from transformers import EarlyStoppingCallback, IntervalStrategy, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import CallbackHandler

from rlhf_lab.errors import UserError
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.stages import ppo_checkpoint
from rlhf_lab.stages.ppo_alarms import Alarms
from rlhf_lab.stages.prompt_source import PromptBatch
from rlhf_lab.training.checkpoint import (
    PREFIX,
    checkpoints,
    find_checkpoint,
    prune,
    save_atomically,
    saving,
    step_of,
)
from rlhf_lab.training.hub import push_to_hub
from rlhf_lab.training.records import cut_metrics, read_metrics, write_jsonl

if TYPE_CHECKING:
    from rlhf_lab.stages.ppo import PPOTrainer

TABLE = ("prompt", "completion", "score", "kl")


class CallbackArguments(PPOConfig):
    """The `args` of callbacks: PPOConfig, and what transformers' EarlyStoppingCallback asks of TrainingArguments."""

    load_best_model_at_end: ClassVar[bool] = False
    metric_for_best_model: ClassVar[str] = "eval_scores"
    greater_is_better: ClassVar[bool] = True

    @property
    def eval_strategy(self) -> IntervalStrategy:
        return IntervalStrategy.STEPS if self.eval_steps else IntervalStrategy.NO


class LifeCycle:
    """Everything that a run does besides computing."""

    def __init__(self, trainer: "PPOTrainer", callbacks: Sequence[TrainerCallback]) -> None:
        self.trainer = trainer
        self.args = trainer.args
        self.run = trainer.run
        self.folder = trainer.run.folder
        self.state = TrainerState(max_steps=self.args.num_updates, is_world_process_zero=self.run.is_first)
        self.control = TrainerControl()
        # Ours is the flow of logs, evaluations and saves; transformers' handler would warn that its own is not there.
        logging.getLogger("transformers.trainer_callback").addFilter(_is_not_about_flow)
        self.callbacks = CallbackHandler(
            _checked(callbacks, is_evaluated=self.args.eval_steps > 0 and trainer.eval_prompts is not None),
            trainer.models.policy,
            trainer.tokenizer,
            trainer.optimization.optimizer,
            trainer.optimization.scheduler,
        )
        self.bar: Any = None
        self.last_evaluated = -1
        self.alarms = Alarms(num_episodes=self.args.rollout_batch_size)
        self.has_begun = False
        self.in_epoch = False
        self.callback_args = CallbackArguments.model_construct(**dict(self.args))
        self._call("on_init_end")

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What the run rests on besides its settings: it never changes, and reading all prompts takes a while."""
        return ppo_checkpoint.origin(self.trainer)

    @property
    def should_stop(self) -> bool:
        """Whether a callback asked for a stop: `train()` ends then, an own loop of `step()` should."""
        return bool(self.control.should_training_stop)

    def begin(self, resume: bool | str | Path | None) -> None:
        """Take up a checkpoint, evaluate the start."""
        self.has_begun = True
        if (checkpoint := find_checkpoint(self.folder, resume)) is not None:
            ppo_checkpoint.load(self.trainer, checkpoint)
            if _is_due(self.trainer.update_number, self.args.eval_steps):
                self.last_evaluated = self.trainer.update_number  # evaluation comes before saving
            done = [line for line in read_metrics(self.folder) if line["step"] <= self.trainer.update_number]
            self.state.log_history, self.state.epoch = done, self._epoch()
            self.run.say(f"ppo  continues after update {step_of(checkpoint)} ({checkpoint})")
        self._refuse_later_checkpoints()
        for source in filter(None, (self.trainer.train_prompts, self.trainer.eval_prompts)):
            if source.num_long:
                limit = self.args.max_prompt_length
                self.run.say(f"ppo  {source.num_long} prompts have more than {limit} tokens; their start is cut")
        if self.run.is_first:
            cut_metrics(self.folder, self.trainer.update_number or -1)  # a new run drops the old one's start as well
        shown = self.run.is_first and sys.stderr.isatty()
        self.bar = tqdm(total=self.args.num_updates, initial=self.trainer.update_number, desc="ppo", disable=not shown)
        self._call("on_train_begin")
        if self.trainer.update_number == 0 and self.args.eval_steps:
            self._evaluate()

    def begin_own_loop(self, resume: bool | str | Path | None = None) -> None:
        """As `begin`, once, before the first `step()` of a loop that is not ours."""
        if not self.has_begun or resume:
            self.begin(resume)
        if self.trainer.update_number >= self.args.num_updates:
            raise UserError(
                f"all {self.args.num_updates} updates of total_episodes={self.args.total_episodes} are done, and the "
                "learning rate has reached its end; give a higher total_episodes"
            )

    def begin_update(self) -> None:
        if self.trainer.train_prompts is not None and not self.in_epoch:
            self.in_epoch = True
            self._call("on_epoch_begin")
        self._call("on_step_begin")

    def end_of_update(self, metrics: dict[str, float]) -> None:
        """Watch, log, evaluate and save as the schedule and the callbacks say."""
        step = self.trainer.update_number
        metrics = {**metrics, **self.alarms.after_update(step, metrics)}
        self._warn()
        self.state.global_step = step
        epochs_before, self.state.epoch = int(self.state.epoch), self._epoch()
        self._call("on_step_end")
        if int(self.state.epoch) > epochs_before:
            self._end_epoch()
        self.bar.update(1)
        if _is_due(step, self.args.logging_steps) or self.control.should_log:
            self._log({**metrics, "epoch": self.state.epoch})
        if _is_due(step, self.args.eval_steps) or self.control.should_evaluate:
            self._evaluate()
        if _is_due(step, self.args.save_steps) or self.control.should_save:
            self._save_checkpoint()

    def end(self) -> None:
        if self.args.eval_steps and self.last_evaluated != self.trainer.update_number:
            self._evaluate()
        self._end_epoch()
        self._call("on_train_end")
        self.bar.close()
        self.run.finish_trackers()

    def write_samples(self, batch: PromptBatch, texts: list[str], scores: Tensor, kl: Tensor) -> None:
        """The table of evaluation samples: prompt, completion, score, KL in nats."""
        if not self.run.is_first:
            return
        rows = [
            {"prompt": prompt, "completion": text, "score": score, "kl": nats}
            for prompt, text, score, nats in zip(batch.prompts, texts, scores.tolist(), kl.tolist(), strict=True)
        ]
        step = self.trainer.update_number
        write_jsonl(self.folder / "samples" / f"update-{step:06d}.jsonl", rows)
        self.run.log_table("samples", TABLE, [[str(row[name]) for name in TABLE] for row in rows], step)

    def save_model(self, folder: Path) -> None:
        """Policy, tokenizer, critic and card in plain form; pushed to the hub where `push_to_hub` says so."""
        if self.run.is_first:
            with saving(folder):
                folder.mkdir(parents=True, exist_ok=True)
                ppo_checkpoint.write_models(self.trainer, folder)
            if self.args.push_to_hub:
                push_to_hub(folder, self.args.hub_model_id)
        self.run.accelerator.wait_for_everyone()

    def _save_checkpoint(self) -> None:
        randomness = self.run.gather_objects(ppo_checkpoint.random_state())
        if self.run.is_first:
            step = self.trainer.update_number
            save_atomically(
                self.folder / f"{PREFIX}{step}", lambda folder: ppo_checkpoint.write(self.trainer, folder, randomness)
            )
            prune(self.folder, self.args.save_total_limit, best=self.state.best_global_step)
        self.run.accelerator.wait_for_everyone()
        self._call("on_save")

    def _refuse_later_checkpoints(self) -> None:
        """Those of another history would outlive ours when old ones are deleted, and be taken up by a later resume."""
        later = [path for path in checkpoints(self.folder) if step_of(path) > self.trainer.update_number]
        if later:
            raise UserError(
                f"{self.folder} holds {later[-1].name}, but this run would start after update "
                f"{self.trainer.update_number}; continue with resume_from_checkpoint=True, give another output_dir, or "
                "delete the checkpoints that are not wanted"
            )

    def _epoch(self) -> float:
        """Passes over the training prompts so far."""
        prompts = self.trainer.train_prompts
        return self.trainer.update_number * self.args.rollout_batch_size / len(prompts) if prompts is not None else 0.0

    def _end_epoch(self) -> None:
        if self.in_epoch:
            self.in_epoch = False
            self._call("on_epoch_end")

    def _evaluate(self) -> None:
        metrics = self.trainer.evaluate()
        self.last_evaluated = self.trainer.update_number
        if metrics:
            metrics |= self.alarms.after_evaluation(self.trainer.update_number, metrics)
            self._warn()
            score, best = metrics["eval_scores"], self.state.best_metric
            is_best = best is None or score > best
            self._log({**metrics, "best_eval_scores": score if is_best else best})
            self._call("on_evaluate", metrics=metrics)
            if is_best:  # noted after the callbacks: EarlyStoppingCallback compares with the best before
                self.state.best_metric, self.state.best_global_step = score, self.trainer.update_number

    def _warn(self) -> None:
        """Say what rings for the first time; above the progress bar where there is one."""
        for words in self.alarms.take_new():
            if self.run.is_first:
                tqdm.write(f"ppo  WARNING: {words}")

    def _log(self, metrics: dict[str, float]) -> None:
        step = self.trainer.update_number
        self.run.log(step, metrics)
        self.state.log_history.append({"step": step, **metrics})
        self._call("on_log", logs=dict(metrics))
        shown = {
            name.removeprefix("objective/"): metrics[name]
            for name in (
                "objective/scores",
                "objective/kl",
                "eps",
                "eval_scores",
                "eval_kl",
                "eval_gold",
                "eval_helpful",
            )
            if name in metrics
        }
        self.bar.set_postfix(shown)
        figures = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
        self.run.say(f"ppo  update {step}/{self.args.num_updates}  {figures}")

    def _call(self, event: str, **kwargs: Any) -> None:
        # By the handler's own method of that name, which first clears the requests that are over.
        self.control = getattr(self.callbacks, event)(self.callback_args, self.state, self.control, **kwargs)


def _checked(callbacks: Any, *, is_evaluated: bool) -> list[TrainerCallback]:
    listed = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
    kinds = [callback if isinstance(callback, type) else type(callback) for callback in listed]
    if not isinstance(callbacks, list | tuple) or not all(issubclass(kind, TrainerCallback) for kind in kinds):
        raise UserError(
            f"callbacks={callbacks!r}; give a list of transformers' TrainerCallbacks, such as callbacks=[MyCallback()]"
        )
    if not is_evaluated and any(issubclass(kind, EarlyStoppingCallback) for kind in kinds):
        raise UserError(
            "EarlyStoppingCallback watches eval_scores, and this run has no evaluations; pass eval_dataset= and type "
            "eval_steps=10, for example"
        )
    return listed


def _is_not_about_flow(record: logging.LogRecord) -> bool:
    return "DefaultFlowCallback" not in record.getMessage()


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
