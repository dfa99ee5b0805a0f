"""What ends a completion: tokens, or texts of several tokens.

A text ends a completion with the token that completes it, wherever the tokenizer cuts it ("st|op", "sto|pper"); that
matching is transformers' own. Only the completion is searched: a stop in the prompt ends nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.stopping_criteria import StopStringCriteria

from rlhf_lab.errors import UserError
from rlhf_lab.models.language import known_id


@dataclass(frozen=True)
class Stops:
    """Stops by token and by text. `Stops()` ends nothing: completions have a fixed length."""

    token_ids: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    matcher: StopStringCriteria | None = None  # of `texts`

    def __bool__(self) -> bool:
        return bool(self.token_ids or self.texts)

    def by_token(self, tokens: Tensor) -> Tensor:
        """True where one of `tokens` (...) is a stop token."""
        return is_one_of(tokens, torch.tensor(self.token_ids, device=tokens.device, dtype=tokens.dtype))

    def end(self, completions: Tensor) -> Tensor:
        """(B,) bool: whether the last token of `completions` (B, t) is, or completes, a stop."""
        ended = self.by_token(completions[:, -1])
        return ended if self.matcher is None else ended | self.matcher(completions, None)

    def places(self, completions: Tensor) -> Tensor:
        """(B, T) bool: at which tokens `completions` (B, T) would end. Only the first True of a row means anything."""
        if self.matcher is None:
            return self.by_token(completions)
        if not completions.shape[1]:
            return torch.zeros_like(completions, dtype=torch.bool)
        return torch.stack([self.end(completions[:, : t + 1]) for t in range(completions.shape[1])], dim=1)

    def first_place(self, completion: Sequence[int]) -> int | None:
        """The index of the token that ends one completion; None where none does."""
        places = self.places(torch.tensor([list(completion)]))[0].nonzero()
        return int(places[0]) if len(places) else None


def is_one_of(tokens: Tensor, ids: Tensor) -> Tensor:
    """True where one of `tokens` (...) is among `ids` (N,); unlike `torch.isin` without any transfer to the host."""
    return (tokens[..., None] == ids).any(-1)


def stops_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop_tokens: Iterable[int | str] | None = None
) -> Stops:
    """The stops named (ids or texts), else every EOS id of the generation config and the tokenizer.

    A text that is one token is that token, wherever it stands. Raises UserError for ids and texts that the tokenizer
    can not write.
    """
    if stop_tokens is None:
        configured = getattr(model.generation_config, "eos_token_id", None)
        several = configured if isinstance(configured, list) else [configured]
        return Stops(tuple(sorted({id for id in [*several, tokenizer.eos_token_id] if id is not None})))
    named = list(stop_tokens)
    single = {stop: _single_id(tokenizer, stop) for stop in named}
    texts = tuple(dict.fromkeys(stop for stop in named if isinstance(stop, str) and single[stop] is None))
    ids = tuple(sorted({id for id in single.values() if id is not None}))
    return Stops(ids, texts, StopStringCriteria(tokenizer, list(texts)) if texts else None)


def _single_id(tokenizer: PreTrainedTokenizerBase, stop: int | str) -> int | None:
    """The one token that `stop` is; None for a text of several."""
    if isinstance(stop, int):
        return known_id(tokenizer, stop)
    ids = tokenizer.encode(stop, add_special_tokens=False)
    if not ids:
        raise UserError("a stop token is an empty text, which would end nothing; leave it out")
    if tokenizer.decode(ids).strip() != stop.strip():  # the unknown token stands for it
        raise UserError(f"stop token {stop!r} is not in this tokenizer's vocabulary; give one that is, or its id")
    return ids[0] if len(ids) == 1 else None
