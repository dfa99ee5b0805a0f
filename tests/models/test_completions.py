"""Large vocabularies: the same numbers and gradients in chunks, and never all logits at once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, OPTConfig, OPTForCausalLM

from rlhf_lab.models import completions
from rlhf_lab.models.completions import completion_log_probs, head_of
from tests.models.test_language import IDS, SIZES, VOCAB, some_ids, tiny_gpt2, tiny_llama, tiny_neox

PROMPT_LENGTHS = torch.tensor([3, 7, 1, 5])
COMPLETION_LENGTHS = torch.tensor([6, 2, 4, 6])
TOKENS = int(COMPLETION_LENGTHS.sum())


def with_checkpointing() -> Any:
    model = tiny_llama()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


MODELS: dict[str, Callable[[], Any]] = {
    "lean gpt2": tiny_gpt2,
    "gpt2": lambda: tiny_gpt2(scale_attn_by_inverse_layer_idx=True),
    "llama": tiny_llama,
    "gpt_neox": tiny_neox,
    "opt": lambda: OPTForCausalLM(OPTConfig(**{**SIZES, **IDS}, word_embed_proj_dim=16, ffn_dim=32)).eval(),
    "adapters": lambda: get_peft_model(tiny_llama(), LoraConfig(r=2, init_lora_weights=False)).eval(),
    "checkpointing": with_checkpointing,
}
IN_ONE_PIECE: dict[str, Callable[[], Any]] = {
    "bounded logits": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, **IDS, head_dim=16, num_key_value_heads=1)
    ).eval(),
    "scaled logits": lambda: CohereForCausalLM(CohereConfig(**SIZES, **IDS)).eval(),
}


def made(models: dict[str, Callable[[], Any]], name: str) -> Any:
    torch.manual_seed(0)
    return models[name]()


def read(model: Any, *, with_head: bool = False) -> tuple[Tensor, ...]:
    """Log-probs, entropies and values, then the gradients of all weights, of a sum over all three."""
    mask = torch.arange(6) < COMPLETION_LENGTHS[:, None]
    ids = some_ids(4, 12)
    tokens = torch.stack([row.roll(-int(start))[:6] for row, start in zip(ids, PROMPT_LENGTHS, strict=True)])
    model.zero_grad()
    head = (lambda states: states.square().mean(-1)) if with_head else None
    found = completion_log_probs(model, ids, PROMPT_LENGTHS, tokens, mask, 0.7, entropies="with gradient", head=head)
    (found[0] * torch.arange(6) + found[1] + found[2]).sum().backward()
    return (*found, *(p.grad.clone() for p in model.parameters() if p.grad is not None))


@pytest.mark.parametrize("with_head", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_chunks_change_no_number_and_no_gradient(name: str, with_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(MODELS, name)
    whole = read(model, with_head=with_head)
    monkeypatch.setattr(completions, "MOST_LOGITS", 5 * VOCAB)
    assert head_of(model, TOKENS) is not None
    chunked = read(model, with_head=with_head)
    assert len(chunked) == len(whole) > 3
    for one, other in zip(chunked, whole, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", IN_ONE_PIECE)
def test_a_head_that_is_not_all_between_states_and_logits_is_left_to_the_model(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(IN_ONE_PIECE, name)
    whole = read(model)
    monkeypatch.setattr(completions, "MOST_LOGITS", VOCAB)
    assert head_of(model, TOKENS) is None
    assert all(torch.equal(one, other) for one, other in zip(read(model), whole, strict=True))


class Largest(TorchDispatchMode):
    """The most rows of any tensor that is as wide as the vocabulary: logits, their softmax, their gradients. The head's
    own weight, turned, is (width, vocabulary) and does not count."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = 0
        self.weight = (width, VOCAB)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and tensor.shape[-1:] == (VOCAB,) and tensor.shape != self.weight:
                self.rows = max(self.rows, tensor.numel() // VOCAB)
        return made


@pytest.mark.parametrize("name", MODELS)
def test_no_tensor_holds_all_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(MODELS, name)
    width = model.get_input_embeddings().weight.shape[1]
    with Largest(width) as whole:
        read(model)
    monkeypatch.setattr(completions, "MOST_LOGITS", 5 * VOCAB)
    head_of(model, TOKENS)  # the trial of four tokens is over
    with Largest(width) as chunked:
        read(model)
    assert whole.rows >= TOKENS
    assert chunked.rows <= 5
