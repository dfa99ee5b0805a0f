"""Step 1 on TRL's trainer: what the labels cover, LoRA, length buckets, a loss that is not finite, resuming."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_lab.config import SFTSection
from rlhf_lab.errors import UserError
from rlhf_lab.stages.sft import encode_demonstrations, fit_language_model
from tests.tiny_ppo import tiny_policy, tiny_tokenizer

ROWS = [{"prompt": "ab", "completion": "cd"}, {"prompt": "a", "completion": "b"}] * 16


def section(**changes: Any) -> SFTSection:
    settings = {"num_epochs": 1, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1}
    return SFTSection(**{**settings, "eval_steps": 0, "save_steps": 0, **changes})


def fit(folder: Path, rows: Dataset | None = None, model: Any = None, **changes: Any) -> dict[str, float]:
    tokenizer = tiny_tokenizer()
    encoded = encode_demonstrations(Dataset.from_list(ROWS), tokenizer, 16) if rows is None else rows
    return fit_language_model(
        tiny_policy() if model is None else model,
        tokenizer,
        encoded,
        encoded.select(range(8)),
        section=section(**changes),
        folder=folder,
        seed=0,
        report_to=[],
    )


def test_labels_cover_the_completion_and_its_eos_only() -> None:
    tokenizer = tiny_tokenizer()
    row = encode_demonstrations(Dataset.from_list(ROWS[:1]), tokenizer, 16)[0]
    prompt = tokenizer("ab")["input_ids"]
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][: len(prompt)] == [-100] * len(prompt)
    assert row["labels"][len(prompt) :] == row["input_ids"][len(prompt) :]
    assert row["labels"][-1] == tokenizer.eos_token_id


def test_a_long_demonstration_loses_the_start_of_its_prompt_first() -> None:
    tokenizer = tiny_tokenizer()
    whole = encode_demonstrations(Dataset.from_list(ROWS[:1]), tokenizer, 16)[0]
    cut = encode_demonstrations(Dataset.from_list(ROWS[:1]), tokenizer, len(whole["input_ids"]) - 1)[0]
    assert cut["input_ids"] == whole["input_ids"][1:]
    assert cut["labels"] == whole["labels"][1:]


def test_training_lowers_the_heldout_loss_and_saves_a_plain_model(tmp_path: Path) -> None:
    first = fit(tmp_path / "short", learning_rate=1e-6)["eval_loss"]
    last = fit(tmp_path / "long", num_epochs=8)["eval_loss"]
    assert last < first - 0.3
    _, report = AutoModelForCausalLM.from_pretrained(tmp_path / "long", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_lora_trains_and_is_merged_into_a_plain_model(tmp_path: Path) -> None:
    model = tiny_policy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(tmp_path, model=model, lora_r=2, num_epochs=4)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    changed = [name for name, value in saved.items() if not torch.allclose(value, before[name], atol=1e-6)]
    assert changed
    assert not [name for name in changed if "wte" in name or "ln" in name], "LoRA leaves embeddings and norms alone"


def test_a_loss_that_is_not_finite_stops_before_the_step_and_saves_the_batch(tmp_path: Path) -> None:
    model = tiny_policy()
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"not_finite_batch\.pt"):
        fit(tmp_path, model=model)
    assert "input_ids" in torch.load(tmp_path / "not_finite_batch.pt", weights_only=True)


def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_the_same(tmp_path: Path) -> None:
    straight = fit(tmp_path / "straight", num_epochs=2, save_steps=2)

    class Killed(Exception):
        pass

    folder = tmp_path / "killed"
    from rlhf_lab.stages import sft

    class Stopping(sft.LanguageModelTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == 5:
                raise Killed
            return super().training_step(*args, **kwargs)

    whole, sft.LanguageModelTrainer = sft.LanguageModelTrainer, Stopping
    try:
        with pytest.raises(Killed):
            fit(folder, num_epochs=2, save_steps=2)
    finally:
        sft.LanguageModelTrainer = whole
    assert (folder / "checkpoint-4").exists()
    assert fit(folder, num_epochs=2, save_steps=2) == straight
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert AutoTokenizer.from_pretrained(folder).pad_token_id != AutoTokenizer.from_pretrained(folder).eos_token_id
