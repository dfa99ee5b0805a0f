"""GPT-2 without its modules gives the numbers and gradients of transformers, and knows for which models it may."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from rlhf_lab.data.comparisons import ComparisonCollator
from rlhf_lab.models import lean_gpt2, products
from rlhf_lab.models.completions import completion_log_probs
from rlhf_lab.models.language import disable_dropout
from rlhf_lab.models.scalar import completion_values, sequence_scores
from rlhf_lab.stages.reward import score_sides

VOCAB, PAD = 40, 1
PROMPT_LENGTHS = torch.tensor([3, 7, 1, 5])
COMPLETION_LENGTHS = torch.tensor([6, 2, 4, 6])


def tiny(kind: Any, **fields: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"n_layer": 3, "n_embd": 32, "n_head": 2, "n_positions": 48, "vocab_size": VOCAB, "initializer_range": 0.3}
    model = kind(GPT2Config(**{**sizes, "num_labels": 1, "pad_token_id": PAD, "eos_token_id": 0, **fields}))
    for name, weight in model.named_parameters():  # biases and norms are 0 and 1 in a new model: no test of them
        weight.data += 0.1 * torch.randn_like(weight) if "ln" in name or "bias" in name else 0
    return model.eval()


def padded_ids() -> Tensor:
    lengths = PROMPT_LENGTHS + COMPLETION_LENGTHS
    ids = torch.randint(2, VOCAB, (4, int(lengths.max())), generator=torch.Generator().manual_seed(3))
    return ids.where(torch.arange(ids.shape[1]) < lengths[:, None], PAD)


def with_gradients(model: Any, outputs: Callable[[Any], Tensor], mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    found = outputs(model)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(5))
    (found * weights)[mask].sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return found.detach()[mask], gradients


def without_lean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_gpt2, "fits", lambda model, **settings: False)


def assert_same(lean: tuple[Tensor, dict[str, Tensor]], plain: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(lean[0], plain[0], atol=1e-5, rtol=1e-5)
    assert lean[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        torch.testing.assert_close(
            lean[1][name], gradient, atol=2e-5, rtol=1e-4, msg=lambda text, n=name: f"{n} {text}"
        )


SCALAR = GPT2ForSequenceClassification
MASK = torch.arange(6) < COMPLETION_LENGTHS[:, None]


def log_probs_and_entropies(model: Any) -> Tensor:
    tokens = torch.randint(2, VOCAB, MASK.shape, generator=torch.Generator().manual_seed(7))
    inputs = (padded_ids(), PROMPT_LENGTHS, tokens, MASK, 0.7)
    return torch.stack(completion_log_probs(model, *inputs, entropies="with gradient")[:2], dim=-1)


def values(model: Any) -> Tensor:
    return completion_values(model, padded_ids(), PROMPT_LENGTHS, MASK)


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize(
    ("kind", "outputs"), [(GPT2LMHeadModel, log_probs_and_entropies), (GPT2ForSequenceClassification, values)]
)
def test_numbers_and_gradients_are_those_of_transformers(
    monkeypatch: pytest.MonkeyPatch, kind: Any, outputs: Any, num_layers: int
) -> None:
    model = tiny(kind, n_layer=num_layers)
    assert lean_gpt2.fits(model)
    lean = with_gradients(model, outputs, MASK)
    without_lean(monkeypatch)
    assert_same(lean, with_gradients(model, outputs, MASK))


@pytest.mark.parametrize("pad", [PAD, 0])
def test_scores_are_those_of_the_models_own_forward(pad: int) -> None:
    """With pad = EOS (0) transformers reads the score before EOS, and so does this."""
    model = tiny(GPT2ForSequenceClassification, pad_token_id=pad)
    texts = [[5, 6, 7, 0], [8, 9, 0], [4, 0], [3, 2, 5, 7, 9, 11, 0]]
    with torch.no_grad():
        alone = torch.stack([model(input_ids=torch.tensor([text])).logits[0, 0] for text in texts])
    torch.testing.assert_close(sequence_scores(model, texts), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shares", [True, False])
def test_comparisons_get_the_scores_and_gradients_of_transformers(
    monkeypatch: pytest.MonkeyPatch, shares: bool
) -> None:
    model = tiny(GPT2ForSequenceClassification)
    answers = [[5, 6], [7, 8, 9], [6, 4, 2, 8], [3]]
    rows = [
        {"chosen_ids": [*prompt, *answers[a]], "rejected_ids": [*prompt, *answers[b]], "prompt_length": len(prompt)}
        for prompt, pairs in (([2, 3, 4], [(0, 1), (2, 1), (3, 0)]), ([9, 9, 8, 7, 6], [(2, 3)]))
        for a, b in pairs
    ]
    batch = ComparisonCollator(PAD, shares_prompts=shares)(rows)
    every = torch.ones(2 * len(rows), 1, dtype=torch.bool)
    lean = with_gradients(model, lambda m: score_sides(m, m.score, batch).logits, every)
    without_lean(monkeypatch)
    assert_same(lean, with_gradients(model, lambda m: score_sides(m, m.score, batch).logits, every))


def test_nothing_is_computed_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """No padding, no last token, and in the last block and the head completion tokens only."""
    rows: list[int] = []
    multiplied, head = products._multiplied, F.linear

    def counted(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        if weight.shape[1] == 32:  # two products a block, and the last block's queries
            rows.append(len(x))
        return multiplied(x, weight, *rest)

    monkeypatch.setattr(products, "_multiplied", counted)
    monkeypatch.setattr(F, "linear", lambda x, *rest: (rows.append(len(x)), head(x, *rest))[1])
    with torch.no_grad():
        log_probs_and_entropies(tiny(GPT2LMHeadModel))
    read, decided = int((PROMPT_LENGTHS + COMPLETION_LENGTHS - 1).sum()), int(COMPLETION_LENGTHS.sum())
    assert rows == [read] * 4 + [decided] * 4


def with_a_hook() -> Any:
    model = tiny(GPT2LMHeadModel)
    model.transformer.h[0].register_forward_hook(lambda *_: None)
    return model


def with_a_forward_of_its_own() -> Any:
    model = tiny(GPT2LMHeadModel)
    model.transformer.h[1].attn.forward = lambda *_: None
    return model


def with_checkpointing() -> Any:
    model = tiny(GPT2LMHeadModel).train()
    model.gradient_checkpointing_enable()
    disable_dropout(model)
    return model


UNFIT: dict[str, Callable[[], Any]] = {
    "adapters": lambda: get_peft_model(tiny(GPT2LMHeadModel), LoraConfig(r=2)).get_base_model(),
    "half precision": lambda: tiny(GPT2LMHeadModel).to(torch.bfloat16),
    "a hook": with_a_hook,
    "a forward of its own": with_a_forward_of_its_own,
    "dropout": lambda: tiny(GPT2LMHeadModel).train(),
    "attention settings": lambda: tiny(GPT2LMHeadModel, scale_attn_by_inverse_layer_idx=True),
    "checkpointing": with_checkpointing,
    "a subclass": lambda: type("Mine", (GPT2LMHeadModel,), {})(tiny(GPT2LMHeadModel).config),
}


@pytest.mark.parametrize("name", list(UNFIT))
def test_models_that_are_not_plain_go_through_transformers(name: str) -> None:
    assert not lean_gpt2.fits(UNFIT[name]())


@pytest.mark.parametrize("multiplies", [True, False])
def test_under_autocast_only_a_cpu_that_multiplies_bf16_leaves_transformers(
    multiplies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean_gpt2, "multiplies_bf16", lambda: multiplies)
    with torch.autocast("cpu", torch.bfloat16):
        assert lean_gpt2.fits(tiny(GPT2LMHeadModel)) is multiplies


@pytest.mark.parametrize(("kind", "outputs"), [(GPT2LMHeadModel, log_probs_and_entropies), (SCALAR, values)])
def test_under_autocast_numbers_and_gradients_are_as_near_to_fp32_as_those_of_transformers(
    kind: Any, outputs: Callable[[Any], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both round the same factors, so neither is exact."""
    model = tiny(kind)
    exact = with_gradients(model, outputs, MASK)
    monkeypatch.setattr(lean_gpt2, "multiplies_bf16", lambda: True)
    rounded = with_gradients(model, in_bf16(outputs), MASK)
    without_lean(monkeypatch)
    theirs = with_gradients(model, in_bf16(outputs), MASK)
    assert 0 < distance(rounded, exact) < 1.5 * distance(theirs, exact) < 0.15


