"""Pairs of completions to be compared: their identity, and reading them from a file.

A file (jsonl, json, csv, parquet) has one pair a row, in one of two forms:

    {"prompt": "...", "completions": ["...", "..."]}
    {"prompt": "...", "chosen": "...", "rejected": "...", "gold": true}

In the second form the order is forgotten and the pair is rated afresh, unless `gold` is true: then it is a gold
question, to which `chosen` is the right answer. Votes are read by `imported.py`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_lab.data.prompts import Completion, Prompt, canonical_json, is_messages, prompt_key
from rlhf_lab.errors import UserError
from rlhf_lab.rating.outcomes import Preferred

IMPORT = "import "  # how the source of a pair begins that came with votes from a file
CHAT = "chat of "  # how the source of a pair begins that somebody met while talking to the models


@dataclass(frozen=True)
class Pair:
    """Two completions of one prompt, in an order that does not depend on who was thought better."""

    prompt: Prompt
    first: Completion
    second: Completion
    source: str
    gold: Preferred | None = None
    writers: tuple[str, str] | None = None  # whose texts these are, where two models meet: ("sft", "ppo")

    @property
    def id(self) -> str:
        return _digest(prompt_key(self.prompt), prompt_key(self.first), prompt_key(self.second))[:32]

    @property
    def is_offered(self) -> bool:
        """Whether the rating page gives it out. What somebody asked in a chat is shown to nobody else."""
        return not self.source.startswith(CHAT)


@dataclass
class ReadPairs:
    """Pairs of a file, and what was wrong with the rows that gave none."""

    pairs: list[Pair] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        reasons = "".join(f"; {number} left out: {reason}" for reason, number in self.left_out.items())
        return f"{len(self.pairs)} pairs{reasons}"


class UnusableRowError(ValueError):
    """Why a row gives no pair; counted by `pairs_of_rows`."""


def make_pair(
    prompt: Prompt,
    one: Completion,
    other: Completion,
    *,
    source: str,
    preferred: Completion | None = None,
    writers: tuple[str, str] | None = None,
) -> Pair:
    """The pair of two completions, whichever comes first. `preferred` makes it a gold question; `writers` are the
    models that wrote `one` and `other`.

    Raises UnusableRowError for equal or empty texts: there is nothing to compare.
    """
    for name, value in (("prompt", prompt), ("completion", one), ("completion", other)):
        if not is_messages(value) and not isinstance(value, str):
            raise UnusableRowError(f"{name} is neither text nor a list of messages")
        if not shown_text(value).strip():
            raise UnusableRowError(f"{name} is empty")
    if shown_text(one).strip() == shown_text(other).strip():
        raise UnusableRowError("both texts are equal, so there is nothing to compare")
    # By hash, so that being first says nothing: in the order of the alphabet "I can not help" would always come before
    # "Sure", and kappa and alpha would take the raters' taste for a habit
    first, second = sorted((one, other), key=lambda text: _digest(prompt_key(prompt), prompt_key(text)))
    gold: Preferred | None = None if preferred is None else "first" if preferred == first else "second"
    if writers is not None and first != one:
        writers = (writers[1], writers[0])
    return Pair(prompt, first, second, source, gold, writers)


def shown_text(value: Prompt) -> str:
    return value if isinstance(value, str) else "\n".join(message["content"] for message in value)


def read_pairs(path: str) -> ReadPairs:
    """Pairs of a file. Raises UserError where the file can not be read or gives no pair; other bad rows are counted."""
    found = pairs_of_rows(read_rows(path), source=f"file {Path(path).name}")
    if not found.pairs:
        raise UserError(f"{path} gives no pair: {found}. Needed: prompt and completions (two), or chosen and rejected")
    return found


def read_rows(path: str) -> list[dict[str, Any]]:
    """Rows of a local file as plain dicts, without the None that Arrow fills in."""
    from rlhf_lab.data.sources import load_rows  # seconds to load, and most sessions read no file

    if not Path(path).is_file():
        raise UserError(f"there is no file {path}; give one in jsonl, json, csv or parquet")
    return [without_none(row) for row in load_rows(str(Path(path).resolve()))]


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_none(inner) for key, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, list) else value


def pairs_of_rows(rows: Iterable[dict[str, Any]], *, source: str) -> ReadPairs:
    read = ReadPairs()
    known: set[str] = set()
    for row in rows:
        try:
            pair = _pair_of_row(row, source)
        except UnusableRowError as error:
            read.left_out[str(error)] += 1
            continue
        if pair.id in known:
            read.left_out["the same pair again"] += 1
            continue
        known.add(pair.id)
        read.pairs.append(pair)
    return read


def _pair_of_row(row: dict[str, Any], source: str) -> Pair:
    prompt = row.get("prompt")
    if prompt is None:
        raise UnusableRowError("prompt is missing")
    if "completions" in row:
        completions: Sequence[Any] = row["completions"]
        if not isinstance(completions, list) or len(completions) != 2:
            raise UnusableRowError("completions are not two")
        return make_pair(prompt, *completions, source=source)
    if "chosen" not in row or "rejected" not in row:
        raise UnusableRowError("neither completions nor chosen and rejected are there")
    gold = row["chosen"] if row.get("gold") in (True, 1, "true", "True") else None
    return make_pair(prompt, row["chosen"], row["rejected"], source=source, preferred=gold)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def to_json(value: Prompt) -> str:
    return canonical_json(value)
