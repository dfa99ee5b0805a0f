"""Details of OpenAI's code of 2019 (Ziegler et al., arXiv 1909.08593): fixed length, "." truncation, Adam's form."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lab.config import load_experiment
from rlhf_lab.errors import UserError
from rlhf_lab.training.tensorflow_adam import TensorFlowAdam
from tests.tiny_ppo import EOS, A, first_rollout, metrics_of, tiny_trainer


def test_g4_without_stop_tokens_every_completion_has_the_full_length(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, stop_tokens=[])
    rollout = first_rollout(trainer)
    assert rollout.completion_mask.all()
    assert not rollout.stopped.any()
    assert (rollout.completion_ids == EOS).any(), "EOS is a token like any other then"


def test_p5_reward_functions_see_the_text_up_to_the_truncation_token(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def watch(completion_ids: list[list[int]], completions: list[str], **kwargs: Any) -> list[float]:
        seen.extend(completion_ids)
        assert [len(text) for text in completions] == [sum(t > 1 for t in row) for row in completion_ids]
        return [2.0] * len(completion_ids)

    plain = first_rollout(tiny_trainer(tmp_path / "plain", stop_tokens=[])).completion_ids.tolist()
    token = next(t for t in range(2, 10) if 0 < sum(t in row[2:] for row in plain) < len(plain))
    settings = {"stop_tokens": [], "truncate_token": token, "truncate_after": 2, "untruncated_score": -1.0}
    trainer = tiny_trainer(tmp_path, reward=watch, kl_coef=0.0, **settings)
    rollout = first_rollout(trainer)
    rows = rollout.completion_ids.tolist()
    has_token = [token in row[2:] for row in rows]
    assert seen == [row[: row.index(token, 2) + 1] if has else row for row, has in zip(rows, has_token, strict=True)]
    assert rollout.scores.tolist() == [2.0 if has else -1.0 for has in has_token]
    assert rollout.completion_mask.all(), "the policy is trained on all tokens"
    rewards = trainer.estimate_targets(rollout).rewards
    assert rewards[:, -1].tolist() == rollout.scores.tolist(), "the score sits on the last one"
    assert float(rewards[:, :-1].abs().max()) == 0


def test_without_an_untruncated_score_the_function_decides(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, reward=lambda completions, **k: [2.0] * len(completions), truncate_token=A)
    assert first_rollout(trainer).scores.tolist() == [2.0] * 8


def test_options_of_truncation_need_the_token(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="truncate_after and untruncated_score need a truncate_token"):
        tiny_trainer(tmp_path, truncate_after=3)


def test_p14_the_form_of_adam_is_honoured(tmp_path: Path) -> None:
    """With eps far above the gradients, TensorFlow's form takes far smaller first steps."""
    settings = {"adam_eps": 1e-2, "total_episodes": 8, "num_ppo_epochs": 4}
    tensorflow = tiny_trainer(tmp_path / "tensorflow", adam_form="tensorflow", **settings)
    assert isinstance(tensorflow.optimization.optimizer.optimizer, TensorFlowAdam)
    tensorflow.train()
    tiny_trainer(tmp_path / "torch", **settings).train()
    moved = {name: metrics_of(tmp_path / name)[0]["policy/approxkl_avg"] for name in ("tensorflow", "torch")}
    assert moved["tensorflow"] < 0.5 * moved["torch"]


def test_the_shipped_config_spells_the_details_out() -> None:
    """Figures from the published settings: batch 512, 4 epochs, 1 M episodes, 24 tokens, the adaptive KL weight."""
    ppo = load_experiment("lm_human_preferences").ppo
    assert (ppo.rollout_batch_size, ppo.num_ppo_epochs, ppo.max_completion_length) == (512, 4, 24)
    assert (ppo.temperature, ppo.kl_coef, ppo.target_kl, ppo.kl_horizon) == (0.7, 0.15, 6.0, 10_000)
    assert (ppo.stop_tokens, ppo.truncate_token, ppo.truncate_after, ppo.untruncated_score) == ([], ".", 16, -1.0)
    assert (ppo.adam_form, ppo.adam_eps, ppo.whiten_rewards, ppo.learning_rate) == ("tensorflow", 1e-5, True, 1e-5)
    assert (ppo.gamma, ppo.gae_lambda, ppo.clip_range, ppo.value_clip_range, ppo.vf_coef) == (1, 0.95, 0.2, 0.2, 0.1)


def test_the_truncation_token_has_to_be_one_token(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, truncate_token="ab")
    with pytest.raises(UserError, match="'ab' is 2 tokens"):
        first_rollout(trainer)


def test_rows_keep_all_tokens(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, stop_tokens=[], total_episodes=8)
    trainer.train()
    assert metrics_of(tmp_path)[0]["completion_length"] == 6.0
    assert torch.isfinite(torch.tensor(metrics_of(tmp_path)[0]["loss/policy_avg"]))
