"""Rows of comparisons: every answer once behind its own prompt, and little padding, whatever the lengths."""

import random

import pytest

from rlhf_lab.data.comparisons import ComparisonCollator
from rlhf_lab.data.packing import ROOM, Row, packed

Text = tuple[tuple[int, ...], tuple[int, ...]]


def some_texts(num_prompts: int, answers: range, prompt: range, answer: range, seed: int = 0) -> list[Text]:
    """Prompts differ in their first token; lengths are drawn from the ranges."""
    rng = random.Random(seed)
    texts: list[Text] = []
    for number in range(num_prompts):
        words = (number, *[7] * (rng.choice(prompt) - 1))
        texts += [(words, (8,) * rng.choice(answer)) for _ in range(rng.choice(answers))]
    return texts


def widths(rows: list[Row], texts: list[Text]) -> list[int]:
    return [sum(len(piece.prompt) + sum(len(texts[n][1]) for n in piece.answers) for piece in row) for row in rows]


KINDS = {
    "few prompts, many short answers": some_texts(2, range(10, 40), range(6, 14), range(3, 12)),
    "many prompts, two long answers": some_texts(8, range(2, 3), range(90, 100), range(30, 60)),
    "one text": some_texts(1, range(1, 2), range(3, 4), range(2, 3)),
    "an answer longer than any row": some_texts(3, range(2, 4), range(5, 6), range(400, 500)),
    "empty prompts": some_texts(1, range(5, 6), range(1, 2), range(2, 9)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_stands_once_behind_its_own_prompt(kind: str) -> None:
    texts = KINDS[kind]
    rows = packed(texts)
    placed = [(number, piece.prompt) for row in rows for piece in row for number in piece.answers]
    assert sorted(placed) == [(number, prompt) for number, (prompt, _) in enumerate(texts)]
    assert all(piece.answers for row in rows for piece in row), "no prompt for nothing"


def test_a_long_prompt_is_not_written_down_twice() -> None:
    texts = KINDS["many prompts, two long answers"]
    assert sum(len(row) for row in packed(texts)) == 8


def test_rows_of_short_prompts_stay_narrow() -> None:
    """Attention to all columns of one wide row costs more than a second copy of a short prompt."""
    texts = some_texts(1, range(100, 101), range(5, 6), range(5, 10))
    found = widths(packed(texts), texts)
    assert max(found) <= ROOM
    assert len(found) > 4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("num_prompts", "answers", "prompt", "answer"),
    [(14, range(8, 12), range(3, 22), range(4, 12)), (2, range(15, 30), range(6, 14), range(4, 12))],
)
def test_at_most_a_twentieth_of_a_batch_is_padding(
    num_prompts: int, answers: range, prompt: range, answer: range, seed: int
) -> None:
    """Lengths as in the embedded default, 384 pairs of about 130 answers to 14 prompts, and as many answers to few
    prompts; over twenty batches."""
    cells = tokens = 0
    for number in range(20):
        texts = some_texts(num_prompts, answers, prompt, answer, seed=100 * seed + number)
        found = widths(packed(texts), texts)
        cells, tokens = cells + len(found) * max(found), tokens + sum(found)
    assert 1 - tokens / cells <= 0.05


def test_the_collators_table_is_that_of_the_rows() -> None:
    texts = KINDS["few prompts, many short answers"]
    pairs = [
        {"chosen_ids": [*p, *a], "rejected_ids": [*q, *b], "prompt_length": len(p)}
        for (p, a), (q, b) in zip(texts[::2], texts[1::2], strict=False)
        if p == q
    ]
    batch = ComparisonCollator(1)(pairs)
    used = batch["attention_mask"].sum(1)
    assert batch["input_ids"].shape[1] == int(used.max())
    assert int(used.min()) > 0


@pytest.mark.parametrize("seed", range(20))
def test_no_row_is_empty_and_no_table_wider_than_its_widest_row_needs(seed: int) -> None:
    texts = some_texts(1 + seed % 4, range(2, 30), range(1, 30), range(1, 20), seed=seed)
    rows = packed(texts)
    assert all(rows)
    longest = max(len(prompt) + len(answer) for prompt, answer in texts)
    assert longest <= max(widths(rows, texts)) <= max(ROOM, 4 * max(len(prompt) for prompt, _ in texts))
