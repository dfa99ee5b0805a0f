"""The host waits once for all steps of an update, and nothing moves after a step that went wrong."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.masking_utils
import transformers.modeling_utils

from rlhf_lab.errors import UserError
from rlhf_lab.models import completions
from tests.generation.test_engines import HostReads
from tests.tiny_ppo import all_weights, first_rollout, largest_difference, tiny_trainer


def tiny_trainer_by_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    """A trainer whose models go the way of a GPU: through transformers, with states and head apart.

    transformers itself looks twice a pass whether rows are padded or packed, unless it thinks that it is traced.
    """
    monkeypatch.setattr("rlhf_lab.models.lean_gpt2.fits", lambda model, **more: False)
    monkeypatch.setattr(completions, "MOST_LOGITS", 30)
    monkeypatch.setattr(transformers.masking_utils, "is_tracing", lambda *tensors: True)
    monkeypatch.setattr(transformers.modeling_utils, "is_tracing", lambda *tensors: True)
    return tiny_trainer(folder, **settings)


@pytest.mark.parametrize("ratio_threshold", [None, 1e-3, 10.0])
def test_b29_the_host_reads_nothing_between_the_steps_of_an_update(
    ratio_threshold: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer_by_transformers(tmp_path, monkeypatch, minibatch_size=2, ratio_threshold=ratio_threshold)
    rollout = first_rollout(trainer)
    targets = trainer.estimate_targets(rollout)
    trainer.update(rollout, targets)  # the first one tries out how the model's head is reached
    assert rollout.lengths, "known on the host"
    rows = list(trainer.minibatches(len(rollout)))
    with HostReads() as reads:
        steps = [trainer.step_on(rollout, targets, chosen) for chosen in rows]
    assert len(steps) == 8
    assert reads.number == 0


def test_nothing_moves_after_a_step_that_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by the later steps of that update, whose numbers are fine."""
    trainer = tiny_trainer(tmp_path, minibatch_size=2, num_ppo_epochs=1)
    rollout = first_rollout(trainer)
    targets = trainer.estimate_targets(rollout)
    batches = list(trainer.minibatches(len(rollout)))
    states: list[Any] = []
    step_on = trainer.step_on

    def spoilt(rollout: Any, targets: Any, rows: torch.Tensor) -> Any:
        if len(states) == 1:
            targets.returns[rows] = float("nan")
        found = step_on(rollout, targets, rows)
        states.append({name: weight.clone() for name, weight in all_weights(trainer).items()})
        return found

    monkeypatch.setattr(trainer, "step_on", spoilt)
    with pytest.raises(UserError, match=r"loss nan in PPO update \d+: .*not_finite_batch\.pt"):
        trainer.update(rollout, targets)
    assert len(states) == 4
    assert largest_difference(states[0], states[1]) == largest_difference(states[0], states[3]) == 0
    saved = torch.load(tmp_path / "not_finite_batch.pt", weights_only=True)
    assert torch.equal(saved["ids"], rollout.rows(batches[1]).ids)
    targets.returns.nan_to_num_(0.0)
    monkeypatch.setattr(trainer, "step_on", step_on)
    trainer.update(rollout, targets)
    assert largest_difference(states[3], all_weights(trainer)) > 0, "a caller who goes on can go on"
