"""One contract for all engines: the same uniforms give the same tokens, and log-probs are those of a full forward."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers.masking_utils
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rlhf_lab.errors import UserError
from rlhf_lab.functional import token_log_probs
from rlhf_lab.generation import static_cache
from rlhf_lab.generation.sample import draw_uniforms
from rlhf_lab.generation.stops import Stops, stops_of
from tests.generation.test_sample import EOS, PAD, VOCAB, sample, some_prompts, tiny_gpt2, tiny_llama
from tests.models.test_language import byte_tokenizer

SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "bos_token_id": EOS,
}
IDS = {"eos_token_id": EOS, "pad_token_id": PAD, "bos_token_id": EOS}
NARROW = {"vocab_size": VOCAB, "hidden_size": 32, "num_attention_heads": 2, **IDS}
MODELS: dict[str, Callable[[], Any]] = {
    "gpt2": tiny_gpt2,
    "llama": tiny_llama,
    "adapters": lambda: get_peft_model(
        tiny_gpt2(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    ).eval(),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)).eval(),
    "mistral, a window of 6": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=6)).eval(),
    "gemma2, every other layer a window of 6": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SMALL, head_dim=16, sliding_window=6)
    ).eval(),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(**NARROW, ffn_dim=32, num_hidden_layers=2, word_embed_proj_dim=32, init_std=0.3)
    ).eval(),
    "bloom, positions by distance": lambda: BloomForCausalLM(
        BloomConfig(**NARROW, n_layer=2, initializer_range=0.3)
    ).eval(),
}
ENGINES = [("eager", name) for name in MODELS] + [("lean", "gpt2")] + [("static", name) for name in MODELS]


def made(name: str) -> Any:
    torch.manual_seed(0)
    return MODELS[name]()


@torch.no_grad()
def full_forward(model: Any, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
    """Log-probs of one completion, without cache, padding or batch."""
    ids = torch.tensor([prompt + completion])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return token_log_probs(logits, torch.tensor(completion), temperature)


@pytest.mark.parametrize(("engine", "name"), ENGINES)
@pytest.mark.parametrize(("stop_ids", "temperature"), [((EOS,), 1.0), ((EOS, 5, 7), 0.7), ((), 1.0)])
def test_f12_tokens_and_log_probs_are_those_of_a_full_forward(
    engine: str, name: str, stop_ids: tuple[int, ...], temperature: float
) -> None:
    model, prompts = made(name), some_prompts(12)
    uniforms = draw_uniforms(12, 14, seed=1, stream=0)
    settings: dict[str, Any] = {"stops": Stops(stop_ids), "temperature": temperature}
    found = sample(model, prompts, uniforms, engine=engine, **settings)
    assert torch.equal(found.ids, sample(model, prompts, uniforms, engine="eager", **settings).ids)
    assert found.log_probs is not None
    assert not found.log_probs[~found.mask].any()
    for prompt, row, log_probs in zip(prompts, found.rows(), found.log_probs, strict=True):
        expected = full_forward(model, prompt, row, temperature)
        assert torch.allclose(log_probs[: len(row)], expected, rtol=0, atol=1e-5), (prompt, row)


@pytest.mark.parametrize("engine", ["eager", "lean", "static"])
def test_a_text_of_several_tokens_ends_completions(engine: str) -> None:
    tokenizer, model = byte_tokenizer(), tiny_gpt2(vocab_size=258, n_positions=64)
    with torch.no_grad():  # every state is the first unit vector, so that the first column of the head is the logits
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.zero_()[0] = 1.0
        letters = torch.tensor([tokenizer.convert_tokens_to_ids(letter) for letter in "ab"])
        model.lm_head.weight[:, 0] = torch.full((258,), -30.0).index_fill_(0, letters, 0.0)
    stops = stops_of(model, tokenizer, ["abba"])
    found = sample(model, [[5], [6, 7]] * 20, draw_uniforms(40, 30, seed=0, stream=0), engine=engine, stops=stops)
    texts = [tokenizer.decode(row) for row in found.rows()]
    assert [text.endswith("abba") for text in texts] == found.stopped.tolist()
    assert not any("abba" in text[:-1] for text in texts)
    assert found.stopped.any()
    assert not found.stopped.all()


# --- the static engine -------------------------------------------------------------------------------------------


class HostReads(TorchDispatchMode):
    """Counts numbers that leave the tensors for Python: on a GPU the host would wait for each."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += str(func) in ("aten._local_scalar_dense.default", "aten.is_nonzero.default")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("num_tokens", [4, 30])
