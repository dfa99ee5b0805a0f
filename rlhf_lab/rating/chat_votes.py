"""A vote on a pair that nobody was given: a rater met it while talking to the models, and compared it there.

Such a vote counts like any other. The pair itself is shown to no other rater, for what somebody asked in a chat is not
a question of the rating page; see `Pair.is_offered`. Undo it with `store.undo(..., then="lapsed")`.
"""

import secrets

from rlhf_lab.errors import UserError
from rlhf_lab.rating.outcomes import Outcome, Strength
from rlhf_lab.rating.pairs import Pair
from rlhf_lab.rating.store import LastVote, Store


class ComparedBeforeError(UserError):
    """A second vote of one rater on one pair."""


def file_comparison(
    store: Store,
    rater: int,
    pair: Pair,
    *,
    swapped: bool,
    outcome: Outcome,
    strength: Strength | None,
    seconds: float | None,
    shown_at: float,
) -> LastVote:
    """Add the pair and the rater's vote on it, both or neither; returns what an undo needs.

    `swapped`: the pair's second completion stood on the left. `shown_at`, by the store's clock, bounds `seconds`.
    Raises ComparedBeforeError where a vote of this rater on this pair stands.
    """
    with store.writing() as db:
        store.add_pairs([pair])
        row = db.execute(
            "SELECT id, state, num_events FROM presentation WHERE pair = ? AND rater = ? AND purpose != 'repeat'",
            (pair.id, rater),
        ).fetchone()
        if row is not None and row["state"] == "voted":
            raise ComparedBeforeError("You compared these two texts before, and that vote stands.")
        if row is not None:  # taken back before, or waiting on the rating page
            name, turn = str(row["id"]), int(row["num_events"])
            db.execute("UPDATE presentation SET swapped = ? WHERE id = ?", (int(swapped), name))
        else:
            name, turn = secrets.token_urlsafe(15), 0
            (gold,) = db.execute("SELECT gold FROM pair WHERE id = ?", (pair.id,)).fetchone()
            db.execute(
                "INSERT INTO presentation (id, pair, rater, purpose, swapped, state, changed, created, lease_ends)"
                " VALUES (?, ?, ?, ?, ?, 'lapsed', 0, ?, ?)",
                (name, pair.id, rater, "gold" if gold else "main", int(swapped), shown_at, shown_at),
            )
        store.vote(rater, name, turn=turn, outcome=outcome, strength=strength, seconds=seconds)
    return LastVote(name, turn, outcome, strength)
