"""Votes as rows in TRL's preference format: prompt, chosen, rejected, margin, and who voted.

    {"prompt": …, "chosen": …, "rejected": …, "margin": 0.33, "rater": "human",
     "votes": {"chosen": 2, "rejected": 1, "tie": 0, "both_bad": 0}}

One row a pair and kind of rater (`rows="majority"`), or one a vote (`rows="each"`, with `rater_name`): votes of people,
simulated and imported votes are never added up. Skip, flag, gold questions and repeated pairs give no rows.

Ties. A pair on which as many votes prefer one completion as the other, or all are tie or both bad, is tied. With
`ties="drop"` it gives no row; with `ties="both"` it gives two, one in each direction, each marked `tie: true`, which
together pull the two scores towards each other. TRL has no column for a soft preference, so there is no third choice.

Pairs that set two models against each other say who wrote what: `chosen_writer`, `rejected_writer`. On prompts of the
evaluation their votes measure the models, so no reward model of the run is trained on them (`rate_votes.py`).

The margin is the mean over the pair's votes of their grade towards the chosen one (slightly 1/3, clearly 1, a tie or a
vote without a grade 0), never below 0.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

from rlhf_lab.rating.outcomes import COUNTED, KINDS, Vote
from rlhf_lab.rating.pairs import Pair
from rlhf_lab.rating.store import Store

Ties = Literal["drop", "both"]
Rows = Literal["majority", "each"]


def preference_rows(
    store: Store, *, rows: Rows = "majority", ties: Ties = "drop", only: Callable[[Pair], bool] | None = None
) -> list[dict[str, Any]]:
    """Rows of all votes that stand, or of those on some pairs only, by pair in the order of presentation."""
    pairs = store.pairs()
    groups: dict[tuple[str, str, str], list[Vote]] = defaultdict(list)
    for vote in store.votes():
        if vote.purpose == "main" and vote.outcome in COUNTED and (only is None or only(pairs[vote.pair])):
            groups[vote.pair, vote.kind, vote.rater if rows == "each" else ""].append(vote)
    place = {pair: number for number, pair in enumerate(pairs)}
    in_order = sorted(groups, key=lambda key: (place[key[0]], KINDS.index(key[1]), key[2]))  # type: ignore[arg-type]
    return [
        {**row, **({"rater_name": key[2]} if key[2] else {})}
        for key in in_order
        for row in _rows_of_pair(pairs[key[0]], groups[key], ties)
    ]


def num_tied(store: Store, only: Callable[[Pair], bool] | None = None) -> int:
    """Pairs and kinds of rater that `ties="drop"` leaves out."""
    both = preference_rows(store, ties="both", only=only)
    return sum(bool(row.get("tie")) for row in both) // 2


def _rows_of_pair(pair: Pair, votes: Sequence[Vote], ties: Ties) -> list[dict[str, Any]]:
    verdicts = Counter(vote.verdict for vote in votes)
    lead = verdicts["first"] - verdicts["second"]
    margin = sum(vote.signed_margin for vote in votes) / len(votes)
    if lead > 0:
        return [_row(pair, "first", verdicts, margin, votes[0].kind)]
    if lead < 0:
        return [_row(pair, "second", verdicts, -margin, votes[0].kind)]
    if ties == "drop":
        return []
    return [{**_row(pair, side, verdicts, 0.0, votes[0].kind), "tie": True} for side in ("first", "second")]


def _row(pair: Pair, chosen: str, verdicts: Counter[str | None], margin: float, kind: str) -> dict[str, Any]:
    rejected = "second" if chosen == "first" else "first"
    names = dict(zip(("first", "second"), pair.writers or (), strict=False))
    return {
        "prompt": pair.prompt,
        "chosen": getattr(pair, chosen),
        "rejected": getattr(pair, rejected),
        **({"chosen_writer": names[chosen], "rejected_writer": names[rejected]} if names else {}),
        "margin": round(max(margin, 0.0), 6),
        "rater": kind,
        "votes": {
            "chosen": verdicts[chosen],
            "rejected": verdicts[rejected],
            "tie": verdicts["tie"],
            "both_bad": verdicts["both_bad"],
        },
    }
