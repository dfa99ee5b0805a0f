"""Batches in which every text is read once: the order of pairs, the batch, and TRL's own loss as oracle."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from rlhf_lab.data import packing
from rlhf_lab.data.comparisons import ComparisonCollator, PromptSampler
from rlhf_lab.stages.reward import ComparisonTrainer, can_share_prompts, score_sides

EOS, PAD, VOCAB = 0, 1, 30


# --- the order of pairs ------------------------------------------------------------------------------------------


def prompts_and_lengths(num_prompts: int = 40, pairs: int = 6) -> tuple[list[str], list[int]]:
    """Pairs of one prompt lie scattered in the data; lengths differ within a prompt."""
    generator = torch.Generator().manual_seed(0)
    prompts = [f"prompt {row % num_prompts}" for row in range(num_prompts * pairs)]
    base = torch.randint(5, 40, (num_prompts,), generator=generator)
    more = torch.randint(0, 4, (len(prompts),), generator=generator)
    return prompts, [int(base[row % num_prompts] + more[row]) for row in range(len(prompts))]


def order_of(batch_size: int, epoch: int = 0, seed: int = 0, **sizes: int) -> list[int]:
    prompts, lengths = prompts_and_lengths(**sizes)
    sampler = PromptSampler(prompts, lengths, batch_size=batch_size, seed=seed)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(prompts)
    return list(sampler)


@pytest.mark.parametrize("batch_size", [1, 6, 12, 32, 1000])
@pytest.mark.parametrize("num_prompts", [1, 40, 400])
def test_every_pair_comes_exactly_once_an_epoch(batch_size: int, num_prompts: int) -> None:
    assert sorted(order_of(batch_size, num_prompts=num_prompts)) == list(range(num_prompts * 6))


@pytest.mark.parametrize("batch_size", [6, 12, 48])
@pytest.mark.parametrize("num_prompts", [40, 401])
def test_pairs_of_one_prompt_are_neighbours(batch_size: int, num_prompts: int) -> None:
    prompts, _ = prompts_and_lengths(num_prompts)
    found = [prompts[row] for row in order_of(batch_size, num_prompts=num_prompts)]
    runs = [prompt for prompt, _ in itertools.groupby(found)]
    assert len(runs) == len(set(runs)), "a prompt stands in two places"


@pytest.mark.parametrize("num_prompts", [40, 401])
def test_a_batch_cuts_at_most_the_prompts_at_its_borders(num_prompts: int) -> None:
    """Where six pairs do not divide the batch, all but the one or two prompts at its borders are whole."""
    prompts, _ = prompts_and_lengths(num_prompts)
    order, size = order_of(32, num_prompts=num_prompts), 32
    for start in range(0, len(order), size):
        batch = [prompts[row] for row in order[start : start + size]]
        runs = [len(list(rows)) for _, rows in itertools.groupby(batch)]
        assert len(runs) == len(set(batch)), "pairs of one prompt are neighbours within a batch"
        assert set(runs[1:-1]) <= {6}


def test_the_order_is_that_of_seed_and_epoch() -> None:
    first = order_of(12)
    assert first == order_of(12), "the same epoch has the same order"
    assert first != order_of(12, epoch=1)
    assert first != order_of(12, seed=1)
    prompts, lengths = prompts_and_lengths()
    sampler = PromptSampler(prompts, lengths, batch_size=12, seed=0)
    assert list(sampler) == list(sampler) == first


@pytest.mark.parametrize("num_prompts", [40, 1001])
def test_batches_hold_texts_of_like_length(num_prompts: int) -> None:
    """Less padding than batches that are drawn without regard to length."""
    _, lengths = prompts_and_lengths(num_prompts)

    def padding(order: list[int]) -> int:
        batches = [[lengths[row] for row in order[start : start + 48]] for start in range(0, len(order), 48)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches)

    by_chance = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0)).tolist()
    assert padding(order_of(48, num_prompts=num_prompts)) < 0.5 * padding(by_chance)


def test_long_batches_do_not_all_come_last() -> None:
    _, lengths = prompts_and_lengths(400)
    order = order_of(48, num_prompts=400)
    thirds = [sum(lengths[row] for row in order[start : start + 800]) / 800 for start in (0, 800, 1600)]
    assert max(thirds) - min(thirds) < 8, thirds


# --- the batch ---------------------------------------------------------------------------------------------------


def some_pairs(*, margin: bool = False, num_prompts: int = 3, answers: int = 4) -> list[dict[str, Any]]:
    """All pairs of four answers to each prompt, of unequal length, closed by EOS."""
    generator = torch.Generator().manual_seed(0)

    def some(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(2, VOCAB, (length,), generator=generator).tolist()

    rows: list[dict[str, Any]] = []
    for number in range(num_prompts):
        prompt = some(2, 6)
        texts = [[*prompt, *some(1, 8), EOS] for _ in range(answers)]
        for chosen, rejected in itertools.combinations(texts, 2):
            row = {"chosen_ids": chosen, "rejected_ids": rejected, "prompt_key": str(number), "length": len(chosen)}
            row["prompt_length"] = len(prompt)
            rows.append({**row, **({"margin": 0.25 * len(rows)} if margin else {})})
    return rows


def test_a_batch_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt [5, 6] with the answers [7, 0] and [8, 9, 0], the second once more against [0]; prompt [4] with two.

    Three rows of 5 columns take less room than two of 8, although [5, 6] is written twice. (One of 12 would take less.)
    """
    monkeypatch.setattr(packing, "ROOM", 0)
    rows = [
        {"chosen_ids": [5, 6, 7, 0], "rejected_ids": [5, 6, 8, 9, 0], "prompt_length": 2},
        {"chosen_ids": [4, 7, 0], "rejected_ids": [4, 0], "prompt_length": 1},
        {"chosen_ids": [5, 6, 0], "rejected_ids": [5, 6, 8, 9, 0], "prompt_length": 2},
    ]
    batch = ComparisonCollator(pad_token_id=1)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 0, 0], [5, 6, 8, 9, 0], [4, 7, 0, 0, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2], [0, 1, 2, 3, 4], [0, 1, 2, 1, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1] * 5, [1, 1, 1, 1, 0]]
    assert batch["text_ends"].tolist() == [[0, 3], [2, 2], [0, 4], [1, 4], [2, 3]]
    assert batch["text_of_side"].tolist() == [0, 1, 2, 3, 4, 3]
    assert batch["sees"][0, 0, 4].tolist() == [True, True, False, False, True], "prompt and itself"
    assert batch["sees"][2, 0, 3].tolist() == [True, False, False, True, False]
    assert "margin" not in batch


