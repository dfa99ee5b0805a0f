"""`bf16=auto` follows the machine, and `bf16=true` on a CPU rounds the factors of every stage's products."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlhf_lab.config import load_experiment
from rlhf_lab.models import lean_gpt2, products
from rlhf_lab.section import Bf16
from rlhf_lab.stages.base import pretrain_base
from rlhf_lab.stages.reward import ComparisonTrainer
from rlhf_lab.training import precision
from rlhf_lab.training.precision import in_bf16
from tests.data.test_comparisons import some_pairs, trainer_of
from tests.stages.test_ppo import ONE_STEP
from tests.stages.test_sft import fit
from tests.tiny_ppo import metrics_of, tiny_policy, tiny_trainer


@pytest.mark.parametrize(
    ("setting", "gpu", "gpu_can", "cpu_can", "expected"),
    [
        (True, False, False, False, True),
        (False, True, True, True, False),
        ("auto", True, True, False, True),
        ("auto", True, False, True, False),
        ("auto", False, False, True, True),
        ("auto", False, True, False, False),
    ],
)
def test_auto_is_what_the_device_has_instructions_for(
    setting: Bf16, gpu: bool, gpu_can: bool, cpu_can: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: gpu_can)
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: cpu_can)
    assert in_bf16(setting) is expected


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", ""])
def test_a_cpu_multiplies_bf16_where_it_has_the_instructions(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    products.multiplies_bf16.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **({flag: True} if flag else {})})
    try:
        assert products.multiplies_bf16() is bool(flag)
    finally:
        products.multiplies_bf16.cache_clear()


def test_a_pytorch_that_does_not_know_its_cpu_stays_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    products.multiplies_bf16.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    try:
        assert in_bf16("auto") is False
    finally:
        products.multiplies_bf16.cache_clear()


@pytest.fixture
def factors(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """The types of what linear layers of lean passes read; as on a CPU that multiplies bf16."""
    found: set[torch.dtype] = set()
    multiplied = products._multiplied

    def seen(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.is_grad_enabled():
            found.add(x.dtype)
        return multiplied(x, weight, bias)

    monkeypatch.setattr(products, "_multiplied", seen)
    monkeypatch.setattr(lean_gpt2, "multiplies_bf16", lambda: True)
    return found


TYPES = [(True, torch.bfloat16), (False, torch.float32)]


@pytest.mark.parametrize(("bf16", "expected"), TYPES)
def test_sft_rounds_the_factors_of_its_products(
    bf16: bool, expected: torch.dtype, factors: set[torch.dtype], tmp_path: Path
) -> None:
    model = tiny_policy().eval()
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    fit(tmp_path, model=model, bf16=bf16)
    assert factors == {expected}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("bf16", "expected"), TYPES)
def test_the_base_model_rounds_the_factors_of_its_products(
    bf16: bool, expected: torch.dtype, factors: set[torch.dtype], tmp_path: Path
) -> None:
    small = ["model.pretraining.num_rows=64", "model.config.n_layer=1", "model.config.n_embd=16"]
    pretrain_base(load_experiment(overrides=[*small, f"model.pretraining.bf16={str(bf16).lower()}"]), tmp_path)
    assert factors == {expected}


@pytest.mark.parametrize(("bf16", "expected"), TYPES)
def test_the_reward_model_rounds_the_factors_of_its_products(
    bf16: bool, expected: torch.dtype, factors: set[torch.dtype], tmp_path: Path
) -> None:
    trainer = trainer_of(ComparisonTrainer, tmp_path, some_pairs(margin=True), bf16=bf16)
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(some_pairs(margin=True)))
    assert factors == {expected}
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(("bf16", "expected"), TYPES)
def test_ppo_rounds_the_factors_of_its_products(
    bf16: bool, expected: torch.dtype, factors: set[torch.dtype], tmp_path: Path
) -> None:
    trainer = tiny_trainer(tmp_path, bf16=bf16, **ONE_STEP)
    trainer.train()
    assert factors == {expected}
    assert {weight.dtype for weight in trainer.models.policy.parameters()} == {torch.float32}
    first = metrics_of(tmp_path)[0]
    assert first["val/ratio"] == pytest.approx(1.0, abs=1e-2)
    assert first["objective/kl"] == pytest.approx(0.0, abs=1e-2)
