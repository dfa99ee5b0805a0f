"""Rollouts: layout, trimming, and log-probs and values that a plain forward over single rows gives too."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lab.generation.sample import Completions
from rlhf_lab.stages.rollout import lay_out
from rlhf_lab.stages.scoring import Scores
from tests.tiny_ppo import EOS, PAD, first_rollout, tiny_policy, tiny_trainer


def by_hand() -> Any:
    completions = Completions(
        ids=torch.tensor([[5, EOS, PAD], [6, 7, 8]]),
        mask=torch.tensor([[True, True, False], [True, True, True]]),
        stopped=torch.tensor([True, False]),
    )
    scores = Scores(totals=[0.5, -1.0], of_tokens=[[], [0.25, 0.0]], by_source=[[0.5, None], [-1.0, 2.0]])
    return lay_out([[2, 3, 4], [9]], completions, scores, PAD)


def test_prompt_completion_padding_lie_flush_left() -> None:
    rollout = by_hand()
    assert rollout.ids.tolist() == [[2, 3, 4, 5, EOS], [9, 6, 7, 8, PAD]]
    assert rollout.prompt_lengths.tolist() == [3, 1]
    assert len(rollout) == 2


def test_scores_of_completions_tokens_and_sources_are_laid_out() -> None:
    rollout = by_hand()
    assert rollout.scores.tolist() == [0.5, -1.0]
    assert rollout.token_scores[1, :2].tolist() == [0.25, 0.0]
    assert float(rollout.token_scores[0].abs().sum()) == 0
    assert rollout.source_scores.isnan().tolist() == [[False, True], [False, False]]
    assert rollout.rows([1]).source_scores.shape == (1, 2)


def test_rows_are_trimmed_to_their_longest() -> None:
    part = by_hand().rows(torch.tensor([0]))
    assert part.ids.tolist() == [[2, 3, 4, 5, EOS]]
    assert part.completion_ids.tolist() == [[5, EOS]]
    assert part.completion_mask.shape == part.log_probs.shape == part.values.shape == (1, 2)
    assert by_hand().rows([1]).ids.tolist() == [[9, 6, 7, 8]]


def test_rows_keep_their_order() -> None:
    part = by_hand().rows([1, 0])
    assert part.prompt_lengths.tolist() == [1, 3]
    assert part.stopped.tolist() == [False, True]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probs_and_values_are_those_of_a_plain_forward(tmp_path: Path, temperature: float) -> None:
    """Row by row, without padding, with nothing of ours but the weights."""
    trainer = tiny_trainer(tmp_path, temperature=temperature, arguments={"ref_model": tiny_policy(seed=9)})
    rollout = first_rollout(trainer)
    assert trainer.models.frozen is not None
    for row, (start, mask) in enumerate(zip(rollout.prompt_lengths.tolist(), rollout.completion_mask, strict=True)):
        num = int(mask.sum())
        ids = rollout.ids[row : row + 1, : start + num]
        chosen = ids[0, start:, None]
        with torch.no_grad():
            for model, found in ((trainer.models.policy, "log_probs"), (trainer.models.frozen, "ref_log_probs")):
                logits = model(input_ids=ids).logits[0, start - 1 : -1] / temperature
                expected = logits.log_softmax(-1).gather(1, chosen)[:, 0]
                assert torch.allclose(getattr(rollout, found)[row, :num], expected, atol=1e-5)
            critic = trainer.models.critic
            hidden = critic.transformer(input_ids=ids).last_hidden_state[0, start - 1 : -1]
            assert torch.allclose(rollout.values[row, :num], critic.score(hidden)[:, 0], atol=1e-5)


def test_padding_of_a_rollout_holds_zeros(tmp_path: Path) -> None:
    rollout = first_rollout(tiny_trainer(tmp_path, rollout_batch_size=32))
    off = ~rollout.completion_mask
    assert off.any()
    for name in ("log_probs", "ref_log_probs", "values"):
        assert (getattr(rollout, name)[off] == 0).all(), name
    assert (rollout.log_probs[rollout.completion_mask] < 0).all()


def test_a_rollout_needs_no_gradient(tmp_path: Path) -> None:
    rollout = first_rollout(tiny_trainer(tmp_path))
    assert not any(getattr(rollout, name).requires_grad for name in ("log_probs", "ref_log_probs", "values", "scores"))


def test_the_update_sees_the_same_log_probs_and_values_as_the_rollout(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, temperature=0.7)
    rollout = first_rollout(trainer)
    log_probs, entropies, values = trainer.optimization.actor_critic(rollout, 0.7, False)
    mask = rollout.completion_mask
    assert torch.allclose(log_probs[mask], rollout.log_probs[mask], atol=1e-5)
    assert torch.allclose(values[mask], rollout.values[mask], atol=1e-5)
    assert log_probs.requires_grad
    assert values.requires_grad
    assert not entropies.requires_grad


def test_rollouts_of_two_updates_differ(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    batches = trainer.prompt_batches()
    first, second = (trainer.collect_rollout(next(batches)) for _ in range(2))
    assert not torch.equal(first.completion_ids, second.completion_ids)
