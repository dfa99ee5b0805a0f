"""Comparisons for the embedded default: samples of the SFT policy, each pair of one prompt judged by simulated raters.

The raters see the gold score through noise; the file holds their verdicts only, never the score. Held-out pairs are on
held-out phrasings.
"""

import random
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.data.assistant.gold import gold
from rlhf_lab.data.assistant.raters import all_pairs, prefers_first, rater_agreement
from rlhf_lab.data.assistant.world import Question, heldout_questions, training_questions
from rlhf_lab.data.prompts import Prompt, encode_prompt
from rlhf_lab.generation.sample import draw_uniforms, sample_completions
from rlhf_lab.generation.stops import stops_of

MAX_TOKENS = 24  # longer than every demonstration


def sample_texts(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    samples_per_prompt: int,
    seed: int,
    stream: int,
    max_tokens: int = MAX_TOKENS,
    max_prompt_tokens: int | None = None,
) -> list[list[str]]:
    """`samples_per_prompt` completions (text) of every prompt, at temperature 1. Of a long prompt the end is read."""
    start = 0 if max_prompt_tokens is None else -max_prompt_tokens
    ids = [encode_prompt(tokenizer, prompt)[start:] for prompt in prompts for _ in range(samples_per_prompt)]
    completions = sample_completions(
        policy,
        ids,
        draw_uniforms(len(ids), max_tokens, seed=seed, stream=stream),
        temperature=1.0,
        stops=stops_of(policy, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    texts = tokenizer.batch_decode(completions.rows(), skip_special_tokens=True)
    return [texts[start : start + samples_per_prompt] for start in range(0, len(texts), samples_per_prompt)]


def collect_comparisons(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    num_prompts: int,
    samples_per_prompt: int,
    rater_noise: float,
    seed: int,
) -> tuple[list[dict[str, Any]], list[float]]:
    """Rated pairs, and for each held-out pair whether two raters agree (1.0) or not (0.0).

    Rows hold prompt, chosen, rejected, split ("train" or "heldout") and `rater: simulated`.
    """
    rng = random.Random(f"comparisons {seed}")
    asked = _cycled(training_questions(), num_prompts, rng)
    rows = _rated(policy, tokenizer, asked, "train", samples_per_prompt, rater_noise, rng, seed, stream=1)
    heldout = _rated(
        policy, tokenizer, heldout_questions(), "heldout", min(4, samples_per_prompt), rater_noise, rng, seed, stream=2
    )
    by_prompt = {question.prompt: question for question in heldout_questions()}
    gold_pairs = [
        (gold(by_prompt[row["prompt"]], row["chosen"]).total, gold(by_prompt[row["prompt"]], row["rejected"]).total)
        for row in heldout
    ]
    return rows + heldout, rater_agreement(gold_pairs, noise=rater_noise, rng=rng)


def _cycled(questions: list[Question], number: int, rng: random.Random) -> list[Question]:
    """`number` questions, each as often as any other, give or take one."""
    taken: list[Question] = []
    while len(taken) < number:
        taken += rng.sample(questions, len(questions))
    return taken[:number]


def _rated(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: list[Question],
    split: str,
    samples_per_prompt: int,
    noise: float,
    rng: random.Random,
    seed: int,
    *,
    stream: int,
) -> list[dict[str, Any]]:
    prompts = [question.prompt for question in asked]
    sampled = sample_texts(policy, tokenizer, prompts, samples_per_prompt=samples_per_prompt, seed=seed, stream=stream)
    rows = []
    for question, texts in zip(asked, sampled, strict=True):
        written = [text for text in texts if text.strip()]  # an empty answer can not be compared
        for first, second in all_pairs(written):
            scores = gold(question, first).total, gold(question, second).total
            chosen, rejected = (first, second) if prefers_first(*scores, noise=noise, rng=rng) else (second, first)
            rows.append(
                {
                    "prompt": question.prompt,
                    "chosen": chosen,
                    "rejected": rejected,
                    "split": split,
                    "rater": "simulated",
                }
            )
    return rows
