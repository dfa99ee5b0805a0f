"""How the run came about, in a few sentences: which model, on whose comparisons, how much, how long, on what machine.

Leaves out: what came of it (`opening.py`).
"""

from __future__ import annotations

from typing import Any

from .raters import learnt_from
from .run_data import RunData
from .text import count, duration, entry, escaped, finite

STAGES = ("base", "sft", "comparisons", "reward", "ppo", "evaluation")
MODEL_SIZE = {"n_layer": "layers", "n_embd": "wide", "num_hidden_layers": "layers", "hidden_size": "wide"}


def story(data: RunData) -> str:
    """As HTML; "" for a run of which nothing is told."""
    learnt = [told for told in (supervised(data), judged(data), reinforced(data)) if told]
    first = [f"{'; '.join([*learnt[:-1], f'and {learnt[-1]}'] if len(learnt) > 1 else learnt)}."] if learnt else []
    return " ".join([*(one[:1].upper() + one[1:] for one in first), *circumstances(data)])


def supervised(data: RunData) -> str:
    rows = finite(data.learnt("sft", "num_rows"))
    if rows is None:
        return ""
    return f"{model(data)} learnt from {count(rows)} demonstrations"


def judged(data: RunData) -> str:
    whose = learnt_from(data)
    return f"a reward model from {whose}" if whose and data.state("reward") == "done" else ""


def reinforced(data: RunData) -> str:
    episodes = data.last("ppo", "episode")
    if episodes is None:
        return ""
    return f"PPO trained the model on {count(episodes)} of its own answers"


def model(data: RunData) -> str:
    """'the embedded model (4 layers, 128 wide)'."""
    name = entry(data.settings, "model", "name_or_path")
    if name is None:
        return "a language model"
    size = ", ".join(size_in_words(entry(data.settings, "model", "config")))
    named = "the embedded model" if name == "assistant" else f"<code>{escaped(name)}</code>"
    return f"{named} ({size})" if size else named


def size_in_words(config: Any) -> list[str]:
    told = [(finite(entry(config, key)), word) for key, word in MODEL_SIZE.items()]
    return [f"{count(number)} {word}" for number, word in told if number is not None]


def circumstances(data: RunData) -> list[str]:
    """Sentences on where the models come from, time, machine, seed."""
    sentences = []
    if source := entry(data.run, "stages", "sft", "taken_from"):
        sentences.append(f"The SFT model was taken over from the run {escaped(folder_name(source))}.")
    seconds = total_seconds(data)
    seed = entry(data.run, "seed")
    where = machine(entry(data.run, "machine"))
    if seconds is not None:
        seeded = f", with seed {escaped(seed)}" if seed is not None else ""
        sentences.append(f"It took {duration(seconds)}{f' on {where}' if where else ''}{seeded}.")
    return sentences


def folder_name(path: Any) -> str:
    return str(path).rstrip("/").rpartition("/")[2]


def total_seconds(data: RunData) -> float | None:
    """Of the stages that this run did itself."""
    own = [stage for stage in STAGES if entry(data.run, "stages", stage, "taken_from") is None]
    known = [seconds for seconds in map(data.seconds, own) if seconds is not None]
    return sum(known) if known else None


def machine(value: Any) -> str:
    """'2 CPU cores', or the accelerator."""
    device, cores = entry(value, "device"), finite(entry(value, "cpu_count"))
    if isinstance(device, str) and device != "cpu":
        return escaped(device)
    return "" if cores is None else f"{count(cores)} CPU {'core' if cores == 1 else 'cores'}"
