"""What the tests of PPO share: a tokenizer of ten tokens, models that run in milliseconds, a trainer of small sizes.

Ten tokens, so that EOS is drawn often and completions differ in length. No test lives here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast

from rlhf_lab import PPOConfig, PPOTrainer
from rlhf_lab.training.records import read_metrics

EOS, PAD, A, B = 0, 1, 2, 3
TOKENS = ["</s>", "<pad>", *"abcdefgh"]
TIMINGS = {"eps", "rollout_seconds", "update_seconds"}
PROMPTS = ["ab", "c", "dea", "gbcda", "f", "hh", "abc", "eda", "bb", "cafe", "d", "gag"]


def tiny_tokenizer(pad: str | None = "<pad>", tokens: Sequence[str] = TOKENS) -> Any:
    """One letter, one token."""
    tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token=pad)


def tiny_policy(seed: int = 2, **fields: Any) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(tiny_config(**fields))


def tiny_scalar_model(seed: int = 1, **fields: Any) -> GPT2ForSequenceClassification:
    torch.manual_seed(seed)
    return GPT2ForSequenceClassification(tiny_config(**{"num_labels": 1, "pad_token_id": PAD, **fields}))


def tiny_config(**fields: Any) -> GPT2Config:
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 32, "vocab_size": len(TOKENS)}
    ids = {"eos_token_id": EOS, "bos_token_id": EOS}
    return GPT2Config(**{**sizes, **ids, "initializer_range": 0.3, **fields})


def share_of_a(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """The reward of most tests: which part of the tokens are the letter a."""
    return [row.count(A) / len(row) for row in completion_ids]


def tiny_trainer(
    folder: Path,
    model: Any = None,
    reward: Any = share_of_a,
    *,
    rows: Dataset | None = None,
    trainer_class: type[PPOTrainer] = PPOTrainer,
    arguments: dict[str, Any] | None = None,
    **settings: Any,
) -> PPOTrainer:
    """A trainer of 4 updates; `arguments` go to the trainer, `settings` to its PPOConfig."""
    defaults = {
        "total_episodes": 32,
        "rollout_batch_size": 8,
        "minibatch_size": 4,
        "micro_batch_size": 4,
        "num_ppo_epochs": 2,
        "learning_rate": 1e-2,
        "max_completion_length": 6,
        "max_prompt_length": 8,
    }
    given = {"processing_class": tiny_tokenizer(), "value_model": tiny_scalar_model(seed=3), **(arguments or {})}
    return trainer_class(
        tiny_policy() if model is None else model,
        reward,
        args=PPOConfig(output_dir=str(folder), **{**defaults, **settings}),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 4}) if rows is None else rows,
        **given,
    )


def first_rollout(trainer: PPOTrainer) -> Any:
    return trainer.collect_rollout(next(trainer.prompt_batches()))


def weights(model: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def all_weights(trainer: PPOTrainer) -> dict[str, Tensor]:
    """Of policy and critic."""
    critic = {f"critic.{name}": weight for name, weight in weights(trainer.models.critic).items()}
    return {**weights(trainer.models.policy), **critic}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock measured."""
    return [{key: value for key, value in line.items() if key not in TIMINGS} for line in read_metrics(folder)]


def largest_metric_difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    assert [list(line) for line in one] == [list(line) for line in other]
    pairs = [(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a]
    assert all((a is None) == (b is None) for a, b in pairs)
    return max(abs(a - b) / max(1.0, abs(a)) for a, b in pairs if a is not None)
