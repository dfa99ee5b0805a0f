"""A checkpoint continues the run that wrote it, and no other."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from rlhf_lab import PPOConfig, PPOTrainer
from rlhf_lab.errors import UserError
from rlhf_lab.stages.ppo_checkpoint import sampled_weights
from tests.tiny_ppo import PROMPTS, share_of_a, tiny_policy, tiny_scalar_model, tiny_tokenizer, tiny_trainer


def lora(**more: Any) -> LoraConfig:
    fields = {"r": 4, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM", "fan_in_fan_out": True}
    return LoraConfig(**{**fields, **more})


def length(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    return [float(len(ids)) for ids in completion_ids]


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "weights": ({"model": tiny_policy(seed=9)}, "reference"),
    "number of heads": ({"model": tiny_policy(n_head=4)}, "model"),
    "prompts": ({"rows": Dataset.from_dict({"prompt": PROMPTS[1:] * 4})}, "prompts"),
    "reward function": ({"reward": length}, "reward functions"),
}


@pytest.mark.parametrize("name", list(OTHER))
def test_what_a_run_rests_on_may_not_change(tmp_path: Path, name: str) -> None:
    tiny_trainer(tmp_path, save_steps=2).train()
    changes, what = OTHER[name]
    with pytest.raises(UserError, match=f"checkpoint-4 was made with another .*{what}"):
        tiny_trainer(tmp_path, save_steps=2, **changes).train(resume_from_checkpoint=True)


def test_the_checkpoint_itself_is_not_the_model_that_its_run_started_from(tmp_path: Path) -> None:
    """The obvious thing to type; the KL would be measured to the trained policy."""
    tiny_policy().save_pretrained(tmp_path / "sft")
    tiny_tokenizer().save_pretrained(tmp_path / "sft")
    arguments = {"processing_class": None}
    tiny_trainer(tmp_path / "run", str(tmp_path / "sft"), arguments=arguments, save_steps=2).train()
    checkpoint = tmp_path / "run" / "checkpoint-2"
    with pytest.raises(UserError, match="model= is the model before PPO, not the checkpoint"):
        tiny_trainer(tmp_path / "run", str(checkpoint), arguments=arguments).train(resume_from_checkpoint=checkpoint)
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    tiny_trainer(tmp_path / "run", str(tmp_path / "sft"), arguments=arguments).train(resume_from_checkpoint=checkpoint)


@pytest.mark.parametrize("change", [{"lora_alpha": 3}, {"target_modules": ["c_proj"]}, {"use_rslora": True}])
def test_other_adapters_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    tiny_trainer(tmp_path, arguments={"peft_config": lora()}, save_steps=4).train()
    with pytest.raises(UserError, match="checkpoint-4 was made with another adapter"):
        tiny_trainer(tmp_path, arguments={"peft_config": lora(**change)}).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(("first", "then"), [({}, {"peft_config": lora()}), ({"peft_config": lora()}, {})])
def test_whole_weights_and_adapters_do_not_continue_each_other(
    tmp_path: Path, first: dict[str, Any], then: dict[str, Any]
) -> None:
    tiny_trainer(tmp_path, arguments=first, save_steps=4).train()
    with pytest.raises(UserError, match="was made with another adapter"):
        tiny_trainer(tmp_path, arguments=then).train(resume_from_checkpoint=True)


def test_a_critic_of_another_size_says_what_does_not_fit(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, save_steps=4).train()
    other = tiny_trainer(tmp_path, arguments={"value_model": tiny_scalar_model(n_embd=8)})
    with pytest.raises(UserError, match=r"does not fit the model .*loading state_dict.*\(size mismatch|copying"):
        other.train(resume_from_checkpoint=True)


def test_a_trainer_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, save_steps=4).train()
    file = tmp_path / "checkpoint-4" / "trainer.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"checkpoint-4/trainer\.pt is cut short"):
        tiny_trainer(tmp_path).train(resume_from_checkpoint=True)


def test_the_callers_random_numbers_go_on_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    model, scalar = tiny_policy(), tiny_scalar_model(seed=3)
    torch.manual_seed(5)
    args = PPOConfig(output_dir=str(tmp_path))
    PPOTrainer(model, share_of_a, args, processing_class=tiny_tokenizer(), value_model=scalar, peft_config=lora(r=2))
    assert torch.equal(torch.rand(3), expected)


def test_the_last_place_of_a_large_weight_is_inside_it() -> None:
    """As large as float32 can not count: GPT-2's embeddings have 38,597,376 numbers."""
    model = torch.nn.Module()
    model.register_parameter("large", torch.nn.Parameter(torch.zeros(2**24 + 4)))
    (before,) = sampled_weights(model, only_frozen=False)
    with torch.no_grad():
        model.large[-1] = 1.0
    assert list(sampled_weights(model, only_frozen=False)) != [before]
