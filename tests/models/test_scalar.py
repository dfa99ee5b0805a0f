"""Scores: one number for one text, whoever reads it, and normalised inside the weights."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from rlhf_lab.data.prompts import encode_completion, encode_prompt
from rlhf_lab.errors import UserError
from rlhf_lab.models.scalar import critic_from, load_scalar_model, normalize_scores, sequence_scores, token_values

EOS, PAD, VOCAB = 0, 1, 258
SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
IDS = {"vocab_size": VOCAB, "eos_token_id": EOS, "bos_token_id": EOS, "num_labels": 1, "initializer_range": 0.3}


def byte_tokenizer(pad: str) -> Any:
    """Every byte a token; token 0 is EOS, token 1 a pad for those who want one."""
    tokens = ["</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token=pad)


def gpt2(pad: int = PAD, **fields: Any) -> Any:
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 40}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2ForSequenceClassification(GPT2Config(**{**sizes, **dropout, **IDS, "pad_token_id": pad, **fields}))


def gpt_neox(pad: int = PAD) -> Any:
    return GPTNeoXForSequenceClassification(GPTNeoXConfig(**SIZES, **IDS, pad_token_id=pad))


def llama(pad: int = PAD) -> Any:
    return LlamaForSequenceClassification(LlamaConfig(**SIZES, **IDS, pad_token_id=pad))


MAKERS = {"gpt2": gpt2, "gpt_neox": gpt_neox, "llama": llama}


def reward_model(name: str, pad: int = PAD) -> Any:
    torch.manual_seed(0)
    return MAKERS[name](pad).eval()


def some_texts(number: int, seed: int = 0) -> list[list[int]]:
    """Texts of 2 to 20 tokens, none of them EOS or pad, closed by EOS."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 20, (number,), generator=generator).tolist()
    return [[*torch.randint(2, VOCAB, (length,), generator=generator).tolist(), EOS] for length in lengths]


@torch.no_grad()
def one_by_one(model: Any, texts: Sequence[Sequence[int]]) -> Tensor:
    """Scores by the model's own forward on one text at a time, without padding."""
    return torch.stack([model(input_ids=torch.tensor([list(text)])).logits[0, 0] for text in texts])


# --- one text, one score -----------------------------------------------------------------------------------------

PAIRS = [
    {"prompt": "why?", "chosen": " since", "rejected": " because it is so"},
    {"prompt": "how long is it", "chosen": " very", "rejected": " no"},
    {"prompt": "x", "chosen": " y", "rejected": " a much longer one"},
]


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("pad_token", ["</s>", "<pad>"])
def test_b22_one_text_has_one_score_in_trl_in_ours_and_in_a_plain_call(
    tmp_path: Path, pad_token: str, name: str
) -> None:
    tokenizer = byte_tokenizer(pad_token)
    model = reward_model(name, tokenizer.pad_token_id)
    rows = Dataset.from_list(PAIRS)
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, eval_strategy="no"),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
    )
    (batch,) = trainer.get_eval_dataloader()
    with torch.no_grad():
        _, outputs = trainer.compute_loss(model.eval(), dict(batch), return_outputs=True)

    sides = [(row["prompt"], row[side]) for side in ("chosen", "rejected") for row in PAIRS]
    encoded = [
        encode_prompt(tokenizer, prompt) + encode_completion(tokenizer, prompt, answer) for prompt, answer in sides
    ]
    ours = sequence_scores(model, encoded, batch_size=4)
    with torch.no_grad():
        plain = [model(**tokenizer(p + a + "</s>", return_tensors="pt")).logits[0, 0] for p, a in sides]
    torch.testing.assert_close(outputs.logits[:, 0], ours, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.stack(plain), ours, atol=1e-5, rtol=1e-5)
    assert float(ours.std()) > 0.1, "a model that says the same of every text would prove nothing"


