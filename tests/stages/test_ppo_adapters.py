"""Policies with adapters: what is saved loads, nothing draws noise, and the reference stays where it is."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_lab.errors import UserError
from tests.tiny_ppo import TOKENS, A, first_rollout, metrics_of, tiny_policy, tiny_tokenizer, tiny_trainer


def lora(**more: Any) -> LoraConfig:
    fields = {"r": 4, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM", "fan_in_fan_out": True}
    return LoraConfig(**{**fields, "init_lora_weights": False, **more})


def base_without_pad(folder: Path) -> str:
    """As GPT-2 and Llama come: fewer rows than the tokenizer has once a pad token is added."""
    tiny_policy(vocab_size=len(TOKENS) - 1).save_pretrained(folder)
    tiny_tokenizer(pad=None, tokens=[token for token in TOKENS if token != "<pad>"]).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["fresh", "trained"])
def test_b16_adapters_on_a_base_without_a_pad_token_are_saved_and_load_with_plain_transformers(
    tmp_path: Path, kind: str
) -> None:
    base = base_without_pad(tmp_path / "base")
    model: Any = base
    arguments: dict[str, Any] = {"processing_class": None, "value_model": None}
    if kind == "fresh":
        arguments["peft_config"] = lora()
    else:
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora())
        arguments["processing_class"] = AutoTokenizer.from_pretrained(base)
    arguments["value_model"] = base
    trainer = tiny_trainer(tmp_path / "run", model, arguments=arguments, save_steps=2)
    trainer.train()
    folder = tmp_path / "run" / "checkpoint-4"
    loaded, ids = AutoModelForCausalLM.from_pretrained(folder), torch.tensor([[A, 3, 4, 5]])
    with torch.no_grad():
        expected = trainer.models.policy(ids).logits[..., : len(TOKENS) - 1]
        torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert AutoTokenizer.from_pretrained(folder).pad_token is None, "an id beyond the base's embeddings would crash"
    if kind == "fresh":
        straight = metrics_of(tmp_path / "run")
        shutil.rmtree(folder)
        again = tiny_trainer(tmp_path / "run", model, arguments=arguments, save_steps=2)
        again.train(resume_from_checkpoint=True)
        assert metrics_of(tmp_path / "run") == straight


@pytest.mark.parametrize("kind", ["fresh", "trained"])
def test_dropout_of_adapters_is_off(tmp_path: Path, kind: str) -> None:
    config = lora(lora_dropout=0.5)
    model = tiny_policy() if kind == "fresh" else get_peft_model(tiny_policy(), config)
    arguments = {"peft_config": config} if kind == "fresh" else {}
    trainer = tiny_trainer(tmp_path, model, arguments=arguments, gradient_checkpointing=True)
    rollout = first_rollout(trainer)
    sums = trainer.step_on(rollout, trainer.estimate_targets(rollout), torch.arange(8))
    assert sums["ratio"] / sums["tokens"] == pytest.approx(1.0, abs=1e-5)
    assert sums["approxkl"] == pytest.approx(0.0, abs=1e-8)


def test_an_adapter_folder_is_a_policy_and_its_adapter_the_reference(tmp_path: Path) -> None:
    tiny_policy().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), lora())
    adapted.save_pretrained(tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(tmp_path / "adapter")
    trainer = tiny_trainer(tmp_path / "run", str(tmp_path / "adapter"), arguments={"processing_class": None})
    ids = torch.tensor([[A, 3, 4, 5]])
    with torch.no_grad(), trainer.models.reference() as reference:
        torch.testing.assert_close(reference(ids).logits, adapted.eval()(ids).logits, atol=1e-6, rtol=1e-6)
    trainer.train()
    first, last = metrics_of(tmp_path / "run")[0], metrics_of(tmp_path / "run")[-1]
    assert first["objective/kl"] == pytest.approx(0.0, abs=1e-5)
    assert last["objective/kl"] > 1e-3


def merged() -> PeftModel:
    model = get_peft_model(tiny_policy(), lora())
    model.merge_adapter()
    return model


NO_REFERENCE: dict[str, tuple[Any, Any, str]] = {
    "whole modules": (lambda: get_peft_model(tiny_policy(), lora(modules_to_save=["ln_f"])), None, "modules_to_save"),
    "biases": (lambda: get_peft_model(tiny_policy(), lora(bias="lora_only")), None, "bias='none'"),
    "fresh biases": (tiny_policy, lora(bias="lora_only"), "bias='none'"),
    "the reference's name": (
        lambda: get_peft_model(tiny_policy(), lora(), adapter_name="reference"),
        None,
        "another adapter_name",
    ),
    "merged": (merged, None, r"unmerge_adapter\(\)"),
    "a learnt prompt": (
        tiny_policy,
        PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2),
        "use a LoraConfig",
    ),
}


@pytest.mark.parametrize("name", list(NO_REFERENCE))
def test_adapters_beside_which_no_reference_can_be_had_are_refused(tmp_path: Path, name: str) -> None:
    make, config, words = NO_REFERENCE[name]
    with pytest.raises(UserError, match=words):
        tiny_trainer(tmp_path, make(), arguments={} if config is None else {"peft_config": config})


def test_whole_modules_of_a_fresh_adapter_are_switched_off_for_the_reference(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, arguments={"peft_config": lora(modules_to_save=["ln_f"])})
    ids = torch.tensor([[A, 3, 4, 5]])

    def reference_logits() -> torch.Tensor:
        with torch.no_grad(), trainer.models.reference() as reference:
            return reference(ids).logits.clone()

    before = reference_logits()
    trainer.train()
    assert torch.equal(reference_logits(), before)


def test_the_active_one_of_several_adapters_is_the_reference(tmp_path: Path) -> None:
    policy = get_peft_model(tiny_policy(), lora())
    policy.add_adapter("second", lora())
    policy.set_adapter("second")
    trainer = tiny_trainer(tmp_path, policy)
    rollout = first_rollout(trainer)
    torch.testing.assert_close(rollout.log_probs, rollout.ref_log_probs, atol=1e-5, rtol=1e-5)
