"""SFT against PPO on held-out prompts: reward-model score, gold parts, KL, length, repetition, win rates, samples.

Both policies answer the same prompts with the same random numbers, so differences are the policies'. Reads the run
folder's models; returns what goes into `evaluation/policy.json`.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.config import EvaluationSection
from rlhf_lab.data.assistant.gold import Gold, gold_of_prompt
from rlhf_lab.data.assistant.world import questions_by_prompt
from rlhf_lab.data.batches import length_buckets, pad_right
from rlhf_lab.data.prompts import Prompt, prompt_key, prompt_text
from rlhf_lab.data.repetition import repetition
from rlhf_lab.evaluation.answers import Written, answers_of, pick, prompt_ids_of, same_text, write_answers
from rlhf_lab.evaluation.bootstrap import bootstrap_mean
from rlhf_lab.models.completions import completion_log_probs
from rlhf_lab.models.language import load_causal_lm, load_tokenizer
from rlhf_lab.models.scalar import load_scalar_model, sequence_scores
from rlhf_lab.ppo_config import PPOConfig

GOLD_PARTS = ("gold", "helpful", "harmless", "honest")


@dataclass(frozen=True)
class Answers:
    """What one policy said to N prompts. `metrics` has one list of N numbers each (None: does not apply)."""

    texts: list[str]
    metrics: dict[str, list[float | None]]


def evaluate_policies(
    run_folder: Path,
    prompts: Sequence[Prompt],
    *,
    ppo: PPOConfig,
    settings: EvaluationSection,
    is_embedded: bool,
    seed: int,
) -> dict[str, Any]:
    """Compare `run_folder/sft` with `run_folder/ppo`; intervals are bootstraps over prompts."""
    tokenizer = load_tokenizer(str(run_folder / "sft"))
    reward_model = load_scalar_model(run_folder / "reward").eval()
    asked = pick(prompts, {}, number=settings.num_prompts, seed=seed)
    written = {
        name: answers_of(run_folder, name, asked, ppo=ppo, settings=settings, seed=seed) for name in ("sft", "ppo")
    }
    policies = {name: load_causal_lm(str(run_folder / name), tokenizer).eval() for name in written}
    answers = {
        name: measured(
            written[name],
            policy,
            policies["sft"],
            reward_model,
            asked.prompts,
            prompt_ids_of(tokenizer, asked.prompts, ppo),
            settings=settings,
            is_embedded=is_embedded,
        )
        for name, policy in policies.items()
    }

    def interval(values: Sequence[float | None]) -> dict[str, float]:
        known = [value for value in values if value is not None]
        return bootstrap_mean(known, num_resamples=settings.num_bootstrap, seed=seed)

    same = [same_text(*texts) for texts in zip(written["sft"].texts, written["ppo"].texts, strict=True)]
    judges = {"reward_model": "score", **({"gold": "gold"} if is_embedded else {})}
    return {
        "num_prompts": len(asked.prompts),
        "temperature": settings.temperature,
        "seed": seed,
        "interval": f"95 % bootstrap over prompts, {settings.num_bootstrap} resamples",
        "policies": {
            name: {metric: interval(values) for metric, values in said.metrics.items()}
            for name, said in answers.items()
        },
        "win_rate": {
            judge: interval(wins(answers["ppo"].metrics[metric], answers["sft"].metrics[metric], same))
            for judge, metric in judges.items()
        },
        "samples": _samples(
            asked.prompts, tokenizer, answers["sft"], answers["ppo"], settings.num_samples, is_embedded
        ),
    }


def answer(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    reward_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    ppo: PPOConfig,
    settings: EvaluationSection,
    is_embedded: bool,
    seed: int,
) -> Answers:
    """Sample one completion per prompt and measure it."""
    prompt_ids = prompt_ids_of(tokenizer, prompts, ppo)
    written = write_answers(policy, tokenizer, prompt_ids, ppo=ppo, settings=settings, seed=seed)
    return measured(
        written, policy, reference, reward_model, prompts, prompt_ids, settings=settings, is_embedded=is_embedded
    )


def measured(
    written: Written,
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    reward_model: PreTrainedModel,
    prompts: Sequence[Prompt],
    prompt_ids: Sequence[Sequence[int]],
    *,
    settings: EvaluationSection,
    is_embedded: bool,
) -> Answers:
    """Every measure of completions that `policy` wrote."""
    rows, texts = written.completion_ids, written.texts
    scores = sequence_scores(reward_model, [[*p, *c] for p, c in zip(prompt_ids, rows, strict=True)])
    ours, theirs = (
        sequence_log_probs(model, prompt_ids, rows, temperature=settings.temperature, batch_size=settings.batch_size)
        for model in (policy, reference)
    )
    metrics: dict[str, list[float | None]] = {
        "score": scores.tolist(),
        "kl": (ours - theirs).tolist(),
        "length": [float(len(row)) for row in rows],
        "repetition": [repetition(row) for row in rows],
        "eos_fraction": [float(ended) for ended in written.stopped],
    }
    if is_embedded:
        golds = [gold_of_prompt(str(prompt), text) for prompt, text in zip(prompts, texts, strict=True)]
        metrics |= {part: [_part(gold, part) for gold in golds] for part in GOLD_PARTS}
    return Answers(texts, metrics)


@torch.no_grad()
def sequence_log_probs(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    temperature: float,
    batch_size: int,
) -> Tensor:
    """(N,) log-probability in nats of each completion, summed over its tokens."""
    totals = torch.zeros(len(prompt_ids))
    whole = [[*prompt, *completion] for prompt, completion in zip(prompt_ids, completion_ids, strict=True)]
    for rows in length_buckets([len(row) for row in whole], batch_size):
        ids = pad_right([whole[row] for row in rows], 0)
        tokens = pad_right([completion_ids[row] for row in rows], 0)
        starts = torch.tensor([len(prompt_ids[row]) for row in rows])
        lengths = torch.tensor([len(completion_ids[row]) for row in rows])
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        totals[rows] = completion_log_probs(model, ids, starts, tokens, mask, temperature)[0].sum(1)
    return totals


def wins(
    ours: Sequence[float | None], theirs: Sequence[float | None], same: Sequence[bool] | None = None
) -> list[float]:
    """1 where ours is larger, 0 where smaller, a half for ties. Where `same`, both wrote the same: a tie whatever the
    scores, which differ in their last digit between batches of other shapes."""
    rows = zip(ours, theirs, same or [False] * len(ours), strict=True)
    return [0.5 if tied or a == b else float(a > b) for a, b, tied in rows if a is not None and b is not None]


def gold_means(prompts: Sequence[str], completions: Sequence[str]) -> dict[str, float]:
    """Mean gold score and its parts over prompts of the embedded world."""
    golds = [gold_of_prompt(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
    parts = {part: [value for gold in golds if (value := _part(gold, part)) is not None] for part in GOLD_PARTS}
    return {part: sum(values) / len(values) for part, values in parts.items() if values}


def gold_stderr(prompts: Sequence[str], completions: Sequence[str]) -> float:
    """Standard error of the mean gold score over these prompts."""
    totals = [gold_of_prompt(prompt, text).total for prompt, text in zip(prompts, completions, strict=True)]
    return statistics.stdev(totals) / len(totals) ** 0.5 if len(totals) > 1 else 0.0


def _part(gold: Gold, part: str) -> float | None:
    value: float | None = gold.total if part == "gold" else getattr(gold, part)
    return value


def _samples(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    sft: Answers,
    tuned: Answers,
    number: int,
    is_embedded: bool,
) -> list[dict[str, Any]]:
    """Both answers to `number` prompts, side by side. Which prompts hangs on their texts alone, so that runs with other
    seeds show the same ones wherever they asked them."""
    by_hash = sorted(range(len(prompts)), key=lambda i: sha256(prompt_key(prompts[i]).encode()).digest())
    rows = []
    for i in by_hash[:number]:
        row = {
            "prompt": prompt_text(tokenizer, prompts[i]),
            "sft": sft.texts[i],
            "ppo": tuned.texts[i],
            "sft_score": sft.metrics["score"][i],
            "ppo_score": tuned.metrics["score"][i],
        }
        if is_embedded:
            kind = questions_by_prompt()[str(prompts[i])].kind
            row |= {"sft_gold": sft.metrics["gold"][i], "ppo_gold": tuned.metrics["gold"][i], "kind": kind}
        rows.append(row)
    return rows
