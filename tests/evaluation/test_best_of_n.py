"""Best-of-n: weights against all subsets, the KL of a small world against its enumeration and against the formula."""

import itertools
import math
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from rlhf_lab.config import EvaluationSection, FrontierSection
from rlhf_lab.evaluation.best_of_n import (
    Samples,
    best_of_n_points,
    best_of_n_weights,
    discrete_kl,
    expected_best,
    sample_for_best_of_n,
)
from rlhf_lab.functional import best_of_n_kl
from rlhf_lab.ppo_config import PPOConfig


def samples_of(counts: list[int], probabilities: list[float], golds: list[float] | None = None) -> Samples:
    """Distinct answers in the order of their scores 0, 1, 2 ..."""
    return Samples(
        torch.tensor(counts),
        torch.arange(len(counts), dtype=torch.float32),
        torch.tensor(probabilities).log(),
        None if golds is None else torch.tensor(golds),
    )


@pytest.mark.parametrize(("num_samples", "n"), [(5, 1), (5, 2), (5, 3), (6, 6), (7, 4), (1, 1)])
def test_weights_are_the_share_of_subsets_whose_best_is_that_rank(num_samples: int, n: int) -> None:
    subsets = list(itertools.combinations(range(num_samples), n))
    counted = [sum(max(subset) == rank for subset in subsets) / len(subsets) for rank in range(num_samples)]
    assert best_of_n_weights(num_samples, n).tolist() == pytest.approx(counted)


def test_weights_of_many_samples_sum_to_one() -> None:
    for n in (1, 2, 64, 500, 1000):
        assert float(best_of_n_weights(1000, n).sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [0, 6, -1])
def test_more_than_all_samples_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"n={n} with 5 samples"):
        best_of_n_weights(5, n)


def test_the_expected_best_is_the_mean_over_all_subsets() -> None:
    samples = samples_of([2, 1, 3], [0.2, 0.3, 0.5])
    golds = torch.tensor([5.0, 1.0, 2.0])  # not in the order of the scores
    of_each = [5.0, 5.0, 1.0, 2.0, 2.0, 2.0]
    for n in range(1, 7):
        means = [of_each[max(subset)] for subset in itertools.combinations(range(6), n)]
        assert expected_best(samples, golds, n) == pytest.approx(sum(means) / len(means))


def enumerated_kl(probabilities: list[float], n: int) -> float:
    """KL by drawing every one of K^n lists of answers; answers are in the order of their scores."""
    best = [0.0] * len(probabilities)
    for drawn in itertools.product(range(len(probabilities)), repeat=n):
        best[max(drawn)] += math.prod(probabilities[answer] for answer in drawn)
    return sum(q * math.log(q / p) for q, p in zip(best, probabilities, strict=True) if q > 0)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("probabilities", [[0.5, 0.5], [0.7, 0.1, 0.2], [0.1, 0.2, 0.3, 0.4], [1.0]])
def test_the_kl_of_a_world_all_of_which_was_seen_is_the_enumerated_one(probabilities: list[float], n: int) -> None:
    samples = samples_of([3] * len(probabilities), probabilities)
    assert discrete_kl(samples, n) == pytest.approx(enumerated_kl(probabilities, n), abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_the_kl_where_no_answer_is_probable_is_the_formula(n: int) -> None:
    samples = samples_of([1] * 64, [1e-12] * 64)
    assert discrete_kl(samples, n) == pytest.approx(best_of_n_kl(n), abs=1e-6)


@pytest.mark.parametrize("n", [2, 4, 16, 64])
def test_the_kl_is_between_nothing_and_the_formula(n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    for concentration in (0.05, 0.5, 3.0):
        weights = torch.rand(200, generator=generator) ** (1 / concentration)
        world = weights / weights.sum()
        drawn = torch.multinomial(world, 64, replacement=True, generator=generator)
        answers, counts = drawn.unique(return_counts=True)
        found = discrete_kl(samples_of(counts.tolist(), world[answers].tolist()), n)
        assert -1e-6 <= found <= best_of_n_kl(n) + 1e-6


@pytest.mark.parametrize("n", [4, 16])
def test_the_kl_of_a_world_that_was_partly_seen_is_close_to_the_truth(n: int) -> None:
    """64 samples of 200 answers; the truth is taken from all 200."""
    generator = torch.Generator().manual_seed(0)
    errors, errors_of_formula = [], []
    for _ in range(40):
        world = (torch.randperm(200, generator=generator) + 1.0) ** -1.5  # a few common answers, many rare ones
        world = world / world.sum()
        truth = discrete_kl(samples_of([2] * 200, world.tolist()), n)
        answers, counts = torch.multinomial(world, 64, replacement=True, generator=generator).unique(return_counts=True)
        errors.append(discrete_kl(samples_of(counts.tolist(), world[answers].tolist()), n) - truth)
        errors_of_formula.append(best_of_n_kl(n) - truth)
    assert abs(sum(errors)) < sum(errors_of_formula) / 5
    assert sum(errors_of_formula) / len(errors_of_formula) > 0.04


def test_points_hold_a_number_for_each_prompt() -> None:
    two = [samples_of([1, 3], [0.25, 0.75], [1.0, 2.0]), samples_of([2, 2], [0.5, 0.5], [3.0, 0.0])]
    one, best = best_of_n_points(two, [1, 4])
    assert one["values"]["gold"] == pytest.approx([1.75, 1.5])
    assert one["values"]["kl"] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert best["values"]["gold"] == [2.0, 0.0], "the best by score, not by gold"
    assert best["values"]["score"] == [1.0, 1.0]
    assert best["formula_kl"] == pytest.approx(1.38629436 - 0.75)


VOCAB, EOS, PAD = 12, 0, 1


class Spelling:
    """A tokenizer of twelve one-letter words, as far as sampling needs it."""

    eos_token_id, pad_token_id, chat_template, bos_token_id = EOS, PAD, None, None
    letters = "_-abcdefghij"

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [self.letters.index(letter) for letter in text]}

    def batch_decode(self, rows: list[list[int]], **_: Any) -> list[str]:
        return ["".join(self.letters[token] for token in row if token > PAD) for row in rows]


def test_sampled_answers_are_counted_scored_once_and_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    ids = {"eos_token_id": EOS, "bos_token_id": EOS, "pad_token_id": PAD}
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 16, "vocab_size": VOCAB}
    policy = GPT2LMHeadModel(GPT2Config(**sizes, **ids)).eval()
    judge = GPT2ForSequenceClassification(GPT2Config(**sizes, **ids, num_labels=1)).eval()
    monkeypatch.setattr(
        "rlhf_lab.evaluation.best_of_n.encode_prompt", lambda tokenizer, text: tokenizer(text)["input_ids"]
    )
    found = sample_for_best_of_n(
        policy,
        judge,
        Spelling(),  # type: ignore[arg-type]
        ["ab", "cde"],
        ppo=PPOConfig(max_completion_length=2, max_prompt_length=8),
        frontier=FrontierSection(best_of=[1, 2], best_of_samples=200),
        evaluation=EvaluationSection(batch_size=64),
        is_embedded=False,
        seed=0,
    )
    assert len(found) == 2
    for samples in found:
        assert int(samples.counts.sum()) == 200
        assert len(samples.counts) < 200, "twelve letters, at most two of them: answers come again"
        assert samples.scores.tolist() == sorted(samples.scores.tolist())
        assert samples.golds is None
        shares = samples.counts / 200
        assert float((shares - samples.log_probs.exp()).abs().max()) < 0.08, "counts follow the probabilities"
        assert float(samples.log_probs.exp().sum()) <= 1.0 + 1e-5
