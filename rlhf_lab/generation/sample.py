"""Prompts in, completions out: the one public function of generation; it chooses the engine.

Engines have one contract, `generate_eagerly`'s: the same uniforms give the same tokens whichever engine draws them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_lab.data.batches import length_buckets, pad_left
from rlhf_lab.errors import UserError
from rlhf_lab.generation import lean, static_cache
from rlhf_lab.generation.eager import generate_eagerly
from rlhf_lab.generation.stops import Stops
from rlhf_lab.models.compiled import uncompiled
from rlhf_lab.models.language import context_of


@dataclass(frozen=True)
class Completions:
    """B sampled completions of at most T tokens."""

    ids: Tensor  # (B, T) int64, padding after the first stop
    mask: Tensor  # (B, T) bool, True on tokens that the policy chose, those of the stop included
    stopped: Tensor  # (B,) bool, True where a stop was written
    log_probs: Tensor | None = None  # (B, T) in nats when they were drawn, 0 on padding; None: not known

    def rows(self) -> list[list[int]]:
        """The completions without padding, as lists."""
        lengths = self.mask.sum(1).tolist()
        return [row[:length] for row, length in zip(self.ids.tolist(), lengths, strict=True)]


def draw_uniforms(num_rows: int, num_tokens: int, *, seed: int, stream: int) -> Tensor:
    """(num_rows, num_tokens) numbers in [0, 1) that belong to (seed, stream), whoever draws them.

    Made on CPU, so that every device and every process sees the same ones; `stream` is, for example, the PPO update.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + stream) % (2**63))
    return torch.rand(num_rows, num_tokens, generator=generator)


def sample_completions(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    *,
    temperature: float,
    stops: Stops,
    pad_token_id: int,
    batch_size: int | None = None,
    engine: str = "auto",
) -> Completions:
    """Sample one completion per prompt (token ids) from `model` at `temperature`.

    `uniforms` (B, T) decide the tokens, T is the longest completion. Prompts of like length run together, `batch_size`
    at once (default: 256 on a CPU, 1024 on a GPU). `engine` is "auto" (the fastest that fits), "eager" (any model),
    "lean" (GPT-2 on a CPU) or "static" (a cache of fixed size; on a GPU a captured graph). The model is left as it was
    (training mode and gradient checkpointing included). Raises UserError where prompt and completion do not fit the
    model's context, or the engine does not fit the model.
    """
    device = model.get_input_embeddings().weight.device
    generate = _engine(engine, model, device)
    _check_context(model, max(map(len, prompts)) + uniforms.shape[1])
    batch_size = batch_size or ROWS_AT_ONCE[device.type == "cuda"]
    tokens = torch.full(uniforms.shape, pad_token_id)
    log_probs = torch.zeros(uniforms.shape)
    was_training = model.training
    model.eval()  # also switches gradient checkpointing off, which would switch the cache off
    settings = {"temperature": temperature, "stops": stops, "pad_token_id": pad_token_id}
    try:
        for rows in length_buckets([len(prompt) for prompt in prompts], batch_size):
            ids, mask = pad_left([prompts[row] for row in rows], pad_token_id)
            with uncompiled(model):
                drawn, said = generate(model, ids.to(device), mask.to(device), uniforms[rows].to(device), **settings)
            tokens[rows], log_probs[rows] = drawn.cpu(), said.cpu()
    finally:
        model.train(was_training)
    return mask_completions(tokens.to(device), stops, log_probs.to(device))


def mask_completions(tokens: Tensor, stops: Stops, log_probs: Tensor | None = None) -> Completions:
    """Wrap sampled tokens (B, T): everything after the first stop is padding."""
    is_stop = stops.places(tokens)
    mask = is_stop.long().cumsum(1) - is_stop.long() == 0
    return Completions(tokens, mask, is_stop.any(1), log_probs)


ROWS_AT_ONCE = {False: 256, True: 1024}  # on a CPU rows more would leave its caches; a GPU takes as long for few


def _engine(name: str, model: PreTrainedModel, device: torch.device) -> Callable[..., tuple[Tensor, Tensor]]:
    """The engine of that name; for "auto" the fastest that fits."""
    if name == "lean" and not lean.fits(model):
        raise UserError(
            f"generation_engine=lean is for plain GPT-2 models in fp32 on a CPU, not for this {type(model).__name__}; "
            "type generation_engine=auto"
        )
    if name == "static" and not static_cache.fits(model):
        raise UserError(
            f"generation_engine=static needs a model that transformers can cache statically, and "
            f"{type(model).__name__} is none; type generation_engine=auto"
        )
    if name == "static" or (name == "auto" and device.type == "cuda" and static_cache.fits(model)):
        return static_cache.generate_static
    return lean.generate_lean if name != "eager" and lean.fits(model) else generate_eagerly


def _check_context(model: PreTrainedModel, num_tokens: int) -> None:
    context = context_of(model)
    if context is not None and num_tokens > context:
        raise UserError(
            f"a prompt and its completion take up to {num_tokens} tokens, the model's context holds {context}; "
            f"lower ppo.max_prompt_length or ppo.max_completion_length so that their sum is at most {context}"
        )
