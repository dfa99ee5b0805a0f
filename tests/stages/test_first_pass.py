"""What the first minibatch of an update takes is asked once: with the rollout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from rlhf_lab.functional import clipped_value_error, masked_sum
from rlhf_lab.stages import rollout
from rlhf_lab.stages.ppo_setup import Optimization
from rlhf_lab.stages.rollout import FirstPass, Rollout
from tests.tiny_ppo import (
    all_weights,
    first_rollout,
    largest_difference,
    largest_metric_difference,
    metrics_of,
    tiny_trainer,
)

BOTH, POLICY, CRITIC = None, "policy", "critic"


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> dict[bool, list[Any]]:
    """Rows of every pass of policy and critic and who is asked, with gradients (True) and without, and backwards."""
    seen: dict[bool, list[Any]] = {True: [], False: []}
    opinions, backward = rollout.opinions, Accelerator.backward

    def counted(policy: Any, critic: Any, part: Rollout, temperature: float, entropies: Any, only: Any = None) -> Any:
        seen[torch.is_grad_enabled()].append((len(part), only))
        return opinions(policy, critic, part, temperature, entropies, only)

    def noted(*given: Any, **more: Any) -> None:
        seen[True].append("backward")
        backward(*given, **more)

    monkeypatch.setattr(rollout, "opinions", counted)
    monkeypatch.setattr(Accelerator, "backward", noted)
    return seen


@pytest.mark.parametrize(
    ("settings", "num_steps", "without"),
    [
        ({"minibatch_size": 8, "num_ppo_epochs": 1}, 1, [(8, CRITIC)]),
        ({"minibatch_size": 8, "num_ppo_epochs": 2}, 2, [(8, CRITIC)]),
        ({"minibatch_size": 4, "num_ppo_epochs": 1}, 2, [(4, CRITIC), (4, BOTH)]),
        ({"minibatch_size": 8, "num_ppo_epochs": 1, "micro_batch_size": 4}, 2, [(8, BOTH)]),  # too large: asked twice
        ({"minibatch_size": 8, "num_ppo_epochs": 1, "gradient_checkpointing": True}, 1, [(8, BOTH)]),
    ],
)
def test_the_policy_reads_the_first_minibatch_once_and_one_model_at_a_time_holds_what_its_gradients_need(
    settings: dict[str, Any], num_steps: int, without: list[Any], tmp_path: Path, passes: dict[bool, list[Any]]
) -> None:
    """Rows of every pass in an update of 8 rows, and who is asked."""
    tiny_trainer(tmp_path, total_episodes=8, **{"micro_batch_size": 8, **settings}).train()
    rows = 8 // num_steps * settings["num_ppo_epochs"]
    assert passes[True] == [(rows, POLICY), "backward", (rows, CRITIC), "backward"] * num_steps
    assert passes[False] == without


def test_a_critic_that_is_a_head_on_the_policy_is_asked_with_it(tmp_path: Path, passes: dict[bool, list[Any]]) -> None:
    settings = {"total_episodes": 8, "minibatch_size": 4, "micro_batch_size": 4, "num_ppo_epochs": 1}
    tiny_trainer(tmp_path, arguments={"value_model": None}, share_value_trunk=True, **settings).train()
    assert passes[True] == [(4, BOTH), "backward"] * 2
    assert passes[False] == [(4, BOTH)], "the other minibatch"


@pytest.mark.parametrize("settings", [{}, {"ent_coef": 0.1}, {"critic_warmup_updates": 2}])
def test_one_after_the_other_gives_the_same_bits(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one = tiny_trainer(tmp_path / "one by one", minibatch_size=8, **settings)
    one_by_one.train()
    monkeypatch.setattr(Optimization, "turns", (BOTH,))
    together = tiny_trainer(tmp_path / "together", minibatch_size=8, **settings)
    together.train()
    assert largest_difference(all_weights(one_by_one), all_weights(together)) == 0.0
    assert metrics_of(tmp_path / "one by one") == metrics_of(tmp_path / "together")


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
    part, aims = collected.rows(first.rows), targets.rows(torch.tensor(first.rows), first.part.num_tokens)
    sums: dict[str, Any] = {}
    for _, parts in trainer.losses(part, aims):
        sums |= parts
    expected = masked_sum(clipped_value_error(2 * part.values, part.values, aims.returns, 0.2), part.completion_mask)
    torch.testing.assert_close(sums["value_loss"], expected, msg="the critic of now")


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
