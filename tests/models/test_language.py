"""Tokenizers and causal language models: pad is never EOS, no dropout, and log-probs that padding can not touch."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from rlhf_lab.errors import UserError
from rlhf_lab.models.completions import completion_log_probs, completion_logits_and_states, take_completion
from rlhf_lab.models.language import (
    check_length,
    disable_dropout,
    load_causal_lm,
    load_tokenizer,
    prepare_causal_lm,
    random_causal_lm,
    use_fused_gelu,
)

EOS, END, VOCAB = 0, 1, 258


def byte_tokenizer(pad: str | None = None, eos: str | None = "</s>") -> Any:
    """Every byte a token; no merges. Token 0 is EOS, token 1 another end, 2 to 257 are the bytes."""
    tokens = ["</s>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=pad)
    wrapped.add_special_tokens({"additional_special_tokens": ["<end>"]})
    return wrapped


def tiny_gpt2(**fields: Any) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 40, "vocab_size": VOCAB}
    config = GPT2Config(**{**sizes, "initializer_range": 0.3, "eos_token_id": EOS, "bos_token_id": EOS, **fields})
    return GPT2LMHeadModel(config).eval()


SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
IDS = {"vocab_size": VOCAB, "initializer_range": 0.3, "eos_token_id": EOS, "bos_token_id": EOS}


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, **IDS)).eval()


def tiny_neox() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **IDS)).eval()


ARCHITECTURES = {"gpt2": tiny_gpt2, "llama": tiny_llama, "gpt_neox": tiny_neox}


@torch.no_grad()
def logits_of(model: Any, ids: Tensor) -> Tensor:
    return model(input_ids=ids).logits


def some_ids(num_rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(2, VOCAB, (num_rows, length), generator=torch.Generator().manual_seed(seed))


# --- pad ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [None, "</s>"])
def test_pad_is_never_eos(tmp_path: Path, pad: str | None) -> None:
    byte_tokenizer(pad).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.eos_token_id == EOS
    assert tokenizer.pad_token_id == VOCAB, "a token of its own, after all others"
    assert len(tokenizer) == VOCAB + 1
    assert tokenizer.encode("ab</s>") == byte_tokenizer().encode("ab</s>"), "text has to keep its ids"


def test_a_pad_token_of_its_own_stays(tmp_path: Path) -> None:
    byte_tokenizer("<end>").save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert (tokenizer.pad_token_id, len(tokenizer)) == (END, VOCAB)


@pytest.mark.parametrize("pad", [None, "</s>"])
def test_embeddings_hold_the_new_pad_and_old_rows_stay(tmp_path: Path, pad: str | None) -> None:
    byte_tokenizer(pad).save_pretrained(tmp_path)
    plain = tiny_gpt2()
    plain.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    model = load_causal_lm(str(tmp_path), tokenizer).eval()
    rows = model.get_input_embeddings().weight
    assert rows.shape[0] > tokenizer.pad_token_id
    assert model.get_output_embeddings().weight.shape[0] == rows.shape[0] == model.config.vocab_size
    assert torch.equal(rows[:VOCAB], plain.get_input_embeddings().weight)
    assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id
    ids = some_ids(3, 8)
    torch.testing.assert_close(logits_of(model, ids)[..., :VOCAB], logits_of(plain, ids), atol=1e-5, rtol=0)
    logits_of(model, torch.full((1, 3), tokenizer.pad_token_id))


@pytest.mark.parametrize("tied", [True, False])
def test_the_new_pad_is_no_token_that_a_policy_would_say(tmp_path: Path, tied: bool) -> None:
    """GPT-2's logits lie near -100. A row of the usual small random numbers has a logit near 0 and would win always."""
    byte_tokenizer().save_pretrained(tmp_path)
    tokenizer, plain = load_tokenizer(str(tmp_path)), tiny_gpt2(tie_word_embeddings=tied)
    with torch.no_grad():  # an offset that all old tokens share
        plain.transformer.ln_f.bias.fill_(1.0)
        plain.lm_head.weight.sub_(4.0)
    ids = some_ids(3, 8)
    logits = logits_of(prepare_causal_lm(plain, tokenizer).eval(), ids)
    assert float(logits[..., :VOCAB].mean()) < -50.0
    pad = logits.softmax(-1)[..., tokenizer.pad_token_id]
    assert float(pad.max()) <= 1 / VOCAB


def test_wider_embeddings_than_the_tokenizer_needs_are_left_alone() -> None:
    tokenizer = byte_tokenizer("<end>")
    assert prepare_causal_lm(tiny_gpt2(vocab_size=320), tokenizer).get_input_embeddings().weight.shape[0] == 320


