"""Sampling: the uniform numbers decide the tokens; batches, padding and the cache do not."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from rlhf_lab.errors import UserError
from rlhf_lab.generation import lean
from rlhf_lab.generation.draw import draw_tokens
from rlhf_lab.generation.eager import generate_eagerly
from rlhf_lab.generation.lean import LeanGPT2
from rlhf_lab.generation.sample import Completions, draw_uniforms, mask_completions, sample_completions
from rlhf_lab.generation.stops import Stops

EOS, PAD, VOCAB = 0, 1, 12


def tiny_gpt2(**fields: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 48, "vocab_size": VOCAB}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, "initializer_range": 0.3, **fields})).eval()


def tiny_llama() -> Any:
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=VOCAB, initializer_range=0.3)).eval()


MODELS = {"gpt2": tiny_gpt2, "llama": tiny_llama}  # "auto" takes the lean engine for the first


def some_prompts(number: int = 9) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 12, (number,), generator=generator).tolist()
    return [torch.randint(2, VOCAB, (length,), generator=generator).tolist() for length in lengths]


def sample(model: Any, prompts: list[list[int]], uniforms: Tensor, **changed: Any) -> Completions:
    settings: dict[str, Any] = {"temperature": 1.0, "stops": Stops((EOS,)), "pad_token_id": PAD, **changed}
    return sample_completions(model, prompts, uniforms, **settings)


@torch.no_grad()
def plain_loop(model: Any, prompt: list[int], uniforms: Tensor, stops: list[int], temperature: float) -> list[int]:
    """One row, no cache, no padding, no batch: whole text in, last column out; the first token whose cumulative
    probability exceeds the number is the one."""
    ids = list(prompt)
    for number in uniforms.tolist():
        probabilities = (model(input_ids=torch.tensor([ids])).logits[0, -1].double() / temperature).softmax(-1)
        total, token = 0.0, -1
        while total <= number:
            token += 1
            total += float(probabilities[token])
        ids.append(token)
        if token in stops:
            break
    return ids[len(prompt) :]


# --- the same numbers, the same tokens ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(("stops", "temperature"), [([EOS], 1.0), ([EOS, 5, 7], 0.7)])
def test_sampling_is_a_plain_loop_over_single_rows(name: str, stops: list[int], temperature: float) -> None:
    model, prompts = MODELS[name](), some_prompts()
    uniforms = draw_uniforms(len(prompts), 14, seed=0, stream=0)
    found = sample(model, prompts, uniforms, stops=Stops(tuple(stops)), temperature=temperature)
    expected = [plain_loop(model, p, u, stops, temperature) for p, u in zip(prompts, uniforms, strict=True)]
    assert found.rows() == expected
    lengths = {len(row) for row in expected}
    assert len(lengths) > 2, "rows of one length would prove little"
    if len(stops) == 1:
        assert 14 in lengths, "a row without a stop token belongs here"


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batch_size_does_not_change_the_tokens(batch_size: int) -> None:
    model, prompts = tiny_gpt2(), some_prompts()
    uniforms = draw_uniforms(len(prompts), 14, seed=1, stream=0)
    whole = sample(model, prompts, uniforms)
    found = sample(model, prompts, uniforms, batch_size=batch_size)
    assert torch.equal(found.ids, whole.ids)
    assert torch.equal(found.mask, whole.mask)
    assert torch.equal(found.stopped, whole.stopped)


def test_row_order_does_not_change_the_tokens() -> None:
    model, prompts = tiny_gpt2(), some_prompts()
    uniforms = draw_uniforms(len(prompts), 14, seed=2, stream=0)
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(3))
    found = sample(model, [prompts[row] for row in order], uniforms[order], batch_size=4)
    assert torch.equal(found.ids, sample(model, prompts, uniforms, batch_size=4).ids[order])


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("more_padding", [0, 1, 9])
def test_more_padding_on_the_left_does_not_change_the_tokens(name: str, more_padding: int) -> None:
    model, prompts = MODELS[name](), some_prompts(4)
    uniforms = draw_uniforms(4, 10, seed=4, stream=0)
    width = max(map(len, prompts)) + more_padding
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[False] * (width - len(p)) + [True] * len(p) for p in prompts])
    found, _ = generate_eagerly(model, ids, mask, uniforms, temperature=1.0, stops=Stops((EOS,)), pad_token_id=PAD)
    assert torch.equal(found, sample(model, prompts, uniforms).ids)


def test_the_id_of_padding_does_not_change_the_tokens() -> None:
    model, prompts = tiny_gpt2(), some_prompts()
    uniforms = draw_uniforms(len(prompts), 10, seed=5, stream=0)
    assert sample(model, prompts, uniforms, pad_token_id=9).rows() == sample(model, prompts, uniforms).rows()


# --- the distribution --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_an_even_grid_of_uniforms_gives_each_token_as_often_as_softmax_says(temperature: float) -> None:
    num = 100_000
    logits = torch.tensor([1.5, -2.0, 0.0, 0.7, -7.0])
    grid = (torch.arange(num) + 0.5) / num
    drawn, _ = draw_tokens(logits.expand(num, -1), grid, temperature)
    counts = drawn.bincount(minlength=5)
    expected = num * (logits.double() / temperature).softmax(-1)
    assert (counts - expected).abs().max() <= 2.0, (counts, expected)
    assert torch.equal(drawn, drawn.sort().values), "tokens come in the order of their ids"


def test_log_probs_by_hand() -> None:
    """Probabilities 1/2, 1/4, 1/4: the borders lie at 0.5 and 0.75 and belong to the token above."""
    logits = torch.tensor([0.5, 0.25, 0.25]).log().expand(6, 3)
    drawn, _ = draw_tokens(logits, torch.tensor([0.0, 0.49, 0.51, 0.74, 0.76, 0.999]), 1.0)
    assert drawn.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_token_without_probability_is_never_drawn() -> None:
    """Also not at the two ends, where rounding could reach it: its log-prob would be minus infinity."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 50, generator=generator) * 3
    logits[:, [0, 7, 49]] = -torch.inf
    for number in (0.0, 1.0 - 2.0**-24):
        drawn, _ = draw_tokens(logits, torch.full((2000,), number), 1.0)
        assert logits.gather(1, drawn[:, None]).isfinite().all(), number


