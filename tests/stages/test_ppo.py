"""PPOTrainer: identities before the first step, what each setting does, what the logs mean, what is refused.

Names such as test_b06 and test_f15 are rows of the list of known defects and wishes that this trainer answers.
"""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

from rlhf_lab import PPOConfig, PPOTrainer
from rlhf_lab.errors import UserError
from rlhf_lab.generation.sample import Completions, mask_completions
from rlhf_lab.generation.stops import Stops
from rlhf_lab.training.records import read_metrics
from tests.tiny_ppo import (
    EOS,
    PAD,
    PROMPTS,
    A,
    B,
    all_weights,
    first_rollout,
    largest_difference,
    largest_metric_difference,
    metrics_of,
    share_of_a,
    tiny_policy,
    tiny_scalar_model,
    tiny_tokenizer,
    tiny_trainer,
    weights,
)

ONE_STEP = {"total_episodes": 8, "minibatch_size": 8, "micro_batch_size": 8, "num_ppo_epochs": 1}
NO_MOVE = {"learning_rate": 1e-25}


def lora() -> LoraConfig:
    return LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)


def trained_adapter() -> Any:
    model = get_peft_model(tiny_policy(), lora())
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def only_line(folder: Path) -> dict[str, Any]:
    lines = read_metrics(folder)
    assert len(lines) == 1
    return lines[0]


class Calls(TrainerCallback):
    """Notes every event; may ask for something after a step."""

    def __init__(self, after: int = 0, ask: str = "") -> None:
        self.events: list[tuple[str, int]] = []
        self.after, self.ask = after, ask

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self.events.append(("step", state.global_step))
        if self.ask and state.global_step == self.after:
            setattr(control, self.ask, True)
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(("save", state.global_step))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(("evaluate", state.global_step))


# --- before the first step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("kind", ["full", "fresh adapters", "trained adapters"])
def test_b29_b30_before_the_first_step_the_ratio_is_1_and_both_kls_are_0(
    tmp_path: Path, kind: str, temperature: float
) -> None:
    model = trained_adapter() if kind == "trained adapters" else tiny_policy()
    model.generation_config.top_k, model.generation_config.repetition_penalty = 3, 2.0
    arguments = {"peft_config": lora()} if kind == "fresh adapters" else {}
    trainer = tiny_trainer(tmp_path, model, temperature=temperature, arguments=arguments, **ONE_STEP)
    trainer.train()
    found = only_line(tmp_path)
    assert found["val/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert found["val/ratio_var"] == pytest.approx(0.0, abs=1e-6)
    for name in ("objective/kl", "policy/approxkl_avg", "policy/clipfrac_avg", "objective/non_score_reward"):
        assert found[name] == pytest.approx(0.0, abs=1e-5), name
    assert found["grad_norm"] > 1e-3


def test_b29_the_adapters_of_a_trained_policy_belong_to_its_reference(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, trained_adapter())
    ids = torch.tensor([[A, B, A]])
    with torch.no_grad(), trainer.models.reference() as reference:
        of_reference = reference(ids).logits
        with trainer.models.policy.disable_adapter():
            of_base = trainer.models.policy(ids).logits
        assert torch.allclose(of_reference, trainer.models.policy(ids).logits, atol=1e-6)
        assert float((of_base - of_reference).abs().max()) > 0.1


@pytest.mark.parametrize("kind", ["full", "fresh adapters", "trained adapters"])
def test_the_reference_stays_where_it_was(tmp_path: Path, kind: str) -> None:
    arguments = {"peft_config": lora()} if kind == "fresh adapters" else {}
    model = trained_adapter() if kind == "trained adapters" else None
    trainer = tiny_trainer(tmp_path, model, arguments=arguments)
    ids = torch.tensor([[A, B, A]])
    with torch.no_grad(), trainer.models.reference() as reference:
        before = reference(ids).logits
    trainer.train()
    with torch.no_grad(), trainer.models.reference() as reference:
        assert torch.equal(reference(ids).logits, before)
    with torch.no_grad():
        assert not torch.allclose(trainer.models.policy(ids).logits, before, atol=1e-3)
    assert metrics_of(tmp_path)[-1]["objective/kl"] != 0


def test_f05_with_adapters_only_they_and_the_critic_train_and_there_is_no_second_policy(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, arguments={"peft_config": lora()})
    before = weights(trainer.models.policy)
    trainer.train()
    after = weights(trainer.models.policy)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "lora_" in name}
    assert trainer.models.frozen is None


def test_a_policy_given_as_its_own_reference_is_still_trained(tmp_path: Path) -> None:
    model = tiny_policy()
    trainer = tiny_trainer(tmp_path, model, arguments={"ref_model": model})
    before = weights(trainer.models.policy)
    trainer.train()
    assert largest_difference(before, weights(trainer.models.policy)) > 1e-3