def in_bf16(outputs: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    def under_autocast(model: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return outputs(model).float()

    return under_autocast


def distance(found: tuple[Tensor, dict[str, Tensor]], exact: tuple[Tensor, dict[str, Tensor]]) -> float:
    """The largest relative error among the outputs and the gradients of all weights."""
    pairs = [(found[0], exact[0]), *((found[1][name], gradient) for name, gradient in exact[1].items())]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs if b.norm() > 1e-3)


def test_accelerates_forward_around_the_models_own_is_no_other_one() -> None:
    AcceleratorState._reset_state()  # as `make_accelerator` does: other tests made theirs
    own = tiny(GPT2LMHeadModel)
    Accelerator(mixed_precision="bf16", cpu=True).prepare_model(own)
    assert "forward" in vars(own)
    assert lean_gpt2.fits(own)
    other = tiny(GPT2LMHeadModel)
    other.forward = lambda *_, **__: None
    Accelerator(mixed_precision="bf16", cpu=True).prepare_model(other)
    assert not lean_gpt2.fits(other)
    AcceleratorState._reset_state()


def test_a_plain_model_fits_in_training_mode_without_dropout() -> None:
    model = tiny(GPT2LMHeadModel).train()
    disable_dropout(model)
    assert lean_gpt2.fits(model)
