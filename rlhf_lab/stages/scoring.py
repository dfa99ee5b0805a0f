"""Scores of completions: reward models and Python functions behind one call, in TRL's convention.

A function, plain or async, is called with `prompts`, `completions`, `completion_ids`, every other column of the data
set and `trainer_state`. It returns for each completion a number, None where it has no opinion, or a list with a reward
for every token. A reward model with the policy's own tokenizer reads the sampled ids; one with another tokenizer reads
the text, conversations through its own chat template if it has one. Several scores are added up with weights.
"""

import asyncio
import copy
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.data.prompts import Prompt, conversation_text, encode_prompt, prompt_text
from rlhf_lab.errors import UserError
from rlhf_lab.models.adapters import AdapterScalar
from rlhf_lab.models.language import disable_dropout, give_own_pad, load_tokenizer, make_room
from rlhf_lab.models.scalar import load_scalar_model, sequence_scores

Score: TypeAlias = float | list[float] | None  # of a completion, of each of its tokens, or no opinion
RewardFunction: TypeAlias = Callable[..., Sequence[Score] | Awaitable[Sequence[Score]]]
RewardSource: TypeAlias = Any  # a RewardFunction, a PreTrainedModel, an id or a folder

GIVEN = ("prompts", "completions", "completion_ids", "trainer_state")  # to every function; columns are called otherwise
LARGEST_SCORE = 1e15  # the critic's error is squared and summed in float32, which ends at 3e38


@dataclass(frozen=True)
class Finished:
    """B completions as scorers see them."""

    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]  # without padding, the stop token included
    texts: list[str]  # completions without special tokens
    stopped: list[bool]  # True where they end in a stop token
    columns: dict[str, list[Any]] = field(default_factory=dict)  # the data set's other columns
    trainer_state: Any = None  # transformers' TrainerState, for rewards that change as training goes on

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

    def __call__(self, finished: Finished) -> list[Score]:
        sequences = self._ids(finished) if self.reads_ids else self._texts(finished)
        scores = sequence_scores(self.model, sequences).tolist()
        if broken := [row for row, score in enumerate(scores) if not math.isfinite(score)]:
            raise UserError(
                f"reward model {self.name!r} gave {scores[broken[0]]} to {finished.texts[broken[0]]!r} and "
                f"{len(broken) - 1} more; look for NaN in its weights, or type bf16=false"
            )
        return list(scores)

    def _ids(self, finished: Finished) -> list[list[int]]:
        return [p + c for p, c in zip(finished.prompt_ids, finished.completion_ids, strict=True)]

    def _texts(self, finished: Finished) -> list[list[int]]:
        rows = zip(finished.prompts, finished.prompt_ids, finished.texts, finished.stopped, strict=True)
        return [self._read(*row) for row in rows]

    def _read(self, prompt: Prompt, prompt_ids: list[int], text: str, has_ended: bool) -> list[int]:
        """Messages through this model's own chat template, where it has one, and exactly as the template writes them;
        all else as the policy read it, and EOS where it ended. Of a prompt that was cut, what the policy saw of it."""
        is_cut = len(encode_prompt(self.policy_tokenizer, prompt)) > len(prompt_ids)
        if not isinstance(prompt, str) and not is_cut and getattr(self.tokenizer, "chat_template", None):
            whole = conversation_text(self.tokenizer, [*prompt, {"role": "assistant", "content": text}])
            if not has_ended and (said := text.strip()) in whole:
                whole = whole[: whole.rindex(said) + len(said)]  # without the template's end of turn
            return list(self.tokenizer(whole, add_special_tokens=False)["input_ids"])
        before = self.policy_tokenizer.decode(prompt_ids) if is_cut else prompt_text(self.policy_tokenizer, prompt)
        ids, eos = list(self.tokenizer(before + text)["input_ids"]), self.tokenizer.eos_token_id
        return [*ids, eos] if has_ended and eos is not None and ids[-1:] != [eos] else ids