def test_a_low_temperature_is_greedy() -> None:
    model, prompts = tiny_gpt2(), some_prompts(3)
    greedy = sample(model, prompts, draw_uniforms(3, 8, seed=0, stream=0), temperature=1e-4)
    with torch.no_grad():
        for prompt, row in zip(prompts, greedy.rows(), strict=True):
            logits = model(input_ids=torch.tensor([prompt + row])).logits[0, len(prompt) - 1 : -1]
            assert logits.argmax(-1).tolist() == row


def test_first_tokens_follow_the_models_own_probabilities() -> None:
    model, num = tiny_gpt2(), 4000
    found = sample(model, [[3, 4, 5]] * num, ((torch.arange(num) + 0.5) / num)[:, None], batch_size=num)
    with torch.no_grad():
        expected = num * model(input_ids=torch.tensor([[3, 4, 5]])).logits[0, -1].softmax(-1)
    assert (found.ids[:, 0].bincount(minlength=VOCAB) - expected).abs().max() <= 2.0


def test_uniforms_belong_to_seed_and_stream() -> None:
    first = draw_uniforms(50, 20, seed=1, stream=2)
    assert torch.equal(first, draw_uniforms(50, 20, seed=1, stream=2))
    for other in (draw_uniforms(50, 20, seed=2, stream=2), draw_uniforms(50, 20, seed=1, stream=3)):
        assert not torch.equal(first, other)
    assert float(first.min()) >= 0.0
    assert float(first.max()) < 1.0
    torch.manual_seed(0)
    state = torch.get_rng_state()
    draw_uniforms(3, 3, seed=0, stream=0)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is not ours"


# --- where a completion ends -------------------------------------------------------------------------------------


def test_a_completion_ends_with_the_first_of_several_stop_tokens() -> None:
    stops = [EOS, 6, 8]
    model, prompts = tiny_gpt2(), some_prompts(30)
    found = sample(model, prompts, draw_uniforms(30, 16, seed=0, stream=0), stops=Stops(tuple(stops)))
    ends = [row[-1] for row, stopped in zip(found.rows(), found.stopped.tolist(), strict=True) if stopped]
    assert set(ends) == set(stops), "every one of them has to occur"
    assert not any(token in stops for row in found.rows() for token in row[:-1])