# --- steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minibatch", "micro"), [(8, 8), (8, 1), (2, 1), (2, 2)])
def test_b01_b02_optimizer_steps_are_epochs_times_minibatches_and_no_statistic_is_diluted(
    tmp_path: Path, minibatch: int, micro: int
) -> None:
    settings = {"total_episodes": 8, "minibatch_size": minibatch, "micro_batch_size": micro, "num_ppo_epochs": 4}
    trainer = tiny_trainer(tmp_path, **settings, **NO_MOVE)
    taken, step = [], trainer.optimization.optimizer.step
    trainer.optimization.optimizer.step = lambda *args, **kwargs: (taken.append(1), step(*args, **kwargs))
    trainer.train()
    found = only_line(tmp_path)
    assert len(taken) == found["optimizer_steps"] == 4 * 8 // minibatch
    assert found["val/ratio"] == pytest.approx(1.0, abs=1e-5)


def test_b03_max_grad_norm_is_honoured_and_the_norm_is_logged_before_clipping(tmp_path: Path) -> None:
    moves, norms = [], []
    for limit in (1e-8, 1e8):
        # So large an eps makes Adam's step proportional to the gradient.
        trainer = tiny_trainer(tmp_path / str(limit), max_grad_norm=limit, adam_eps=1e3, learning_rate=1.0, **ONE_STEP)
        before = all_weights(trainer)
        trainer.train()
        moves.append(largest_difference(before, all_weights(trainer)))
        norms.append(only_line(tmp_path / str(limit))["grad_norm"])
    assert moves[0] < 1e-9 < 1e-6 < moves[1]
    assert norms[0] == pytest.approx(norms[1])
    assert norms[0] > 1e-2


def test_b27_steps_episodes_and_epochs_agree_at_the_end(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, total_episodes=39)
    trainer.train()
    last = read_metrics(tmp_path)[-1]
    assert (last["step"], last["episode"], trainer.update_number, trainer.life.state.max_steps) == (4, 32, 4, 4)
    assert last["epoch"] == pytest.approx(32 / (4 * len(PROMPTS)))


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_the_learning_rate_follows_its_schedule_once_an_update(tmp_path: Path, schedule: str) -> None:
    tiny_trainer(tmp_path, lr_scheduler_type=schedule).train()
    used = [1.0, 0.75, 0.5, 0.25] if schedule == "linear" else [1.0] * 4  # in the update of that line
    assert [line["lr"] for line in read_metrics(tmp_path)] == pytest.approx([1e-2 * share for share in used])


@pytest.mark.parametrize("kind", ["full", "fresh adapters"])
def test_b17_b18_gradient_checkpointing_is_honoured_and_changes_no_number(tmp_path: Path, kind: str) -> None:
    for name, on in (("off", False), ("on", True)):
        arguments = {"peft_config": lora()} if kind == "fresh adapters" else {}
        trainer = tiny_trainer(tmp_path / name, gradient_checkpointing=on, arguments=arguments)
        seen: list[bool] = []
        trainer.models.policy.register_forward_hook(
            lambda module, inputs, output, seen=seen: seen.append(module.training and torch.is_grad_enabled())
        )
        trainer.train()
        assert any(seen) is on, "transformers recomputes in training mode only"
        blocks = [m for m in trainer.models.policy.modules() if type(m).__name__ == "GPT2Block"]
        assert [block.gradient_checkpointing for block in blocks] == [on]
    assert largest_metric_difference(metrics_of(tmp_path / "off"), metrics_of(tmp_path / "on")) < 1e-4


def test_b19_bf16_reaches_the_accelerator(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, bf16=True, **ONE_STEP)
    assert trainer.accelerator.mixed_precision == "bf16"
    logits: list[torch.dtype] = []
    trainer.models.policy.lm_head.register_forward_hook(lambda module, i, output: logits.append(output.dtype))
    trainer.train()
    assert set(logits) == {torch.bfloat16}
    assert only_line(tmp_path)["val/ratio"] == pytest.approx(1.0, abs=1e-2)
    assert tiny_trainer(tmp_path).accelerator.mixed_precision == "no"


def test_f14_early_stopping_leaves_out_the_remaining_passes(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, num_ppo_epochs=4, early_stop_kl=1e-6, total_episodes=8)
    step, after = trainer.optimization.optimizer.step, []
    trainer.optimization.optimizer.step = lambda: (step(), after.append(all_weights(trainer)))
    trainer.train()
    found = only_line(tmp_path)
    assert (found["optimizer_steps"], found["early_stopped"]) == (1, 1), "the second minibatch sees what the first did"
    assert largest_difference(after[0], all_weights(trainer)) == 0, "no half step"
    tiny_trainer(tmp_path, num_ppo_epochs=4, early_stop_kl=1e6, total_episodes=8).train()
    found = only_line(tmp_path)
    assert (found["optimizer_steps"], found["early_stopped"]) == (8, 0)


