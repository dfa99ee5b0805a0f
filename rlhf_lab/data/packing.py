"""Answers behind copies of their prompts, several in a row of tokens, rows of about one width.

A batch of comparisons holds few prompts with many short answers, or many prompts with two long ones. Rows are filled in
order; a prompt is written down again where its answers go on in the next row, so a long one keeps all its answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

Tokens = tuple[int, ...]
MOST_COLUMNS = 128  # of a row whose prompts are short: attention to all columns costs more than a second copy
COPIES = 4  # times a prompt's own length: a row is at least so wide before the prompt is written down again
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
    longest = max(len(prompt) + max(lengths[number] for number in numbers) for prompt, numbers in groups.items())
    widest = max(longest, *(_wanted(prompt, [lengths[n] for n in numbers]) for prompt, numbers in groups.items()))
    widths = range(widest, longest - 1, -max(1, widest // TRIED))
    return min((_filled(groups, lengths, width) for width in widths), key=lambda rows: _cells(rows, lengths))


def _cells(rows: Sequence[Row], lengths: Sequence[int]) -> int:
    """Columns of the table that `rows` make, padding included."""
    widths = (sum(len(piece.prompt) + sum(lengths[n] for n in piece.answers) for piece in row) for row in rows)
    return len(rows) * max(widths)


def _wanted(prompt: Tokens, lengths: Sequence[int]) -> int:
    """The width at which a group would be cut, or its own."""
    return min(len(prompt) + sum(lengths), max(MOST_COLUMNS, COPIES * len(prompt)))


def _filled(groups: dict[Tokens, list[int]], lengths: Sequence[int], width: int) -> list[Row]:
    rows: list[Row] = [[]]
    used = 0
    for prompt, numbers in groups.items():
        whole = len(prompt) + sum(lengths[number] for number in numbers)
        room = width - used
        if whole > room and room < len(prompt) + max(len(prompt), lengths[numbers[0]]):  # a second copy costs more
            rows.append([])
            used = 0
        rows[-1].append(Piece(prompt))
        used += len(prompt)
        for number in numbers:
            if used + lengths[number] > width:
                rows.append([Piece(prompt)])
                used = len(prompt)
            rows[-1][-1].answers.append(number)
            used += lengths[number]
    return [row for row in rows if row]