def test_after_the_stop_token_there_is_only_padding_and_the_mask_holds_the_stop_token() -> None:
    model, prompts = tiny_gpt2(), some_prompts(30)
    found = sample(model, prompts, draw_uniforms(30, 16, seed=0, stream=0))
    assert found.stopped.any()
    assert not found.stopped.all()
    for ids, mask, stopped in zip(found.ids.tolist(), found.mask.tolist(), found.stopped.tolist(), strict=True):
        length = ids.index(EOS) + 1 if stopped else 16
        assert mask == [True] * length + [False] * (16 - length)
        assert set(ids[length:]) <= {PAD}
        assert (EOS in ids) == stopped


def test_a_mask_by_hand() -> None:
    found = mask_completions(torch.tensor([[4, 5, 4], [4, 0, 1], [0, 1, 1], [4, 4, 0]]), Stops((0,)))
    assert found.mask.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert found.stopped.tolist() == [False, True, True, True]
    assert found.rows() == [[4, 5, 4], [4, 0], [0], [4, 4, 0]]
    assert found.mask.dtype == found.stopped.dtype == torch.bool


def test_a_pad_token_that_is_also_a_stop_token_ends_a_row_once() -> None:
    """Qwen's instruct models stop at their pad token too."""
    found = mask_completions(torch.tensor([[4, 1, 1], [0, 1, 1], [4, 4, 1]]), Stops((0, 1)))
    assert found.rows() == [[4, 1], [0], [4, 4, 1]]


def test_finished_rows_leave_the_batch() -> None:
    model, prompts = tiny_gpt2(), some_prompts(20)
    seen: list[tuple[int, int]] = []
    model.transformer.wte.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    uniforms = draw_uniforms(20, 16, seed=0, stream=0)
    found = sample(model, prompts, uniforms, stops=Stops((EOS, 6, 8)), engine="eager")
    lengths = found.mask.sum(1)
    still_going = [int((lengths > t).sum()) for t in range(int(lengths.max()))]
    assert [rows for rows, _ in seen] == still_going
    assert [width for _, width in seen] == [max(map(len, prompts))] + [1] * (len(seen) - 1), "the cache is in use"
    assert still_going[0] > still_going[-1]


