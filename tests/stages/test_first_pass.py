"""What the first minibatch of an update takes is asked once: with the rollout."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lab.stages.ppo import PPOTrainer
from rlhf_lab.stages.rollout import FirstPass
from tests.tiny_ppo import (
    all_weights,
    first_rollout,
    largest_difference,
    largest_metric_difference,
    metrics_of,
    tiny_trainer,
)


def count_passes(trainer: PPOTrainer) -> list[tuple[int, bool]]:
    """Rows of every pass of policy and critic together, and whether it kept what gradients need."""
    passes: list[tuple[int, bool]] = []
    forward = trainer.optimization.actor_critic.forward

    def counted(part: Any, *settings: Any) -> Any:
        passes.append((len(part), torch.is_grad_enabled()))
        return forward(part, *settings)

    trainer.optimization.actor_critic.forward = counted
    return passes


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"minibatch_size": 8, "num_ppo_epochs": 1}, 1),
        ({"minibatch_size": 8, "num_ppo_epochs": 3}, 3),
        ({"minibatch_size": 4, "num_ppo_epochs": 1}, 2),
        ({"minibatch_size": 8, "num_ppo_epochs": 1, "micro_batch_size": 4}, 2),  # too large: as it was
    ],
)
def test_one_pass_a_micro_batch_is_all_that_gradients_take(
    settings: dict[str, int], expected: int, tmp_path: Path
) -> None:
    trainer = tiny_trainer(tmp_path, total_episodes=8, **{"micro_batch_size": 8, **settings})
    passes = count_passes(trainer)
    trainer.train()
    assert len(passes) == expected
    assert all(keeps for _, keeps in passes)


@pytest.mark.parametrize("ent_coef", [0.0, 0.1])
@pytest.mark.parametrize("minibatch_size", [4, 8])
def test_training_is_what_it_is_without(
    ent_coef: float, minibatch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"micro_batch_size": 8, "minibatch_size": minibatch_size, "ent_coef": ent_coef, "adam_eps": 1e-3}
    once = tiny_trainer(tmp_path / "once", **settings)
    once.train()
    monkeypatch.setattr(FirstPass, "of", lambda *given: None)
    twice = tiny_trainer(tmp_path / "twice", **settings)
    twice.train()
    assert largest_difference(all_weights(once), all_weights(twice)) < 1e-5
    assert largest_metric_difference(metrics_of(tmp_path / "once"), metrics_of(tmp_path / "twice")) < 1e-4


def test_before_the_first_step_the_ratio_is_exactly_1(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, total_episodes=8, minibatch_size=8, micro_batch_size=8, num_ppo_epochs=1).train()
    assert metrics_of(tmp_path)[0]["val/ratio"] == 1.0


def test_weights_that_moved_since_the_rollout_are_asked_again(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, minibatch_size=8, micro_batch_size=8)
    rollout = first_rollout(trainer)
    first = trainer.first_pass
    assert first is not None
    assert first.answers(first.part, trainer.optimization.actor_critic)
    with torch.no_grad():
        trainer.models.critic.score.weight.mul_(2)
    assert not first.answers(first.part, trainer.optimization.actor_critic)
    targets = trainer.estimate_targets(rollout)
    values = trainer._opinions(rollout.rows(first.rows))[2]
    torch.testing.assert_close(values, 2 * first.said[2], msg="the critic of now")
    assert torch.isfinite(targets.returns).all()


def test_other_rows_are_asked_for(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, minibatch_size=4, micro_batch_size=8)
    rollout = first_rollout(trainer)
    first = trainer.first_pass
    assert first is not None
    others = rollout.rows([row for row in range(len(rollout)) if row not in first.rows])
    assert not first.answers(others, trainer.optimization.actor_critic)
