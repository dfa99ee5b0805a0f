"""One run of our own loop: accelerator, sums over ranks, logging from the first process.

TRL's trainers bring their own; see `trainers.py`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, gather_object
from torch import Tensor

from rlhf_lab.errors import UserError
from rlhf_lab.section import Bf16
from rlhf_lab.training.memory import keep_freed_blocks
from rlhf_lab.training.precision import in_bf16
from rlhf_lab.training.records import append_metrics


def make_accelerator(folder: Path, *, bf16: bool, report_to: Sequence[str]) -> Accelerator:
    """An accelerator of its own precision, also after another trainer has run in this process."""
    AcceleratorState._reset_state()  # keeps the process group; as transformers' TrainingArguments does
    return Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        log_with=list(report_to) or None,
        project_dir=str(folder),
        cpu=not torch.cuda.is_available(),
    )


UNTESTED = "RLHF_LAB_UNTESTED"


def refuse_untested(accelerator: Accelerator) -> None:
    """Raise UserError where accelerate was told to cut models into pieces, which nobody has tested with this loop."""
    kind = accelerator.distributed_type
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM) and not os.environ.get(
        UNTESTED
    ):
        raise UserError(
            f"accelerate is configured for {kind.value}, which is not tested with this PPO; use "
            f"configs/accelerate/multi_gpu.yaml (DDP), or set {UNTESTED}=1 to try it at your own risk"
        )


def start_trackers(
    accelerator: Accelerator, report_to: Sequence[str], run_name: str, settings: Mapping[str, Any]
) -> None:
    """Start the trackers that `report_to` names, under the run's own name. Raises UserError where one is missing."""
    started = {getattr(tracker, "value", tracker) for tracker in accelerator.log_with}
    if missing := [name for name in report_to if name not in started]:
        raise UserError(f"report_to names {missing}, which is not installed; type pip install 'rlhf-lab[tracking]'")
    names = {"wandb": {"name": run_name}, "trackio": {"name": run_name}}
    plain = {key: value for key, value in settings.items() if isinstance(value, int | float | str | bool)}
    # TensorBoard has no projects, only folders: the project's name is the run's name there
    has_projects = any(name in names for name in report_to)
    accelerator.init_trackers("rlhf_lab" if has_projects else run_name, config=plain, init_kwargs=names)


def process_state() -> PartialState:
    """This process among those that `accelerate launch` started.

    On a machine without a GPU accelerate has to be told so: `PartialState()` alone would take every process for the
    only one, and all of them would write the same files.
    """
    return PartialState(cpu=not torch.cuda.is_available())


class Run:
    """Where an optimisation writes to, and how its processes agree."""

    def __init__(
        self,
        folder: Path,
        *,
        bf16: Bf16 = False,
        report_to: Sequence[str] = (),
        run_name: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ):
        self.folder = folder
        keep_freed_blocks()
        self.accelerator = make_accelerator(folder, bf16=in_bf16(bf16), report_to=report_to)
        refuse_untested(self.accelerator)
        if report_to:
            start_trackers(self.accelerator, report_to, run_name or folder.resolve().name, settings or {})

    @property
    def is_first(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def num_processes(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    def sum_over_ranks(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Add each number up over all processes, with one message; nothing is brought to the host."""
        stacked = torch.stack([value.detach().double() for value in sums.values()])
        totals = self.accelerator.reduce(stacked, reduction="sum")
        return dict(zip(sums, totals, strict=True))

    def gather_rows(self, x: Tensor, width: int | None = None, fill: float = 0) -> Tensor:
        """Rows of all processes, in rank order. `width` pads the second dimension, so that ranks agree on the shape."""
        if width is not None and x.shape[1] < width:
            x = torch.cat([x, x.new_full((x.shape[0], width - x.shape[1]), fill)], dim=1)
        return self.accelerator.gather(x) if self.num_processes > 1 else x

    def max_over_ranks(self, value: int) -> int:
        if self.num_processes == 1:
            return value
        return int(self.accelerator.gather(torch.tensor([value], device=self.accelerator.device)).max())

    def gather_objects(self, mine: Any) -> list[Any]:
        """One picklable object of every process, in rank order, on every process."""
        return list(gather_object([mine])) if self.num_processes > 1 else [mine]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write metrics to metrics.jsonl and to the trackers, from the first process."""
        if self.is_first:
            append_metrics(self.folder, step, metrics)
            self.accelerator.log(dict(metrics), step=step)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Send a table to those trackers that know tables (wandb, trackio)."""
        data = [list(row) for row in rows]
        for tracker in self.accelerator.trackers if self.is_first else []:
            if hasattr(tracker, "log_table"):
                tracker.log_table(name, columns=list(columns), data=data, step=step)
            elif tracker.name == "trackio":  # accelerate's tracker for it does not know tables yet
                import pandas  # type: ignore[import-untyped]
                import trackio

                table = trackio.Table(dataframe=pandas.DataFrame(data, columns=list(columns)))
                tracker.tracker.log({name: table}, step=step)

    def finish_trackers(self) -> None:
        """Unlike `Accelerator.end_training`, this leaves the process group alone: models are saved after training."""
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def say(self, line: str) -> None:
        """A plain line, from the first process, where no progress bar is shown."""
        if self.is_first and not sys.stderr.isatty():
            print(line, flush=True)


def rows_of_rank(num_rows: int, *, rank: int, num_processes: int) -> range:
    """The block of global rows that one process works on. Raises UserError where the rows do not divide."""
    if num_rows % num_processes:
        raise UserError(
            f"a batch of {num_rows} rows does not divide over {num_processes} processes; "
            f"type a batch size that is a multiple of {num_processes}"
        )
    share = num_rows // num_processes
    return range(rank * share, (rank + 1) * share)


def not_finite(folder: Path, batch: Any, what: str) -> UserError:
    """Save the batch for inspection and make the error that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "not_finite_batch.pt"
    torch.save(batch, path)
    return UserError(
        f"{what}: training stopped before the step was taken. The batch is in {path}, earlier checkpoints are intact; "
        "lower learning_rate, or look for broken rows in that batch"
    )
