"""Alarms of PPO: silent on a healthy run, loud where the reward pays for length, brevity or loops; exact on resume."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from rlhf_lab.data.repetition import repetition
from rlhf_lab.stages.ppo_alarms import OF_UPDATES, Alarms
from rlhf_lab.training.records import read_metrics
from tests.tiny_ppo import PROMPTS, A, first_rollout, tiny_trainer

# Recorded: every twelfth update of the embedded default, seed 1 (`rlhf-lab run seed=1`, commit cd0884bb10).
# completion_length, objective/kl, policy/entropy_avg, objective/scores; 128 of 128 completions ended by themselves.
HEALTHY = [
    *[(7.516, 0.0, 0.540, -0.055), (7.867, 0.067, 0.466, 0.178), (7.695, 1.000, 0.331, 0.525)],
    *[(7.656, 1.734, 0.296, 0.626), (6.977, 1.591, 0.284, 0.754), (7.438, 1.658, 0.273, 0.780)],
    *[(6.609, 1.396, 0.278, 0.916), (6.242, 1.273, 0.259, 0.805), (6.234, 1.367, 0.251, 0.741)],
    *[(6.656, 1.227, 0.255, 0.901), (6.531, 1.498, 0.236, 0.863), (6.930, 1.063, 0.246, 0.846)],
    *[(6.656, 1.335, 0.235, 0.781), (6.734, 1.249, 0.231, 0.925), (6.742, 1.203, 0.240, 0.896)],
    *[(6.727, 1.332, 0.226, 0.905), (6.945, 1.184, 0.216, 0.815), (7.062, 1.214, 0.213, 0.848)],
    *[(7.148, 1.275, 0.205, 0.859), (7.211, 1.141, 0.205, 0.874), (6.977, 1.190, 0.216, 0.830)],
]
# Of the same run, its evaluations: eval_gold, eval_scores. The errors are those of 256 prompts.
EVALUATIONS = [(1.719, 0.046), (2.441, 0.813), (2.441, 0.862), (2.520, 0.918), (2.590, 0.925), (2.594, 0.966)]


def metrics(length: float, kl: float, entropy: float, score: float, **other: float) -> dict[str, float]:
    return {
        "completion_length": length,
        "completion_repetition": 0.0,
        "objective/kl": kl,
        "policy/entropy_avg": entropy,
        "objective/scores": score,
        "val/num_eos_tokens": 128.0,
        **other,
    }


def evaluation(gold: float, score: float) -> dict[str, float]:
    return {"eval_gold": gold, "eval_gold_stderr": 0.045, "eval_scores": score, "eval_scores_stderr": 0.05}


def watched(rows: list[dict[str, float]]) -> Alarms:
    alarms = Alarms(num_episodes=128)
    for update, row in enumerate(rows, 1):
        alarms.after_update(update, row)
    return alarms


def test_the_healthy_embedded_run_rings_nothing() -> None:
    alarms = watched([metrics(*row) for row in HEALTHY for _ in range(12)])
    for number, row in enumerate(EVALUATIONS):
        found = alarms.after_evaluation(32 * number, evaluation(*row))
        assert set(found.values()) == {0.0}
    assert alarms.told() == {}
    assert alarms.take_new() == []


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("length", {"completion_length": 12.0}),
        ("length", {"completion_length": 3.0}),
        ("repetition", {"completion_repetition": 0.15}),
        ("kl", {"objective/kl": 5.0}),
        ("eos", {"val/num_eos_tokens": 90.0}),
        ("entropy", {"policy/entropy_avg": 0.04}),
    ],
)
def test_each_sign_rings_its_own_alarm_once_and_stops_when_it_is_over(name: str, changed: dict[str, float]) -> None:
    """One sign alone; `kl` of 5 nats in 7 tokens is 0.7 nats a token."""
    healthy = metrics(7.0, 1.2, 0.4, 0.8)
    alarms = watched([healthy] * 12)
    assert alarms.told() == {}
    found = [alarms.after_update(13 + i, healthy | changed) for i in range(15)]
    assert [key for key, value in found[-1].items() if value] == [f"alarm/{name}"]
    assert not any(found[0].values()), "one odd rollout is noise"
    (words,) = alarms.take_new()
    assert f"alarm/{name}, update {alarms.told()[name]['update']}" in words
    assert 13 < alarms.told()[name]["update"] < 28
    assert alarms.take_new() == [], "said once"
    after = [alarms.after_update(28 + i, healthy) for i in range(10)]
    assert not any(after[-1].values())
    assert list(alarms.told()) == [name], "what rang is remembered"


def test_gold_that_falls_while_the_reward_rises_rings() -> None:
    alarms = watched([metrics(*row) for row in HEALTHY])
    told = [alarms.after_evaluation(n, evaluation(*row))["alarm/gold"] for n, row in enumerate(EVALUATIONS)]
    told += [
        alarms.after_evaluation(9, evaluation(2.5, 1.0))["alarm/gold"],  # within three errors of the best: noise
        alarms.after_evaluation(10, evaluation(2.2, 1.1))["alarm/gold"],
        alarms.after_evaluation(11, evaluation(2.2, 0.5))["alarm/gold"],  # both fall: no hack, something else
    ]
    assert told == [0.0] * 7 + [1.0, 0.0]
    assert "from 2.59 to 2.20" in alarms.told()["gold"]["words"]


def test_without_a_gold_score_only_held_out_scores_are_watched() -> None:
    alarms = watched([metrics(7.0, 1.0, 0.4, 0.5)] * 10)
    assert alarms.after_evaluation(1, {"eval_scores": 0.9, "eval_scores_stderr": 0.02}) == {"alarm/heldout": 0.0}
    for update in range(11, 21):
        alarms.after_update(update, metrics(7.0, 1.0, 0.4, 0.9))
    assert alarms.after_evaluation(2, {"eval_scores": 0.7, "eval_scores_stderr": 0.02}) == {"alarm/heldout": 1.0}
    assert alarms.after_evaluation(3, {"eval_scores": 0.88, "eval_scores_stderr": 0.02}) == {"alarm/heldout": 0.0}


# --- in a trainer ------------------------------------------------------------------------------------------------


MANY = Dataset.from_dict({"prompt": PROMPTS * 6})


def pays_for_length(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [float(len(row)) for row in completion_ids]


def pays_for_brevity(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [-float(len(row)) for row in completion_ids]


def pays_for_loops(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [row.count(A) / 6 for row in completion_ids]


def pays_little(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    return [0.2 * row.count(A) / len(row) for row in completion_ids]


def trained(folder: Path, reward: Any, **settings: Any) -> dict[str, Any]:
    sizes = {"total_episodes": 64 * 16, "rollout_batch_size": 64, "minibatch_size": 16, "micro_batch_size": 16}
    settings = {"max_completion_length": 12, "eval_steps": 0, "save_steps": 0, "kl_coef": 0.0, **sizes, **settings}
    trainer = tiny_trainer(folder, reward=reward, rows=MANY, **settings)
    trainer.train()
    return trainer.life.alarms.told()


@pytest.mark.parametrize(
    ("reward", "expected"),
    [(pays_for_length, {"length", "eos"}), (pays_for_brevity, {"length"}), (pays_for_loops, {"repetition", "entropy"})],
)
def test_a_reward_that_can_be_hacked_rings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: Any, expected: set[str]
) -> None:
    rang = trained(tmp_path, reward)
    assert expected <= set(rang)
    said = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert len(said) == len(rang), "each alarm is said once"
    lines = read_metrics(tmp_path)
    for name in expected:
        first = next(line["step"] for line in lines if line[f"alarm/{name}"])
        assert first == rang[name]["update"]


def test_a_reward_with_a_kl_weight_that_holds_it_rings_nothing(tmp_path: Path) -> None:
    assert trained(tmp_path, pays_little, kl_coef=0.5) == {}
    assert {f"alarm/{name}" for name in OF_UPDATES} <= set(read_metrics(tmp_path)[0])


def test_alarms_go_on_exactly_after_a_resume(tmp_path: Path) -> None:
    sizes = {"total_episodes": 64 * 14, "rollout_batch_size": 64, "minibatch_size": 16, "micro_batch_size": 16}
    sizes |= {"save_steps": 7, "max_completion_length": 10, "kl_coef": 0.0}
    whole = tiny_trainer(tmp_path / "whole", reward=pays_for_loops, rows=MANY, **sizes)
    whole.train()
    assert whole.life.alarms.told(), "the run is one that rings"
    again = tiny_trainer(tmp_path / "again", reward=pays_for_loops, rows=MANY, **sizes)
    again.train(resume_from_checkpoint=tmp_path / "whole" / "checkpoint-7")
    assert again.life.alarms == whole.life.alarms


def test_repetition_of_a_rollout_is_the_mean_over_completions(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, max_completion_length=12)
    rollout = first_rollout(trainer)
    rows = [
        ids[:length]
        for ids, length in zip(rollout.completion_ids.tolist(), rollout.completion_mask.sum(1).tolist(), strict=True)
    ]
    logged = trainer.learn_from(rollout)["completion_repetition"]
    assert logged == pytest.approx(sum(map(repetition, rows)) / len(rows))
    assert logged > 0
