"""The static engine: a key-value cache of fixed size, and on a GPU one captured CUDA graph for every further token.

With a small model a GPU waits for Python: hundreds of kernels a token, each launched by hand. Here everything that one
token takes (forward pass, draw, bookkeeping) reads and writes tensors that stay where they are, so it is captured once
and replayed with a single launch. Nothing is brought to the host for a token; every `LOOK_EVERY` tokens one number says
whether all rows have ended. On a CPU the same steps run without a graph.

For every decoder that transformers can cache statically; the contract is that of the eager engine. Leaves out models
with a state of another kind, and rows of a finished completion: they stay, since a launch costs the same without them.
"""

import weakref
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import StaticCache

from rlhf_lab.generation.draw import draw_tokens
from rlhf_lab.generation.stops import Stops, is_one_of

LOOK_EVERY = 8  # tokens between two looks at whether all rows have ended
WIDTH_STEP = 16  # prompts are padded to a multiple of this, so that few shapes are captured
KEPT_GRAPHS = 4  # a model; each holds its cache
STEPS_AHEAD = 2  # of the capture


def fits(model: Any) -> bool:
    """Whether transformers can cache this decoder statically."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return bool(getattr(plain, "_can_compile_fullgraph", False)) and not getattr(plain, "_is_stateful", False)


@torch.no_grad()
def generate_static(
    model: Any,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    uniforms: Tensor,
    *,
    temperature: float,
    stops: Stops,
    pad_token_id: int,
) -> tuple[Tensor, Tensor]:
    """Sample completions for left-padded prompts; arguments and result as in `generate_eagerly`."""
    (num_rows, width), num_tokens = prompt_ids.shape, uniforms.shape[1]
    if prompt_ids.is_cuda:
        more = -width % WIDTH_STEP
        prompt_ids, prompt_mask = (
            F.pad(prompt_ids, (more, 0), value=pad_token_id),
            F.pad(prompt_mask, (more, 0), value=False),
        )
    decoder = _decoder_for(model, (num_rows, prompt_ids.shape[1], num_tokens, temperature, stops, pad_token_id))
    decoder.begin(prompt_ids, prompt_mask, uniforms)
    for t in range(1, num_tokens):
        if t % LOOK_EVERY == 1 and not bool(decoder.going.any()):
            break
        decoder.next_token(t)
    return decoder.tokens.clone(), decoder.log_probs.clone()


Shape = tuple[int, int, int, float, Stops, int]  # rows, columns of prompt, tokens, temperature, stops, pad
_KEPT: "weakref.WeakKeyDictionary[Any, OrderedDict[Any, Decoder]]" = weakref.WeakKeyDictionary()


def _decoder_for(model: Any, shape: Shape) -> "Decoder":
    """On a GPU the decoder of an earlier call with this shape, while the model's weights are where they were."""
    first = next(model.parameters())
    if not first.is_cuda:
        return Decoder(model, shape, first.device)
    kept = _KEPT.setdefault(model, OrderedDict())
    key = (shape, _state_of(model), torch.is_autocast_enabled("cuda"))
    if key not in kept:
        kept[key] = Decoder(model, shape, first.device)
    kept.move_to_end(key)
    while len(kept) > KEPT_GRAPHS:
        kept.popitem(last=False)
    return kept[key]


