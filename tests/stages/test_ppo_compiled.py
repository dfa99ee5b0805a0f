"""`torch_compile`: the same training through compiled trunks, generation as it was, a clear word where it fails."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from rlhf_lab.errors import UserError
from rlhf_lab.generation import sample
from rlhf_lab.models import compiled
from tests.tiny_ppo import all_weights, largest_difference, largest_metric_difference, metrics_of, tiny_trainer

KINDS: dict[str, dict[str, Any]] = {
    "critic of its own": {},
    "shared trunk": {"share_value_trunk": True, "arguments": {"value_model": None}},
    "adapters": {
        "arguments": {
            "peft_config": LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)
        }
    },
}


class Backend:
    """Takes graphs as they are, and counts how often they run."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.calls += 1
            return graph.forward(*args)

        return run


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    torch._dynamo.reset()
    counted = Backend()
    monkeypatch.setattr(compiled, "BACKEND", counted)
    return counted


def trained(folder: Path, kind: str, **settings: Any) -> Any:
    trainer = tiny_trainer(folder, adam_eps=1e-2, ent_coef=0.01, total_episodes=16, **{**KINDS[kind], **settings})
    trainer.train()
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_training_is_the_same(kind: str, tmp_path: Path, backend: Backend) -> None:
    plain = trained(tmp_path / "plain", kind)
    assert backend.graphs == 0
    through = trained(tmp_path / "compiled", kind, torch_compile=True)
    assert largest_metric_difference(metrics_of(tmp_path / "plain"), metrics_of(tmp_path / "compiled")) < 1e-4
    assert largest_difference(all_weights(plain), all_weights(through)) < 1e-4
    num_passes = 2 * 2 * 2 * 2  # micro-batches, passes, policy and critic, updates: the fewest there are
    assert backend.calls >= num_passes / (2 if kind == "shared trunk" else 1)
    assert backend.graphs < 20, "compiled anew for every width"
    through.save_model()
    saved = load_file(tmp_path / "compiled" / "model.safetensors") if kind == "critic of its own" else {}
    assert not any("_orig_mod" in name for name in saved)
    assert set(saved) <= set(plain.models.policy.state_dict())


def test_generation_runs_as_it_was_written(tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(tmp_path, torch_compile=True, generation_engine="eager", total_episodes=8)
    seen = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        before = backend.calls
        found = generate(*args, **kwargs)
        seen.append(backend.calls - before)
        return found

    generate = sample.generate_eagerly
    monkeypatch.setattr(sample, "generate_eagerly", watched)
    trainer.train()
    assert len(seen) == 1
    assert not any(seen)
    assert backend.calls > 0


def test_a_machine_without_a_compiler_is_told_before_the_first_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise FileNotFoundError("no g++")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    torch._dynamo.reset()
    with pytest.raises(UserError, match=r"torch can not compile here.*apt install g\+\+.*torch_compile=false"):
        tiny_trainer(tmp_path, torch_compile=True)


@pytest.mark.slow
def test_compiled_by_inductor_training_is_the_same(tmp_path: Path) -> None:
    torch._dynamo.reset()
    plain = trained(tmp_path / "plain", "critic of its own")
    through = trained(tmp_path / "compiled", "critic of its own", torch_compile=True)
    assert largest_metric_difference(metrics_of(tmp_path / "plain"), metrics_of(tmp_path / "compiled")) < 1e-4
    assert largest_difference(all_weights(plain), all_weights(through)) < 1e-4