def test_the_static_engine_reads_one_number_for_eight_tokens(num_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers leaves its own looks at the mask out where a graph is captured, as this makes it believe."""
    monkeypatch.setattr(transformers.masking_utils, "is_tracing", lambda *tensors: True)
    with HostReads() as reads:
        sample(tiny_gpt2(), [[3, 4], [5]], torch.rand(2, num_tokens), engine="static", stops=Stops())
    # the looks before tokens 1, 9, 17, 25 and, for all tokens together, a few while the batch is put together
    assert reads.number <= 4 + -(-num_tokens // static_cache.LOOK_EVERY), reads.number


def test_the_static_engine_ends_soon_after_all_rows_have() -> None:
    model, calls = tiny_gpt2(), []
    model.transformer.wte.register_forward_hook(lambda module, inputs, output: calls.append(tuple(inputs[0].shape)))
    found = sample(model, some_prompts(5), torch.rand(5, 30), stops=Stops(tuple(range(VOCAB))), engine="static")
    assert len(calls) == 1
    assert found.mask.sum(1).tolist() == [1] * 5


def test_the_static_engine_ends_soon_after_all_rows_have_ended_by_a_text() -> None:
    tokenizer, calls = byte_tokenizer(), []
    model, uniforms = tiny_gpt2(vocab_size=258), draw_uniforms(1, 30, seed=0, stream=0)
    written = sample(model, [[5]], uniforms, stops=Stops()).rows()[0]
    start = next(t for t in range(30) if all(33 < ord(tokenizer.decode([id])[0]) < 127 for id in written[t : t + 2]))
    text = tokenizer.decode(written[start : start + 2])
    model.transformer.wte.register_forward_hook(lambda module, inputs, output: calls.append(1))
    found = sample(model, [[5]], uniforms, stops=stops_of(model, tokenizer, [text]), engine="static")
    assert found.mask.sum() == start + 2 < 20
    assert len(calls) <= start + 2 + static_cache.LOOK_EVERY


@pytest.mark.parametrize("name", MODELS)
def test_prompts_of_one_length_read_no_column_that_is_still_empty(name: str) -> None:
    """Without padding transformers may leave the mask out, and would then read the whole cache."""
    model, uniforms = made(name), draw_uniforms(3, 10, seed=0, stream=0)
    prompts = [[2, 3, 4], [5, 6, 7], [8, 9, 10]]
    eager, static = (sample(model, prompts, uniforms, stops=Stops(), engine=engine) for engine in ("eager", "static"))
    assert torch.equal(eager.ids, static.ids)
    assert torch.allclose(eager.log_probs, static.log_probs, atol=1e-5)


def test_a_decoder_begins_anew_with_every_prompt() -> None:
    """On a GPU it serves one rollout after another: nothing of the one before may be read."""
    model, uniforms = tiny_llama(), draw_uniforms(2, 9, seed=0, stream=0)
    decoder = static_cache.Decoder(model, (2, 4, 9, 1.0, Stops(), PAD), torch.device("cpu"))
    prompts = [([[PAD, 3, 4, 5], [6, 7, 8, 9]]), ([[2, 2, 3, 3], [PAD, PAD, PAD, 4]])]
    with torch.no_grad():
        for rows in [*prompts, *prompts]:
            ids = torch.tensor(rows)
            decoder.begin(ids, ids != PAD, uniforms)
            for t in range(1, 9):
                decoder.next_token(t)
            plain = [[token for token in row if token != PAD] for row in rows]
            assert torch.equal(decoder.tokens, sample(model, plain, uniforms, stops=Stops()).ids)


@pytest.mark.parametrize("name", ["gpt2", "llama", "adapters"])
def test_a_captured_graph_belongs_to_weights_where_they_lie_and_to_the_adapters_that_are_on(name: str) -> None:
    """A graph reads memory by its address, and what Python decided while it was recorded stays decided."""
    model = made(name)
    state = static_cache._state_of(model)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)  # as an optimizer does, in place
    assert static_cache._state_of(model) == state
    if name == "adapters":
        with model.disable_adapter():
            assert static_cache._state_of(model) != state
        assert static_cache._state_of(model) == state
    next(model.parameters()).data = next(model.parameters()).data.clone()
    assert static_cache._state_of(model) != state


def test_a_model_without_a_static_cache_is_refused_by_name() -> None:
    torch.manual_seed(0)
    kinds: list[Any] = [[["global", "local"], 1]]
    model = GPTNeoForCausalLM(
        GPTNeoConfig(vocab_size=VOCAB, hidden_size=32, num_layers=2, num_heads=2, attention_types=kinds)
    )
    with pytest.raises(UserError, match=r"generation_engine=static needs .* GPTNeoForCausalLM is none.*=auto"):
        sample(model, [[2]], torch.rand(1, 3), engine="static")
