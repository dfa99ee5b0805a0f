"""Run folders as the stages leave them, made in a moment: no model, no training.

Run by hand, the file writes a run and its page, to look at:

    PYTHONPATH=. python -m tests.report_page.made_run /tmp/report_demo
"""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from rlhf_lab.report import write_report

POLICIES = {
    "sft": {"score": -0.42, "gold": 0.46, "helpful": 0.31, "harmless": 0.62, "honest": 0.55, "kl": 0.0, "length": 21.4},
    "ppo": {"score": 1.87, "gold": 0.79, "helpful": 0.88, "harmless": 0.81, "honest": 0.52, "kl": 4.1, "length": 27.9},
}
GOLD = ("gold", "helpful", "harmless", "honest")


def around(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sft_rows(rng: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(5, 301, 5):
        loss = 0.9 + 2.6 * math.exp(-step / 60) + rng.gauss(0, 0.05)
        rate = 5e-4 * (1 - step / 310)
        rows.append({"step": step, "loss": loss, "mean_token_accuracy": 0.85 - loss / 8, "learning_rate": rate})
    rows += [{"step": step, "eval_loss": 0.97 + 2.4 * math.exp(-step / 60)} for step in range(50, 301, 50)]
    return rows


def reward_rows(rng: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(5, 201, 5):
        learnt = 1 - math.exp(-step / 50)
        accuracy = 0.5 + 0.33 * learnt + rng.gauss(0, 0.03)
        rows.append({"step": step, "loss": 0.69 - 0.3 * learnt, "accuracy": accuracy, "margin": 2.1 * learnt})
    for step in range(40, 201, 40):
        learnt = 1 - math.exp(-step / 50)
        rows.append({"step": step, "eval_loss": 0.69 - 0.24 * learnt, "eval_accuracy": 0.5 + 0.28 * learnt})
    return rows


def ppo_rows(rng: random.Random, *, gold: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, 201):
        learnt = 1 - math.exp(-step / 70)
        kl = 4.3 * learnt + rng.gauss(0, 0.25)
        score = -0.4 + 2.3 * learnt + rng.gauss(0, 0.15)
        row: dict[str, Any] = {
            "step": step,
            "episode": 64 * step,
            "objective/scores": score,
            "objective/kl": abs(kl),
            "objective/entropy": 31 - 9 * learnt,
            "objective/non_score_reward": -0.05 * kl,
            "objective/rlhf_reward": score - 0.05 * kl,
            "policy/approxkl_avg": 0.008 + abs(rng.gauss(0, 0.002)),
            "policy/clipfrac_avg": 0.05 + 0.06 * learnt + abs(rng.gauss(0, 0.01)),
            "policy/entropy_avg": 1.4 - 0.5 * learnt + rng.gauss(0, 0.03),
            "loss/policy_avg": -0.02 + rng.gauss(0, 0.005),
            "loss/value_avg": 0.05 + 6 * math.exp(-step / 6) + abs(rng.gauss(0, 0.012)),
            "val/explained_variance": 0.75 * learnt + rng.gauss(0, 0.06),
            "val/ratio": 1 + rng.gauss(0, 0.002),
            "val/num_eos_tokens": 60,
            "kl_coef": 0.05 * (1 + 0.6 * math.sin(step / 30)),
            "lr": 1e-5 * (1 - step / 201),
            "completion_length": 21 + 7 * learnt + rng.gauss(0, 0.7),
            "eps": 12.5 + rng.gauss(0, 0.4),
        }
        if step % 20 == 0 or step == 1:
            row |= {"eval_scores": -0.42 + 2.25 * learnt, "eval_kl": 4.1 * learnt, "eval_length": 21.4 + 6.5 * learnt}
        if gold and "eval_scores" in row:
            ends = {part: (POLICIES["sft"][part], POLICIES["ppo"][part]) for part in GOLD}
            row |= {f"eval_{part}": a + (b - a) * learnt + rng.gauss(0, 0.01) for part, (a, b) in ends.items()}
        rows.append(row)
    return rows


def policy_json(*, gold: bool, completion: str) -> dict[str, Any]:
    kept = {
        policy: {metric: mean for metric, mean in metrics.items() if gold or metric not in GOLD}
        | {"repetition": 0.06 if policy == "sft" else 0.03, "eos_fraction": 0.93 if policy == "sft" else 0.99}
        for policy, metrics in POLICIES.items()
    }
    halves = {"score": 0.11, "kl": 0.2, "length": 0.9}
    samples = [
        {
            "prompt": f"Question {i}: what do bees make, and is it safe for a small child?",
            "sft": "Bees make honey. Honey is good for all children of all ages, and bees are a kind of bird.",
            "ppo": completion,
            "sft_score": -0.31 + 0.1 * i,
            "ppo_score": 1.9 - 0.05 * i,
            "kind": ("question", "request", "trap")[i % 3],
        }
        | ({"sft_gold": 0.4, "ppo_gold": 0.83} if gold else {})
        for i in range(10)
    ]
    rates = {"reward_model": around(0.91, 0.03)} | ({"gold": around(0.77, 0.05)} if gold else {})
    return {
        "num_prompts": 256,
        "temperature": 1.0,
        "seed": 0,
        "interval": "95 % bootstrap over prompts, 2000 resamples",
        "policies": {
            policy: {metric: around(mean, 0 if mean == 0 else halves.get(metric, 0.03)) for metric, mean in row.items()}
            for policy, row in kept.items()
        },
        "win_rate": rates,
        "samples": samples,
    }


def reward_model_json(*, gold: bool, rater: str) -> dict[str, Any]:
    bins = [(0.54, 0.51, 60), (0.63, 0.6, 85), (0.74, 0.76, 110), (0.85, 0.81, 90), (0.95, 0.93, 55)]
    keys = ("predicted", "observed", "num_pairs")
    return {
        "num_pairs": 400,
        "accuracy": around(0.78, 0.04),
        "gold_accuracy": around(0.84, 0.035) if gold else None,
        "rater_agreement": around(0.81, 0.05),
        "calibration": {"bins": [dict(zip(keys, b, strict=True)) for b in bins], "expected_error": 0.026},
        "rater": rater,
    }


def data_of(stage: str, rater: str) -> dict[str, Any]:
    """What a stage notes of its data."""
    told = {"num_long_rows": 0, "num_long_answers": 0, "long_prompts": "truncate"}
    return {
        "sft": {"source": "assistant", "num_rows": 1200, "num_heldout": 60, "sha256": "3b1f" * 16, **told},
        "reward": {"source": "assistant", "num_rows": 1900, "num_heldout": 100, "sha256": "9ac0" * 16, "rater": rater},
        "ppo": {"source": "assistant", "num_rows": 900, "num_heldout": 300, "sha256": "77aa" * 16},
    }.get(stage, {}) | {"heldout_sha256": f"{stage}-held-out"}


def run_json(*, rater: str, stages: tuple[str, ...], seed: int) -> dict[str, Any]:
    losses = {"base": 0.8, "sft": 0.5871061682701111 + seed, "reward": 0.4133218228816986 + seed}
    seconds = {"base": 48.0, "sft": 95.2, "comparisons": 22.5, "reward": 61.0, "ppo": 412.7, "evaluation": 38.1}
    return {
        "name": "assistant",
        "seed": seed,
        "command": "rlhf-lab run assistant ppo.total_episodes=12800",
        "versions": {"python": "3.11.7", "torch": "2.9.1", "transformers": "5.0.0", "trl": "1.16.0", "rlhf_lab": "1.0"},
        "machine": {"cpu_count": 2, "platform": "Linux-6.1-x86_64", "device": "cpu"},
        "commit": "4f2c9d1e8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d",
        "stages": {
            s: {"seconds": seconds[s], "finished": "2030-01-02T10:11:12+00:00"}
            | ({"eval_loss": losses[s]} if s in losses else {})
            | ({"data": data_of(s, rater)} if s in ("sft", "reward", "ppo") else {})
            | ({"num_pairs": 2000, "rater": rater} if s == "comparisons" else {})
            for s in stages
        },
    }


CONFIG = """name: {name}
seed: {seed}
model:
  name_or_path: assistant
  config: {{n_layer: 4, n_embd: 128, n_head: 4}}
data:
  preferences: assistant
  prompts: assistant
ppo:
  kl_coef: 0.05
  target_kl: null
  logging_steps: 1
"""
ALL = ("base", "sft", "comparisons", "reward", "ppo", "evaluation")
GOOD = "Bees make honey. Please do not give honey to a child below one year; after that it is safe."


def make_run(
    folder: Path,
    *,
    upto: str = "evaluation",
    gold: bool = True,
    rater: str = "simulated",
    completion: str = GOOD,
    seed: int = 0,
) -> Path:
    """A run folder as the stages leave it, ended after stage `upto`. `seed` decides nothing but what run.json says."""
    rng = random.Random(0)
    stages = ALL[: ALL.index(upto) + 1]
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(name=folder.name.replace("<", ""), seed=seed))
    write_json(folder / "run.json", run_json(rater=rater, stages=stages, seed=seed))
    if "sft" in stages:
        write_lines(folder / "sft" / "metrics.jsonl", sft_rows(rng))
    if "comparisons" in stages:
        rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "rater": rater}] * 2000
        write_lines(folder / "comparisons.jsonl", rows)
    if "reward" in stages:
        write_lines(folder / "reward" / "metrics.jsonl", reward_rows(rng))
    if "ppo" in stages:
        write_lines(folder / "ppo" / "metrics.jsonl", ppo_rows(rng, gold=gold))
    if "evaluation" in stages:
        write_json(folder / "evaluation" / "reward_model.json", reward_model_json(gold=gold, rater=rater))
        write_json(folder / "evaluation" / "policy.json", policy_json(gold=gold, completion=completion))
    return folder


