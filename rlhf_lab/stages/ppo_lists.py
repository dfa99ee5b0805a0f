"""What own loops hand to `PPOTrainer.generate` and `PPOTrainer.step`: lists of ids and scores, checked and laid out.

Completions end with their first stop token, and no row holds padding: a token that the policy did not write would be
trained on as if it had. Leaves out text and messages; data sets bring those (prompt_source.py).
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from rlhf_lab.data.batches import pad_right
from rlhf_lab.errors import UserError
from rlhf_lab.generation.sample import Completions
from rlhf_lab.generation.stops import Stops
from rlhf_lab.models.language import context_of
from rlhf_lab.stages.scoring import LARGEST_SCORE, Scores
from rlhf_lab.training.run import Run, rows_of_rank

if TYPE_CHECKING:
    from rlhf_lab.stages.ppo import PPOTrainer

Ids: TypeAlias = Tensor | Sequence[int]  # of one text


def are_ids(prompts: Any) -> bool:
    """Whether prompts are rows of ids, not text or messages. Raises UserError for what is no list of either."""
    if isinstance(prompts, str):
        raise UserError(f"generate() was given text; give a list of prompts: type generate([{prompts!r}])")
    if isinstance(prompts, Mapping):
        kind = type(prompts).__name__
        raise UserError(f"generate() was given a {kind}; give a list of prompts: type generate(tokens['input_ids'])")
    if not _is_list(prompts):
        raise UserError(f"generate() was given a {type(prompts).__name__}; give a list of prompts")
    if not len(prompts):
        raise UserError("generate() was given no prompts")
    if isinstance(prompts[0], Mapping):
        raise UserError(
            "generate() was given the messages of one prompt; give a list of prompts: type generate([messages])"
        )
    kinds = {_is_text(prompt) for prompt in prompts}
    if len(kinds) > 1:
        raise UserError("prompts are text and ids mixed; give all as text, or all as ids")
    return kinds == {False}


def checked_ids(
    trainer: "PPOTrainer", prompts: Any, completions: Any = None
) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of ids as plain lists. Raises UserError for rows that are no ids, are empty, too long, too few or padded,
    hold ids that the policy does not know, or go on after a stop token."""
    args, run = trainer.args, trainer.run
    prompt_rows = _as_lists("prompt", prompts)
    _check_rows(trainer, "prompt", prompt_rows, args.max_prompt_length, "max_prompt_length")
    _check_prompt_ends(trainer, prompt_rows)
    if completions is None:
        return prompt_rows, []
    rows = _as_lists("completion", completions)
    _check_rows(trainer, "completion", rows, args.max_completion_length, "max_completion_length")
    _check_completion_ends(trainer, rows)
    share = len(rows_of_rank(args.rollout_batch_size, rank=run.rank, num_processes=run.num_processes))
    if not len(prompt_rows) == len(rows) == share:
        raise UserError(
            f"step() got {len(prompt_rows)} prompts and {len(rows)} completions; one update takes "
            f"rollout_batch_size={args.rollout_batch_size}, {share} on each of {run.num_processes} processes"
        )
    _check_context(trainer, [len(p) + len(c) for p, c in zip(prompt_rows, rows, strict=True)])
    return prompt_rows, rows


def given_completions(rows: list[list[int]], stops: Stops, pad: int, run: Run) -> Completions:
    """Completions of an own loop: every token given counts, the last one may be a stop token."""
    device = run.accelerator.device
    lengths = torch.tensor([len(row) for row in rows], device=device)
    ids = pad_right(rows, pad).to(device)
    stopped = torch.tensor([stops.first_place(row) is not None for row in rows], device=device)
    return Completions(ids, torch.arange(ids.shape[1], device=device) < lengths[:, None], stopped)


def given_scores(scores: Any, completions: Completions) -> Scores:
    """Scores of an own loop, one number or one row of numbers for each completion."""
    lengths = completions.mask.sum(1).tolist()
    if not _is_list(scores):
        raise UserError(
            f"step() was given the scores {scores!r}; give a list with one for each of {len(lengths)} completions"
        )
    if len(scores) != len(lengths):
        raise UserError(f"step() got {len(scores)} scores for {len(lengths)} completions; give one for each")
    shape = tuple(getattr(scores, "shape", ()))
    if len(shape) == 2 and shape[1] == 1 != max(lengths):
        raise UserError(f"scores have the shape {shape}; give one number for each completion: type scores.squeeze(1)")
    plain = [_plain(score) for score in scores]
    of_tokens = [isinstance(score, list | tuple) for score in plain]
    rows = [list(score) if is_row else [score] for score, is_row in zip(plain, of_tokens, strict=True)]
    for number, (row, length, is_row) in enumerate(zip(rows, lengths, of_tokens, strict=True)):
        _check_score(number, row, length if is_row else 1, plain[number])
    return Scores(
        totals=[0.0 if is_row else float(row[0]) for row, is_row in zip(rows, of_tokens, strict=True)],
        of_tokens=[[float(x) for x in row] if is_row else [] for row, is_row in zip(rows, of_tokens, strict=True)],
        by_source=[[] for _ in rows],
    )


