"""Rows that are longer than a stage reads: counted, and cut, refused or left out as `data.long_prompts` says.

What is cut is the start of the prompt, since the question stands at its end. An answer is never cut: without its end a
model would learn to stop nowhere, and a reward model would read its score in the middle. PPO's prompts, which have no
answer yet, are the business of `prompts.fit_prompts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from datasets import Dataset

from rlhf_lab.errors import UserError

LongPrompts = Literal["truncate", "refuse", "drop"]


@dataclass(frozen=True)
class Fit:
    """Which rows of a data set can be read, and how many were too long."""

    kept: list[int]  # indices into the rows that were given, ascending
    num_long: int  # rows of more than `max_length` tokens, whatever was done with them
    num_long_answers: int  # of these, left out because the answer alone takes `max_length` tokens or more


@dataclass(frozen=True)
class Encoded:
    """Rows of tokens, and what became of rows that were too long."""

    rows: Dataset
    fit: Fit


def fit_rows(
    prompt_lengths: Sequence[int],
    answer_lengths: Sequence[int],
    *,
    max_length: int,
    long_prompts: LongPrompts,
    key: str,
    context: int | None = None,
) -> Fit:
    """Decide row by row; `answer_lengths` count EOS. `key` is the option that sets `max_length`, `context` its bound.

    Raises UserError for "refuse" with a long row, and where no row is left.
    """
    lengths = [prompt + answer for prompt, answer in zip(prompt_lengths, answer_lengths, strict=True)]
    is_long = [length > max_length for length in lengths]
    has_long_answer = [answer >= max_length for answer in answer_lengths]
    num_long = sum(is_long)
    wider = f"{key}={min(max(lengths), context or max(lengths))}"
    described = f"{num_long} of {len(lengths)} rows have more than {max_length} tokens; the longest has {max(lengths)}"
    if num_long and long_prompts == "refuse":
        raise UserError(
            f"{described}. Type {wider}, data.long_prompts=truncate (keeps the end of each prompt) or "
            "data.long_prompts=drop"
        )
    left_out = is_long if long_prompts == "drop" else has_long_answer
    kept = [row for row, out in enumerate(left_out) if not out]
    if not kept:
        raise UserError(f"{described}, and none is left. Type {wider}")
    return Fit(kept, num_long, sum(long and answer for long, answer in zip(is_long, has_long_answer, strict=True)))


def long_facts(parts: Sequence[Encoded], long_prompts: LongPrompts) -> dict[str, int | str]:
    """What run.json says of the long rows of a stage's parts (training and held out)."""
    return {
        "num_long_rows": sum(part.fit.num_long for part in parts),
        "num_long_answers": sum(part.fit.num_long_answers for part in parts),
        "long_prompts": long_prompts,
    }


def long_line(facts: dict[str, int | str], max_length: int) -> str:
    """One line for the user about rows that were too long; empty where there were none."""
    if not facts["num_long_rows"]:
        return ""
    answers = facts["num_long_answers"]
    return (
        f"{facts['num_long_rows']} rows have more than {max_length} tokens (data.long_prompts={facts['long_prompts']})"
        + (f"; {answers} of them, whose answer alone is that long, are left out" if answers else "")
    )