@dataclass(frozen=True)
class FunctionScorer:
    """A Python function as a scorer; its answer is checked. The answer of an async one has to be awaited."""

    name: str
    function: RewardFunction

    def __call__(self, finished: Finished) -> list[Score] | Awaitable[list[Score]]:
        _refuse_columns_of_ours(finished.columns)
        keywords: dict[str, Any] = {
            "prompts": copy.deepcopy(finished.prompts),  # copies: what one function changes, another must not see
            "completions": finished.replies(),
            "completion_ids": [list(row) for row in finished.completion_ids],
            **copy.deepcopy(finished.columns),
        }
        parameters = _parameters(self.function)
        if "trainer_state" in parameters or _takes_all(parameters):
            keywords["trainer_state"] = finished.trainer_state
        self._refuse_what_can_not_be_called(parameters, keywords)
        answer = self.function(**keywords)
        return self._later(answer, finished) if inspect.isawaitable(answer) else self._checked(answer, finished)

    def _refuse_what_can_not_be_called(
        self, parameters: Mapping[str, inspect.Parameter], keywords: dict[str, Any]
    ) -> None:
        unknown = [] if _takes_all(parameters) else [name for name in keywords if name not in parameters]
        if unknown:
            raise UserError(
                f"reward function {self.name!r} does not take {_listed(unknown)}; functions are given prompts, "
                "completions, completion_ids and every other column of the data set: add **kwargs to its arguments"
            )
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        required = [name for name, p in parameters.items() if p.default is p.empty and p.kind in named]
        if missing := [name for name in required if name not in keywords]:
            columns = _listed([name for name in keywords if name not in GIVEN]) or "none but 'prompt'"
            raise UserError(
                f"reward function {self.name!r} needs {_listed(missing)}, which is no column of the data set; "
                f"they are {columns}. Add the column, or give the argument a default"
            )

    async def _later(self, answer: Awaitable[Any], finished: Finished) -> list[Score]:
        return self._checked(await answer, finished)

    def _checked(self, scores: Any, finished: Finished) -> list[Score]:
        num_rows = len(finished.texts)
        is_list = isinstance(scores, list | tuple | Tensor)
        if not is_list or len(scores) != num_rows:
            got = f"{len(scores)} scores" if is_list else f"a {type(scores).__name__}"
            raise UserError(
                f"reward function {self.name!r} returned {got} for {num_rows} completions; "
                "return a list with one number (or None) for each"
            )
        return [self._score(score, len(ids)) for score, ids in zip(scores, finished.completion_ids, strict=True)]

    def _score(self, score: Any, num_tokens: int) -> Score:
        if score is None:
            return None
        is_row = isinstance(score, list | tuple) or (isinstance(score, Tensor) and score.dim() > 0)
        if not is_row:
            return self._number(score)
        if len(score) != num_tokens:
            raise UserError(
                f"reward function {self.name!r} returned {len(score)} rewards for a completion of {num_tokens} tokens; "
                "return one for each of its completion_ids, or one number for the whole"
            )
        return [self._number(number) for number in score]

    def _number(self, number: Any) -> float:
        try:
            converted = math.nan if isinstance(number, str) else float(number)
        except (TypeError, ValueError):
            converted = math.nan
        if not math.isfinite(converted):
            raise UserError(f"reward function {self.name!r} returned {number!r}; return finite numbers or None")
        if abs(converted) > LARGEST_SCORE:
            raise UserError(
                f"reward function {self.name!r} returned {converted:g}; training is in float32, where scores up to "
                f"{LARGEST_SCORE:g} can be squared and summed: scale it down"
            )
        return converted


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in callables do not say
        return {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}


