"""Which pair a rater sees next: a held one, a repeated one, a gold question, or the next that waits for votes.

A pair that is shown is leased: others do not get it while the lease runs, and a lease that ends gives it back without
anybody having to unlock it. All functions run inside the caller's transaction.
"""

import random
import secrets
import sqlite3
from dataclasses import dataclass

from rlhf_lab.rating.pairs import CHAT

OFFERED = f"pair.source NOT LIKE '{CHAT}%'"  # in SQL what `Pair.is_offered` is
REPEAT_AFTER = 5  # presentations before a pair may come again with its sides swapped


@dataclass(frozen=True)
class Plan:
    """How pairs are given out."""

    raters_per_pair: int = 1  # people; simulated and imported votes take nobody's place
    gold_rate: float = 0.05
    repeat_rate: float = 0.05
    lease_seconds: float = 600.0


@dataclass(frozen=True)
class Moment:
    """Who asks, when, and where the next side is drawn from."""

    rater: int
    now: float
    sides: random.Random


def assign(db: sqlite3.Connection, plan: Plan, moment: Moment) -> str | None:
    """The id of the rater's next presentation; None when nothing is left for this rater."""
    held = _held(db, plan, moment)
    if held:
        return held
    (number,) = db.execute("SELECT count(*) FROM presentation WHERE rater = ?", (moment.rater,)).fetchone()
    repeat = _draw("repeat", moment.rater, number, plan.repeat_rate) and _repeatable(db, moment)
    if repeat:
        return _present(db, plan, moment, repeat["pair"], "repeat", swapped=not repeat["swapped"])
    gold = _draw("gold", moment.rater, number, plan.gold_rate) and _unseen_gold(db, moment)
    if gold:
        return _present(db, plan, moment, gold["id"], "gold")
    waiting = _waiting(db, plan, moment)
    return _present(db, plan, moment, waiting["id"], "main") if waiting else None


def num_waiting(db: sqlite3.Connection, plan: Plan, rater: int) -> int:
    """Pairs that this rater has not been shown and that still want votes. Others' leases are not looked at."""
    (wanting,) = db.execute(
        f"SELECT count(*) FROM pair WHERE gold IS NULL AND {OFFERED} AND num_votes < ?", (plan.raters_per_pair,)
    ).fetchone()
    (mine,) = db.execute(
        "SELECT count(*) FROM presentation JOIN pair ON pair.id = pair WHERE rater = ? AND purpose = 'main'"
        f" AND gold IS NULL AND {OFFERED} AND num_votes < ?",
        (rater, plan.raters_per_pair),
    ).fetchone()
    return int(wanting - mine)


def _held(db: sqlite3.Connection, plan: Plan, moment: Moment) -> str | None:
    """What is open for this rater: after a refresh the same pair, after an undo the one that was taken back."""
    rows = db.execute(
        "SELECT p.id, p.pair, purpose, lease_ends, num_votes, num_events FROM presentation p"
        " JOIN pair ON pair.id = p.pair WHERE rater = ? AND state = 'open' ORDER BY changed DESC, p.rowid DESC",
        (moment.rater,),
    ).fetchall()
    for row in rows:
        others = _leases_of_others(db, row["pair"], moment)
        is_wanted = row["purpose"] != "main" or row["num_votes"] + others < plan.raters_per_pair
        if row["lease_ends"] > moment.now or is_wanted:
            if row["lease_ends"] < moment.now + plan.lease_seconds / 2:
                ends = moment.now + plan.lease_seconds
                db.execute("UPDATE presentation SET lease_ends = ? WHERE id = ?", (ends, row["id"]))
            return str(row["id"])
        db.execute("UPDATE presentation SET state = 'lapsed' WHERE id = ?", (row["id"],))
    return None


def _leases_of_others(db: sqlite3.Connection, pair: str, moment: Moment) -> int:
    (number,) = db.execute(
        "SELECT count(*) FROM presentation WHERE pair = ? AND rater != ? AND state = 'open' AND lease_ends > ?"
        " AND purpose = 'main'",
        (pair, moment.rater, moment.now),
    ).fetchone()
    return int(number)


def _waiting(db: sqlite3.Connection, plan: Plan, moment: Moment) -> sqlite3.Row | None:
    """Pairs that others have begun come first, so that overlap is complete wherever rating stops."""
    row: sqlite3.Row | None = db.execute(
        f"SELECT id FROM pair INDEXED BY pair_waiting WHERE gold IS NULL AND {OFFERED} AND num_votes < :k"
        " AND NOT EXISTS (SELECT 1 FROM presentation p WHERE p.pair = pair.id AND p.rater = :rater)"
        " AND num_votes + (SELECT count(*) FROM presentation p WHERE p.pair = pair.id AND p.state = 'open'"
        "   AND p.lease_ends > :now AND p.purpose = 'main') < :k"
        " ORDER BY num_votes DESC, position LIMIT 1",
        {"k": plan.raters_per_pair, "rater": moment.rater, "now": moment.now},
    ).fetchone()
    return row


def _unseen_gold(db: sqlite3.Connection, moment: Moment) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        "SELECT id FROM pair WHERE gold IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM presentation p WHERE p.pair = pair.id AND p.rater = ?) ORDER BY position LIMIT 1",
        (moment.rater,),
    ).fetchone()
    return row


def _repeatable(db: sqlite3.Connection, moment: Moment) -> sqlite3.Row | None:
    """The rater's oldest counted vote that is long enough ago and has not been asked again."""
    row: sqlite3.Row | None = db.execute(
        "SELECT p.pair, p.swapped FROM presentation p JOIN pair ON pair.id = p.pair"
        " JOIN event e ON e.presentation = p.id AND e.turn = p.num_events - 1"
        " WHERE p.rater = :rater AND p.purpose = 'main' AND p.state = 'voted' AND e.outcome NOT IN ('skip', 'flag')"
        f" AND {OFFERED}"
        " AND NOT EXISTS (SELECT 1 FROM presentation q WHERE q.pair = p.pair AND q.rater = :rater"
        "   AND q.purpose = 'repeat')"
        " AND p.rowid < (SELECT rowid FROM presentation WHERE rater = :rater ORDER BY rowid DESC LIMIT 1 OFFSET :newer)"
        " ORDER BY p.rowid LIMIT 1",
        {"rater": moment.rater, "newer": REPEAT_AFTER - 1},
    ).fetchone()
    return row


def _present(
    db: sqlite3.Connection, plan: Plan, moment: Moment, pair: str, purpose: str, *, swapped: bool | None = None
) -> str:
    side = moment.sides.random() < 0.5 if swapped is None else swapped
    name = secrets.token_urlsafe(15)  # says nothing about the pair, and can not be guessed from another
    db.execute(
        "INSERT INTO presentation (id, pair, rater, purpose, swapped, state, changed, created, lease_ends)"
        " VALUES (?, ?, ?, ?, ?, 'open', (SELECT coalesce(max(id), 0) FROM event), ?, ?)",
        (name, pair, moment.rater, purpose, int(side), moment.now, moment.now + plan.lease_seconds),
    )
    return name


def _draw(purpose: str, rater: int, number: int, rate: float) -> bool:
    """Whether the rater's n-th presentation is of this purpose: without a pattern to learn, yet the same on a rerun."""
    return random.Random(f"{purpose} {rater} {number}").random() < rate