@pytest.mark.parametrize("pad_token", ["</s>", "<pad>"])
def test_b22_one_text_has_one_score_in_a_batch_of_trls_collator(pad_token: str) -> None:
    pad = byte_tokenizer(pad_token).pad_token_id
    model, texts = reward_model("gpt2", pad), some_texts(6)
    rows = [{"chosen_ids": a, "rejected_ids": b} for a, b in zip(texts[:3], texts[3:], strict=True)]
    batch = DataCollatorForPreference(pad_token_id=pad)(rows)
    with torch.no_grad():
        logits = model(**batch).logits[:, 0]
    torch.testing.assert_close(logits, sequence_scores(model, texts), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_scores_do_not_depend_on_the_batch(name: str, batch_size: int) -> None:
    model, texts = reward_model(name), some_texts(7)
    found = sequence_scores(model, texts, batch_size=batch_size)
    torch.testing.assert_close(found, one_by_one(model, texts), atol=1e-5, rtol=1e-5)


def test_scores_come_in_the_order_of_the_texts() -> None:
    model, texts = reward_model("gpt2"), some_texts(7)
    turned = sequence_scores(model, texts[::-1], batch_size=2)
    torch.testing.assert_close(turned.flip(0), sequence_scores(model, texts, batch_size=3), atol=1e-5, rtol=1e-5)


def test_texts_of_like_length_run_together() -> None:
    model, widths = reward_model("gpt2"), []
    model.transformer.register_forward_pre_hook(
        lambda module, inputs, kwargs: widths.append(tuple((inputs[0] if inputs else kwargs["input_ids"]).shape)),
        with_kwargs=True,
    )
    texts = [[2] * length for length in (9, 2, 8, 3)]
    sequence_scores(model, texts, batch_size=2)
    assert widths == [(2, 3), (2, 9)]


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("shift", [None, 2.5])
def test_the_value_at_the_last_token_is_the_score(name: str, shift: float | None) -> None:
    model, texts = reward_model(name), some_texts(5)
    if shift is not None:
        model.config.score_shift = shift
    width = max(map(len, texts))
    ids = torch.tensor([text + [PAD] * (width - len(text)) for text in texts])
    last = torch.tensor([len(text) - 1 for text in texts])
    with torch.no_grad():
        values = token_values(model, ids)
    assert values.shape == ids.shape
    found = values[torch.arange(len(texts)), last]
    torch.testing.assert_close(found, sequence_scores(model, texts), atol=1e-5, rtol=1e-5)
    alone = one_by_one(model, [text[:1] for text in texts]) + (shift or 0.0)
    torch.testing.assert_close(values[:, 0], alone, atol=1e-5, rtol=1e-5)


# --- normalisation -----------------------------------------------------------------------------------------------


def normalize_on(model: Any, texts: Sequence[Sequence[int]]) -> tuple[float, float]:
    scores = sequence_scores(model, texts).double()
    mean, std = float(scores.mean()), float(scores.std(correction=0))
    normalize_scores(model, mean, std)
    return mean, std


@pytest.mark.parametrize("name", list(MAKERS))
def test_normalised_scores_have_mean_0_and_standard_deviation_1(name: str) -> None:
    model, texts = reward_model(name), some_texts(40)
    with torch.no_grad():
        model.score.weight.mul_(5.0)
    before = sequence_scores(model, texts)
    mean, std = normalize_on(model, texts)
    assert abs(mean) > 0.05
    assert abs(std - 1.0) > 0.05, "nothing to normalise"
    after = sequence_scores(model, texts)
    assert math.isclose(float(after.mean()), 0.0, abs_tol=1e-5)
    assert math.isclose(float(after.std(correction=0)), 1.0, abs_tol=1e-5)
    assert torch.equal(after.argsort(), before.argsort()), "the order of texts has to stay"
    again = normalize_on(model, texts)
    assert again == pytest.approx((0.0, 1.0), abs=1e-5), "a second normalisation has nothing left to do"


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_the_normalisation_lives_in_the_weights_where_the_norm_has_a_bias(tmp_path: Path, name: str) -> None:
    model, texts = reward_model(name), some_texts(12)
    normalize_on(model, texts)
    ours = sequence_scores(model, texts)
    model.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert not hasattr(plain.config, "score_shift")
    torch.testing.assert_close(one_by_one(plain, texts), ours, atol=1e-5, rtol=1e-5)


def test_the_shift_travels_in_the_config_where_the_norm_has_no_bias(tmp_path: Path) -> None:
    model, texts = reward_model("llama"), some_texts(12)
    normalize_on(model, texts)
    normalize_scores(model, 0.5, 2.0)  # as before training and after
    ours = sequence_scores(model, texts)
    assert float(ours.mean()) == pytest.approx(-0.25, abs=1e-5)
    model.save_pretrained(tmp_path)
    again = load_scalar_model(tmp_path).eval()
    assert again.config.score_shift == pytest.approx(model.config.score_shift)
    torch.testing.assert_close(sequence_scores(again, texts), ours, atol=1e-5, rtol=1e-5)
    plain = one_by_one(AutoModelForSequenceClassification.from_pretrained(tmp_path).eval(), texts)
    torch.testing.assert_close(plain + again.config.score_shift, ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (math.nan, 1.0), (0.0, math.nan), (math.inf, 1.0)])