def test_a_saved_model_and_tokenizer_come_back_the_same(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path / "given")
    tokenizer = load_tokenizer(str(tmp_path / "given"))
    model = prepare_causal_lm(tiny_gpt2(), tokenizer)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(str(tmp_path / "saved"))
    assert (again.pad_token_id, len(again)) == (tokenizer.pad_token_id, len(tokenizer)), "no second pad token"
    ids = some_ids(2, 6)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits_of(plain, ids), logits_of(model, ids), atol=1e-5, rtol=0)


def test_a_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    byte_tokenizer(eos=None).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no EOS token.*set eos_token"):
        load_tokenizer(str(tmp_path))


def test_a_chat_template_is_read_from_its_file(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "mine.jinja").write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}", encoding="utf-8")
    tokenizer = load_tokenizer(str(tmp_path), chat_template=str(tmp_path / "mine.jinja"))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "[hi]"


# --- loading -----------------------------------------------------------------------------------------------------


def test_a_chat_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model\.chat_template=.*none\.jinja can not be read"):
        load_tokenizer(str(tmp_path), chat_template=str(tmp_path / "none.jinja"))


@pytest.mark.parametrize("init", ["random", "pretrained"])
def test_a_misspelt_field_of_the_models_configuration_is_refused(tmp_path: Path, init: str) -> None:
    """transformers would keep it, and build a model of the default size."""
    tokenizer = byte_tokenizer()
    tiny_gpt2(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model\.config has 'n_layers', .* did you mean 'n_layer'"):
        load_causal_lm(str(tmp_path), tokenizer, config={"n_layers": 1}, init=init)
    load_causal_lm(str(tmp_path), tokenizer, config={"num_hidden_layers": 1}, init=init)  # transformers' own other name


def test_a_length_beyond_the_context_says_what_to_type() -> None:
    model = tiny_gpt2()
    check_length(model, 40, "sft.max_length")
    with pytest.raises(UserError, match=r"sft\.max_length=41, .* 40 tokens; type sft\.max_length=40"):
        check_length(model, 41, "sft.max_length")


@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_an_unknown_model_offline_names_the_embedded_default(init: str) -> None:
    with pytest.raises(UserError, match=r"no model 'nobody/nothing'.*embedded default.*rlhf-lab run"):
        load_causal_lm("nobody/nothing", byte_tokenizer(), init=init)


def test_an_unknown_tokenizer_offline_names_the_embedded_default() -> None:
    with pytest.raises(UserError, match=r"no tokenizer 'nobody/nothing'.*embedded default.*rlhf-lab run"):
        load_tokenizer("nobody/nothing")


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model"):
        load_causal_lm(str(tmp_path), byte_tokenizer())


def test_a_random_model_takes_the_tokenizers_vocabulary_and_the_seed() -> None:
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 12}

    def draw(seed: int) -> Any:
        torch.manual_seed(seed)
        return load_causal_lm("gpt2", byte_tokenizer("<end>"), config=sizes, init="random")

    first, same, other = (draw(seed).get_input_embeddings().weight for seed in (1, 1, 2))
    assert first.shape == (VOCAB, 16)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert draw(1).config.eos_token_id == EOS


def test_half_precision_weights_are_trained_in_full(tmp_path: Path) -> None:
    tiny_gpt2().to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in load_causal_lm(str(tmp_path), byte_tokenizer()).parameters()} == {torch.float32}


def test_an_encoder_decoder_is_refused() -> None:
    config = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=VOCAB)
    with pytest.raises(UserError, match="T5ForConditionalGeneration is an encoder-decoder model; PPO here needs"):
        prepare_causal_lm(T5ForConditionalGeneration(config), byte_tokenizer())


# --- activation and dropout --------------------------------------------------------------------------------------


def test_fused_gelu_is_gelu_new() -> None:
    model, ids = tiny_gpt2(), some_ids(4, 12)
    before = logits_of(model, ids)
    use_fused_gelu(model)
    kinds = [type(block.mlp.act).__name__ for block in model.transformer.h]
    assert kinds == ["GELU", "GELU"]
    torch.testing.assert_close(logits_of(model, ids), before, atol=1e-5, rtol=0)


def test_other_activations_stay() -> None:
    model = tiny_gpt2(activation_function="gelu")
    before = logits_of(model, some_ids(1, 6))
    use_fused_gelu(model)
    assert torch.equal(logits_of(model, some_ids(1, 6)), before)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_without_dropout_two_passes_in_training_mode_are_one(attention: str) -> None:
    dropout = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    model, ids = tiny_gpt2(**dropout, attn_implementation=attention).train(), some_ids(2, 8)
    assert not torch.equal(logits_of(model, ids), logits_of(model, ids)), "this test needs a model that drops"
    disable_dropout(model)
    first = logits_of(model, ids)
    assert torch.equal(first, logits_of(model, ids))
    torch.testing.assert_close(first, logits_of(model.eval(), ids), atol=1e-6, rtol=0)


