"""PPO on causal language models other than GPT-2: Llama (RMS norm, rotary positions), GPT-NeoX (parallel residual)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
)

from rlhf_lab.models.scalar import normalize_scores, sequence_scores
from tests.tiny_ppo import (
    EOS,
    PAD,
    TOKENS,
    all_weights,
    first_rollout,
    largest_difference,
    metrics_of,
    tiny_trainer,
)

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "vocab_size": len(TOKENS),
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "initializer_range": 0.3,
}
ARCHITECTURES = {
    "llama": (LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM, GPTNeoXForSequenceClassification),
}


def models(kind: str) -> tuple[Any, Any]:
    """A policy and a reward model."""
    config, causal, scalar = ARCHITECTURES[kind]
    torch.manual_seed(2)
    return causal(config(**SIZES)), scalar(config(**SIZES, num_labels=1))


@pytest.mark.parametrize("shared", [False, True], ids=["critic", "shared trunk"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_identities_hold_and_training_moves(tmp_path: Path, kind: str, shared: bool) -> None:
    policy, reward = models(kind)
    normalize_scores(reward, 0.5, 2.0)
    settings = {"share_value_trunk": shared, "save_steps": 2, "num_ppo_epochs": 1, "minibatch_size": 8}
    trainer = tiny_trainer(tmp_path, policy, reward, arguments={"value_model": None}, **settings)
    before = all_weights(trainer)
    trainer.train()
    first = metrics_of(tmp_path)[0]
    assert first["val/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert first["objective/kl"] == pytest.approx(0.0, abs=1e-5)
    assert largest_difference(before, all_weights(trainer)) > 1e-3
    again, reward = models(kind)
    normalize_scores(reward, 0.5, 2.0)
    resumed = tiny_trainer(tmp_path / "again", again, reward, arguments={"value_model": None}, **settings)
    resumed.train(resume_from_checkpoint=tmp_path / "checkpoint-2")
    assert largest_difference(all_weights(resumed), all_weights(trainer)) == 0


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_b22_scores_inside_ppo_are_those_of_a_call(tmp_path: Path, kind: str) -> None:
    policy, reward = models(kind)
    trainer = tiny_trainer(tmp_path, policy, reward, arguments={"value_model": None})
    rollout = first_rollout(trainer)
    lengths = (rollout.prompt_lengths + rollout.completion_mask.sum(1)).tolist()
    rows = [ids[:length] for ids, length in zip(rollout.ids.tolist(), lengths, strict=True)]
    assert torch.allclose(rollout.scores, sequence_scores(trainer.scorers[0].model, rows), atol=1e-5)
    with torch.no_grad():
        alone = [float(reward(input_ids=torch.tensor([row])).logits) for row in rows]
    assert rollout.scores.tolist() == pytest.approx(alone, abs=1e-5)


def test_models_that_keep_dropout_as_a_number_draw_no_noise(tmp_path: Path) -> None:
    """OPT and Falcon: no `nn.Dropout` to set to 0."""
    ids = {"vocab_size": 10, "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 1}
    torch.manual_seed(0)
    for number, model in enumerate(
        (
            OPTForCausalLM(
                OPTConfig(**ids, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, dropout=0.5)
            ),
            FalconForCausalLM(
                FalconConfig(
                    **ids,
                    hidden_size=16,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    hidden_dropout=0.5,
                    attention_dropout=0.5,
                )
            ),
        )
    ):
        trainer = tiny_trainer(tmp_path / str(number), model)
        rollout = first_rollout(trainer)
        sums = trainer.step_on(rollout, trainer.estimate_targets(rollout), torch.arange(8))
        assert sums["ratio"] / sums["tokens"] == pytest.approx(1.0, abs=1e-5), type(model).__name__