def test_scores_without_spread_are_refused_and_the_weights_stay(mean: float, std: float) -> None:
    model = reward_model("gpt2")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match="did not learn anything"):
        normalize_scores(model, mean, std)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# --- loading and copying -----------------------------------------------------------------------------------------


def test_a_fresh_head_has_the_standard_deviation_of_stiennon_et_al(tmp_path: Path) -> None:
    """2 ** 12 - 1 weights: their standard deviation is known to about 1.1 %, their mean to 0.0002."""
    width = 4095
    config = GPT2Config(n_layer=0, n_embd=width, n_head=1, n_positions=2, vocab_size=4, initializer_range=0.5)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    torch.manual_seed(0)
    head = load_scalar_model(tmp_path).score.weight.detach()
    assert head.shape == (1, width)
    assert float(head.std()) == pytest.approx(1 / 64, rel=0.05)
    assert float(head.mean()) == pytest.approx(0.0, abs=1e-3)
    torch.manual_seed(0)
    assert torch.equal(load_scalar_model(tmp_path).score.weight, head), "the seed decides the head"


def test_a_trained_head_is_kept_and_dropout_is_off(tmp_path: Path) -> None:
    model = gpt2(resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    model.save_pretrained(tmp_path)
    tokenizer = byte_tokenizer("<pad>")
    loaded = load_scalar_model(tmp_path, tokenizer).train()
    assert torch.equal(loaded.score.weight, model.score.weight)
    texts = some_texts(4)
    torch.testing.assert_close(sequence_scores(loaded, texts), one_by_one(model.eval(), texts), atol=1e-5, rtol=1e-5)


def test_the_tokenizer_sets_where_scores_are_read(tmp_path: Path) -> None:
    gpt2(pad=EOS).save_pretrained(tmp_path)
    assert load_scalar_model(tmp_path).config.pad_token_id == EOS
    assert load_scalar_model(tmp_path, byte_tokenizer("<pad>")).config.pad_token_id == PAD


def test_a_pad_token_that_the_model_has_no_row_for_gets_one(tmp_path: Path) -> None:
    model, texts = gpt2().eval(), some_texts(5)
    model.save_pretrained(tmp_path)
    tokenizer = byte_tokenizer("</s>")
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    loaded = load_scalar_model(tmp_path, tokenizer)
    assert loaded.config.pad_token_id == VOCAB
    torch.testing.assert_close(sequence_scores(loaded, texts), one_by_one(model, texts), atol=1e-5, rtol=1e-5)


def test_an_unknown_reward_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no reward model"):
        load_scalar_model(tmp_path / "nothing")


def test_a_critic_starts_as_the_reward_model_and_leaves_it_alone() -> None:
    model, texts = reward_model("gpt2").requires_grad_(False), some_texts(3)
    critic = critic_from(model)
    before = sequence_scores(model, texts)
    assert torch.equal(sequence_scores(critic, texts), before)
    assert all(parameter.requires_grad for parameter in critic.parameters())
    with torch.no_grad():
        critic.score.weight.zero_()
    assert torch.equal(sequence_scores(model, texts), before)
    assert not any(parameter.requires_grad for parameter in model.parameters())
