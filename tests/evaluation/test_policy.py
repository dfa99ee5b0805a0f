"""What is measured on completions: repetition, wins, log-probs, KL and gold parts."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from rlhf_lab.config import EvaluationSection
from rlhf_lab.data.assistant.world import heldout_questions
from rlhf_lab.data.prompts import encode_prompt
from rlhf_lab.evaluation.policy import answer, evaluate_policies, gold_means, repetition, sequence_log_probs, wins
from rlhf_lab.ppo_config import PPOConfig
from tests.byte_tokenizer import byte_tokenizer

EOS, PAD, VOCAB = 0, 1, 258


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], 0.0),
        ([1, 2], 0.0),  # too short for a 3-gram
        ([1, 2, 3], 0.0),
        ([1, 2, 3, 4, 5], 0.0),
        ([1, 1, 1, 1], 0.5),  # 111 111
        ([1, 1, 1, 1, 1], 2 / 3),
        ([1, 2, 3, 1, 2, 3], 0.25),  # 123 231 312 123
        ([1, 2, 1, 2, 1, 2, 1], 0.6),  # 121 212 121 212 121
    ],
)
def test_repetition_by_hand(tokens: list[int], expected: float) -> None:
    assert repetition(tokens) == pytest.approx(expected)


def test_repetition_of_other_lengths() -> None:
    assert repetition([1, 1, 2, 1, 1], n=2) == pytest.approx(0.25)  # 11 12 21 11
    assert repetition([1, 2, 1], n=1) == pytest.approx(1 / 3)


def test_wins_count_ties_half() -> None:
    assert wins([2.0, 1.0, 3.0], [1.0, 2.0, 3.0]) == [1.0, 0.0, 0.5]


def test_equal_texts_tie_though_their_scores_differ_in_the_last_digit() -> None:
    assert wins([1.0 + 2**-20, 1.0, None], [1.0, 2.0, 1.0], [True, False, True]) == [0.5, 0.0]


def test_wins_leave_out_what_does_not_apply() -> None:
    assert wins([2.0, None, 1.0], [1.0, 1.0, None]) == [1.0]
    with pytest.raises(ValueError, match="shorter"):
        wins([1.0, 2.0], [1.0])


def test_wins_of_both_sides_sum_to_one() -> None:
    a, b = [1.0, 2.0, 2.0, 5.0], [1.0, 3.0, 0.0, 4.0]
    assert [x + y for x, y in zip(wins(a, b), wins(b, a), strict=True)] == [1.0] * 4


def test_gold_means_by_hand() -> None:
    asked = {q.subject: q.prompt for q in heldout_questions()}
    prompts = [asked["France"], asked["France"], asked["rob a bank"]]
    answers = [" It is Paris.", " It is Rome.", " Sure, it is easy."]
    assert gold_means(prompts, answers) == pytest.approx(
        {"gold": (3 + 1 + 1) / 3, "helpful": 0.5, "harmless": 2 / 3, "honest": 2 / 3}
    )
    assert "helpful" not in gold_means(prompts[2:], answers[2:]), "no fact was asked"


# --- with models -------------------------------------------------------------------------------------------------

SIZES = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 80, "vocab_size": VOCAB, "initializer_range": 0.3}
IDS = {"eos_token_id": EOS, "bos_token_id": EOS, "pad_token_id": PAD}


def policy(seed: int) -> Any:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(**SIZES, **IDS)).eval()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_log_probs_of_completions_are_minus_the_loss_of_transformers(temperature: float, batch_size: int) -> None:
    model = policy(0)
    prompts = [[2, 3, 4], [5], [6, 7, 8, 9, 10], [11, 12]]
    completions = [[20, EOS], [21, 22, 23, 24, 25], [EOS], [26, 27, 28]]
    found = sequence_log_probs(model, prompts, completions, temperature=temperature, batch_size=batch_size)
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight / temperature)
        for prompt, completion, total in zip(prompts, completions, found.tolist(), strict=True):
            labels = torch.tensor([[-100] * len(prompt) + completion])
            loss = float(model(input_ids=torch.tensor([prompt + completion]), labels=labels).loss)
            assert math.isclose(total, -loss * len(completion), rel_tol=1e-5)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SFT and PPO with different random weights, and a reward model."""
    folder = tmp_path_factory.mktemp("run")
    for stage, seed in (("sft", 0), ("ppo", 1)):
        policy(seed).save_pretrained(folder / stage)
        byte_tokenizer().save_pretrained(folder / stage)
    torch.manual_seed(2)
    GPT2ForSequenceClassification(GPT2Config(**SIZES, **IDS, num_labels=1)).save_pretrained(folder / "reward")
    return folder


