"""The life of a PPO run around the algorithm: resuming, logging, evaluating, saving, callbacks, a progress bar."""

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import Tensor
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.trainer_callback import CallbackHandler

from rlhf_lab.config import PPOConfig
from rlhf_lab.errors import UserError
from rlhf_lab.stages.prompt_source import PromptBatch
from rlhf_lab.training.checkpoint import PREFIX, checkpoints, find_checkpoint, prune, save_atomically, step_of
from rlhf_lab.training.model_card import write_model_card
from rlhf_lab.training.records import cut_metrics, write_jsonl

if TYPE_CHECKING:
    from rlhf_lab.stages.ppo import PPOTrainer

# What may differ between a checkpoint and the run that continues it: where things go, not what is computed.
FREE_TO_CHANGE = {
    "output_dir",
    "micro_batch_size",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "report_to",
}


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
            list(callbacks),
            trainer.models.policy,
            trainer.tokenizer,
            trainer.optimization.optimizer,
            trainer.optimization.scheduler,
        )
        self.bar: Any = None
        self.last_evaluated = -1

    @property
    def should_stop(self) -> bool:
        return bool(self.control.should_training_stop)

    def begin(self, resume: bool | str | Path | None) -> None:
        """Check that there is something to train on, take up a checkpoint, evaluate the start."""
        if self.trainer.train_prompts is None:
            raise UserError("train() needs prompts; pass train_dataset=, a data set with a column 'prompt'")
        if (checkpoint := find_checkpoint(self.folder, resume)) is not None:
            self._load(checkpoint)
        self._refuse_later_checkpoints()
        if self.run.is_first:
            cut_metrics(self.folder, self.trainer.update_number or -1)  # a new run drops the old one's start as well
        shown = self.run.is_first and sys.stderr.isatty()
        self.bar = tqdm(total=self.args.num_updates, initial=self.trainer.update_number, desc="ppo", disable=not shown)
        self._call("on_train_begin")
        if self.trainer.update_number == 0 and self.args.eval_steps:
            self._evaluate()

    def end_of_update(self, metrics: dict[str, float]) -> None:
        """Log, evaluate and save as the schedule and the callbacks say."""
        step = self.trainer.update_number
        self.state.global_step = step
        self.state.epoch = metrics["episode"] / len(self.trainer.train_prompts or [0])
        self.control.should_log = self.control.should_evaluate = self.control.should_save = False
        self._call("on_step_end")
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
        write_jsonl(self.folder / "samples" / f"update-{self.trainer.update_number:06d}.jsonl", rows)

    def save_model(self, folder: Path) -> None:
        """Policy, tokenizer, critic and card in plain form."""
        if self.run.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            self._write_models(folder)
        self.run.accelerator.wait_for_everyone()

    def _write_models(self, folder: Path) -> None:
        models = self.trainer.models
        models.policy.save_pretrained(folder)
        self.trainer.tokenizer.save_pretrained(folder)
        models.critic.save_pretrained(folder / "value_model")
        self.trainer.tokenizer.save_pretrained(folder / "value_model")
        write_model_card(
            folder, stage="ppo", base_model=str(models.policy.config.name_or_path), settings=self.args.model_dump()
        )

    def _save_checkpoint(self) -> None:
        if self.run.is_first:
            save_atomically(self.folder / f"{PREFIX}{self.trainer.update_number}", self._write_checkpoint)
            prune(self.folder, self.args.save_total_limit)
        self.run.accelerator.wait_for_everyone()
        self._call("on_save")

    def _write_checkpoint(self, folder: Path) -> None:
        self._write_models(folder)
        optimization = self.trainer.optimization
        torch.save(
            {
                "update_number": self.trainer.update_number,
                "kl_coef": self.trainer.kl_coef,
                "optimizer": optimization.optimizer.state_dict(),
                "scheduler": optimization.scheduler.state_dict(),
                "args": self.args.model_dump(),
                "torch": version("torch"),
            },
            folder / "trainer.pt",
        )

    def _refuse_later_checkpoints(self) -> None:
        """Those of another history would outlive ours when old ones are deleted, and be taken up by a later resume."""
        later = [path for path in checkpoints(self.folder) if step_of(path) > self.trainer.update_number]
        if later:
            raise UserError(
                f"{self.folder} holds {later[-1].name}, but this run would start after update "
                f"{self.trainer.update_number}; continue with resume_from_checkpoint=True, give another output_dir, or "
                "delete the checkpoints that are not wanted"
            )

    def _load(self, checkpoint: Path) -> None:
        saved = torch.load(checkpoint / "trainer.pt", map_location="cpu", weights_only=True)
        _refuse_other_settings(saved["args"], self.args, checkpoint)
        _load_policy(self.trainer.models.policy, checkpoint)
        critic = AutoModelForSequenceClassification.from_pretrained(checkpoint / "value_model", dtype=torch.float32)
        self.trainer.models.critic.load_state_dict(critic.state_dict())
        self.trainer.optimization.optimizer.load_state_dict(saved["optimizer"])
        self.trainer.optimization.scheduler.load_state_dict(saved["scheduler"])
        self.trainer.kl_coef = saved["kl_coef"]
        self.trainer.update_number = self.state.global_step = saved["update_number"]
        if _is_due(saved["update_number"], self.args.eval_steps):
            self.last_evaluated = saved["update_number"]  # evaluation comes before saving
        self.run.say(f"ppo  continues after update {step_of(checkpoint)} ({checkpoint})")

    def _evaluate(self) -> None:
        metrics = self.trainer.evaluate()
        self.last_evaluated = self.trainer.update_number
        if metrics:
            self._log(metrics)
            self._call("on_evaluate", metrics=metrics)

    def _log(self, metrics: dict[str, float]) -> None:
        step = self.trainer.update_number
        self.run.log(step, metrics)
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
        self.control = self.callbacks.call_event(event, self.args, self.state, self.control, **kwargs)


def _is_not_about_flow(record: logging.LogRecord) -> bool:
    return "DefaultFlowCallback" not in record.getMessage()


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _refuse_other_settings(saved: dict[str, Any], args: PPOConfig, checkpoint: Path) -> None:
    now = args.model_dump()
    other = [key for key in now if key not in FREE_TO_CHANGE and saved.get(key) != now[key]]
    if other:
        differences = ", ".join(f"{key} was {saved.get(key)!r} and is {now[key]!r}" for key in other)
        raise UserError(
            f"{checkpoint} was made with other settings: {differences}. Continue with the old ones, or start a new run "
            "in another output_dir (with the command line: name=another_name)"
        )


def _load_policy(policy: Any, checkpoint: Path) -> None:
    if isinstance(policy, PeftModel):
        set_peft_model_state_dict(policy, load_peft_weights(str(checkpoint)))
        return
    saved = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    policy.load_state_dict(saved.state_dict())
