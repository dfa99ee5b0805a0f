"""Batches of comparisons in which every text is read once, however many pairs it stands in.

Four completions of one prompt make six pairs but only four texts. Keeping a prompt's pairs in one batch, as InstructGPT
does (arXiv 2203.02155, section 3.5), nearly thirds the work of a reward model and keeps it from seeing a text in many
separate steps.
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

    `prompts` and `lengths` have one entry a row. Prompts are shuffled, then sorted by length within stretches of
    `stretch` rows, then those stretches' batches of `batch_size` rows are shuffled again. Seed and epoch decide all.
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
        order: list[int] = []
        waiting: list[list[int]] = []
        for group in groups:
            waiting.append(group)
            if sum(map(len, waiting)) >= stretch:
                order += self._bucketed(waiting, rng)
                waiting = []
        order += self._bucketed(waiting, rng)
        return iter(order)

    def _bucketed(self, groups: list[list[int]], rng: random.Random) -> list[int]:
        groups.sort(key=lambda group: max(self.lengths[row] for row in group))
        rows = [row for group in groups for row in group]
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        last = [batches.pop()] if batches and len(batches[-1]) < self.batch_size else []
        rng.shuffle(batches)
        return [row for batch in batches + last for row in batch]


@dataclass(frozen=True)
class ComparisonCollator:
    """Rows with `chosen_ids`, `rejected_ids` and maybe `margin` to one batch of different texts.

    The batch holds `input_ids` and `attention_mask` (U, L) of the U different texts, and `text_of_side` (2 N,): which
    of them stands on each side, the N chosen ones first, as TRL's `RewardTrainer` orders them.
    """

    pad_token_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        sides = [tuple(row["chosen_ids"]) for row in rows] + [tuple(row["rejected_ids"]) for row in rows]
        number: dict[tuple[int, ...], int] = {}
        text_of_side = torch.tensor([number.setdefault(text, len(number)) for text in sides])
        ids = pad_right(list(number), self.pad_token_id)
        lengths = torch.tensor([len(text) for text in number])
        batch = {
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
            "text_of_side": text_of_side,
        }
        if "margin" in rows[0]:
            batch["margin"] = torch.tensor([row["margin"] for row in rows], dtype=torch.float)
        return batch