def test_finished_rows_leave_the_lean_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gathers rows anew once a quarter of them is finished, so few of the rows that it computes are not needed."""
    seen: list[int] = [20]  # read with their prompts
    read_next = LeanGPT2.read_next
    monkeypatch.setattr(
        LeanGPT2, "read_next", lambda self, ids, *rest: (seen.append(len(ids)), read_next(self, ids, *rest))[1]
    )
    uniforms = draw_uniforms(20, 16, seed=0, stream=0)
    found = sample(tiny_gpt2(), some_prompts(20), uniforms, stops=Stops((EOS, 6, 8)), engine="lean")
    lengths = found.mask.sum(1)
    still_going = [int((lengths > t).sum()) for t in range(int(lengths.max()))]
    assert len(seen) == len(still_going), "nothing runs once all rows have stopped"
    assert all(going <= rows < going / 0.75 for rows, going in zip(seen, still_going, strict=True))


def test_nothing_runs_once_all_rows_have_stopped() -> None:
    model, calls = tiny_gpt2(), []
    model.transformer.wte.register_forward_hook(lambda module, inputs, output: calls.append(1))
    found = sample(model, some_prompts(5), torch.rand(5, 30), stops=Stops(tuple(range(VOCAB))), engine="eager")
    assert len(calls) == 1
    assert found.mask.sum(1).tolist() == [1] * 5


# --- the model is left as it was ---------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_restored(training: bool) -> None:
    model = tiny_gpt2().train(training)
    sample(model, some_prompts(2), torch.rand(2, 3))
    assert {module.training for module in model.modules()} == {training}


def test_gradient_checkpointing_changes_no_token_and_is_restored() -> None:
    model, prompts = tiny_gpt2(), some_prompts()
    uniforms = draw_uniforms(len(prompts), 10, seed=0, stream=0)
    plain = sample(model, prompts, uniforms)
    model.gradient_checkpointing_enable()
    model.train()
    assert torch.equal(sample(model, prompts, uniforms).ids, plain.ids)
    assert model.is_gradient_checkpointing
    assert model.training


def test_dropout_does_not_reach_sampling() -> None:
    dropped = tiny_gpt2(resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    uniforms = draw_uniforms(9, 10, seed=0, stream=0)
    assert torch.equal(sample(dropped, some_prompts(), uniforms).ids, sample(tiny_gpt2(), some_prompts(), uniforms).ids)


def test_training_mode_is_restored_after_an_error() -> None:
    model = tiny_gpt2().train()
    with pytest.raises(IndexError):
        sample(model, [[2, VOCAB + 5]], torch.rand(1, 3))
    assert model.training


def test_no_gradient_is_kept() -> None:
    model = tiny_gpt2()
    sample(model, some_prompts(2), torch.rand(2, 3))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


# --- the context -------------------------------------------------------------------------------------------------


def test_text_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UserError, match=r"up to 49 tokens, the model's context holds 48; lower ppo\.max_prompt_length"):
        sample(tiny_gpt2(), [[2], [3] * 40], torch.rand(2, 9))


def test_text_that_just_fits_the_context_is_sampled() -> None:
    found = sample(tiny_gpt2(), [[2], [3] * 40], torch.rand(2, 8), stops=Stops((VOCAB + 1,)))
    assert found.mask.all()


# --- engines -----------------------------------------------------------------------------------------------------


def test_the_lean_engines_logits_are_those_of_a_full_forward() -> None:
    """Prefill and ten steps over left-padded rows of which half leave on the way, to 1e-5."""
    model, width = tiny_gpt2(layer_norm_epsilon=0.1), 6
    ids = torch.tensor([[PAD, PAD, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7], [PAD, PAD, PAD, PAD, PAD, 9], [8, 8, 2, 2, 3, 3]])
    mask = ids != PAD
    engine = LeanGPT2(model, torch.cat([mask, torch.ones(4, 10, dtype=torch.bool)], dim=1))
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits, position = engine.read(ids, positions), positions[:, -1] + 1
        texts = [row[row != PAD].tolist() for row in ids]
        for t in range(10):
            for row, text in enumerate(texts):
                assert torch.allclose(logits[row], model(torch.tensor([text])).logits[0, -1], atol=1e-5)
            if t == 4:
                keep = torch.tensor([True, False, True, False])
                engine.keep(keep)
                texts, position = texts[::2], position[keep]
            new = [2 + (t + row) % 9 for row in range(len(texts))]
            texts = [[*text, token] for text, token in zip(texts, new, strict=True)]
            logits, position = engine.read_next(torch.tensor(new), position, width + t), position + 1


def test_an_engine_that_does_not_fit_is_refused_and_auto_falls_back() -> None:
    uniforms = draw_uniforms(2, 3, seed=0, stream=0)
    with pytest.raises(UserError, match=r"generation_engine=lean is for plain GPT-2 models .* not for this Llama"):
        sample(tiny_llama(), [[2], [3]], uniforms, engine="lean")
    adapted = get_peft_model(tiny_gpt2(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    assert lean.fits(tiny_gpt2())
    assert not lean.fits(adapted)
    assert not lean.fits(adapted.get_base_model()), "its layers carry adapters"
    assert not lean.fits(tiny_gpt2().to(torch.bfloat16))
    for target in ("mlp.c_proj", "wte", "lm_head"):
        parts = LoraConfig(r=2, target_modules=[target], fan_in_fan_out=target == "mlp.c_proj")
        assert not lean.fits(get_peft_model(tiny_gpt2(), parts).get_base_model()), target
    biased = tiny_gpt2()
    biased.lm_head.bias = torch.nn.Parameter(torch.randn(VOCAB))
    assert not lean.fits(biased)
    sample(tiny_llama(), [[2], [3]], uniforms)


def test_the_lean_engine_reads_a_prompt_with_many_completions_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them two that differ in nothing but where their padding ends."""
    read: list[int] = []

    def counted(self: LeanGPT2, ids: Tensor, positions: Tensor) -> Tensor:
        read.append(len(ids))
        return plain(self, ids, positions)

    plain = LeanGPT2.read
    monkeypatch.setattr(LeanGPT2, "read", counted)
    model, prompts = tiny_gpt2(), [[5, 6], [PAD, 5, 6], [7, 8, 9], [5, 6, 7]] * 5
    uniforms = draw_uniforms(20, 12, seed=3, stream=0)
    found = sample(model, prompts, uniforms, engine="lean")
    assert read == [4]
    expected = sample(model, prompts, uniforms, engine="eager")
    assert torch.equal(found.ids, expected.ids)
    assert torch.allclose(found.log_probs, expected.log_probs, atol=1e-5)
    sample(model, prompts[:4] + some_prompts(4), uniforms[:8], engine="lean")
    assert read == [4, 8], "copying costs more than reading a few twice"
