"""Answers behind copies of their prompts, several in a row of tokens, rows of about one width.

A batch of comparisons holds few prompts with many short answers, or many prompts with two long ones. Rows are filled in
order; a prompt is written down again where its answers go on in the next row, so a long one keeps all its answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

Tokens = tuple[int, ...]
MOST_COLUMNS = 128  # of a row whose prompts are short: attention to all columns costs more than a second copy
COPIES = 4  # times a prompt's own length: a row is at least so wide before the prompt is written down again
ROOM = 160  # columns that rows are tried at where every prompt and its answers take less: several then share a row
TRIED = 48  # widths


@dataclass(frozen=True)
class Piece:
    """One prompt and some of its answers, by their numbers, in one row."""

    prompt: Tokens
    answers: list[int] = field(default_factory=list)


Row = list[Piece]


def packed(texts: Sequence[tuple[Tokens, Tokens]]) -> list[Row]:
    """Rows that hold every text (prompt, answer) once, of the common width with the fewest cells."""
    groups: dict[Tokens, list[int]] = {}
    for number, (prompt, _) in enumerate(texts):
        groups.setdefault(prompt, []).append(number)
    lengths = [len(answer) for _, answer in texts]
    sizes = [(len(prompt), [lengths[number] for number in numbers]) for prompt, numbers in groups.items()]
    longest = max(prompt + max(answers) for prompt, answers in sizes)
    widest = max(longest, *(_wanted(prompt, sum(answers)) for prompt, answers in sizes))
    widest = max(widest, min(2 * widest, ROOM))
    widths = range(widest, longest - 1, -max(1, widest // TRIED))
    best = min(widths, key=lambda width: (_cells(_cuts(sizes, width)), width))
    return _rows(groups, _cuts(sizes, best))


def _wanted(prompt: int, answers: int) -> int:
    """The width at which a group of so many tokens would be cut, or its own."""
    return min(prompt + answers, max(MOST_COLUMNS, COPIES * prompt))


@dataclass(frozen=True)
class _Cuts:
    """Where rows end: only numbers, since many widths are tried and one is taken."""

    at: list[tuple[int, int]]  # (group, answer) with which a new row begins, after the first
    widest: int  # tokens of a row


def _cells(cuts: _Cuts) -> int:
    """Columns of the table that the rows make, padding included."""
    return (len(cuts.at) + 1) * cuts.widest


def _cuts(sizes: Sequence[tuple[int, list[int]]], width: int) -> _Cuts:
    """Fill rows of at most `width` in order; `sizes` are the tokens of each prompt and of its answers."""
    at: list[tuple[int, int]] = []
    used = widest = 0
    for group, (prompt, answers) in enumerate(sizes):
        room = width - used
        # Its last answers would need a second copy of the prompt, which costs more than the room that is left
        if used and room < prompt + max(prompt, answers[0]) and room < prompt + sum(answers):
            at.append((group, 0))
            widest, used = max(widest, used), 0
        used += prompt
        for place, length in enumerate(answers):
            if used + length > width:
                at.append((group, place))
                widest, used = max(widest, used), prompt
            used += length
    return _Cuts(at, max(widest, used))


def _rows(groups: dict[Tokens, list[int]], cuts: _Cuts) -> list[Row]:
    rows: list[Row] = [[]]
    begins = set(cuts.at)
    for group, (prompt, numbers) in enumerate(groups.items()):
        for place, number in enumerate(numbers):
            if (group, place) in begins:
                rows.append([])
            if place == 0 or (group, place) in begins:
                rows[-1].append(Piece(prompt))
            rows[-1][-1].answers.append(number)
    return rows
