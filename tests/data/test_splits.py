"""Splits that never share a prompt, limits that nest, hashes of content."""

from typing import Any

import pytest
from datasets import Dataset

from rlhf_lab.data.splits import content_hash, limit_rows, split_by_prompt
from rlhf_lab.errors import UserError

SECRET = "SECRETWORD"  # stands in rows; no error may repeat it
ASK = {"role": "user", "content": "why?"}
YES = {"role": "assistant", "content": "Yes, since."}


def table(*rows: dict[str, Any]) -> Dataset:
    return Dataset.from_list(list(rows))


def many(n: int = 60) -> Dataset:
    return table(*({"prompt": f"question {i % (n // 2)}", "completion": f"answer {i}"} for i in range(n)))


@pytest.mark.parametrize(("heldout", "size"), [(7, 7), (0.1, 2), (0.5, 13), (29, 29)])
# Sizes of the fractions: the hashes of the command in the next test that are below 1999... and 8000... .
def test_split_is_disjoint_and_of_the_size_asked(heldout: int | float, size: int) -> None:
    train, held = split_by_prompt(many(), heldout=heldout, seed=0)
    assert len(set(held["prompt"])) == size
    assert not set(held["prompt"]) & set(train["prompt"])
    assert sorted([*train["completion"], *held["completion"]]) == sorted(many()["completion"])


def test_split_depends_on_seed_and_prompt_alone() -> None:
    _, held = split_by_prompt(many(), heldout=7, seed=0)
    _, turned = split_by_prompt(many().select(range(59, -1, -1)), heldout=7, seed=0)
    _, other = split_by_prompt(many(), heldout=7, seed=1)
    assert set(held["prompt"]) == set(turned["prompt"]) != set(other["prompt"])
    # for i in $(seq 0 29); do printf '0\n"question %s"' $i | sha256sum | sed "s/-/$i/"; done | sort | head -4
    _, first = split_by_prompt(many(), heldout=4, seed=0)
    assert set(first["prompt"]) == {f"question {i}" for i in (7, 27, 23, 21)}


def test_a_fraction_decides_each_prompt_alone_whatever_other_prompts_there_are() -> None:
    """What evaluation holds out of one data set was in no stage's training rows, though these came from another."""
    train_of_all, held_of_all = split_by_prompt(many(), heldout=0.3, seed=0)
    part = many().filter(lambda row: int(row["completion"].split()[1]) % 30 < 13)
    train, held = split_by_prompt(part, heldout=0.3, seed=0)
    assert set(train["prompt"]) <= set(train_of_all["prompt"])
    assert set(held["prompt"]) <= set(held_of_all["prompt"])


def test_a_fraction_of_many_prompts_is_about_that_fraction() -> None:
    _, held = split_by_prompt(many(4000), heldout=0.2, seed=3)
    assert 340 < len(set(held["prompt"])) < 460  # 400, give or take 3.4 standard deviations


def test_split_keeps_conversations_with_one_prompt_together() -> None:
    rows = table(*({"prompt": [message], "n": n} for n, message in enumerate([ASK, YES, ASK])))
    for seed in range(8):  # one seed alone could keep them together by chance
        train, held = split_by_prompt(rows, heldout=1, seed=seed)
        assert sorted([train["n"][:], held["n"][:]]) == [[0, 2], [1]]


@pytest.mark.parametrize("heldout", [0, -1, 30, 31, 0.0, 0.001, 0.999, 1.0, 5.0, float("nan"), float("inf")])
def test_split_that_empties_a_side_is_refused(heldout: int | float) -> None:
    with pytest.raises(UserError, match="leaves a side empty"):
        split_by_prompt(many(), heldout=heldout, seed=0)


def test_split_without_prompts_is_refused() -> None:
    with pytest.raises(UserError, match="the data has text"):
        split_by_prompt(table({"text": SECRET}), heldout=1, seed=0)


def test_limits_nest_and_do_not_depend_on_order() -> None:
    small, large = (limit_rows(many(), n, seed=0)["completion"][:] for n in (5, 20))
    assert len(small) == 5
    assert set(small) < set(large)
    assert large == [text for text in many()["completion"] if text in set(large)]
    assert set(limit_rows(many().select(range(59, -1, -1)), 5, seed=0)["completion"]) == set(small)
    assert set(limit_rows(many(), 5, seed=1)["completion"]) != set(small)
    pairs = many().rename_column("completion", "chosen").add_column("rejected", ["no"] * 60)
    assert set(limit_rows(pairs, 20, seed=0)["prompt"]) == set(limit_rows(many(), 20, seed=0)["prompt"])
    assert len(limit_rows(many(), None, seed=0)) == len(limit_rows(many(), 1000, seed=0)) == 60
    with pytest.raises(UserError, match="max_rows=0"):
        limit_rows(many(), 0, seed=0)


def test_content_hash_is_of_the_content() -> None:
    rows = table({"prompt": "ü", "n": 1}, {"prompt": "b", "n": 2})
    # printf '{"n":1,"prompt":"\\u00fc"}\n{"n":2,"prompt":"b"}\n' | sha256sum
    assert content_hash(rows) == "73e8da31796f8e0cf14a17e902a92fc71298e1de44a07a776fb403de429e2bff"
    assert content_hash(rows.select_columns(["n", "prompt"])) == content_hash(rows)
    assert content_hash(rows.select([1, 0])) != content_hash(rows)


# Real data
