"""Batches of comparisons in which every text is read once, and every prompt once for all its answers.

Four completions of one prompt make six pairs but only four texts, and only one prompt. Keeping a prompt's pairs in one
batch is InstructGPT's way (arXiv 2203.02155, section 3.5); laying its answers behind one copy of it saves again, for
transcripts most of the work.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_lab.data.batches import pad_right


class PromptSampler(torch.utils.data.Sampler[int]):
    """Row numbers such that rows of one prompt are neighbours and neighbouring prompts are of like length.

    `prompts` and `lengths` have one entry a row. Prompts are shuffled, then sorted by length within long stretches,
    then the batches of `batch_size` rows are shuffled again; a prompt is cut only where a batch ends. Seed and epoch
    decide all.
    """

    def __init__(self, prompts: Sequence[Any], lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self.rows_of_prompt: dict[Any, list[int]] = {}
        for row, prompt in enumerate(prompts):
            self.rows_of_prompt.setdefault(prompt, []).append(row)
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed} {self.epoch}")
        groups = list(self.rows_of_prompt.values())
        rng.shuffle(groups)
        stretch = 50 * self.batch_size  # as many batches as transformers' LengthGroupedSampler sorts together
        rows: list[int] = []
        waiting: list[list[int]] = []
        for group in groups:
            waiting.append(group)
            if sum(map(len, waiting)) >= stretch:
                rows += self._by_length(waiting)
                waiting = []
        rows += self._by_length(waiting)
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        # a short batch anywhere but at the end would shift the borders of all that follow
        last = [batches.pop()] if batches and len(batches[-1]) < self.batch_size else []
        rng.shuffle(batches)
        return iter([row for batch in batches + last for row in batch])

    def _by_length(self, groups: list[list[int]]) -> list[int]:
        groups.sort(key=lambda group: max(self.lengths[row] for row in group))
        return [row for group in groups for row in group]


@dataclass(frozen=True)
class ComparisonCollator:
    """Rows with `chosen_ids`, `rejected_ids`, `prompt_length` and maybe `margin` to one batch that reads nothing twice.

    Where `shares_prompts`, all answers to one prompt stand in one row behind it, each seeing the prompt and itself
    only, as if it stood there alone. The batch holds, for B rows of L columns with U different texts in N pairs:

    - `input_ids`, `attention_mask`, `position_ids` (B, L);
    - `sees` (B, 1, L, L) bool, which column may read which; only where prompts are shared;
    - `text_ends` (U, 2): row and column of each text's last token, where its score is read;
    - `text_of_side` (2 N,): the text on each side, the N chosen ones first, as TRL's `RewardTrainer` orders them.
    """

    pad_token_id: int
    shares_prompts: bool = True

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        number: dict[Text, int] = {}
        sides = [self._text(row, side) for side in ("chosen_ids", "rejected_ids") for row in rows]
        text_of_side = [number.setdefault(text, len(number)) for text in sides]
        batch = self._laid_out(list(number))
        batch["text_of_side"] = torch.tensor(text_of_side)
        if "margin" in rows[0]:
            batch["margin"] = torch.tensor([row["margin"] for row in rows], dtype=torch.float)
        return batch

    def _text(self, row: dict[str, Any], side: str) -> "Text":
        """(prompt, answer); a prompt that is not shared counts as part of the answer."""
        border = row["prompt_length"] if self.shares_prompts else 0
        return tuple(row[side][:border]), tuple(row[side][border:])

    def _laid_out(self, texts: list["Text"]) -> dict[str, Tensor]:
        row_of: dict[Any, int] = {}
        ids: list[list[int]] = []
        positions: list[list[int]] = []
        owners: list[list[int]] = []  # 0: the prompt; n: the n-th answer of its row
        ends: list[tuple[int, int]] = []
        for text in texts:
            prompt, answer = text
            key = prompt if self.shares_prompts else text
            row = row_of.setdefault(key, len(row_of))
            if row == len(ids):
                ids.append(list(prompt))
                positions.append(list(range(len(prompt))))
                owners.append([0] * len(prompt))
            ids[row] += answer
            positions[row] += range(len(prompt), len(prompt) + len(answer))
            owners[row] += [max(owners[row], default=0) + 1] * len(answer)
            ends.append((row, len(ids[row]) - 1))
        owner = pad_right(owners, PADDING)
        batch = {
            "input_ids": pad_right(ids, self.pad_token_id),
            "attention_mask": (owner != PADDING).long(),
            "position_ids": pad_right(positions, 0),
            "text_ends": torch.tensor(ends),
        }
        if self.shares_prompts:
            batch["sees"] = visibility(owner)
        return batch


Text = tuple[tuple[int, ...], tuple[int, ...]]
PADDING = -1


def visibility(owner: Tensor) -> Tensor:
    """(B, 1, L, L) bool: a column reads earlier columns of its own answer and of the prompt (owner 0), and itself."""
    width = owner.shape[1]
    earlier = torch.ones(width, width, dtype=torch.bool).tril()
    related = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
    return ((earlier & related) | torch.eye(width, dtype=torch.bool))[:, None]
