"""A run folder and the experiment that it belongs to: config.yaml, run.json, and the refusal of another config."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from rlhf_lab import __version__
from rlhf_lab.config import Experiment
from rlhf_lab.errors import UserError
from rlhf_lab.training.precision import in_bf16
from rlhf_lab.training.records import is_finished, read_run, write_json, write_text
from rlhf_lab.training.run import process_state

PACKAGES = ("torch", "transformers", "trl", "datasets", "accelerate", "peft", "tokenizers", "numpy")
SAMPLED_WITH = ("ppo.temperature", "ppo.max_prompt_length", "ppo.max_completion_length", "ppo.stop_tokens")
# Which sections, or keys of a section, decide what a stage computes. They may change as long as no stage that rests on
# them has begun. Scores are normalised on samples that are drawn as PPO will draw them.
RESTS_ON = {
    "base": ("seed", "model"),
    "sft": ("seed", "model", "data", "sft"),
    "comparisons": ("seed", "model", "data", "sft"),
    "reward": ("seed", "model", "data", "sft", "reward", *SAMPLED_WITH),
    "ppo": ("seed", "model", "data", "sft", "reward", "ppo"),
    "evaluation": ("seed", "model", "data", "sft", "reward", "ppo", "evaluation"),
}
# Keys that decide how a run goes on its way, not what it computes; judges are asked whenever win rates are measured.
FREE_KEYS = {
    "micro_batch_size",
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "report_to",
    "output_dir",
    "seed",
    "reward_funcs",
}


def open_run_folder(experiment: Experiment) -> Path:
    """Make or continue the run folder; returns it. Raises UserError where it was begun with another config."""
    folder = experiment.run_folder
    state = process_state()
    if state.is_main_process:
        _refuse_other_config(folder, experiment)
        # What describes the run is that of its first command; finished stages stay.
        write_text(folder / "config.yaml", yaml.safe_dump(experiment.model_dump(), sort_keys=False))
        write_json(folder / "run.json", {**facts_of_run(experiment), **read_run(folder)})
    state.wait_for_everyone()
    return folder


def facts_of_run(experiment: Experiment) -> dict[str, Any]:
    """What run.json says from the start: command, seed, versions, machine, commit."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "name": experiment.name,
        "seed": experiment.seed,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "rlhf_lab": __version__,
        "versions": {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}},
        "machine": {
            "cpu_count": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "platform": platform.platform(),
            "device": device,
            "auto_is_bf16": in_bf16("auto"),
            "num_processes": process_state().num_processes,
        },
        "commit": commit(),
        "stages": {},
    }


def commit() -> str | None:
    """The commit of this checkout, with `-dirty` when files differ; None outside a checkout."""
    here = Path(__file__).parent
    try:
        top = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        if Path(top) != here.parents[1]:
            return None  # installed inside somebody else's repository
        described = ["git", "describe", "--always", "--dirty", "--exclude", "*", "--abbrev=10"]
        return subprocess.run(
            described, cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _refuse_other_config(folder: Path, experiment: Experiment) -> None:
    path = folder / "config.yaml"
    if not path.exists():
        return
    begun = [stage for stage in RESTS_ON if _has_begun(folder, stage)]
    if not begun:
        return
    then = yaml.safe_load(path.read_text(encoding="utf-8"))
    now, defaults = experiment.model_dump(), Experiment().model_dump()
    then = {section: _completed(then.get(section), defaults[section]) for section in defaults}
    names = sorted({name for stage in begun for name in RESTS_ON[stage]})
    whole = [name for name in names if name.partition(".")[0] not in set(names) - {name}]
    if changes := [change for name in whole for change in _changes(name, _value(then, name), _value(now, name))]:
        raise UserError(
            f"{folder} was begun with another config: {'; '.join(changes)}. To continue it, give the old values; to "
            f"start a new run, type name=another_name; to begin this one afresh, delete {folder}"
        )


def _value(config: dict[str, Any], name: str) -> Any:
    """What `config` has under `section` or `section.key`; None where it lacks it."""
    section, _, key = name.partition(".")
    found = config.get(section)
    return found if not key else (found or {}).get(key)


def _completed(then: Any, defaults: Any) -> Any:
    """A section as an older version wrote it, with today's default for each key that it did not know."""
    return {**defaults, **then} if isinstance(then, dict) and isinstance(defaults, dict) else then


def _has_begun(folder: Path, stage: str) -> bool:
    """Whether `stage` is finished or has left something. evaluation/ says nothing: step 2 writes there too."""
    return is_finished(folder, stage) or (stage != "evaluation" and (folder / stage).exists())


def _changes(section: str, then: Any, now: Any) -> list[str]:
    if not isinstance(now, dict):
        return [] if then == now else [f"{section} was {then!r} and is {now!r}"]
    before = then if isinstance(then, dict) else {}
    return [
        f"{section}.{key} was {before.get(key)!r} and is {now[key]!r}"
        for key in now
        if key not in FREE_KEYS and before.get(key) != now[key]
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