def _state_of(model: Any) -> tuple[Any, ...]:
    """What a captured graph has taken for granted: where the weights lie, and which adapters are on."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    adapters = tuple((tuple(layer.active_adapters), layer.disable_adapters) for layer in layers)
    return tuple(parameter.data_ptr() for parameter in model.parameters()), adapters


class Decoder:
    """One model's buffers for B rows of C = P + T columns, and the step that reads and writes them."""

    def __init__(self, model: Any, shape: Shape, device: torch.device) -> None:
        num_rows, width, num_tokens, self.temperature, self.stops, self.pad = shape
        self._model = weakref.ref(model)  # `_KEPT` holds this object for as long as the model lives
        self.width = width
        self.cache = StaticCache(config=model.config, max_cache_len=width + num_tokens)
        self.seen = torch.zeros(num_rows, width + num_tokens, dtype=torch.bool, device=device)
        self.uniforms = torch.zeros(num_rows, num_tokens, device=device)
        self.tokens = torch.zeros(num_rows, num_tokens, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(num_rows, num_tokens, device=device)
        self.going = torch.ones(num_rows, dtype=torch.bool, device=device)
        self.ids = torch.zeros(num_rows, 1, dtype=torch.long, device=device)  # drawn last, read next
        self.positions = torch.zeros(num_rows, 1, dtype=torch.long, device=device)
        self.stop_ids = torch.tensor(self.stops.token_ids, dtype=torch.long, device=device)
        self.place = torch.zeros(1, dtype=torch.long, device=device)  # of the token that is drawn next
        self.graph: torch.cuda.CUDAGraph | None = None

    def begin(self, prompt_ids: Tensor, prompt_mask: Tensor, uniforms: Tensor) -> None:
        """Read the prompts (B, P) and draw the first token."""
        if prompt_ids.is_cuda and self.graph is None and self.tokens.shape[1] > STEPS_AHEAD + 1:
            self._read(prompt_ids, prompt_mask, uniforms)
            self._capture()  # moves the buffers on, so the prompts are read again
        self._read(prompt_ids, prompt_mask, uniforms)

    def next_token(self, t: int) -> None:
        """Draw token `t` of every row, from 1 on."""
        if self.graph is None:
            self._step()
        else:
            self.graph.replay()
        if self.stops.matcher is not None:  # several tokens decide, and how many grows: not for a graph
            self.going &= ~self.stops.matcher(self.tokens[:, : t + 1], None)

    def _read(self, prompt_ids: Tensor, prompt_mask: Tensor, uniforms: Tensor) -> None:
        mask = prompt_mask.bool()
        self.cache.reset()
        self.uniforms.copy_(uniforms)
        self.tokens.fill_(self.pad)
        self.log_probs.zero_()
        self.going.fill_(True)
        self.place.zero_()
        self.seen[:, : self.width] = mask
        self.seen[:, self.width :] = False
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        self.positions.copy_(positions[:, -1:])
        self._draw(self._logits(prompt_ids, positions))
        if self.stops.matcher is not None:
            self.going &= ~self.stops.matcher(self.tokens[:, :1], None)

    def _step(self) -> None:
        self.seen.index_fill_(1, self.place + (self.width - 1), True)  # the column of the token that is read now
        self._draw(self._logits(self.ids, self.positions))

    def _logits(self, ids: Tensor, positions: Tensor) -> Tensor:
        model = self._model()
        assert model is not None
        output = model(
            input_ids=ids,
            attention_mask=self.seen,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _draw(self, logits: Tensor) -> None:
        """Write down one token a row, and what the next step reads. Only fixed shapes and places: this is captured."""
        drawn, log_probs = draw_tokens(logits, self.uniforms.index_select(1, self.place)[:, 0], self.temperature)
        self.tokens.index_copy_(1, self.place, drawn.where(self.going, self.pad)[:, None])
        self.log_probs.index_copy_(1, self.place, log_probs.where(self.going, 0.0)[:, None])
        self.going &= ~is_one_of(drawn, self.stop_ids)
        self.ids.copy_(drawn[:, None])
        self.positions += 1
        self.place += 1

    def _capture(self) -> None:
        """Record one step; some ahead of it let libraries choose their kernels and take their memory.

        Autocast must not keep converted weights from one step to the next: the optimizer changes the weights between.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), _no_autocast_cache():
            for _ in range(STEPS_AHEAD):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: another thread may be scoring meanwhile (overlap_chunks), and take memory for it
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"), _no_autocast_cache():
            self._step()


def _no_autocast_cache() -> torch.autocast:
    return torch.autocast(
        "cuda",
        dtype=torch.get_autocast_dtype("cuda"),
        enabled=torch.is_autocast_enabled("cuda"),
        cache_enabled=False,
    )
