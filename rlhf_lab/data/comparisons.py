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
from rlhf_lab.data.packing import Piece, Tokens, packed


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


Text = tuple[Tokens, Tokens]


@dataclass(frozen=True)
class ComparisonCollator:
    """Rows with `chosen_ids`, `rejected_ids`, `prompt_length` and maybe `margin` to one batch that reads nothing twice.

    Where `shares_prompts`, answers stand side by side behind one copy of their prompt, each seeing the prompt and
    itself only, as if it stood there alone; `packing.py` says which share a row. The batch holds, for B rows of L
    columns with U different texts in N pairs:

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

    def _text(self, row: dict[str, Any], side: str) -> Text:
        """(prompt, answer); a prompt that is not shared counts as part of the answer."""
        border = row["prompt_length"] if self.shares_prompts else 0
        return tuple(row[side][:border]), tuple(row[side][border:])

    def _laid_out(self, texts: list[Text]) -> dict[str, Tensor]:
        rows = packed(texts) if self.shares_prompts else [[Piece((), [number])] for number in range(len(texts))]
        ids: list[list[int]] = []
        positions: list[list[int]] = []
        owners: list[list[int]] = []  # the number of a prompt in its row, negative; or of its answer in the batch
        prompts: list[list[int]] = []  # the prompt that a column may read
        ends: dict[int, tuple[int, int]] = {}
        for place, row in enumerate(rows):
            for parts in (ids, positions, owners, prompts):
                parts.append([])
            for number, piece in enumerate(row):
                before = len(piece.prompt)
                own = -1 - number
                ids[-1] += piece.prompt
                positions[-1] += range(before)
                owners[-1] += [own] * before
                for text in piece.answers:
                    answer = texts[text][1]
                    ids[-1] += answer
                    positions[-1] += range(before, before + len(answer))
                    owners[-1] += [text] * len(answer)
                    ends[text] = (place, len(ids[-1]) - 1)
                prompts[-1] += [own] * (len(ids[-1]) - len(prompts[-1]))
        owner = pad_right(owners, PADDING)
        batch = {
            "input_ids": pad_right(ids, self.pad_token_id),
            "attention_mask": (owner != PADDING).long(),
            "position_ids": pad_right(positions, 0),
            "text_ends": torch.tensor([ends[text] for text in range(len(texts))]),
        }
        if self.shares_prompts:
            batch["sees"] = visibility(owner, pad_right(prompts, PADDING))
        return batch


PADDING = -1_000_000  # the owner of padding


def visibility(owner: Tensor, prompt: Tensor) -> Tensor:
    """(B, 1, L, L) bool: a column reads earlier columns of its owner and of the prompt (B, L) behind which it stands,
    and itself."""
    width = owner.shape[1]
    earlier = torch.ones(width, width, dtype=torch.bool).tril()
    related = (owner[:, :, None] == owner[:, None, :]) | (prompt[:, :, None] == owner[:, None, :])
    return ((earlier & related) | torch.eye(width, dtype=torch.bool))[:, None]
