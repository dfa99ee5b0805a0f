"""Scorers: functions and reward models behind one call, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from rlhf_lab.errors import UserError
from rlhf_lab.stages.scoring import Finished, RewardModel, make_scorers, score_all
from tests.tiny_ppo import (
    EOS,
    PAD,
    TOKENS,
    A,
    share_of_a,
    tiny_policy,
    tiny_scalar_model,
    tiny_tokenizer,
    tiny_trainer,
)

CPU = torch.device("cpu")
OTHER_TOKENS = ["</s>", "<pad>", *reversed("abcdefgh"), "x", "y", "z"]


def finished(**changes: Any) -> Finished:
    """Three completions of different lengths, the second without EOS."""
    values = {
        "prompts": ["ab", "c", "dea"],
        "prompt_ids": [[2, 3], [4], [5, 6, 2]],
        "completion_ids": [[2, 3, EOS], [4, 4, 4, 4], [EOS]],
        "texts": ["ab", "cccc", ""],
        "stopped": [True, False, True],
        "columns": {"level": [1, 2, 3]},
    }
    return Finished(**{**values, **changes})


def scorers(*sources: Any, tokenizers: Any = ()) -> Any:
    return make_scorers(list(sources), tokenizers, tiny_tokenizer(), CPU)


# --- functions ---------------------------------------------------------------------------------------------------


def test_b44_f01_a_function_is_called_as_trl_calls_it() -> None:
    seen: dict[str, Any] = {}

    def watch(**kwargs: Any) -> list[float]:
        seen.update(kwargs)
        return [1, 2.5, 3]

    totals, by_name = score_all(scorers(watch), finished())
    assert totals == [1.0, 2.5, 3.0]
    assert by_name == {"watch": [1.0, 2.5, 3.0]}
    assert seen == {
        "prompts": ["ab", "c", "dea"],
        "completions": ["ab", "cccc", ""],
        "completion_ids": [[2, 3, EOS], [4, 4, 4, 4], [EOS]],
        "level": [1, 2, 3],
    }


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
def test_a_function_may_return_any_row_of_numbers(kind: Any) -> None:
    totals, _ = score_all(scorers(lambda **kwargs: kind([1.0, -2.0, 0.5])), finished())
    assert totals == [1.0, -2.0, 0.5]


def test_a_callable_object_is_a_function() -> None:
    class Length:
        def __call__(self, completion_ids: list[list[int]], **kwargs: Any) -> list[int]:
            return [len(row) for row in completion_ids]

    totals, by_name = score_all(scorers(Length()), finished())
    assert totals == [3, 4, 1]
    assert list(by_name) == ["Length"]


def test_f02_several_rewards_add_up_and_none_means_no_opinion() -> None:
    def first(**kwargs: Any) -> list[float | None]:
        return [1.0, None, None]

    def second(**kwargs: Any) -> list[float | None]:
        return [10.0, 20.0, None]

    totals, by_name = score_all(scorers(first, second), finished())
    assert totals == [11.0, 20.0, 0.0]
    assert by_name == {"first": [1.0, None, None], "second": [10.0, 20.0, None]}


def test_f02_two_functions_of_one_name_are_both_counted() -> None:
    totals, by_name = score_all(scorers(lambda **k: [1, 1, 1], lambda **k: [2, 2, 2]), finished())
    assert totals == [3, 3, 3]
    assert len(by_name) == 2


def test_f02_completions_on_which_nobody_has_an_opinion_can_be_trained_on(tmp_path: Path) -> None:
    evaluation = {"eval_dataset": Dataset.from_dict({"prompt": ["ab", "c"]})}
    trainer = tiny_trainer(
        tmp_path, reward=lambda completions, **k: [None] * len(completions), eval_steps=2, arguments=evaluation
    )
    trainer.train()
    assert trainer.evaluate()["eval_scores"] == 0.0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1.0, 2.0], "returned 2 scores for 3 completions"),
        ([1.0, float("nan"), 2.0], "returned nan; return finite numbers or None"),
        ([1.0, float("inf"), 2.0], "returned inf"),
        ([1.0, "good", 2.0], "returned 'good'"),
        ([1.0, [1.0, 2.0], 2.0], r"returned \[1.0, 2.0\]"),
        ("abc", "returned a str"),
        (1.0, "returned a float"),
        (None, "returned a NoneType"),
        ({"a": 1, "b": 2, "c": 3}, "returned a dict"),
    ],
)
def test_answers_that_are_no_scores_are_refused_by_name(answer: Any, words: str) -> None:
    def judge(**kwargs: Any) -> Any:
        return answer

    with pytest.raises(UserError, match=f"reward function 'judge' {words}"):
        score_all(scorers(judge), finished())


# --- reward models -----------------------------------------------------------------------------------------------


def plain_score(model: Any, ids: list[int]) -> float:
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits)


@pytest.mark.parametrize("pad", [PAD, EOS])
def test_b22_a_reward_model_scores_as_a_plain_call_does(pad: int) -> None:
    model = tiny_scalar_model(pad_token_id=pad).eval()
    totals, _ = score_all(scorers(model), finished())
    rows = [[2, 3, 2, 3, EOS], [4, 4, 4, 4, 4], [5, 6, 2, EOS]]
    assert totals == pytest.approx([plain_score(model, row) for row in rows], abs=1e-5)


def test_b21_f03_a_reward_model_with_another_tokenizer_reads_the_text() -> None:
    other = tiny_tokenizer(tokens=OTHER_TOKENS)
    model = tiny_scalar_model(vocab_size=len(OTHER_TOKENS)).eval()
    (scorer,) = scorers(model, tokenizers=[other])
    assert isinstance(scorer, RewardModel)
    assert not scorer.reads_ids
    totals, _ = score_all([scorer], finished())
    texts = ["abab</s>", "ccccc", "dea</s>"]
    expected = [plain_score(model, other(text)["input_ids"]) for text in texts]
    assert totals == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx([plain_score(model, [TOKENS.index(c) for c in "abab"] + [EOS])] * 3)


def test_b21_the_tokenizer_in_a_reward_models_folder_is_its_own(tmp_path: Path) -> None:
    tiny_scalar_model(vocab_size=len(OTHER_TOKENS)).save_pretrained(tmp_path)
    tiny_tokenizer(tokens=OTHER_TOKENS).save_pretrained(tmp_path)
    (scorer,) = scorers(str(tmp_path))
    assert isinstance(scorer, RewardModel)
    assert not scorer.reads_ids


def test_a_reward_model_with_the_same_tokenizer_reads_the_sampled_ids(tmp_path: Path) -> None:
    tiny_scalar_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    (scorer,) = scorers(tmp_path)
    assert isinstance(scorer, RewardModel)
    assert scorer.reads_ids


def test_b35_a_reward_model_without_a_pad_token_gets_one_with_room_for_it() -> None:
    model = tiny_scalar_model(pad_token_id=None).eval()
    expected = [plain_score(model, [2, 3, 2, 3, EOS]), plain_score(model, [5, 6, 2, EOS])]
    totals, _ = score_all(scorers(model, tokenizers=[tiny_tokenizer(pad=None)]), finished())
    assert [totals[0], totals[2]] == pytest.approx(expected, abs=1e-5)


def test_a_reward_model_is_frozen_and_without_dropout() -> None:
    model = tiny_scalar_model(resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    (scorer,) = scorers(model)
    assert scorer(finished()) == scorer(finished())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_models_and_functions_mix() -> None:
    model = tiny_scalar_model().eval()
    both, _ = score_all(scorers(model, share_of_a), finished())
    alone, _ = score_all(scorers(model), finished())
    assert both == pytest.approx([alone[0] + 1 / 3, alone[1], alone[2]])


@pytest.mark.parametrize("source", [tiny_scalar_model(num_labels=2), tiny_policy()])
def test_a_model_without_one_label_is_refused(source: Any) -> None:
    with pytest.raises(UserError, match=r"has 2 labels; needed: .* num_labels=1"):
        scorers(source)


def test_b20_what_is_neither_function_nor_model_is_refused() -> None:
    with pytest.raises(UserError, match="reward_funcs holds a int"):
        scorers(3)


def test_a_tokenizer_for_each_reward_or_for_none() -> None:
    with pytest.raises(UserError, match="2 reward_processing_classes for 1 reward_funcs"):
        scorers(share_of_a, tokenizers=[None, None])
    scorers(share_of_a, tiny_scalar_model(), tokenizers=[None, tiny_tokenizer()])


def test_a_reward_model_of_another_vocabulary_needs_its_tokenizer() -> None:
    with pytest.raises(UserError, match="reward_processing_classes"):
        scorers(tiny_scalar_model(vocab_size=5))


def test_an_unknown_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no reward model"):
        scorers(str(tmp_path / "nothing"))


def test_a_score_counts_letters_as_it_should() -> None:
    """The reward of the other tests, by hand."""
    assert share_of_a([[A, 3, EOS], [4], [A, A]]) == [1 / 3, 0.0, 1.0]
