"""Which words of one answer the other does not have, marked for the eye and for a screen reader.

The words are aligned by the standard library's difflib (longest matching blocks). What is only in the first answer
becomes `<del>`, what is only in the second `<ins>`: style.css underlines them, so that no colour is needed.
Leaves out: changes of white space, and texts so long that aligning them would take seconds.

    difference("It is Apia.", "I think it is Apia.").after     # '<ins>I think it</ins> is Apia.'
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

from .text import escaped

SAME, NOTHING_SHARED, TOO_LONG = "the same text", "no word in common", "too long to mark the differences"
# White space; a sign of a script that puts no space between words; punctuation; any other word.
PIECE = re.compile(
    r"\s+|[\u2e80-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]|[.,;:!?()\"“”]+"
    r"|[^\s\u2e80-\u9fff\uac00-\ud7af\U00020000-\U0003ffff.,;:!?()\"“”]+"
)
MOST_ALIGNMENTS = 300_000  # pairs of equal words; difflib looks at each, several times


@dataclass(frozen=True)
class Difference:
    """Both texts as HTML, and what there is to say about them ("" where the marks say it)."""

    before: str
    after: str
    note: str


def difference(before: str, after: str) -> Difference:
    """Mark what is only in `before` and what is only in `after`; nothing where all or no words are shared."""
    if before == after:
        return Difference(escaped(before), escaped(after), SAME)
    pieces = PIECE.findall(before), PIECE.findall(after)
    words = [[piece for piece in side if not piece.isspace()] for side in pieces]
    counts = [Counter(side) for side in words]
    shared = sum(number * counts[1][word] for word, number in counts[0].items())
    if not shared or not all(words):
        return Difference(escaped(before), escaped(after), NOTHING_SHARED if all(words) else "")
    if shared > MOST_ALIGNMENTS:
        return Difference(escaped(before), escaped(after), TOO_LONG)
    blocks = SequenceMatcher(None, words[0], words[1], autojunk=False).get_matching_blocks()
    first = {block.a + i for block in blocks for i in range(block.size)}
    second = {block.b + i for block in blocks for i in range(block.size)}
    return Difference(marked(pieces[0], first, "del"), marked(pieces[1], second, "ins"), "")


def marked(pieces: Sequence[str], shared: set[int], tag: Literal["del", "ins"]) -> str:
    """The pieces as HTML, with runs of words that are not in `shared` (places among the words) inside `tag`."""
    is_own: list[bool | None] = []
    place = 0
    for piece in pieces:
        is_own.append(None if piece.isspace() else place not in shared)
        place += not piece.isspace()
    # White space belongs to a marked run only when it stands inside it.
    flags = [
        flag if flag is not None else i > 0 and bool(is_own[i - 1]) and i + 1 < len(pieces) and bool(is_own[i + 1])
        for i, flag in enumerate(is_own)
    ]
    runs = groupby(zip(flags, pieces, strict=True), key=lambda pair: pair[0])
    texts = [(flag, escaped("".join(piece for _, piece in run))) for flag, run in runs]
    return "".join(f"<{tag}>{text}</{tag}>" if flag else text for flag, text in texts)