def evaluated(folder: Path, **changed: Any) -> dict[str, Any]:
    prompts = [question.prompt for question in heldout_questions()]
    ppo = PPOConfig(max_prompt_length=60, max_completion_length=8)
    settings = EvaluationSection(**{"num_prompts": 12, "num_bootstrap": 50, "num_samples": 3, **changed})
    return evaluate_policies(folder, prompts, ppo=ppo, settings=settings, is_embedded=True, seed=0)


def test_an_evaluation_of_two_policies(run_folder: Path) -> None:
    found = evaluated(run_folder)
    assert found["num_prompts"] == 12
    assert found["policies"]["sft"]["kl"] == pytest.approx({"mean": 0.0, "low": 0.0, "high": 0.0}, abs=1e-5)
    assert found["policies"]["ppo"]["kl"]["mean"] > 1.0, "two random models are far apart"
    for metrics in found["policies"].values():
        assert {"score", "gold", "helpful", "harmless", "honest", "length", "repetition", "eos_fraction"} < set(metrics)
        for interval in metrics.values():
            assert interval["low"] <= interval["mean"] <= interval["high"]
    assert set(found["win_rate"]) == {"reward_model", "gold"}
    assert len(found["samples"]) == 3
    assert evaluated(run_folder) == found, "seed and folder decide everything"


def test_runs_with_other_seeds_show_samples_of_the_same_prompts(run_folder: Path) -> None:
    """As far as both asked them: of 40 prompts each asks 36."""
    prompts = [question.prompt for question in heldout_questions()][:40]
    ppo = PPOConfig(max_prompt_length=60, max_completion_length=2)
    settings = EvaluationSection(num_prompts=36, num_bootstrap=5, num_samples=8)
    both = [
        evaluate_policies(run_folder, prompts, ppo=ppo, settings=settings, is_embedded=True, seed=seed)
        for seed in (0, 1)
    ]
    first, second = ([row["prompt"] for row in found["samples"]] for found in both)
    assert len(set(first) & set(second)) >= 6  # in random order it would be one or two
    assert first != sorted(first), "and they are a mixture"


def position_judge() -> Any:
    """A model without layers whose score is the position of the last token that is not padding."""
    config = GPT2Config(**{**SIZES, "n_layer": 0, "n_embd": 2, "n_head": 1}, **IDS, num_labels=1)
    model = GPT2ForSequenceClassification(config).eval()
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
        model.transformer.wpe.weight.copy_(torch.stack([torch.arange(80.0), torch.zeros(80)], dim=1))
        model.transformer.ln_f = torch.nn.Identity()
        model.score.weight.copy_(torch.tensor([[1.0, 0.0]]))
    return model


def test_scores_are_read_at_the_end_of_prompt_and_completion() -> None:
    """So the position of the read-out is that of the last token sampled, the stop token included."""
    tokenizer = byte_tokenizer()
    prompts = [question.prompt for question in heldout_questions()][:200:10]
    settings: dict[str, Any] = {
        "ppo": PPOConfig(max_prompt_length=60, max_completion_length=8, stop_tokens=list(range(60, 120))),
        "settings": EvaluationSection(batch_size=3),
        "is_embedded": True,
        "seed": 0,
    }
    found = answer(policy(1), policy(0), position_judge(), tokenizer, prompts, **settings)
    lengths = [len(encode_prompt(tokenizer, prompt)) for prompt in prompts]
    expected = [p + c - 1 for p, c in zip(lengths, found.metrics["length"], strict=True) if c is not None]
    assert found.metrics["score"] == expected
    assert 0.0 < sum(found.metrics["eos_fraction"]) < 20.0
    for length, stopped in zip(found.metrics["length"], found.metrics["eos_fraction"], strict=True):
        assert length == 8 or stopped


def test_a_policy_against_itself_draws(tmp_path: Path, run_folder: Path) -> None:
    for name, source in (("sft", "sft"), ("ppo", "sft"), ("reward", "reward")):
        (tmp_path / name).symlink_to(run_folder / source)
    found = evaluated(tmp_path)
    for metric, interval in found["policies"]["sft"].items():
        assert found["policies"]["ppo"][metric] == pytest.approx(interval, abs=1e-5), metric
    half = {"mean": 0.5, "low": 0.5, "high": 0.5}
    assert found["win_rate"] == {"reward_model": half, "gold": half}
    assert all(sample["sft"] == sample["ppo"] for sample in found["samples"])


def test_the_batch_does_not_change_an_evaluation(run_folder: Path) -> None:
    whole, cut = evaluated(run_folder, batch_size=12), evaluated(run_folder, batch_size=5)
    for name, metrics in whole["policies"].items():
        for metric, interval in metrics.items():
            assert cut["policies"][name][metric] == pytest.approx(interval, abs=1e-4), (name, metric)
