"""Rows that are too long: counted, cut at the start of the prompt, refused or left out; an answer keeps its end."""

import pytest
from datasets import Dataset

from rlhf_lab.data.lengths import fit_rows, long_line
from rlhf_lab.errors import UserError
from rlhf_lab.stages.reward import encode_pairs
from rlhf_lab.stages.sft import encode_demonstrations
from tests.tiny_ppo import tiny_tokenizer

# Lengths of prompt and answer: fits, fits exactly, long prompt, long answer. The longest row has 12 tokens.
PROMPTS, ANSWERS = [3, 5, 9, 2], [2, 3, 3, 8]


def fit(long_prompts: str, max_length: int = 8) -> tuple[list[int], int, int]:
    found = fit_rows(PROMPTS, ANSWERS, max_length=max_length, long_prompts=long_prompts, key="sft.max_length")  # type: ignore[arg-type]
    return found.kept, found.num_long, found.num_long_answers


def test_what_is_kept_and_counted() -> None:
    assert fit("truncate") == ([0, 1, 2], 2, 1)
    assert fit("drop") == ([0, 1], 2, 1)
    assert fit("truncate", 12) == fit("drop", 12) == fit("refuse", 12) == ([0, 1, 2, 3], 0, 0)


def test_refusing_says_how_long_and_what_to_type_and_it_works() -> None:
    with pytest.raises(UserError, match=r"2 of 4 rows have more than 8 tokens; the longest has 12.*sft\.max_length=12"):
        fit("refuse")
    with pytest.raises(UserError, match=r"Type sft\.max_length=10,"):
        fit_rows(PROMPTS, ANSWERS, max_length=8, long_prompts="refuse", key="sft.max_length", context=10)


@pytest.mark.parametrize("long_prompts", ["truncate", "drop"])
def test_nothing_left_is_an_error(long_prompts: str) -> None:
    with pytest.raises(UserError, match="none is left"):
        fit(long_prompts, max_length=2)


@pytest.mark.parametrize("max_length", [4, 5, 6, 7])
def test_every_encoded_text_keeps_a_token_of_its_prompt_and_ends_with_eos(max_length: int) -> None:
    tokenizer = tiny_tokenizer()
    eos = tokenizer.eos_token_id
    prompts, answers = ["abcd", "ab", "a"], ["cd", "dcbaab", "b"]
    told = Dataset.from_list([{"prompt": p, "completion": c} for p, c in zip(prompts, answers, strict=True)])
    pairs = Dataset.from_list(
        [{"prompt": p, "chosen": c, "rejected": "a" + c} for p, c in zip(prompts, answers, strict=True)]
    )
    for row in encode_demonstrations(told, tokenizer, max_length).rows:
        assert len(row["input_ids"]) <= max_length
        assert row["labels"][0] == -100
        assert row["labels"][-1] == eos
    for row in encode_pairs(pairs, tokenizer, max_length).rows:
        for side in ("chosen_ids", "rejected_ids"):
            assert len(row[side]) <= max_length
            assert row[side][-1] == eos
    kept = encode_demonstrations(told, tokenizer, max_length).fit.kept
    assert kept == ([0, 1, 2] if max_length > len("dcbaab") + 1 else [0, 2])


def test_a_run_without_long_rows_says_nothing() -> None:
    counted = {"num_long_rows": 0, "num_long_answers": 0, "long_prompts": "truncate"}
    assert long_line(counted, 8) == ""
    line = long_line({**counted, "num_long_rows": 3, "num_long_answers": 1}, 8)
    assert line.startswith("3 rows have more than 8 tokens (data.long_prompts=truncate); 1 of them")