def test_without_shared_prompts_a_row_is_a_text() -> None:
    rows = [
        {"chosen_ids": [5, 6, 0], "rejected_ids": [7, 0], "prompt_length": 1},
        {"chosen_ids": [7, 0], "rejected_ids": [8, 0], "prompt_length": 1},
    ]
    batch = ComparisonCollator(pad_token_id=1, shares_prompts=False)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 0], [7, 0, 1], [8, 0, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert batch["text_of_side"].tolist() == [0, 1, 1, 2]
    assert "sees" not in batch


def test_a_prompt_stands_once_with_all_its_answers_behind_it() -> None:
    rows = some_pairs(margin=True)
    batch = ComparisonCollator(PAD)(rows)
    assert batch["input_ids"].numel() < 1.2 * batch["attention_mask"].sum(), "little padding"
    assert len(batch["text_ends"]) == 3 * 4, "four answers each; eighteen pairs"
    assert len(batch["text_of_side"]) == 2 * len(rows)
    row, column = batch["text_ends"].T
    assert batch["input_ids"][row, column].tolist() == [EOS] * 12, "scores are read at EOS"
    assert torch.equal(batch["margin"], DataCollatorForPreference(pad_token_id=PAD)(rows)["margin"])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox"])
def test_a_text_has_the_score_that_it_has_alone(kind: str) -> None:
    model = tiny_scalar_model(kind)
    assert can_share_prompts(model)
    rows = some_pairs(num_prompts=4)
    scores = score_sides(model, model.score, ComparisonCollator(PAD)(rows)).logits[:, 0]
    texts = [row["chosen_ids"] for row in rows] + [row["rejected_ids"] for row in rows]
    alone = [model(input_ids=torch.tensor([text]), use_cache=False).logits[0, 0] for text in texts]
    torch.testing.assert_close(scores, torch.stack(alone), atol=1e-5, rtol=1e-5)


def test_a_model_that_reads_on_regardless_is_not_given_shared_prompts() -> None:
    """One that takes no heed of the mask, as recurrent models do."""
    model = tiny_scalar_model("gpt2")
    forward = model.forward
    model.forward = lambda **batch: forward(**{**batch, "attention_mask": None})
    assert not can_share_prompts(model)


# --- the loss ----------------------------------------------------------------------------------------------------


def tiny_tokenizer() -> Any:
    vocab = {"</s>": EOS, "<pad>": PAD, **{f"w{number}": number for number in range(2, VOCAB)}}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")


def tiny_reward_model() -> Any:
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 16, "vocab_size": VOCAB}
    ids = {"num_labels": 1, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": EOS}
    return GPT2ForSequenceClassification(GPT2Config(**sizes, **ids, initializer_range=0.3))


def tiny_scalar_model(kind: str) -> Any:
    if kind == "gpt2":
        return tiny_reward_model().eval()
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(
        kind, vocab_size=VOCAB, num_labels=1, pad_token_id=PAD, **sizes, initializer_range=0.3
    )
    return AutoModelForSequenceClassification.from_config(config).eval()


def trainer_of(kind: type[RewardTrainer], folder: Path, rows: list[dict[str, Any]], **settings: Any) -> RewardTrainer:
    more = {"data_collator": ComparisonCollator(PAD)} if kind is ComparisonTrainer else {}
    arguments = {"report_to": "none", "use_cpu": True, "bf16": False, "per_device_train_batch_size": 6, **settings}
    return kind(
        model=tiny_reward_model(),
        args=RewardConfig(output_dir=str(folder), **arguments),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
        **more,
    )


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("center", [None, 0.1])
def test_loss_gradient_and_metrics_are_trls(tmp_path: Path, margin: bool, center: float | None) -> None:
    rows = some_pairs(margin=margin)
    found: dict[type, tuple[float, list[torch.Tensor], dict[str, float]]] = {}
    for kind in (RewardTrainer, ComparisonTrainer):
        trainer = trainer_of(kind, tmp_path, rows, center_rewards_coefficient=center)
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
        loss.backward()
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        recorded = {key: values[-1] for key, values in trainer._metrics["train"].items()}
        found[kind] = float(loss.detach()), gradients, recorded
    (theirs, their_gradients, their_metrics), (ours, gradients, metrics) = found.values()
    assert ours == pytest.approx(theirs, abs=1e-6)
    for a, b in zip(gradients, their_gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    assert metrics["accuracy"] == their_metrics["accuracy"]
    for name in ("mean_reward", "min_reward", "max_reward", "margin"):
        assert metrics[name] == pytest.approx(their_metrics[name], abs=1e-5), name


def test_a_margin_changes_the_loss(tmp_path: Path) -> None:
    """Guards the test above: were the margin lost on both ways, they would still agree."""
    losses = []
    for margin in (False, True):
        rows = some_pairs(margin=margin)
        trainer = trainer_of(ComparisonTrainer, tmp_path, rows)
        losses.append(float(trainer.compute_loss(trainer.model, trainer.data_collator(rows)).detach()))
    assert losses[1] > losses[0] + 0.1


def test_the_trainers_batches_keep_a_prompt_together_and_change_with_the_epoch(tmp_path: Path) -> None:
    rows = some_pairs(margin=True, num_prompts=8)
    loader = trainer_of(ComparisonTrainer, tmp_path, rows).get_train_dataloader()

    def epoch(number: int) -> list[list[list[int]]]:
        loader.set_epoch(number)
        batches = list(loader)
        assert [tuple(batch["text_of_side"].shape) for batch in batches] == [(12,)] * 8
        assert [len(batch["text_ends"]) for batch in batches] == [4] * 8, "a batch is the six pairs of one prompt"
        return [batch["input_ids"].tolist() for batch in batches]

    first = epoch(0)
    assert first == epoch(0)
    second = epoch(1)
    assert first != second
    assert sorted(map(str, first)) == sorted(map(str, second)), "the same texts, in another order"
