"""What a causal language model says of completions: log-probs, entropies, states.

Only the tokens that decide completion tokens reach the language head, and never more of them at once than `MOST_LOGITS`
numbers hold: with 50,000 tokens in the vocabulary the logits would be by far the largest tensor of an update. A chunk's
logits are computed again in the backward pass instead of being kept.
"""

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GPT2LMHeadModel

from rlhf_lab.functional import token_entropy, token_log_probs
from rlhf_lab.models import lean_gpt2
from rlhf_lab.models.lean_gpt2 import Cells
from rlhf_lab.models.products import through

Entropies: TypeAlias = Literal["none", "numbers", "with gradient"]
Head: TypeAlias = Callable[[Tensor], Tensor]
MOST_LOGITS = 2**24  # at once: 64 MiB in fp32


def completion_log_probs(
    model: nn.Module,
    ids: Tensor,
    prompt_lengths: Tensor,
    tokens: Tensor,
    mask: Tensor,
    temperature: float,
    *,
    entropies: Entropies = "none",
    head: Head | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs in nats of completion `tokens` (B, T), 0 where `mask` is False; entropies, and what `head` makes of the
    states that decide them (zeros where not asked for), all (B, T).

    `ids` (B, L) holds prompt, completion, padding from the left edge on, so that causal attention alone keeps padding
    away from every real token; `prompt_lengths` (B,). The language head runs on completion tokens only, and no model
    reads a row's last token, which decides nothing.
    """
    language_head = head_of(model, tokens.numel())
    if language_head is None:
        logits, states = completion_logits_and_states(model, ids, prompt_lengths, tokens.shape[1], head is not None)
        said = _statistics(logits, tokens, temperature, entropies)
        found = [*said, torch.zeros_like(said[0]) if head is None else head(states)]
    else:
        states, layout = _deciding_states(model, ids, prompt_lengths, mask)
        said = token_statistics(states, layout.pick(tokens), language_head, temperature, entropies)
        flat = [*said, torch.zeros_like(said[0]) if head is None else head(states)]
        found = [layout.spread(x[:, None])[..., 0] for x in flat]
    log_probs, entropy, values = (x.where(mask, 0.0) for x in found)
    return log_probs, entropy, values


def token_statistics(
    states: Tensor, tokens: Tensor, language_head: nn.Linear, temperature: float, entropies: Entropies
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies (N,) of `tokens` (N,) after `states` (N, D), without all logits (N, V) at once."""

    def of_chunk(states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return _statistics(through(language_head, states), tokens, temperature, entropies)

    rows = max(1, MOST_LOGITS // len(language_head.weight))
    if len(states) <= rows:
        return of_chunk(states, tokens)
    chunks = zip(states.split(rows), tokens.split(rows), strict=True)
    said = [checkpoint(of_chunk, *chunk, use_reentrant=False) for chunk in chunks]
    log_probs, entropy = (torch.cat(parts) for parts in zip(*said, strict=True))
    return log_probs, entropy


def _statistics(logits: Tensor, tokens: Tensor, temperature: float, entropies: Entropies) -> tuple[Tensor, Tensor]:
    log_probs = token_log_probs(logits, tokens, temperature)
    with nullcontext() if entropies == "with gradient" else torch.no_grad():
        entropy = torch.zeros_like(log_probs) if entropies == "none" else token_entropy(logits, temperature)
    return log_probs, entropy


def head_of(model: nn.Module, num_tokens: int) -> nn.Linear | None:
    """The language head, where states are to be taken from the trunk alone: in lean passes, on a GPU, and where the
    logits of `num_tokens` are more than `MOST_LOGITS` numbers. None: the model's own forward makes the logits."""
    if isinstance(model, GPT2LMHeadModel) and lean_gpt2.fits(model):
        return model.lm_head
    language_head: Any = _plain(model).get_output_embeddings()
    if not isinstance(language_head, nn.Linear):
        return None
    if num_tokens * len(language_head.weight) <= MOST_LOGITS and not language_head.weight.is_cuda:
        return None
    return language_head if _splits_at_head(model, language_head) else None


_SPLITS: "weakref.WeakKeyDictionary[nn.Module, bool]" = weakref.WeakKeyDictionary()


@torch.no_grad()
def _splits_at_head(model: nn.Module, language_head: nn.Linear) -> bool:
    """Whether the logits are the head's output on the trunk's last states, bit for bit: tried out, not assumed.

    Some models scale or bound their logits, or name their parts in another way; theirs are made in one piece.
    """
    if model not in _SPLITS:
        ids = torch.arange(4, device=language_head.weight.device)[None] % len(language_head.weight)
        try:
            whole = model(input_ids=ids, use_cache=False).logits
            apart = language_head(_plain(model).base_model(input_ids=ids, use_cache=False).last_hidden_state)
            _SPLITS[model] = torch.equal(whole, apart)
        except (AttributeError, RuntimeError, TypeError, ValueError):
            _SPLITS[model] = False
    return _SPLITS[model]


def _plain(model: Any) -> Any:
    """The transformers model; adapters live in its layers."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _deciding_states(model: Any, ids: Tensor, prompt_lengths: Tensor, mask: Tensor) -> tuple[Tensor, Cells]:
    """(N, D) last hidden states before completion tokens, row by row, and where in (B, T) they belong.

    Not lean, they are those of padding too: to leave it out the host would have to wait for the GPU to count it.
    """
    if isinstance(model, GPT2LMHeadModel) and lean_gpt2.fits(model):
        states = lean_gpt2.states_at(model.transformer, ids, deciding_columns(ids, prompt_lengths, mask))
        return states, Cells.of(mask)
    states = _plain(model).base_model(input_ids=ids[:, : max(ids.shape[1] - 1, 1)], use_cache=False).last_hidden_state
    everywhere = Cells(None, (mask.shape[0], mask.shape[1]))
    return everywhere.pick(take_completion(states, prompt_lengths - 1, mask.shape[1])), everywhere


def completion_logits_and_states(
    model: nn.Module, ids: Tensor, prompt_lengths: Tensor, num_tokens: int, with_states: bool
) -> tuple[Tensor, Tensor]:
    """(B, `num_tokens`, V) logits at the columns just before each completion token, and, if asked for, the last hidden
    states that they were made of; by the model's own forward."""
    columns = _deciding_columns(ids, prompt_lengths, num_tokens)
    output = model(
        input_ids=ids[:, : columns[-1] + 1],
        logits_to_keep=columns,
        use_cache=False,
        **({"output_hidden_states": True} if with_states else {}),
    )
    starts = prompt_lengths - 1
    logits = take_completion(output.logits, starts - columns[0], num_tokens)
    return logits, take_completion(output.hidden_states[-1], starts, num_tokens) if with_states else logits


def deciding_columns(ids: Tensor, prompt_lengths: Tensor, mask: Tensor) -> Tensor:
    """(B, L) True just before each completion token; `mask` (B, T) is True on these tokens, from the first on."""
    first = prompt_lengths[:, None] - 1
    columns = torch.arange(ids.shape[1], device=ids.device)
    return (columns >= first) & (columns < first + mask.sum(1)[:, None])


def _deciding_columns(ids: Tensor, prompt_lengths: Tensor, num_tokens: int) -> Tensor:
    first = int(prompt_lengths.min()) - 1
    last = min(int(prompt_lengths.max()) - 1 + num_tokens, ids.shape[1] - 1)
    return torch.arange(first, max(last, first + 1), device=ids.device)


def take_completion(x: Tensor, starts: Tensor, num_tokens: int) -> Tensor:
    """Columns `starts[b] .. starts[b] + num_tokens - 1` of each row: (B, L, ...) to (B, num_tokens, ...).

    Columns past the right edge repeat the last one; they belong to padding.
    """
    columns = starts[:, None] + torch.arange(num_tokens, device=x.device)
    columns = columns.clamp(max=x.shape[1] - 1)
    return x[torch.arange(x.shape[0], device=x.device)[:, None], columns]