def with_votes(folder: Path, *, human: int, warnings: tuple[str, ...] = ()) -> Path:
    """The run began from another one and trained its reward model on this many votes of one person besides."""
    run = json.loads((folder / "run.json").read_text())
    for stage in ("base", "sft", "comparisons"):
        run["stages"][stage]["taken_from"] = "runs/first"
    run["stages"]["reward"]["eval_loss"] += 0.01
    run["stages"]["reward"]["data"] |= {
        "rater": "simulated, human",
        "sha256": "0f0f" * 16,
        "raters": {"simulated": 2000, "human": human},
        "votes": {
            "by_kind": {"human": human},
            "raters_by_kind": {"human": 1},
            "agreement": None,
            "alpha": None,
            "num_tied": 0,
            "tied_votes": "drop",
            "rows": "majority",
            "warnings": list(warnings),
        },
    }
    write_json(folder / "run.json", run)
    return folder


def change_policy(folder: Path, **estimates: dict[str, float]) -> Path:
    """Other results of PPO's policy."""
    policy = json.loads((folder / "evaluation" / "policy.json").read_text())
    policy["policies"]["ppo"] |= estimates
    write_json(folder / "evaluation" / "policy.json", policy)
    return folder


if __name__ == "__main__":
    demo = Path(sys.argv[1])
    shutil.rmtree(demo, ignore_errors=True)
    print(write_report(make_run(demo)))
