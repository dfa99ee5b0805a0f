"""The same numbers whichever way a batch is cut: micro-batches, padding, pad token, pad side, rows of a rollout.

Two processes are in test_two_processes.py.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lab.errors import UserError
from tests.tiny_ppo import (
    TOKENS,
    A,
    all_weights,
    first_rollout,
    largest_difference,
    largest_metric_difference,
    metrics_of,
    share_of_a,
    tiny_scalar_model,
    tiny_tokenizer,
    tiny_trainer,
)

# With the usual eps of 1e-8, Adam blows rounding up where a gradient is 0 (the keys' bias): noise / |noise| = 1.
SETTINGS = {
    "total_episodes": 8,
    "minibatch_size": 8,
    "num_ppo_epochs": 1,
    "adam_eps": 1e-2,
    "ent_coef": 0.01,
    "stop_tokens": ["</s>", "c", "e", "f"],  # so that rows differ in length
}


def after_one_update(folder: Path, **settings: Any) -> tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Metrics, gradients of the first step, weights after it."""
    trainer = tiny_trainer(folder, **{**SETTINGS, **settings})
    gradients: list[dict[str, torch.Tensor]] = []
    step = trainer.optimization.step

    def watch(loss: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        named = trainer.optimization.actor_critic.named_parameters()
        gradients.append({name: parameter.grad.clone() for name, parameter in named})
        return step(loss, **kwargs)

    trainer.optimization.step = watch  # type: ignore[method-assign]
    trainer.train()
    return metrics_of(folder), gradients[0], all_weights(trainer)


def assert_equal(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    assert largest_metric_difference(one[0], other[0]) < tolerance
    assert max(float(gradient.abs().max()) for gradient in one[1].values()) > 0.01, "there is something to compare"
    assert largest_difference(one[1], other[1]) < tolerance
    assert largest_difference(one[2], other[2]) < tolerance


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("minibatches", [1, 2])
def test_b26_micro_batches_change_nothing(tmp_path: Path, micro: int, minibatches: int) -> None:
    more = {"minibatch_size": 8 // minibatches, "num_ppo_epochs": 2}
    one = after_one_update(tmp_path / "8", micro_batch_size=8, **more)
    assert_equal(one, after_one_update(tmp_path / "other", micro_batch_size=micro, **more))


def test_b26_rows_differ_in_length(tmp_path: Path) -> None:
    """Else the tests above would prove little."""
    rollout = first_rollout(tiny_trainer(tmp_path, **SETTINGS))
    assert len(set(rollout.completion_mask.sum(1).tolist())) > 2
    assert len(set(rollout.prompt_lengths.tolist())) > 2


@pytest.mark.parametrize("extra", [1, 7])
def test_b04_b05_padding_changes_nothing(tmp_path: Path, extra: int) -> None:
    """More columns of padding, which hold wild numbers, on the right of ids and completions."""
    trainer, padded_trainer = tiny_trainer(tmp_path, **SETTINGS), tiny_trainer(tmp_path, **SETTINGS)
    rollout = first_rollout(trainer)
    padded_trainer.update_number = trainer.update_number

    def wider(x: torch.Tensor, fill: float) -> torch.Tensor:
        return torch.cat([x, x.new_full((len(x), extra), fill)], dim=1)

    padded = replace(
        rollout,
        ids=wider(rollout.ids, A),
        completion_ids=wider(rollout.completion_ids, A),
        completion_mask=wider(rollout.completion_mask, False),
        log_probs=wider(rollout.log_probs, 7.0),
        ref_log_probs=wider(rollout.ref_log_probs, -50.0),
        values=wider(rollout.values, 99.0),
        token_scores=wider(rollout.token_scores, 33.0),
    )
    found = []
    for each, rows in ((trainer, rollout), (padded_trainer, padded)):
        targets = each.estimate_targets(rows)
        found.append([{**each.update(rows, targets), **each.describe(rows, targets)}])
    assert largest_metric_difference(*found) < 1e-5
    assert largest_difference(all_weights(trainer), all_weights(padded_trainer)) < 1e-5


@pytest.mark.parametrize("reward", ["function", "model"])
def test_b09_a_tokenizer_whose_pad_is_eos_gets_its_own_pad(tmp_path: Path, reward: str) -> None:
    def run(name: str, tokenizer: Any) -> Any:
        given: Any = share_of_a if reward == "function" else tiny_scalar_model(vocab_size=11, pad_token_id=10)
        model = tiny_scalar_model(2, vocab_size=11)
        trainer_arguments = {"processing_class": tokenizer, "value_model": model}
        return after_one_update(tmp_path / name, reward=given, arguments=trainer_arguments)

    own = tiny_tokenizer(pad=None)
    own.add_special_tokens({"pad_token": "<another>"})
    one = run("own", own)
    assert_equal(one, run("eos", tiny_tokenizer(pad="</s>")))
    assert_equal(one, run("none", tiny_tokenizer(pad=None)))


def test_b09_f22_eos_is_trained_and_seen_where_pad_was_eos(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, arguments={"processing_class": tiny_tokenizer(pad="</s>")})
    assert trainer.tokenizer.pad_token_id not in (None, trainer.tokenizer.eos_token_id)
    rollout = first_rollout(trainer)
    is_eos = rollout.completion_ids == trainer.tokenizer.eos_token_id
    assert is_eos.any()
    assert rollout.completion_mask[is_eos].all()


def test_another_pad_id_changes_nothing(tmp_path: Path) -> None:
    """Even the id of an ordinary letter: nothing is told from the id of padding."""
    one = after_one_update(tmp_path / "pad")
    other = after_one_update(tmp_path / "h", arguments={"processing_class": tiny_tokenizer(pad=TOKENS[-1])})
    assert_equal(one, other)


@pytest.mark.parametrize("side", ["left", "right"])
def test_b24_the_tokenizers_padding_side_changes_nothing(tmp_path: Path, side: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = tokenizer.truncation_side = side
    other = after_one_update(tmp_path / side, arguments={"processing_class": tokenizer})
    assert largest_difference(after_one_update(tmp_path / "default")[2], other[2]) == 0


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    one, other = tiny_trainer(tmp_path, **SETTINGS), tiny_trainer(tmp_path, **SETTINGS)
    rollout = first_rollout(one)
    other.update_number = one.update_number
    turned = rollout.rows(torch.arange(7, -1, -1))
    found = [
        [{**each.update(rows, targets), **each.describe(rows, targets)}]
        for each, rows in ((one, rollout), (other, turned))
        for targets in [each.estimate_targets(rows)]
    ]
    assert largest_metric_difference(*found) < 1e-5
    assert largest_difference(all_weights(one), all_weights(other)) < 1e-5


def test_sizes_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not divide"):
        tiny_trainer(tmp_path, minibatch_size=3)
