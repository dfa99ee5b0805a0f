"""Best-of-n: sample N completions of the SFT model for each prompt, and know what the best of any n <= N would be.

Expected gold and score of the best of n by score are exact averages over all subsets of n of the N samples (Nakano et
al. 2021, arXiv 2112.09332, appendix I; Gao et al. 2022), so one set of samples serves every n. The KL from the
best-of-n policy to the model is log n - (n - 1) / n where no two samples are alike and less where they are: in a small
world the same answer comes again and again, and picking the best of copies changes nothing. `discrete_kl` takes that
into account, since the model says how probable each sampled answer is; both numbers are reported.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.config import EvaluationSection, FrontierSection
from rlhf_lab.data.assistant.gold import gold_of_prompt
from rlhf_lab.data.prompts import Prompt, encode_prompt
from rlhf_lab.functional import best_of_n_kl
from rlhf_lab.generation.sample import draw_uniforms, sample_completions
from rlhf_lab.generation.stops import stops_of
from rlhf_lab.models.scalar import sequence_scores
from rlhf_lab.ppo_config import PPOConfig

STREAM = 6  # of uniform numbers; evaluation of policies and the stages use others


@dataclass(frozen=True)
class Samples:
    """The N completions of one prompt, equal ones counted: K distinct ones, by score from low to high."""

    counts: Tensor  # (K,) int64, N in all
    scores: Tensor  # (K,) of the reward model
    log_probs: Tensor  # (K,) nats under the model that sampled
    golds: Tensor | None  # (K,), embedded world only


def best_of_n_weights(num_samples: int, n: int) -> Tensor:
    """(N,) float64 weights of N samples sorted by score, from low to high: the chance that the sample at rank i is the
    best of n drawn without replacement, C(i - 1, n - 1) / C(N, n) for i = 1 ... N.

    Raises ValueError unless 1 <= n <= N.
    """
    if not 1 <= n <= num_samples:
        raise ValueError(f"n={n} with {num_samples} samples; need 1 <= n <= {num_samples}")
    whole = math.comb(num_samples, n)
    return torch.tensor([math.comb(i, n - 1) / whole for i in range(num_samples)], dtype=torch.float64)


def expected_best(samples: Samples, values: Tensor, n: int) -> float:
    """The expected value of the best of n by score; `values` (K,) belong to the distinct samples."""
    weights = best_of_n_weights(int(samples.counts.sum()), n)
    return float(weights @ values.double().repeat_interleave(samples.counts))


def discrete_kl(samples: Samples, n: int) -> float:
    """KL in nats from the best-of-n policy to the model, for one prompt.

    An answer of probability p, above answers of total probability F, is the best of n with probability
    (F + p)^n - F^n. The sampled answers' p are known; what was never sampled has the rest of the probability and is
    taken as many rare answers, spread over the ranking as those sampled once are. So the estimate is exact where all
    answers were sampled, equals log n - (n - 1) / n where none is probable, and else errs only in where the unseen
    answers rank: hardly for n well below N, and low by a few hundredths of a nat to a tenth for n = N = 64, as good
    answers that were not sampled are missing at the top.
    """
    known = samples.log_probs.double().exp()
    rest = max(0.0, 1.0 - float(known.sum()))
    once = (samples.counts == 1).double()
    if not once.any():
        once = torch.ones_like(once)
    unseen = rest * once / once.sum()  # a chunk of rare answers just below each that stands for them
    total = float((known + unseen).sum())  # above 1 by rounding at most
    parts = torch.stack([unseen, known], dim=1).flatten() / total
    ends = parts.cumsum(0).clamp(max=1.0)
    starts = ends - parts
    chunks, answers = slice(0, None, 2), slice(1, None, 2)
    taken = ends[answers] ** n - starts[answers].clamp(min=0.0) ** n
    of_answers = taken * (taken / parts[answers]).log()
    of_chunks = _rare(ends[chunks], n) - _rare(starts[chunks].clamp(min=0.0), n)
    return float(of_answers[taken > 0].sum() + of_chunks.sum())


def _rare(below: Tensor, n: int) -> Tensor:
    """The integral of n F^(n-1) log(n F^(n-1)) over F from 0 to `below`; 0 at 0."""
    safe = below.clamp(min=1e-300)
    return torch.where(below > 0, below**n * (math.log(n) + (n - 1) * safe.log() - (n - 1) / n), 0.0)


def sample_for_best_of_n(
    policy: PreTrainedModel,
    reward_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    ppo: PPOConfig,
    frontier: FrontierSection,
    evaluation: EvaluationSection,
    is_embedded: bool,
    seed: int,
) -> list[Samples]:
    """`frontier.best_of_samples` completions of each prompt; each distinct one is scored once."""
    number = frontier.best_of_samples
    ids = [encode_prompt(tokenizer, prompt)[-ppo.max_prompt_length :] for prompt in prompts]
    sampled = sample_completions(
        policy,
        [row for row in ids for _ in range(number)],
        draw_uniforms(len(ids) * number, ppo.max_completion_length, seed=seed, stream=STREAM),
        temperature=evaluation.temperature,
        stops=stops_of(policy, tokenizer, ppo.stop_tokens),
        pad_token_id=tokenizer.pad_token_id,
        batch_size=evaluation.batch_size,
    )
    completions = sampled.rows()
    counted = [_counted(completions[start : start + number]) for start in range(0, len(completions), number)]
    prompt_rows = [row for row, found in zip(ids, counted, strict=True) for _ in found]
    answers = [list(answer) for found in counted for answer in found]
    scores = sequence_scores(reward_model, [p + a for p, a in zip(prompt_rows, answers, strict=True)])
    assert sampled.log_probs is not None
    sums = sampled.log_probs.sum(1).tolist()  # of equal completions all the same, to rounding
    known = {(place // number, tuple(row)): sums[place] for place, row in enumerate(completions)}
    log_probs = torch.tensor([known[place, answer] for place, found in enumerate(counted) for answer in found])
    golds = None
    if is_embedded:
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        asked = [str(prompt) for prompt, found in zip(prompts, counted, strict=True) for _ in found]
        golds = torch.tensor([gold_of_prompt(p, text).total for p, text in zip(asked, texts, strict=True)])
    return _split(counted, scores.cpu(), log_probs, golds)


def best_of_n_points(samples: Sequence[Samples], best_of: Sequence[int]) -> list[dict[str, Any]]:
    """One point for each n: per prompt the expected score, gold and `discrete_kl`, and the formula's KL."""
    points = []
    for n in best_of:
        values: dict[str, list[float]] = {
            "score": [expected_best(one, one.scores, n) for one in samples],
            "kl": [discrete_kl(one, n) for one in samples],
        }
        golds = [expected_best(one, one.golds, n) for one in samples if one.golds is not None]
        points.append({"n": n, "formula_kl": best_of_n_kl(n), "values": values | ({"gold": golds} if golds else {})})
    return points


def _counted(rows: Sequence[Sequence[int]]) -> dict[tuple[int, ...], int]:
    found: dict[tuple[int, ...], int] = {}
    for row in rows:
        found[tuple(row)] = found.get(tuple(row), 0) + 1
    return found


def _split(
    counted: Sequence[dict[tuple[int, ...], int]], scores: Tensor, log_probs: Tensor, golds: Tensor | None
) -> list[Samples]:
    """Rows of all prompts to one `Samples` a prompt, by score."""
    split, start = [], 0
    for found in counted:
        rows = slice(start, start + len(found))
        start += len(found)
        order = scores[rows].argsort(stable=True)
        counts = torch.tensor(list(found.values()))[order]
        of_golds = None if golds is None else golds[rows][order]
        split.append(Samples(counts, scores[rows][order], log_probs[rows][order], of_golds))
    return split