def test_f16_minibatches_above_the_ratio_threshold_are_skipped_and_counted(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, ratio_threshold=0.5, total_episodes=8)
    before = all_weights(trainer)
    trainer.train()
    assert only_line(tmp_path)["skipped_minibatches"] == 4
    assert largest_difference(before, all_weights(trainer)) == 0
    tiny_trainer(tmp_path, ratio_threshold=1e6, total_episodes=8).train()
    assert only_line(tmp_path)["skipped_minibatches"] == 0


def test_f25_critic_warm_up_leaves_the_policy_bit_equal(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(all_weights(trainer))
            counted.append(any(weight in trainer.optimization.optimizer.state for weight in policy_weights))

    counted: list[bool] = []
    trainer = tiny_trainer(tmp_path, critic_warmup_updates=2, arguments={"callbacks": [Watch()]})
    policy_weights = list(trainer.models.policy.parameters())
    start = all_weights(trainer)
    trainer.train()
    assert counted == [False, False, True, True], "Adam's count of steps starts with the policy's first one"
    policy = [name for name in start if not name.startswith("critic.")]
    critic = [name for name in start if name.startswith("critic.")]
    for after in seen[:2]:
        assert all(torch.equal(start[name], after[name]) for name in policy)
    assert any(not torch.equal(seen[1][name], seen[2][name]) for name in policy)
    assert any(not torch.equal(start[name], seen[0][name]) for name in critic)


# --- where a completion ends, and what it earns ------------------------------------------------------------------


def test_b06_the_score_sits_exactly_on_the_last_token_of_the_completion(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, kl_coef=0.0, rollout_batch_size=32, minibatch_size=32)
    rollout = first_rollout(trainer)
    rollout = replace(rollout, scores=torch.arange(1.0, 33.0))
    rewards = trainer.estimate_targets(rollout).rewards
    for row, length, stopped in zip(range(32), rollout.completion_mask.sum(1), rollout.stopped, strict=True):
        assert rewards[row].nonzero().flatten().tolist() == [length - 1]
        assert rewards[row, length - 1] == row + 1
        assert (rollout.completion_ids[row, length - 1] == EOS) == stopped
    assert rollout.stopped.any()
    assert not rollout.stopped.all()


def test_b06_advantage_on_the_last_token_is_score_less_value(tmp_path: Path) -> None:
    """One more state or one more lambda would show here."""
    trainer = tiny_trainer(tmp_path, kl_coef=0.0, whiten_advantages=False, gae_lambda=0.5)
    rollout = first_rollout(trainer)
    targets = trainer.estimate_targets(rollout)
    last = rollout.completion_mask.sum(1, keepdim=True) - 1
    found = targets.advantages.gather(1, last)[:, 0]
    assert torch.allclose(found, rollout.scores - rollout.values.gather(1, last)[:, 0], atol=1e-6)
    assert torch.allclose(targets.returns.gather(1, last)[:, 0], rollout.scores, atol=1e-6)


@pytest.mark.parametrize("stops", [None, ["b"], [B], ["b", 5]])
def test_b07_the_penalty_falls_where_no_stop_token_was_written(tmp_path: Path, stops: Any) -> None:
    trainer = tiny_trainer(tmp_path, stop_tokens=stops, missing_eos_penalty=0.5, rollout_batch_size=32)
    ids = {EOS} if stops is None else {5 if stop == 5 else B for stop in stops}
    assert set(trainer.stops.token_ids) == ids
    rollout = first_rollout(trainer)
    shaped = trainer.shape_scores(rollout)
    for row, mask, score, before in zip(
        rollout.completion_ids.tolist(), rollout.completion_mask, shaped, rollout.scores, strict=True
    ):
        written = row[: int(mask.sum())]
        assert float(before - score) == pytest.approx(0.0 if ids & set(written) else 0.5)
        assert not ids & set(written[:-1]), "the first one ends the completion"
    assert 0 < int((shaped < rollout.scores).sum()) < 32


def test_b08_eos_in_the_prompt_is_no_end_of_the_completion(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"prompt": ["ab</s>cd", "a</s></s>c"] * 16})
    trainer = tiny_trainer(tmp_path, rows=rows, missing_eos_penalty=1.0, rollout_batch_size=32)
    assert trainer.train_prompts is not None
    assert {row.count(EOS) for row in trainer.train_prompts.ids} == {1, 2}
    rollout = first_rollout(trainer)
    missing = (trainer.shape_scores(rollout) < rollout.scores).tolist()
    assert missing == [EOS not in row for row in rollout.completion_ids.tolist()]
    assert any(missing)


