"""Scores of completions: reward models and Python functions behind one call, in TRL's convention.

A function is called with `prompts`, `completions`, `completion_ids` and every other column of the data set, and returns
one number per completion, or None where it has no opinion. A reward model with the policy's own tokenizer reads the
sampled ids; one with another tokenizer reads the text. Several scores are added up.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.data.prompts import Prompt, prompt_text
from rlhf_lab.errors import UserError
from rlhf_lab.models.language import disable_dropout, give_own_pad, load_tokenizer, make_room
from rlhf_lab.models.scalar import load_scalar_model, sequence_scores

RewardFunction: TypeAlias = Callable[..., Sequence[float | None]]
RewardSource: TypeAlias = Any  # a RewardFunction, a PreTrainedModel, an id or a folder


@dataclass(frozen=True)
class Finished:
    """B completions as scorers see them."""

    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]  # without padding, the stop token included
    texts: list[str]  # completions without special tokens
    stopped: list[bool]
    columns: dict[str, list[Any]]  # the data set's other columns

    def replies(self) -> list[str | list[dict[str, str]]]:
        """The completions in their prompt's form: text after text, an assistant's message after messages."""
        pairs = zip(self.prompts, self.texts, strict=True)
        return [text if isinstance(p, str) else [{"role": "assistant", "content": text}] for p, text in pairs]


@dataclass(frozen=True)
class RewardModel:
    """A model with one label that scores prompt + completion."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    reads_ids: bool  # shares the policy's tokenizer
    policy_tokenizer: PreTrainedTokenizerBase

    def __call__(self, finished: Finished) -> list[float | None]:
        sequences = self._ids(finished) if self.reads_ids else self._texts(finished)
        return list(sequence_scores(self.model, sequences).tolist())

    def _ids(self, finished: Finished) -> list[list[int]]:
        return [p + c for p, c in zip(finished.prompt_ids, finished.completion_ids, strict=True)]

    def _texts(self, finished: Finished) -> list[list[int]]:
        joined = [
            prompt_text(self.policy_tokenizer, prompt) + text
            for prompt, text in zip(finished.prompts, finished.texts, strict=True)
        ]
        ids = self.tokenizer(joined)["input_ids"]
        eos = self.tokenizer.eos_token_id
        ends = [
            [eos] if stopped and eos is not None and row[-1:] != [eos] else []
            for row, stopped in zip(ids, finished.stopped, strict=True)
        ]
        return [[*row, *end] for row, end in zip(ids, ends, strict=True)]


@dataclass(frozen=True)
class FunctionScorer:
    """A Python function as a scorer; its answer is checked."""

    name: str
    function: RewardFunction

    def __call__(self, finished: Finished) -> list[float | None]:
        scores = self.function(
            prompts=finished.prompts,
            completions=finished.replies(),
            completion_ids=finished.completion_ids,
            **finished.columns,
        )
        return [self._number(score) for score in self._checked(scores, len(finished.texts))]

    def _checked(self, scores: Any, num_rows: int) -> Sequence[Any]:
        is_list = isinstance(scores, list | tuple | Tensor)
        if is_list and len(scores) == num_rows:
            return list(scores)
        got = f"{len(scores)} scores" if is_list else f"a {type(scores).__name__}"
        raise UserError(
            f"reward function {self.name!r} returned {got} for {num_rows} completions; "
            "return a list with one number (or None) for each"
        )

    def _number(self, score: Any) -> float | None:
        if score is None:
            return None
        try:
            number = float(score)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"reward function {self.name!r} returned {score!r}; return finite numbers or None")
        return number


Scorer = RewardModel | FunctionScorer


def make_scorers(
    sources: RewardSource | Sequence[RewardSource],
    tokenizers: Sequence[PreTrainedTokenizerBase | None],
    policy_tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> list[Scorer]:
    """Scorers for `reward_funcs`; names are made distinct, since metrics carry them."""
    listed: Sequence[RewardSource] = sources if isinstance(sources, list | tuple) else [sources]
    if len(tokenizers) not in (0, len(listed)):
        raise UserError(
            f"{len(tokenizers)} reward_processing_classes for {len(listed)} reward_funcs; give one for each"
        )
    paired = zip(listed, list(tokenizers) or [None] * len(listed), strict=True)
    return [_make_scorer(source, tokenizer, policy_tokenizer, device) for source, tokenizer in paired]


def _make_scorer(
    source: RewardSource,
    tokenizer: PreTrainedTokenizerBase | None,
    policy_tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> Scorer:
    if not isinstance(source, str | Path | PreTrainedModel):
        if not callable(source):
            raise UserError(
                f"reward_funcs holds a {type(source).__name__}; "
                "give a function, a model with num_labels=1, a folder or an id"
            )
        return FunctionScorer(getattr(source, "__name__", type(source).__name__), source)
    model = source if isinstance(source, PreTrainedModel) else load_scalar_model(source)
    if model.config.num_labels != 1 or not hasattr(model, "score"):
        raise UserError(
            f"reward model {type(model).__name__} has {model.config.num_labels} labels; needed: a sequence "
            "classification model with one label, loaded with num_labels=1"
        )
    disable_dropout(model)
    model.to(device).eval().requires_grad_(False)
    own = tokenizer or _tokenizer_of(source, model, policy_tokenizer)
    if model.config.pad_token_id is None:
        give_own_pad(own)
        model.config.pad_token_id = own.pad_token_id
        make_room(model, len(own))
    reads_ids = own.get_vocab() == policy_tokenizer.get_vocab()
    name = Path(str(model.config.name_or_path or "reward_model")).name
    return RewardModel(name, model, own, reads_ids, policy_tokenizer)


def _tokenizer_of(
    source: str | Path | PreTrainedModel, model: PreTrainedModel, policy_tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    """The reward model's own tokenizer; the policy's where a model in memory names none and the vocabularies match."""
    name = model.config.name_or_path if isinstance(source, PreTrainedModel) else str(source)
    try:
        return load_tokenizer(name)
    except UserError:
        if isinstance(source, PreTrainedModel) and model.config.vocab_size >= len(policy_tokenizer):
            return policy_tokenizer
        raise UserError(
            f"no tokenizer found for reward model {name!r}; pass it in reward_processing_classes=[...]"
        ) from None


def score_all(scorers: Sequence[Scorer], finished: Finished) -> tuple[list[float], dict[str, list[float | None]]]:
    """The sum of all scores for each completion, and each scorer's own. Where none has an opinion the sum is 0."""
    by_name: dict[str, list[float | None]] = {}
    for number, scorer in enumerate(scorers):
        name = scorer.name if scorer.name not in by_name else f"{scorer.name}_{number}"
        by_name[name] = scorer(finished)
    rows = zip(*by_name.values(), strict=True)
    return [sum(score for score in row if score is not None) for row in rows], by_name
