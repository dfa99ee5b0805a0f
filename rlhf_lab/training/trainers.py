"""What the stages on TRL's trainers share: arguments, a metrics file, a stop at what is not finite, a full disk.

Leaves out PPO, which has its own loop.
"""

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf_lab.config import RewardSection, SFTSection
from rlhf_lab.errors import UserError
from rlhf_lab.training.checkpoint import saving
from rlhf_lab.training.precision import in_bf16
from rlhf_lab.training.records import append_metrics, cut_metrics, read_json
from rlhf_lab.training.run import not_finite, process_state


def shared_arguments(
    section: SFTSection | RewardSection, folder: Path, *, seed: int, has_heldout: bool, report_to: list[str]
) -> dict[str, Any]:
    """Keyword arguments for `SFTConfig` and `RewardConfig`. Batch sizes count rows over all processes."""
    on_gpu = torch.cuda.is_available()
    micro_batch_size, accumulation_steps = micro_batches(section.batch_size, section.micro_batch_size)
    return {
        "output_dir": str(folder),
        "seed": seed,
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": section.lr_scheduler_type,
        "warmup_steps": section.warmup_steps,
        "num_train_epochs": section.num_epochs,
        "per_device_train_batch_size": micro_batch_size,
        "per_device_eval_batch_size": micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        "max_length": None,  # rows have the right length when they come here; TRL would look at each again
        "remove_unused_columns": False,  # there are none; transformers would look for them in every row of every batch
        "weight_decay": section.weight_decay,
        "max_grad_norm": section.max_grad_norm,
        "bf16": in_bf16(section.bf16),
        "activation_checkpointing": section.gradient_checkpointing,  # the old name's new one; TRL switches it on
        "logging_steps": section.logging_steps,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if has_heldout and section.eval_steps else "no",
        "eval_steps": section.eval_steps or None,
        "save_strategy": "steps" if section.save_steps else "no",
        "save_steps": section.save_steps or 500,
        "save_total_limit": 2,
        "report_to": report_to or "none",
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "disable_tqdm": not sys.stderr.isatty(),
    }


def micro_batches(batch_size: int, micro_batch_size: int) -> tuple[int, int]:
    """(rows of a micro-batch, micro-batches of an optimizer step) of each process; `micro_batch_size` is the most.

    Raises UserError where the sizes do not divide.
    """
    num_processes = process_state().num_processes
    share, left = divmod(batch_size, num_processes)
    if left:
        raise UserError(
            f"batch_size={batch_size} does not divide among {num_processes} processes; type batch_size="
            f"{max(1, share) * num_processes}"
        )
    rows = min(micro_batch_size, share)
    if share % rows:
        raise UserError(
            f"batch_size={batch_size} is not a multiple of micro_batch_size={rows} times {num_processes} "
            f"processes; type micro_batch_size={math.gcd(share, rows)} or another batch_size"
        )
    return rows, share // rows


class MetricsFile(TrainerCallback):
    """Writes every log of a trainer to `metrics.jsonl`, and a plain line where there is no terminal."""

    def __init__(self, folder: Path, stage: str) -> None:
        self.folder = folder
        self.stage = stage

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            cut_metrics(self.folder, state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        append_metrics(self.folder, state.global_step, logs)
        shown = {key: logs[key] for key in ("loss", "accuracy", "eval_loss", "eval_accuracy") if key in logs}
        if shown and not sys.stderr.isatty():
            figures = "  ".join(f"{key} {float(value):.4f}" for key, value in shown.items())
            print(f"{self.stage}  step {state.global_step}/{state.max_steps}  {figures}", flush=True)


class CarefulTrainer:
    """Mixin for a trainer: a loss or gradient that is not finite stops training before the optimizer moves a weight,
    the batch saved; a disk that is full when a checkpoint is due ends it with what to do, earlier checkpoints whole."""

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        self.batch = inputs
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        if not torch.isfinite(loss):
            raise self.stopped(f"loss {float(loss)}")
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """transformers asks for it just before the optimizer steps; a finite loss can have a gradient that is not."""
        norm = super()._get_grad_norm(*args, **kwargs)  # type: ignore[misc]
        if norm is not None and not math.isfinite(norm):  # None: DeepSpeed, which skips such a step itself
            raise self.stopped("gradient that is not finite")
        return norm

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: transformers would walk over all parameters in every step."""
        return 0

    def stopped(self, what: str) -> UserError:
        """The error that names the saved batch."""
        folder = Path(self.args.output_dir)  # type: ignore[attr-defined]
        return not_finite(folder, self.batch, f"{what} at step {self.state.global_step}")  # type: ignore[attr-defined]

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        step = self.state.global_step  # type: ignore[attr-defined]
        with saving(Path(self.args.output_dir) / f"checkpoint-{step}"):  # type: ignore[attr-defined]
            super()._save_checkpoint(*args, **kwargs)  # type: ignore[misc]


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint of a TRL trainer; `trainer_state.json`, written last, marks completeness."""
    found = [path for path in folder.glob("checkpoint-*") if _is_whole(path / "trainer_state.json")]
    newest = max(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)
    return str(newest) if newest else None


def remove_checkpoints(folder: Path) -> None:
    """Delete what was kept for resuming, once the stage is on record as finished; its model stands in `folder`."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _is_whole(state_file: Path) -> bool:
    try:
        return math.isfinite(read_json(state_file)["global_step"])
    except (OSError, ValueError, KeyError):
        return False
