"""Completions of one batch before their judges: what reward functions are shown, and what becomes of the answer.

Leaves out how a single judge scores (scoring.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlhf_lab.generation.sample import Completions
from rlhf_lab.models.language import token_id
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.stages.prompt_source import PromptBatch
from rlhf_lab.stages.scoring import Finished, Scorer, Scores, score_all


def judge(
    batch: PromptBatch,
    completions: Completions,
    scorers: Sequence[Scorer],
    tokenizer: PreTrainedTokenizerBase,
    args: PPOConfig,
    trainer_state: Any,
) -> Scores:
    """Scores of a batch. With `truncate_token`, judges see what comes before it, and `untruncated_score` is all
    that a completion without one gets (Ziegler et al. 2019)."""
    whole, is_cut = completions.rows(), [True] * len(completions.ids)
    rows = whole
    if args.truncate_token is not None:
        rows, is_cut = truncated(whole, token_id(tokenizer, args.truncate_token), args.truncate_after)
    pairs = zip(completions.stopped.tolist(), rows, whole, strict=True)
    ended = [stopped and row == uncut for stopped, row, uncut in pairs]  # no end is shown that was cut away
    finished = Finished(
        batch.prompts,
        batch.ids,
        rows,
        list(tokenizer.batch_decode(rows, skip_special_tokens=True)),
        ended,
        batch.columns,
        trainer_state,
    )
    scores = score_all(scorers, finished, args.reward_weights)
    if (instead := args.untruncated_score) is None:
        return scores
    totals = [total if cut else instead for total, cut in zip(scores.totals, is_cut, strict=True)]
    of_tokens = [rewards if cut else [] for rewards, cut in zip(scores.of_tokens, is_cut, strict=True)]
    return replace(scores, totals=totals, of_tokens=of_tokens)


def truncated(rows: list[list[int]], token: int, start: int) -> tuple[list[list[int]], list[bool]]:
    """Rows up to the first `token` at position `start` or later, and whether they have one."""
    has_token = [token in row[start:] for row in rows]
    pairs = zip(rows, has_token, strict=True)
    return [row[: row.index(token, start) + 1] if has else row for row, has in pairs], has_token