def test_attention_dropout_of_llama_goes_too() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **IDS, attention_dropout=0.5)).train()
    ids = some_ids(2, 8)
    assert not torch.equal(logits_of(model, ids), logits_of(model, ids))
    prepared = prepare_causal_lm(model, byte_tokenizer("<end>"))
    assert torch.equal(logits_of(prepared, ids), logits_of(prepared, ids))


# --- log-probs of completions ------------------------------------------------------------------------------------

PROMPT_LENGTHS = [3, 7, 1, 5]
COMPLETION_LENGTHS = [6, 2, 4, 6]


def rows_of_text() -> list[list[int]]:
    lengths = [p + c for p, c in zip(PROMPT_LENGTHS, COMPLETION_LENGTHS, strict=True)]
    return [some_ids(1, length, seed)[0].tolist() for seed, length in enumerate(lengths)]


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@pytest.mark.parametrize(("pad", "more_columns"), [(EOS, 0), (END, 0), (200, 5)])
def test_completion_logits_are_those_of_a_plain_forward_over_each_row(name: str, pad: int, more_columns: int) -> None:
    model, rows = ARCHITECTURES[name](), rows_of_text()
    width = max(map(len, rows)) + more_columns
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    with torch.no_grad():
        found, _ = completion_logits_and_states(
            model, ids, torch.tensor(PROMPT_LENGTHS), max(COMPLETION_LENGTHS), with_states=False
        )
    assert found.shape == (len(rows), max(COMPLETION_LENGTHS), VOCAB)
    for b, (row, start, length) in enumerate(zip(rows, PROMPT_LENGTHS, COMPLETION_LENGTHS, strict=True)):
        alone = logits_of(model, torch.tensor([row]))[0]
        torch.testing.assert_close(found[b, :length], alone[start - 1 : start - 1 + length], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_log_probs_of_a_completion_are_minus_the_loss_of_transformers(name: str) -> None:
    """The library's own loss, with -100 on prompt and padding, is the mean negative log-prob of the completions."""
    model, rows = ARCHITECTURES[name](), rows_of_text()
    width = max(map(len, rows))
    ids = torch.tensor([row + [END] * (width - len(row)) for row in rows])
    labels = torch.tensor(
        [
            [-100] * start + row[start:] + [-100] * (width - len(row))
            for row, start in zip(rows, PROMPT_LENGTHS, strict=True)
        ]
    )
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=labels).loss)
        starts, lengths = torch.tensor(PROMPT_LENGTHS), torch.tensor(COMPLETION_LENGTHS)
        mask = torch.arange(max(COMPLETION_LENGTHS)) < lengths[:, None]
        tokens = take_completion(ids, starts, mask.shape[1])
        log_probs, entropies, _ = completion_log_probs(model, ids, starts, tokens, mask, 1.0, entropies="numbers")
    assert math.isclose(-float(log_probs.sum()) / int(mask.sum()), loss, rel_tol=1e-5)
    assert not log_probs[~mask].any()
    alone = torch.distributions.Categorical(logits=logits_of(model, torch.tensor(rows[:1]))[0]).entropy()
    first = entropies[0, : COMPLETION_LENGTHS[0]]
    torch.testing.assert_close(first, alone[PROMPT_LENGTHS[0] - 1 : -1], atol=1e-5, rtol=1e-5)


def test_the_head_runs_on_completion_columns_only() -> None:
    model, widths = tiny_gpt2(), []
    model.lm_head.register_forward_pre_hook(lambda module, inputs: widths.append(inputs[0].shape[1]))
    with torch.no_grad():
        completion_logits_and_states(model, some_ids(2, 30), torch.tensor([20, 22]), 8, with_states=False)
    assert widths == [10], "columns 19 to 28"


def test_take_completion_by_hand() -> None:
    x = torch.arange(8).reshape(2, 4)
    assert take_completion(x, torch.tensor([0, 2]), 2).tolist() == [[0, 1], [6, 7]]
    assert take_completion(x, torch.tensor([1, 3]), 3).tolist() == [[1, 2, 3], [7, 7, 7]], "the last column repeats"
    assert take_completion(x[..., None], torch.tensor([1, 1]), 1).tolist() == [[[1]], [[5]]]


def test_the_name_of_an_architecture_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *a, **k: pytest.fail("the hub was asked"))
    model = random_causal_lm("gpt2", byte_tokenizer(), {"n_layer": 1, "n_embd": 8, "n_head": 1})
    assert model.config.model_type == "gpt2"