def _check_score(number: int, row: list[Any], length: int, given: Any) -> None:
    if not all(isinstance(x, Real) for x in row):
        raise UserError(f"the score of completion {number} is {given!r}; give a number, or one for each of its tokens")
    if len(row) != length:
        raise UserError(f"completion {number} has {length} tokens and {len(row)} scores; give one, or one a token")
    if not all(math.isfinite(x) for x in row):
        raise UserError(f"the score of completion {number} is {given}; give finite numbers")
    if large := [x for x in row if abs(x) > LARGEST_SCORE]:
        raise UserError(
            f"the score of completion {number} is {large[0]:g}; float32 takes scores up to {LARGEST_SCORE:g}: "
            "scale it down"
        )


def _as_lists(what: str, rows: Any) -> list[list[int]]:
    if not _is_list(rows):
        raise UserError(f"{what}s are {rows!r}; give a list with one row of ids for each")
    return [_as_list(f"{what} {number}", row) for number, row in enumerate(rows)]


def _as_list(what: str, row: Any) -> list[int]:
    tokens = _plain(row)
    if isinstance(tokens, str):
        raise UserError(f"{what} is text; ids are needed here: type tokenizer(text)['input_ids']")
    if not isinstance(tokens, list | tuple):
        raise UserError(f"{what} is {tokens!r}; give a row of ids, such as [5, 6, 7]")
    if any(isinstance(token, list | tuple) for token in tokens):
        raise UserError(f"{what} is a row of rows; give one row of ids: type row[0]")
    if wrong := [token for token in tokens if isinstance(token, bool) or not isinstance(token, Integral)]:
        raise UserError(f"{what} holds {wrong[0]!r}; ids are whole numbers: with a tensor, type row.long()")
    return [int(token) for token in tokens]


def _check_rows(trainer: "PPOTrainer", what: str, rows: list[list[int]], limit: int, option: str) -> None:
    vocabulary = trainer.models.policy.get_input_embeddings().weight.shape[0]
    for number, row in enumerate(rows):
        if len(row) == 0:
            raise UserError(f"{what} {number} has no tokens; give at least one")
        if len(row) > limit:
            raise UserError(f"{what} {number} has {len(row)} tokens; cut it, or type {option}={len(row)}")
        if wrong := [token for token in row if not 0 <= token < vocabulary]:
            raise UserError(
                f"{what} {number} holds the id {wrong[0]}, the policy knows 0 to {vocabulary - 1}; encode with the "
                "tokenizer that was passed as processing_class"
            )


def _check_prompt_ends(trainer: "PPOTrainer", rows: list[list[int]]) -> None:
    pad = trainer.tokenizer.pad_token_id
    if pad in trainer.stops.token_ids or pad == trainer.tokenizer.bos_token_id:
        return  # then it is a token of the text as well
    for number, row in enumerate(rows):
        if pad in (row[0], row[-1]):
            place = "begins" if row[0] == pad else "ends"
            raise UserError(
                f"prompt {number} {place} with the pad token {pad}; give it without padding, which is added where it "
                f"is needed: type [token for token in row if token != {pad}]"
            )


def _check_completion_ends(trainer: "PPOTrainer", rows: list[list[int]]) -> None:
    pad, longest = trainer.tokenizer.pad_token_id, trainer.args.max_completion_length
    for number, row in enumerate(rows):
        stop = trainer.stops.first_place(row)
        if stop is not None and stop < len(row) - 1:
            raise UserError(
                f"completion {number} goes on after the stop token {row[stop]}; padding, and whatever else follows it, "
                f"was not chosen by the policy: type row[:{stop + 1}]"
            )
        # One of full length may end so: the policy can draw any token.
        if row[-1] == pad and pad not in trainer.stops.token_ids and len(row) < longest:
            length = next((place for place in range(len(row), 0, -1) if row[place - 1] != pad), 0)
            raise UserError(
                f"completion {number} ends with the pad token {pad}; give it without padding: type row[:{length}]"
            )


def _check_context(trainer: "PPOTrainer", lengths: list[int]) -> None:
    context = context_of(trainer.models.policy)
    long = [number for number, length in enumerate(lengths) if context is not None and length > context]
    if long:
        raise UserError(
            f"prompt {long[0]} and its completion have {lengths[long[0]]} tokens, the model's context holds {context}; "
            "cut one of them"
        )


def _is_list(rows: Any) -> bool:
    """Lists, tuples, tensors and arrays with at least one dimension, columns of a data set; not text."""
    if isinstance(rows, str | bytes | Mapping) or getattr(rows, "ndim", 1) == 0:
        return False
    return hasattr(rows, "__len__") and hasattr(rows, "__getitem__")


def _is_text(prompt: Any) -> bool:
    is_messages = isinstance(prompt, list | tuple) and len(prompt) > 0 and isinstance(prompt[0], Mapping)
    return isinstance(prompt, str) or is_messages


def _plain(x: Any) -> Any:
    """Tensors and arrays, also inside a list, as Python's numbers and lists."""
    if isinstance(x, list | tuple):
        return [_plain(item) for item in x]
    return x.tolist() if hasattr(x, "tolist") else x
