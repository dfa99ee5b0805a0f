"""What the first minibatch of an update takes is asked once: with the rollout."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lab.stages import rollout
from rlhf_lab.stages.rollout import FirstPass, Rollout
from tests.tiny_ppo import (
    all_weights,
    first_rollout,
    largest_difference,
    largest_metric_difference,
    metrics_of,
    tiny_trainer,
)


@pytest.mark.parametrize(
    ("settings", "with_gradients", "without"),
    [
        ({"minibatch_size": 8, "num_ppo_epochs": 1}, [8], []),
        ({"minibatch_size": 8, "num_ppo_epochs": 3}, [8, 8, 8], []),
        ({"minibatch_size": 4, "num_ppo_epochs": 1}, [4, 4], [4]),
        ({"minibatch_size": 8, "num_ppo_epochs": 1, "micro_batch_size": 4}, [4, 4], [8]),  # too large: asked twice
        ({"minibatch_size": 8, "num_ppo_epochs": 1, "gradient_checkpointing": True}, [8], [8]),
    ],
)
def test_the_first_minibatch_is_read_once(
    settings: dict[str, Any],
    with_gradients: list[int],
    without: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of every pass of policy and critic in an update of 8 rows."""
    passes: dict[bool, list[int]] = {True: [], False: []}
    opinions = rollout.opinions

    def counted(policy: Any, critic: Any, part: Rollout, *more: Any) -> Any:
        passes[torch.is_grad_enabled()].append(len(part))
        return opinions(policy, critic, part, *more)

    monkeypatch.setattr(rollout, "opinions", counted)
    tiny_trainer(tmp_path, total_episodes=8, **{"micro_batch_size": 8, **settings}).train()
    assert passes == {True: with_gradients, False: without}


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
    collected = first_rollout(trainer)
    first = trainer.first_pass
    assert first is not None
    assert first.answers(first.part, trainer.optimization.actor_critic)
    with torch.no_grad():
        trainer.models.critic.score.weight.mul_(2)
    assert not first.answers(first.part, trainer.optimization.actor_critic)
    targets = trainer.estimate_targets(collected)
    values = trainer._opinions(collected.rows(first.rows))[2]
    torch.testing.assert_close(values, 2 * first.said[2], msg="the critic of now")
    assert torch.isfinite(targets.returns).all()


def test_a_rollout_collected_without_gradients_can_be_learnt_from(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, minibatch_size=8, micro_batch_size=8)
    before = all_weights(trainer)
    with torch.no_grad():
        collected = first_rollout(trainer)
    assert trainer.first_pass is None
    trainer.learn_from(collected)
    assert largest_difference(before, all_weights(trainer)) > 0


def test_other_rows_are_asked_for(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, minibatch_size=4, micro_batch_size=8)
    collected = first_rollout(trainer)
    first = trainer.first_pass
    assert first is not None
    others = collected.rows([row for row in range(len(collected)) if row not in first.rows])
    assert not first.answers(others, trainer.optimization.actor_critic)
