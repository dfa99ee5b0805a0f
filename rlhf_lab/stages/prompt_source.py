"""Prompts for PPO: encoded once, fitted to the context, dealt out by seed and position.

Which prompts an update gets depends on the seed and the update's number alone, so nothing has to be saved for a resume.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from rlhf_lab.data.prompts import Prompt, encode_prompt, fit_prompts
from rlhf_lab.errors import UserError
from rlhf_lab.ppo_config import PPOConfig


@dataclass(frozen=True)
class PromptBatch:
    """B prompts, their ids, and the data set's other columns for reward functions."""

    prompts: list[Prompt]
    ids: list[list[int]]
    columns: dict[str, list[Any]]

    @classmethod
    def of(cls, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, args: PPOConfig) -> Self:
        """Prompts given by hand."""
        ids = [encode_prompt(tokenizer, prompt)[-args.max_prompt_length :] for prompt in prompts]
        return cls(list(prompts), ids, {})

    def rows(self, chosen: slice) -> Self:
        """Some of them."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return replace(self, prompts=self.prompts[chosen], ids=self.ids[chosen], columns=columns)


class PromptSource:
    """All prompts of a data set, in an order that is new in every epoch."""

    def __init__(self, rows: Dataset, ids: list[list[int]], num_long: int) -> None:
        self.rows = rows
        self.ids = ids
        self.num_long = num_long

    @classmethod
    def of(
        cls, dataset: Dataset | None, tokenizer: PreTrainedTokenizerBase, args: PPOConfig, name: str
    ) -> "PromptSource | None":
        """Encode `dataset`; None without one. Raises UserError for a missing column or fewer prompts than a rollout."""
        if dataset is None:
            return None
        if "prompt" not in dataset.column_names:
            raise UserError(
                f"{name} has the columns {dataset.column_names}; PPO needs a column 'prompt' (text or messages)"
            )
        if name == "train_dataset" and len(dataset) < args.rollout_batch_size:
            raise UserError(
                f"{name} has {len(dataset)} prompts, one rollout takes {args.rollout_batch_size}; add prompts or type "
                f"ppo.rollout_batch_size={len(dataset)} (and a ppo.minibatch_size that divides it)"
            )
        if not len(dataset):
            raise UserError(f"{name} has no rows; leave it out, or give it some prompts")
        prompts = dataset["prompt"]
        if empty := [row for row, prompt in enumerate(prompts) if not prompt]:
            raise UserError(f"{name} has {len(empty)} empty prompts, the first in row {empty[0] + 1}; remove them")
        fitted = fit_prompts(
            [encode_prompt(tokenizer, prompt) for prompt in prompts],
            max_length=args.max_prompt_length,
            long_prompts="truncate",
        )
        return cls(dataset, fitted.prompt_ids, fitted.num_long)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, positions: Iterable[int], *, seed: int | None) -> PromptBatch:
        """The prompts at `positions` of the endless row of shuffled epochs; `seed` None: in the data's own order."""
        rows = [self._row(position, seed) for position in positions]
        taken = self.rows[rows]
        prompts = taken.pop("prompt")
        return PromptBatch(list(prompts), [self.ids[row] for row in rows], taken)

    def _row(self, position: int, seed: int | None) -> int:
        if seed is None:
            return position
        epoch, place = divmod(position, len(self.ids))
        return int(self._order(seed, epoch)[place])

    def _order(self, seed: int, epoch: int) -> torch.Tensor:
        if getattr(self, "_made", None) != (seed, epoch):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            self._made, self._permutation = (seed, epoch), torch.randperm(len(self.ids), generator=generator)
        return self._permutation
