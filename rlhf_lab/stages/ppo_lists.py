"""What own loops hand to `PPOTrainer.generate` and `PPOTrainer.step`: lists of ids and scores, checked and laid out.

Leaves out text and messages; data sets bring those (prompt_source.py).
"""

import math
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_lab.data.batches import pad_right
from rlhf_lab.errors import UserError
from rlhf_lab.generation.sample import Completions
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.stages.scoring import Scores
from rlhf_lab.training.run import Run, rows_of_rank

Ids: TypeAlias = Tensor | Sequence[int]  # of one text


def are_ids(prompts: Sequence[Any]) -> bool:
    """Whether prompts are rows of ids, not text or messages. Raises UserError where there are none."""
    if not len(prompts):
        raise UserError("generate() was given no prompts")
    first = prompts[0]
    return not isinstance(first, str) and not (len(first) and isinstance(first[0], dict))


def as_lists(rows: Sequence[Ids]) -> list[list[int]]:
    """Rows of ids as plain lists."""
    return [[int(token) for token in row] for row in rows]


def check_ids(
    prompts: Sequence[Ids], completions: Sequence[Ids] | None, policy: PreTrainedModel, args: PPOConfig, run: Run
) -> None:
    """Raise UserError for rows that are empty, too long, too few, or hold ids that the policy does not know."""
    _check_rows("prompt", prompts, args.max_prompt_length, "max_prompt_length", policy)
    if completions is None:
        return
    _check_rows("completion", completions, args.max_completion_length, "max_completion_length", policy)
    share = len(rows_of_rank(args.rollout_batch_size, rank=run.rank, num_processes=run.num_processes))
    if not len(prompts) == len(completions) == share:
        raise UserError(
            f"step() got {len(prompts)} prompts and {len(completions)} completions; one update takes "
            f"rollout_batch_size={args.rollout_batch_size}, {share} on each of {run.num_processes} processes"
        )


def _check_rows(what: str, rows: Sequence[Ids], limit: int, option: str, policy: PreTrainedModel) -> None:
    vocabulary = policy.get_input_embeddings().weight.shape[0]
    for number, row in enumerate(rows):
        if len(row) == 0:
            raise UserError(f"{what} {number} has no tokens; give at least one")
        if len(row) > limit:
            raise UserError(f"{what} {number} has {len(row)} tokens; cut it, or type {option}={len(row)}")
        if wrong := [int(token) for token in row if not 0 <= int(token) < vocabulary]:
            raise UserError(
                f"{what} {number} holds the id {wrong[0]}, the policy knows 0 to {vocabulary - 1}; encode with the "
                "tokenizer that was passed as processing_class"
            )


def given_completions(rows: Sequence[Ids], stop_ids: Collection[int], pad: int, run: Run) -> Completions:
    """Completions of an own loop: every token given counts, the last one may be a stop token."""
    device = run.accelerator.device
    lists = as_lists(rows)
    lengths = torch.tensor([len(row) for row in lists], device=device)
    ids = pad_right(lists, pad).to(device)
    stopped = torch.tensor([row[-1] in stop_ids for row in lists], device=device)
    return Completions(ids, torch.arange(ids.shape[1], device=device) < lengths[:, None], stopped)


def given_scores(scores: Sequence[Any], completions: Completions) -> Scores:
    """Scores of an own loop, one number or one row of numbers for each completion."""
    lengths = completions.mask.sum(1).tolist()
    if len(scores) != len(lengths):
        raise UserError(f"step() got {len(scores)} scores for {len(lengths)} completions; give one for each")
    rows = [torch.as_tensor(score, dtype=torch.float32).flatten().tolist() for score in scores]
    of_tokens = [isinstance(score, list | tuple | Tensor) and torch.as_tensor(score).dim() > 0 for score in scores]
    for number, (row, length, is_row) in enumerate(zip(rows, lengths, of_tokens, strict=True)):
        if is_row and len(row) != length:
            raise UserError(f"completion {number} has {length} tokens and {len(row)} scores; give one, or one a token")
        if not all(map(math.isfinite, row)):
            raise UserError(
                f"the score of completion {number} is {row[0] if len(row) == 1 else row}; give finite numbers"
            )
    return Scores(
        totals=[0.0 if is_row else row[0] for row, is_row in zip(rows, of_tokens, strict=True)],
        of_tokens=[row if is_row else [] for row, is_row in zip(rows, of_tokens, strict=True)],
        by_source=[[] for _ in rows],
    )
