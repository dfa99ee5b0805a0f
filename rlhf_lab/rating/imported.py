"""Votes from a file in TRL's preference format, ours or anybody's: each row is one vote, or as many as it says.

A row of `prompt, chosen, rejected` is one vote; `margin` becomes slightly or clearly; `votes` (as `preference_rows.py`
writes it) is that many votes; `tie: true` is a tie, and the same tie in the other direction is not a second one. Rows
on the same pair are votes of different raters, told apart by `rater_name` where the file has it: three raters who
disagree stay three votes. Imported votes stay imported: their rater's `origin` says what the file said of them.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf_lab.errors import UserError
from rlhf_lab.rating.outcomes import Outcome, Strength, strength_of_margin
from rlhf_lab.rating.pairs import IMPORT, Pair, UnusableRowError, make_pair, read_rows
from rlhf_lab.rating.store import Store

Said = tuple[Outcome, Strength | None]  # `left` means the pair's first completion


@dataclass(frozen=True)
class Imported:
    """What became of a file's rows."""

    num_rows: int
    num_votes: int  # new ones
    num_known: int  # votes that were here already, from the same file
    num_new_pairs: int
    num_ties: int
    num_conflicting: int  # pairs on which the file's own votes disagree
    left_out: Counter[str]

    def lines(self) -> list[str]:
        """What to tell the user; nothing is dropped in silence."""
        told = [f"{self.num_votes} votes imported from {self.num_rows} rows, on {self.num_new_pairs} new pairs"]
        if self.num_known:
            told.append(f"{self.num_known} votes of this file were here already and were not counted again")
        if self.num_ties:
            told.append(f"{self.num_ties} of the votes are ties; --ties and reward.tied_votes decide what they become")
        if self.num_conflicting:
            told.append(f"{self.num_conflicting} pairs have votes that disagree; all of them were kept")
        return [*told, *(f"{number} rows left out: {reason}" for reason, number in self.left_out.items())]


def import_votes(store: Store, path: str) -> Imported:
    """Add the votes of a file. Importing a file twice adds nothing the second time."""
    rows = read_rows(path)
    pairs, votes, left_out = _votes_of_rows(rows)
    if not votes:
        raise UserError(
            f"{path} gives no vote: {dict(left_out)}. Needed on every row: prompt, chosen, rejected (TRL's format)"
        )
    source = f"{IMPORT}{Path(path).name}"
    new_pairs = store.add_pairs(replace(pair, source=source) for pair in pairs.values())
    name = f"{Path(path).stem[:40]}@{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]}"
    added = total = 0
    for (who, origin), theirs in votes.items():
        rater = store.rater(f"{name} {origin[:20]} {who}", "imported", origin=origin)
        added += store.record(rater, [(pair, *said) for pair, said in theirs.items()])
        total += len(theirs)
    said_of: dict[str, set[str]] = defaultdict(set)
    for theirs in votes.values():
        for pair, (outcome, _) in theirs.items():
            said_of[pair].add(outcome)
    ties = sum(outcome in ("tie", "both_bad") for theirs in votes.values() for outcome, _ in theirs.values())
    conflicting = sum(len(outcomes) > 1 for outcomes in said_of.values())
    return Imported(len(rows), added, total - added, new_pairs, ties, conflicting, left_out)


def _votes_of_rows(
    rows: Sequence[dict[str, Any]],
) -> tuple[dict[str, Pair], dict[tuple[str, str], dict[str, Said]], Counter[str]]:
    pairs: dict[str, Pair] = {}
    votes: dict[tuple[str, str], dict[str, Said]] = defaultdict(dict)
    left_out: Counter[str] = Counter()
    ties: set[tuple[str, str, str]] = set()
    unnamed: Counter[str] = Counter()
    for row in rows:
        try:
            pair, said = _votes_of_row(row)
        except UnusableRowError as error:
            left_out[str(error)] += 1
            continue
        pairs[pair.id] = pair
        origin, name = str(row.get("rater", "unknown")), _short(str(row.get("rater_name", "")))
        if row.get("tie"):
            if (pair.id, origin, name) in ties:
                continue
            ties.add((pair.id, origin, name))
        for one in said:
            who = name
            while not who or pair.id in votes[who, origin]:  # a second vote under one name counts as another rater's
                unnamed[pair.id] += 1
                who = f"{name} {unnamed[pair.id]}".strip()
            votes[who, origin][pair.id] = one
    return pairs, {key: theirs for key, theirs in votes.items() if theirs}, left_out


def _votes_of_row(row: dict[str, Any]) -> tuple[Pair, list[Said]]:
    missing = [key for key in ("prompt", "chosen", "rejected") if key not in row]
    if missing:
        raise UnusableRowError(f"{', '.join(missing)} missing")
    margin = row.get("margin")
    if isinstance(margin, bool) or not isinstance(margin, int | float | None):
        raise UnusableRowError("margin is not a number")
    pair = make_pair(row["prompt"], row["chosen"], row["rejected"], source="import", writers=_writers(row))
    left, right = ("left", "right") if pair.first == row["chosen"] else ("right", "left")
    strength = strength_of_margin(margin)
    counts = row.get("votes")
    if counts is None:
        return pair, [("tie", None) if row.get("tie") else (left, strength)]  # type: ignore[list-item]
    known = {
        "chosen": (left, strength),
        "rejected": (right, None),
        "tie": ("tie", None),
        "both_bad": ("both_bad", None),
    }
    if not isinstance(counts, dict) or not set(counts) <= set(known) or not all(map(_is_count, counts.values())):
        raise UnusableRowError(f"votes is no count of {', '.join(known)}")
    return pair, [known[key] for key, number in counts.items() for _ in range(int(number))]  # type: ignore[misc]


def _writers(row: dict[str, Any]) -> tuple[str, str] | None:
    """Who wrote the chosen and who the rejected one, where the file says so."""
    names = row.get("chosen_writer"), row.get("rejected_writer")
    if names == (None, None):
        return None
    if not all(isinstance(name, str) and name for name in names) or names[0] == names[1]:
        raise UnusableRowError("chosen_writer and rejected_writer are not two names")
    return str(names[0]), str(names[1])


def _short(name: str) -> str:
    """A name that fits, and still differs from every other."""
    return name if len(name) <= 80 else f"{name[:70]} {hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _is_count(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and value == int(value) and 0 <= value < 1000