def test_b10_by_default_a_completion_stops_at_eos_and_nothing_after_it_is_seen(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def watch(completion_ids: list[list[int]], completions: list[str], **kwargs: Any) -> list[float]:
        seen.extend(completion_ids)
        assert all("<" not in text for text in completions)
        return [0.0] * len(completions)

    trainer = tiny_trainer(tmp_path, reward=watch)
    trainer.train()
    assert any(row[-1] == EOS for row in seen)
    assert any(len(row) == 6 and EOS not in row for row in seen)
    assert not any(EOS in row[:-1] for row in seen)


def test_b11_all_eos_ids_of_the_generation_config_end_a_completion(tmp_path: Path) -> None:
    model = tiny_policy()
    model.generation_config.eos_token_id = [EOS, B, 5]
    trainer = tiny_trainer(tmp_path, model, rollout_batch_size=32)
    assert trainer.stops.token_ids == (EOS, B, 5)
    rollout = first_rollout(trainer)
    ends = {
        row[int(mask.sum()) - 1]
        for row, mask, stopped in zip(
            rollout.completion_ids.tolist(), rollout.completion_mask, rollout.stopped, strict=True
        )
        if stopped
    }
    assert ends == {EOS, B, 5}


def test_f17_scores_are_scaled_then_clipped_then_penalised(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, score_scale=2.0, score_clip=3.0, missing_eos_penalty=0.25)
    rollout = first_rollout(trainer)
    scores = torch.tensor([-9.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 9.0])
    stopped = torch.tensor([True, True, False, False, True, True, False, False])
    found = trainer.shape_scores(replace(rollout, scores=scores, stopped=stopped))
    assert found.tolist() == [-3.0, -2.0, -0.25, 0.75, 2.0, 3.0, 2.75, 2.75]


def test_f17_whitened_rewards_keep_their_mean_and_whitened_advantages_do_not(tmp_path: Path) -> None:
    plain = tiny_trainer(tmp_path, whiten_advantages=False, rollout_batch_size=2, minibatch_size=2, kl_coef=0.5)
    rollout = first_rollout(plain)
    rollout = replace(rollout, ref_log_probs=rollout.log_probs - torch.rand_like(rollout.log_probs))
    mask = rollout.completion_mask
    before = plain.estimate_targets(rollout)
    white = tiny_trainer(tmp_path, whiten_rewards=True, rollout_batch_size=2, minibatch_size=2, kl_coef=0.5)
    after = white.estimate_targets(rollout)
    assert float(after.rewards[mask].mean()) == pytest.approx(float(before.rewards[mask].mean()), abs=1e-5)
    assert float(after.rewards[mask].std(correction=0)) == pytest.approx(1.0, abs=1e-4)
    assert float(after.advantages[mask].mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(after.advantages[mask].std(correction=0)) == pytest.approx(1.0, abs=1e-4)
    assert float(before.advantages[mask].std(correction=0)) != pytest.approx(1.0, abs=1e-2)


# --- what the logs mean ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "abs"])
def test_b31_b41_the_logged_kl_is_the_one_in_the_reward(tmp_path: Path, estimator: str) -> None:
    arguments = {"ref_model": tiny_policy(seed=9)}
    trainer = tiny_trainer(tmp_path, kl_estimator=estimator, kl_coef=0.3, arguments=arguments, missing_eos_penalty=1.0)
    rollout = first_rollout(trainer)
    targets = trainer.estimate_targets(rollout)
    found = trainer.describe(rollout, targets)
    assert found["objective/kl"] * found["kl_coef"] == pytest.approx(-found["objective/non_score_reward"])
    assert abs(found["objective/kl"]) > 0.1
    # Rewards over a whole completion are the score and the penalty, whatever the estimator.
    assert float(targets.rewards.sum(1).mean()) == pytest.approx(found["objective/rlhf_reward"], abs=1e-5)
    assert found["objective/rlhf_reward"] == pytest.approx(
        found["objective/scores"] + found["objective/non_score_reward"]
    )


def test_b05_statistics_by_hand(tmp_path: Path) -> None:
    """Two rows of 1 and 3 tokens: means over 4 tokens, sums over completions averaged over 2 rows."""
    trainer = tiny_trainer(tmp_path, rollout_batch_size=2, minibatch_size=2, kl_coef=0.5)
    rollout = first_rollout(trainer)
    mask = torch.tensor([[True] + [False] * 5, [True] * 3 + [False] * 3])
    log_probs = torch.tensor([[-1.0] + [7.0] * 5, [-2.0, -3.0, -4.0, 7.0, 7.0, 7.0]])
    shift = torch.tensor([[0.5] + [9.0] * 5, [0.25, 0.25, 1.0, 9.0, 9.0, 9.0]])
    rollout = replace(
        rollout, completion_mask=mask, log_probs=log_probs, ref_log_probs=log_probs - shift, scores=torch.tensor([1, 3])
    )
    found = trainer.describe(rollout, trainer.estimate_targets(rollout))
    assert found["objective/kl"] == pytest.approx((0.5 + 1.5) / 2)
    assert found["objective/entropy"] == pytest.approx((1 + 9) / 2)
    assert found["objective/scores"] == pytest.approx(2.0)
    assert found["objective/scores_std"] == pytest.approx(1.0)
    assert found["objective/non_score_reward"] == pytest.approx(-0.5)
    assert found["completion_length"] == pytest.approx(2.0)


def test_b04_entropy_is_never_negative(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.train()
    for line in read_metrics(tmp_path):
        assert line["objective/entropy"] >= 0
        assert 0 <= line["policy/entropy_avg"] <= math.log(10)


def test_b34_one_seed_gives_one_log_and_another_seed_another(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        tiny_trainer(tmp_path / name, seed=seed).train()
        torch.rand(5)  # the global generator must not matter
    assert metrics_of(tmp_path / "one") == metrics_of(tmp_path / "same")
    assert metrics_of(tmp_path / "one")[0] != metrics_of(tmp_path / "other")[0]


def test_b42_throughput_is_a_float_with_the_phases_beside_it(tmp_path: Path) -> None:
    def slow(completions: list[str], **kwargs: Any) -> list[float]:
        time.sleep(0.05)
        return [0.0] * len(completions)

    tiny_trainer(tmp_path, reward=slow).train()
    for line in read_metrics(tmp_path):
        seconds = line["rollout_seconds"] + line["update_seconds"]
        assert line["eps"] == pytest.approx(8 / seconds, rel=1e-3)
        assert isinstance(line["eps"], float)
        assert line["rollout_seconds"] > 0.05


def test_logging_steps_are_honoured(tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "two", logging_steps=2).train()
    tiny_trainer(tmp_path / "never", logging_steps=0).train()
    assert [line["step"] for line in read_metrics(tmp_path / "two")] == [2, 4]
    assert read_metrics(tmp_path / "never") == []


def test_a_second_run_in_the_same_folder_starts_a_new_log(tmp_path: Path) -> None:
    arguments = {"eval_dataset": Dataset.from_dict({"prompt": PROMPTS[:3]})}
    for _ in range(2):
        tiny_trainer(tmp_path, eval_steps=4, arguments=arguments).train()
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3, 4, 4]


# --- the KL weight -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "rises"), [(1e-3, True), (1e3, False)])
def test_f15_the_kl_weight_moves_towards_the_target(tmp_path: Path, target: float, rises: bool) -> None:
    arguments = {"ref_model": tiny_policy(seed=9)}
    trainer = tiny_trainer(tmp_path, target_kl=target, kl_horizon=80, kl_coef=0.1, arguments=arguments, **NO_MOVE)
    trainer.train()
    logged = [line["kl_coef"] for line in read_metrics(tmp_path)]
    factor = 1.02 if rises else 0.98  # 1 + 0.2 * 8 / 80, the error at its limit
    assert logged == pytest.approx([0.1 * factor**update for update in range(4)])
    assert trainer.kl_coef == pytest.approx(0.1 * factor**4)


def test_f15_without_a_target_the_kl_weight_stays(tmp_path: Path) -> None:
    tiny_trainer(tmp_path).train()
    assert {line["kl_coef"] for line in read_metrics(tmp_path)} == {0.05}


# --- evaluation, schedules, callbacks ----------------------------------------------------------------------------


def test_b12_f09_evaluation_follows_its_schedule_and_can_be_called_before_training(tmp_path: Path) -> None:
    arguments = {"eval_dataset": Dataset.from_dict({"prompt": PROMPTS[:3], "note": ["x", "y", "z"]})}
    trainer = tiny_trainer(tmp_path, eval_steps=3, arguments=arguments)
    before = trainer.evaluate()
    assert set(before) == {"eval_scores", "eval_scores_stderr", "eval_kl", "eval_length", "eval_eos_fraction"}
    assert before["eval_kl"] == pytest.approx(0.0, abs=1e-5)
    assert trainer.evaluate() == before, "evaluation draws the same numbers each time"
    trainer.train()
    lines = [line for line in read_metrics(tmp_path) if "eval_scores" in line]
    assert [line["step"] for line in lines] == [0, 3, 4]
    assert {name: lines[0][name] for name in before} == pytest.approx(before)
    samples = [json.loads(line) for line in (tmp_path / "samples" / "update-000003.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in samples] == PROMPTS[:3]
    assert sum(row["score"] for row in samples) / 3 == pytest.approx(lines[1]["eval_scores"])


def test_evaluation_does_not_change_the_training(tmp_path: Path) -> None:
    arguments = {"eval_dataset": Dataset.from_dict({"prompt": PROMPTS[:3]})}
    with_it, without = tiny_trainer(tmp_path / "a", eval_steps=1, arguments=arguments), tiny_trainer(tmp_path / "b")
    with_it.train()
    without.train()
    assert largest_difference(all_weights(with_it), all_weights(without)) == 0


def test_b12_evaluate_without_prompts_says_nothing(tmp_path: Path) -> None:
    assert tiny_trainer(tmp_path).evaluate() == {}


def test_an_override_adds_metrics_to_the_evaluation(tmp_path: Path) -> None:
    class Counting(PPOTrainer):
        def evaluation_metrics(self, prompts: list[Any], completions: list[str]) -> dict[str, float]:
            return {"eval_count": float(len(completions))}

    arguments = {"eval_dataset": Dataset.from_dict({"prompt": PROMPTS[:3]})}
    found = tiny_trainer(tmp_path, trainer_class=Counting, arguments=arguments).evaluate()
    assert found["eval_count"] == 3


def test_b39_a_callback_can_stop_the_run(tmp_path: Path) -> None:
    calls = Calls(after=2, ask="should_training_stop")
    tiny_trainer(tmp_path, arguments={"callbacks": [calls]}).train()
    assert calls.events == [("step", 1), ("step", 2)]
    assert len(read_metrics(tmp_path)) == 2


@pytest.mark.parametrize(("ask", "event"), [("should_save", "save"), ("should_evaluate", "evaluate")])
def test_b39_what_a_callback_asks_for_once_happens_once(tmp_path: Path, ask: str, event: str) -> None:
    calls = Calls(after=2, ask=ask)
    arguments = {"callbacks": [calls], "eval_dataset": Dataset.from_dict({"prompt": PROMPTS[:3]})}
    tiny_trainer(tmp_path, arguments=arguments).train()
    assert [e for e in calls.events if e[0] == event] == [(event, 2)]


def test_b39_a_callback_can_ask_for_a_log_line(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, logging_steps=0, arguments={"callbacks": [Calls(after=2, ask="should_log")]}).train()
    assert [line["step"] for line in read_metrics(tmp_path)] == [2]


def test_f23_a_subclass_can_override_one_part(tmp_path: Path) -> None:
    class NoScores(PPOTrainer):
        def shape_scores(self, rollout: Any) -> torch.Tensor:
            return torch.zeros_like(rollout.scores)

    tiny_trainer(tmp_path, trainer_class=NoScores, total_episodes=8).train()
    assert only_line(tmp_path)["objective/scores"] == 0


# --- models ------------------------------------------------------------------------------------------------------


def test_f12_generation_can_be_replaced(tmp_path: Path) -> None:
    """An engine of one's own: its tokens are scored, assessed and trained on like any other's."""

    class Elsewhere(PPOTrainer):
        def complete(self, prompt_ids: Any, uniforms: torch.Tensor, temperature: float) -> Completions:
            ids = torch.tensor([[A, B, EOS] if len(prompt) > 1 else [B, EOS, PAD] for prompt in prompt_ids])
            return mask_completions(ids, Stops((EOS,)))

    trainer = tiny_trainer(tmp_path, trainer_class=Elsewhere)
    rollout = first_rollout(trainer)
    lengths = [3 if length > 1 else 2 for length in rollout.prompt_lengths.tolist()]
    assert rollout.completion_mask.sum(1).tolist() == lengths
    assert rollout.scores.tolist() == pytest.approx([1 / 3 if length == 3 else 0.0 for length in lengths])
    trainer.train()
    assert metrics_of(tmp_path)[-1]["val/num_eos_tokens"] == 8


def test_b38_without_a_value_model_the_critic_starts_from_the_reward_model(tmp_path: Path) -> None:
    reward = tiny_scalar_model(seed=5)
    trainer = tiny_trainer(tmp_path, reward=reward, arguments={"value_model": None})
    start = weights(reward)
    assert largest_difference(start, weights(trainer.models.critic)) == 0
    trainer.train()
    assert largest_difference(start, weights(reward)) == 0
    assert largest_difference(start, weights(trainer.models.critic)) > 1e-3


def test_b35_b38_a_folder_without_a_pad_token_and_a_function_are_enough(tmp_path: Path) -> None:
    """GPT-2's case: the added pad token lies outside the embeddings that were saved."""
    tiny_policy().save_pretrained(tmp_path / "model")
    tiny_tokenizer(pad=None).save_pretrained(tmp_path / "model")
    arguments = {"value_model": None, "processing_class": None}
    trainer = tiny_trainer(tmp_path / "run", str(tmp_path / "model"), arguments=arguments)
    assert trainer.tokenizer.pad_token_id == len(trainer.tokenizer) - 1 == 10
    trainer.train()
    assert all(line["loss/value_avg"] > 0 for line in read_metrics(tmp_path / "run"))


def test_b35_an_added_pad_token_is_not_what_the_policy_says(tmp_path: Path) -> None:
    """GPT-2's logits all lie far below 0; a random row for the new token would give it a logit near 0."""
    model = tiny_policy()
    model.transformer.wte.weight.data[:, 0] = -10.0
    model.transformer.ln_f.bias.data[0] = 6.0
    trainer = tiny_trainer(tmp_path, model, arguments={"processing_class": tiny_tokenizer(pad=None)})
    with torch.no_grad():
        logits = trainer.models.policy(torch.tensor([[A, B, A]])).logits
    assert float(logits.max()) < -20
    assert float(logits.softmax(-1)[..., trainer.tokenizer.pad_token_id].max()) <= 0.1


def test_b35_a_reward_model_folder_without_a_pad_token(tmp_path: Path) -> None:
    for folder, model in (("model", tiny_policy()), ("reward", tiny_scalar_model(pad_token_id=None))):
        model.save_pretrained(tmp_path / folder)
        tiny_tokenizer(pad=None).save_pretrained(tmp_path / folder)
    arguments = {"value_model": None, "processing_class": None}
    trainer = tiny_trainer(tmp_path / "run", str(tmp_path / "model"), str(tmp_path / "reward"), arguments=arguments)
    trainer.train()
    assert len(read_metrics(tmp_path / "run")) == 4


def test_the_reward_model_as_value_model_is_trained_as_a_copy(tmp_path: Path) -> None:
    reward = tiny_scalar_model(seed=5)
    trainer = tiny_trainer(tmp_path, reward=reward, arguments={"value_model": reward})
    start = weights(reward)
    trainer.train()
    assert largest_difference(start, weights(reward)) == 0
    assert largest_difference(start, weights(trainer.models.critic)) > 1e-3


@pytest.mark.parametrize("origin", ["reward", "value_model"])
def test_the_critic_has_no_dropout(tmp_path: Path, origin: str) -> None:
    dropout = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    model = tiny_scalar_model(**dropout)
    given = (
        {"reward": model, "arguments": {"value_model": None}}
        if origin == "reward"
        else {"arguments": {"value_model": model}}
    )
    trainer = tiny_trainer(tmp_path, **given)
    rollout = first_rollout(trainer)
    _, _, values = trainer.optimization.actor_critic(rollout, 1.0, False)
    assert torch.allclose(values.where(rollout.completion_mask, 0.0), rollout.values, atol=1e-5)


def test_b44_f01_functions_models_folders_and_lists_are_rewards(tmp_path: Path) -> None:
    tiny_scalar_model().save_pretrained(tmp_path / "reward")
    tiny_tokenizer().save_pretrained(tmp_path / "reward")
    for number, reward in enumerate([share_of_a, tiny_scalar_model(), str(tmp_path / "reward"), tmp_path / "reward"]):
        tiny_trainer(tmp_path / str(number), reward=reward, total_episodes=8).train()
        assert len(read_metrics(tmp_path / str(number))) == 1
    tiny_trainer(tmp_path / "list", reward=[share_of_a, tiny_scalar_model()], total_episodes=8).train()
    scores = [only_line(tmp_path / name)["objective/scores"] for name in ("0", "1", "2", "3", "list")]
    assert scores[1] == pytest.approx(scores[2]) == pytest.approx(scores[3])
    assert scores[4] == pytest.approx(scores[0] + scores[1], abs=1e-5)


# --- outcome -----------------------------------------------------------------------------------------------------


def test_ppo_raises_the_score(tmp_path: Path) -> None:
    settings = {"rollout_batch_size": 32, "minibatch_size": 16, "micro_batch_size": 16, "num_ppo_epochs": 4}
    tiny_trainer(tmp_path, total_episodes=32 * 30, kl_coef=0.01, **settings).train()
    scores = [line["objective/scores"] for line in read_metrics(tmp_path)]
    assert scores[0] < 0.25
    assert sum(scores[-5:]) / 5 > 0.7


def test_the_policy_learns_to_stop(tmp_path: Path) -> None:
    """The EOS action is inside the loss: with the penalty alone, stopping is learnt."""
    settings = {"rollout_batch_size": 32, "minibatch_size": 16, "micro_batch_size": 16, "num_ppo_epochs": 4}

    def nothing(completions: list[str], **kwargs: Any) -> list[float]:
        return [0.0] * len(completions)

    tiny_trainer(tmp_path, reward=nothing, total_episodes=32 * 15, missing_eos_penalty=1.0, **settings).train()
    stopped = [line["val/num_eos_tokens"] / 32 for line in read_metrics(tmp_path)]
    assert stopped[0] < 0.8
    assert stopped[-1] > 0.95


def test_a_heavy_kl_weight_keeps_the_policy_near_the_reference(tmp_path: Path) -> None:
    for name, kl_coef in (("light", 0.0), ("heavy", 2.0)):
        tiny_trainer(tmp_path / name, kl_coef=kl_coef, total_episodes=160, rollout_batch_size=16).train()
    light, heavy = (metrics_of(tmp_path / name)[-1]["objective/kl"] for name in ("light", "heavy"))
    assert heavy < light / 3


def test_generate_gives_text_for_text(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    first = trainer.generate(["ab", "c"], seed=0)
    assert first == trainer.generate(["ab", "c"], seed=0)
    assert len(first) == 2
    assert all(set(text) <= set("abcdefgh") for text in first)
    greedy = trainer.generate(["ab", "c"], temperature=1e-4, seed=0)
    assert greedy == trainer.generate(["ab", "c"], temperature=1e-4, seed=5)
    with pytest.raises(UserError, match="temperature"):
        trainer.generate(["ab"], temperature=0.0)


# --- what is refused ---------------------------------------------------------------------------------------------


def test_train_needs_prompts(tmp_path: Path) -> None:
    trainer = PPOTrainer(
        tiny_policy(),
        share_of_a,
        args=PPOConfig(output_dir=str(tmp_path)),
        processing_class=tiny_tokenizer(),
        value_model=tiny_scalar_model(),
    )
    with pytest.raises(UserError, match="train_dataset"):
        trainer.train()


def test_an_adapter_on_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give one of the two"):
        tiny_trainer(tmp_path, trained_adapter(), arguments={"peft_config": lora()})


@pytest.mark.parametrize(
    ("value_model", "words"),
    [(tiny_scalar_model(num_labels=2), "2 labels"), (torch.nn.Linear(3, 1), "Linear"), (tiny_policy(), "num_labels=1")],
)
def test_b20_a_value_model_that_can_not_work_is_refused_by_name(tmp_path: Path, value_model: Any, words: str) -> None:
    with pytest.raises(UserError, match="value_model") as error:
        tiny_trainer(tmp_path, arguments={"value_model": value_model})
    assert words in str(error.value)


def test_a_prompt_and_completion_beyond_the_context_are_refused(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"prompt": ["a" * 8] * 8})
    with pytest.raises(UserError, match=r"the policy reads 32; lower max_prompt_length"):
        tiny_trainer(tmp_path, rows=rows, max_completion_length=25).train()


def poisoned(trainer: PPOTrainer, how: str) -> TrainerCallback:
    """After update 2: a NaN in the critic, or a gradient that overflows."""

    class Poison(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            head = trainer.models.critic.score.weight
            if state.global_step == 2 and how == "loss":
                head.data.fill_(math.nan)
            if state.global_step == 2 and how == "gradient":
                head.register_hook(lambda gradient: gradient * math.inf)

    return Poison()


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_numbers_that_are_not_finite_stop_the_run_before_the_step(tmp_path: Path, how: str) -> None:
    trainer = tiny_trainer(tmp_path, save_steps=1)
    trainer.life.callbacks.add_callback(poisoned(trainer, how))
    seen: list[dict[str, torch.Tensor]] = []
    collect = trainer.collect_rollout
    trainer.collect_rollout = lambda batch: (seen.append(all_weights(trainer)), collect(batch))[1]  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"not_finite_batch\.pt"):
        trainer.train()
    batch = torch.load(tmp_path / "not_finite_batch.pt", weights_only=True)
    assert batch["ids"].shape[0] == 4
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    after, before = all_weights(trainer), seen[2]
    assert all(torch.equal(after[name], before[name]) for name in after if "score" not in name)
    fresh = tiny_trainer(tmp_path / "fresh")
    fresh.train(resume_from_checkpoint=tmp_path / "checkpoint-1")
    assert all(torch.isfinite(weight).all() for weight in all_weights(fresh).values())
