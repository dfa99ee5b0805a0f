"""Step 1 on TRL's trainer: what the labels cover, LoRA, length buckets, a loss that is not finite, resuming."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Trainer

from rlhf_lab.config import SFTSection
from rlhf_lab.errors import UserError
from rlhf_lab.models.language import disable_dropout
from rlhf_lab.stages.sft import encode_demonstrations, fit_language_model
from rlhf_lab.training.trainers import last_checkpoint
from tests.full_disk import files_of_at_most
from tests.tiny_ppo import tiny_policy, tiny_tokenizer

ROWS = [{"prompt": "ab", "completion": "cd"}, {"prompt": "a", "completion": "b"}] * 16


def section(**changes: Any) -> SFTSection:
    settings = {"num_epochs": 1, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1}
    return SFTSection(**{**settings, "eval_steps": 0, "save_steps": 0, **changes})


def fit(folder: Path, rows: Dataset | None = None, model: Any = None, **changes: Any) -> dict[str, float]:
    tokenizer = tiny_tokenizer()
    encoded = encode_demonstrations(Dataset.from_list(ROWS), tokenizer, 16).rows if rows is None else rows
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
    row = encode_demonstrations(Dataset.from_list(ROWS[:1]), tokenizer, 16).rows[0]
    prompt = tokenizer("ab")["input_ids"]
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][: len(prompt)] == [-100] * len(prompt)
    assert row["labels"][len(prompt) :] == row["input_ids"][len(prompt) :]
    assert row["labels"][-1] == tokenizer.eos_token_id


def test_a_long_demonstration_loses_the_start_of_its_prompt_first() -> None:
    tokenizer = tiny_tokenizer()
    whole = encode_demonstrations(Dataset.from_list(ROWS[:1]), tokenizer, 16).rows[0]
    cut = encode_demonstrations(Dataset.from_list(ROWS[:1]), tokenizer, len(whole["input_ids"]) - 1).rows[0]
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


def test_a_gradient_that_is_not_finite_stops_before_the_step_too(tmp_path: Path) -> None:
    """The loss is finite: the gradient alone is not."""
    model = tiny_policy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(UserError, match=r"gradient that is not finite at step 0: .*not_finite_batch\.pt"):
        fit(tmp_path, model=model)
    assert "input_ids" in torch.load(tmp_path / "not_finite_batch.pt", weights_only=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("num_bytes", [1_500, 9_000])
def test_a_full_disk_is_an_error_that_says_what_to_do_and_the_checkpoint_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    """Small limits fail in the configuration, larger ones in the weights; in a checkpoint, then at the very end."""
    straight = fit(tmp_path / "straight", num_epochs=2, save_steps=2)
    folder = tmp_path / "run"

    def full(step: int, trainer: Any) -> Any:
        return files_of_at_most(num_bytes) if trainer.state.global_step >= step else nullcontext()

    def on_a_full_disk(trainer: Any, *args: Any, **kwargs: Any) -> None:
        with full(6, trainer):
            whole(trainer, *args, **kwargs)

    whole = Trainer._save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", on_a_full_disk)
        with pytest.raises(UserError, match=r"could not save .*checkpoint-6"):
            fit(folder, num_epochs=2, save_steps=2)
    assert Path(last_checkpoint(folder) or "").name == "checkpoint-4"

    def at_the_end(model: Any, target: Any, **kwargs: Any) -> None:
        with files_of_at_most(num_bytes) if Path(target) == folder else nullcontext():
            saved(model, target, **kwargs)

    saved = PreTrainedModel.save_pretrained
    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", at_the_end)
        with pytest.raises(UserError, match=r"could not save .*run: .*free some space"):
            fit(folder, num_epochs=2, save_steps=2)
    assert fit(folder, num_epochs=2, save_steps=2) == straight


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


def test_the_lean_forward_trains_as_transformers_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same losses and model after some steps, with and without accumulation, whichever forward made them."""
    from rlhf_lab.models import lean_gpt2

    passes: list[int] = []
    states_at = lean_gpt2.states_at
    monkeypatch.setattr(lean_gpt2, "states_at", lambda *given: (passes.append(1), states_at(*given))[1])
    for micro_batch_size in (8, 4):
        found = {}
        for name in ("lean", "plain"):
            model, folder = tiny_policy(), tmp_path / f"{name}{micro_batch_size}"
            disable_dropout(model)
            with monkeypatch.context() as patch:
                if name == "plain":
                    patch.setattr(lean_gpt2, "fits", lambda model, **settings: False)
                fit(folder, model=model, micro_batch_size=micro_batch_size)
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            found[name] = [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)], model
        assert found["lean"][0] == pytest.approx(found["plain"][0], abs=1e-5)
        # Not weights: Adam makes whole steps of the rounding in gradients that are 0, such as that of a key's bias.
        ids = torch.arange(2, 10)[None]
        with torch.no_grad():
            logits = {name: model(input_ids=ids).logits for name, (_, model) in found.items()}
        torch.testing.assert_close(logits["lean"], logits["plain"], atol=1e-3, rtol=1e-3)
    assert len(passes) == 4 + 8, "micro-batches of the two lean runs"
