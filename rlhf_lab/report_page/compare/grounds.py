"""On what grounds two runs can be compared: the same prompts, the same judge, the same starting point.

A number means the same in both runs only where what it was measured with is the same. run.json tells: the hash of the
held-out prompts, and of each model the data and the loss that it ended with, which two trainings share only if they
are the same one. Every function answers "" where there is nothing in the way, else the reason in words.
"""

from __future__ import annotations

from typing import Any

from ..run_data import RunData
from ..text import entry, escaped, finite, number


def other_prompts(a: RunData, b: RunData) -> str:
    """Why no result of these two runs can be compared, as far as prompts and sampling go."""
    sources = [setting(run, "data", "prompts") for run in (a, b)]
    hashes = [entry(run.run, "stages", "ppo", "data", "heldout_sha256") for run in (a, b)]
    if sources[0] != sources[1] and None not in sources:
        return f"their prompts come from different data, {quoted(sources[0])} and {quoted(sources[1])}"
    if hashes[0] != hashes[1] and None not in hashes:
        return "their held-out prompts are not the same"
    heats = [finite(entry(run.policy, "temperature")) for run in (a, b)]
    if heats[0] != heats[1] and None not in heats:
        return f"they were sampled at different temperatures, {number(heats[0])} and {number(heats[1])}"
    return ""


def other_judge(a: RunData, b: RunData) -> str:
    return "" if is_same_model(a, b, "reward") else "each run has its own reward model, so the scales differ"


def other_start(a: RunData, b: RunData) -> str:
    return "" if is_same_model(a, b, "sft") else "each run has its own SFT model"


def other_pairs(a: RunData, b: RunData) -> str:
    """Whether the reward models were tested on pairs of one kind: the same rows, or answers of the same SFT model."""
    hashes = [entry(run.run, "stages", "reward", "data", "heldout_sha256") for run in (a, b)]
    sources = [setting(run, "data", "preferences") for run in (a, b)]
    is_one_kind = sources[0] == sources[1] is not None and is_same_model(a, b, "sft")
    return "" if hashes[0] == hashes[1] is not None or is_one_kind else "the held-out pairs are not the same"


def is_same_model(a: RunData, b: RunData, stage: str) -> bool:
    """Losses of two trainings agree to the last digit only where the weights do."""
    facts = [entry(run.run, "stages", stage) for run in (a, b)]
    losses = [finite(entry(fact, "eval_loss")) for fact in facts]
    rows = [entry(fact, "data", "sha256") for fact in facts]
    return losses[0] == losses[1] is not None and rows[0] == rows[1]


def setting(data: RunData, *keys: str) -> Any:
    return entry(data.settings, *keys)


def quoted(value: Any) -> str:
    return f"“{escaped(value)}”"
