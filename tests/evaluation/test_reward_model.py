"""A reward model judged on held-out pairs: one that is right, one that is wrong, one that knows nothing."""

from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from rlhf_lab.data.assistant.world import heldout_questions
from rlhf_lab.evaluation.reward_model import evaluate_reward_model
from tests.byte_tokenizer import byte_tokenizer

EOS, PAD, VOCAB = 0, 1, 258


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_tokenizer()


def length_judge(tokenizer: Any, *, sign: float) -> Any:
    """A model without layers whose score is `sign` times the position of the last token: longer is better, or worse."""
    config = GPT2Config(n_layer=0, n_embd=2, n_head=1, n_positions=120, vocab_size=VOCAB, num_labels=1)
    model = GPT2ForSequenceClassification(config).eval()
    model.config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
        places = torch.arange(120.0) / 10
        model.transformer.wpe.weight.copy_(torch.stack([places, -places], dim=1))
        model.transformer.ln_f = nn.Identity()
        model.score.weight.copy_(torch.tensor([[sign, 0.0]]))
    return model


def heldout_pairs() -> Dataset:
    """The longer answer is always the chosen one; two pairs a prompt, one of them tied in gold."""
    rows: list[dict[str, str]] = []
    for question in [q for q in heldout_questions() if q.kind == "capital"][:20]:
        right, wrong = f" The capital of {question.subject} is {question.value}.", " It is 7."
        rows.append({"prompt": question.prompt, "chosen": right, "rejected": wrong})
        tied = {"chosen": " I can not help with that.", "rejected": " I do not know that."}
        rows.append({"prompt": question.prompt, **tied})
    return Dataset.from_list(rows)


def judged(model: Any, tokenizer: Any, **changed: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"max_length": 110, "num_bootstrap": 200, "seed": 0, "rater": "simulated"}
    settings |= {"is_embedded": True, "rater_noise": 0.0, **changed}
    return evaluate_reward_model(model, tokenizer, heldout_pairs(), **settings)


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, 0.0)])
def test_a_model_that_is_always_right_or_always_wrong(tokenizer: Any, sign: float, expected: float) -> None:
    found = judged(length_judge(tokenizer, sign=sign), tokenizer)
    assert found["accuracy"] == {"mean": expected, "low": expected, "high": expected}
    assert (found["num_pairs"], found["num_prompts"], found["rater"]) == (40, 20, "simulated")
    assert found["gold_accuracy"]["mean"] == expected
    assert found["gold_accuracy"]["num_pairs"] == 20, "pairs that gold holds equal have no right order"
    assert found["rater_agreement"]["mean"] == 1.0, "raters without noise agree"
    bins = found["calibration"]["bins"]
    assert sum(bin["num_pairs"] for bin in bins) == 40
    assert {bin["observed"] for bin in bins} == {expected}


def test_a_model_that_knows_nothing_is_half_right(tokenizer: Any) -> None:
    found = judged(length_judge(tokenizer, sign=0.0), tokenizer)
    assert found["accuracy"]["mean"] == 0.5
    assert found["gold_accuracy"]["mean"] == 0.5
    assert found["calibration"]["bins"] == [{"predicted": 0.5, "observed": 0.5, "num_pairs": 40}]
    assert found["calibration"]["expected_error"] == 0.0


def test_without_the_embedded_world_there_is_no_gold(tokenizer: Any) -> None:
    found = judged(length_judge(tokenizer, sign=1.0), tokenizer, is_embedded=False)
    assert found["gold_accuracy"] is None
    assert found["rater_agreement"] is None
    assert found["accuracy"]["mean"] == 1.0


def test_noise_makes_raters_disagree(tokenizer: Any) -> None:
    found = judged(length_judge(tokenizer, sign=1.0), tokenizer, rater_noise=5.0)
    assert 0.2 < found["rater_agreement"]["mean"] < 0.9
