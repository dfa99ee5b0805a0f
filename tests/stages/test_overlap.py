"""Chunks of a rollout that are scored while the next one is sampled: the same training, at the same time."""

import math
import threading
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor

from rlhf_lab import PPOTrainer
from rlhf_lab.errors import UserError
from rlhf_lab.generation.sample import Completions
from rlhf_lab.stages.overlap import sampled_and_scored
from rlhf_lab.stages.scoring import Scores
from tests.tiny_ppo import (
    PROMPTS,
    all_weights,
    largest_difference,
    largest_metric_difference,
    metrics_of,
    share_of_a,
    tiny_scalar_model,
    tiny_trainer,
)

LONG_AGO = 20.0  # seconds, after which something that should happen will not


@pytest.mark.parametrize("chunks", [2, 3, 8, 20])
def test_training_is_what_it_is_without(chunks: int, tmp_path: Path) -> None:
    """8 rows in chunks of 4; of 3, 3, 2; of 1; and where there are fewer rows than chunks."""
    rows = Dataset.from_dict({"prompt": PROMPTS * 4, "worth": list(range(4 * len(PROMPTS)))})

    def worth(completion_ids: list[list[int]], worth: list[int], **kwargs: Any) -> list[Any]:
        """A reward of each token for some, none at all for others: every row has to meet its own column."""
        pairs = zip(completion_ids, worth, strict=True)
        return [None if number % 5 == 0 else [number / 48] * len(row) for row, number in pairs]

    settings = {"rows": rows, "reward": [share_of_a, worth, tiny_scalar_model(seed=4)], "adam_eps": 1e-3}
    one_by_one = tiny_trainer(tmp_path / "1", **settings)
    one_by_one.train()
    overlapped = tiny_trainer(tmp_path / "n", overlap_chunks=chunks, **settings)
    overlapped.train()
    assert largest_difference(all_weights(one_by_one), all_weights(overlapped)) < 1e-5
    assert largest_metric_difference(metrics_of(tmp_path / "1"), metrics_of(tmp_path / "n")) < 1e-4


class Watched(PPOTrainer):
    """Notes when chunks are sampled."""

    def complete(self, prompt_ids: Any, uniforms: Tensor, temperature: float) -> Completions:
        self.sampled.append(len(prompt_ids))
        if len(self.sampled) == 2:
            self.second_is_being_sampled.set()
            assert self.first_is_scored.wait(LONG_AGO), "sampling goes on only once the first chunk is scored"
        return super().complete(prompt_ids, uniforms, temperature)

    sampled: list[int]
    second_is_being_sampled: threading.Event
    first_is_scored: threading.Event


def watched(folder: Path, reward: Any) -> Watched:
    trainer = tiny_trainer(folder, None, reward, trainer_class=Watched, total_episodes=8, overlap_chunks=2)
    assert isinstance(trainer, Watched)
    trainer.sampled, trainer.second_is_being_sampled, trainer.first_is_scored = [], threading.Event(), threading.Event()
    return trainer


def test_a_chunk_is_scored_while_the_next_is_sampled(tmp_path: Path) -> None:
    """Each waits for the other, so that neither could come first."""
    scored: list[int] = []

    def reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        assert trainer.second_is_being_sampled.wait(LONG_AGO), "the second chunk is sampled meanwhile"
        scored.append(len(completion_ids))
        trainer.first_is_scored.set()
        return share_of_a(completion_ids)

    trainer = watched(tmp_path, reward)
    trainer.train()
    assert trainer.sampled == scored == [4, 4]


def no_number(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [math.nan] * len(completion_ids)


def test_what_a_reward_function_raises_ends_training(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, None, no_number, overlap_chunks=4)
    before = all_weights(trainer)
    with pytest.raises(UserError, match="returned nan; return finite numbers"):
        trainer.train()
    assert largest_difference(before, all_weights(trainer)) == 0.0


def test_after_an_error_no_more_is_sampled_or_scored() -> None:
    """The first chunk's score fails once the third is being sampled; when the second's begins, that is known."""
    third_is_being_sampled, second_is_being_scored = threading.Event(), threading.Event()
    third_is_refused = threading.Event()
    sampled: list[int] = []
    scored: list[int] = []

    def sample(rows: slice) -> Completions:
        sampled.append(rows.start)
        if rows.start == 2:
            third_is_being_sampled.set()
            assert second_is_being_scored.wait(LONG_AGO)
        row = torch.zeros(1, 1)
        return Completions(row.long(), row.bool(), row[0].bool())

    def score(rows: slice, completions: Completions) -> Scores:
        if rows.start == 0:
            assert third_is_being_sampled.wait(LONG_AGO)
            raise UserError("no score")
        scored.append(rows.start)
        second_is_being_scored.set()
        assert third_is_refused.wait(LONG_AGO)
        return Scores([0.0], [[]], [[0.0]])

    with pytest.raises(UserError, match="no score"):
        sampled_and_scored(6, 6, sample, score, torch.device("cpu"))
    third_is_refused.set()  # raised while the second chunk was still being scored
    for thread in threading.enumerate():
        if thread.name.startswith("scores"):
            thread.join(LONG_AGO)
    assert sampled == [0, 1, 2]
    assert scored == [1]


def test_scores_know_the_context_of_the_caller_and_chunks_may_differ_in_width() -> None:
    """Gradient mode and context variables belong to a thread; an own complete() may cut to its longest completion."""
    said = ContextVar("said", default="nothing")
    said.set("something")
    seen: list[tuple[str, bool]] = []

    def sample(rows: slice) -> Completions:
        ids = torch.full((2, 1 + rows.start), 7)
        return Completions(ids, ids > 0, torch.tensor([True, False]), ids.float())

    def score(rows: slice, completions: Completions) -> Scores:
        seen.append((said.get(), torch.is_grad_enabled()))
        return Scores([float(rows.start)] * 2, [[], []], [[None], [None]])

    with torch.no_grad():
        completions, scores = sampled_and_scored(4, 2, sample, score, torch.device("cpu"))
    assert seen == [("something", False)] * 2
    assert completions.rows() == [[7], [7], [7, 7, 7], [7, 7, 7]]
    assert completions.log_probs is not None
    assert completions.log_probs.tolist() == [[7, 0, 0], [7, 0, 0], [7, 7, 7], [7, 7, 7]]
    assert scores.totals == [0.0, 0.0, 2.0, 2.0]