def _takes_all(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _refuse_columns_of_ours(columns: Mapping[str, Any]) -> None:
    if ours := [name for name in columns if name in GIVEN]:
        raise UserError(
            f"the data set has a column {ours[0]!r}, and reward functions are given {ours[0]} by the trainer; "
            f"rename it: dataset.rename_column({ours[0]!r}, 'my_{ours[0]}')"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


Scorer = RewardModel | FunctionScorer


def make_scorers(
    sources: RewardSource | Sequence[RewardSource],
    tokenizers: Sequence[PreTrainedTokenizerBase | None],
    policy_tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> list[Scorer]:
    """Scorers for `reward_funcs`; names are made distinct, since metrics carry them. Raises UserError for no source,
    what can not score, and a number of `tokenizers` that does not fit."""
    listed: Sequence[RewardSource] = sources if isinstance(sources, list | tuple) else [sources]
    if not listed:
        raise UserError("reward_funcs is empty; give a function, a model with num_labels=1, a folder or an id")
    if len(tokenizers) not in (0, len(listed)):
        raise UserError(
            f"{len(tokenizers)} reward_processing_classes for {len(listed)} reward_funcs; give one for each"
        )
    paired = zip(listed, list(tokenizers) or [None] * len(listed), strict=True)
    scorers = [_make_scorer(source, tokenizer, policy_tokenizer, device) for source, tokenizer in paired]
    names = [scorer.name for scorer in scorers]
    return [
        replace(scorer, name=f"{scorer.name}_{number}") if names.index(scorer.name) < number else scorer
        for number, scorer in enumerate(scorers)
    ]


def _make_scorer(
    source: RewardSource,
    tokenizer: PreTrainedTokenizerBase | None,
    policy_tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> Scorer:
    if isinstance(source, type):
        raise UserError(
            f"reward_funcs holds the class {source.__name__}; give an object of it: type {source.__name__}()"
        )
    if not isinstance(source, str | Path | PreTrainedModel | AdapterScalar):
        if not callable(source) or isinstance(source, nn.Module):
            raise UserError(
                f"reward_funcs holds a {type(source).__name__}, which can not be called with prompts and completions; "
                "give a function, a model with num_labels=1, a folder or an id"
            )
        return FunctionScorer(getattr(source, "__name__", type(source).__name__), source)
    model = load_scalar_model(source, fresh_head=False) if isinstance(source, str | Path) else source
    if model.config.num_labels != 1 or not hasattr(model, "score"):
        raise UserError(
            f"reward model {type(model).__name__} has {model.config.num_labels} labels; needed: a sequence "
            "classification model with one label, loaded with num_labels=1"
        )
    disable_dropout(model)
    model.to(device).eval().requires_grad_(False)
    shares = isinstance(model, AdapterScalar)
    own = tokenizer or (policy_tokenizer if shares else _tokenizer_of(source, model, policy_tokenizer))
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


def check_weights(weights: Sequence[float] | None, scorers: Sequence[Scorer]) -> None:
    """Raise UserError where there is not one finite weight for each source."""
    if weights is not None and len(weights) != len(scorers):
        raise UserError(f"{len(weights)} reward_weights for {len(scorers)} reward_funcs; give one for each")
    if broken := [weight for weight in weights or () if not math.isfinite(weight)]:
        raise UserError(f"reward_weights holds {broken[0]}; give finite numbers")


@dataclass(frozen=True)
class Scores:
    """What the S sources say of B completions; weighted and summed."""

    totals: list[float]  # (B,) for whole completions; 0 where no source has an opinion
    of_tokens: list[list[float]]  # B rows, one number a token, or [] where no source judges tokens
    by_source: list[list[float | None]]  # B rows of S numbers before weights; the sum over tokens where they are judged

    @classmethod
    def joined(cls, parts: Sequence["Scores"]) -> "Scores":
        """Those of some completions, then those of others."""
        return cls(
            totals=[total for part in parts for total in part.totals],
            of_tokens=[row for part in parts for row in part.of_tokens],
            by_source=[row for part in parts for row in part.by_source],
        )


def score_all(scorers: Sequence[Scorer], finished: Finished, weights: Sequence[float] | None = None) -> Scores:
    """Ask every source; the async ones run at the same time."""
    answers = _together([scorer(finished) for scorer in scorers])
    weights = weights or [1.0] * len(scorers)
    rows = list(zip(*answers, strict=True))
    scores = Scores(
        totals=[sum(w * s for w, s in zip(weights, row, strict=True) if isinstance(s, float | int)) for row in rows],
        of_tokens=[_weighted_tokens(weights, row) for row in rows],
        by_source=[[sum(score) if isinstance(score, list) else score for score in row] for row in rows],
    )
    for number, (total, of_tokens) in enumerate(zip(scores.totals, scores.of_tokens, strict=True)):
        if large := [score for score in (total, *of_tokens) if not abs(score) <= LARGEST_SCORE]:
            raise UserError(
                f"the weighted rewards of completion {number} come to {large[0]:g}; float32 takes scores up to "
                f"{LARGEST_SCORE:g}: scale reward_weights down"
            )
    return scores


def _weighted_tokens(weights: Sequence[float], row: Sequence[Score]) -> list[float]:
    judged = [[w * s for s in score] for w, score in zip(weights, row, strict=True) if isinstance(score, list)]
    return [sum(column) for column in zip(*judged, strict=True)]


def _together(answers: list[Any]) -> list[list[Score]]:
    """Await what has to be awaited, all at once, also where an event loop is running already, as in a notebook."""

    async def wait_for(pending: list[Awaitable[Any]]) -> list[Any]:
        return list(await asyncio.gather(*pending))

    places = [place for place, answer in enumerate(answers) if inspect.isawaitable(answer)]
    if places:
        with ThreadPoolExecutor(max_workers=1) as thread:
            came = thread.submit(asyncio.run, wait_for([answers[place] for place in places])).result()
        answers = [came[places.index(place)] if place in places else answers[place] for place in range(len(answers))]
    return answers
