"""Pairs, raters, presentations and votes in one SQLite file. One writer at a time, short transactions.

    store = Store(run_folder / "rating" / "votes.sqlite", Plan(raters_per_pair=2))
    ann = store.rater("ann")
    shown = store.next(ann)
    store.vote(ann, shown.id, turn=shown.turn, outcome="left", strength="slightly", seconds=4.2)

Leaves out sessions (`sessions.py`) and statistics (`findings.py`).
"""

import json
import random
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhf_lab.data.prompts import Completion, Prompt
from rlhf_lab.errors import UserError
from rlhf_lab.rating import assignment, schema
from rlhf_lab.rating.assignment import Moment, Plan
from rlhf_lab.rating.outcomes import COUNTED, Kind, Outcome, Strength, Vote
from rlhf_lab.rating.pairs import CHAT, IMPORT, Pair, to_json


class UnknownPresentationError(UserError):
    """A vote for something that this rater was not shown."""


@dataclass(frozen=True)
class Shown:
    """One pair as one rater sees it."""

    id: str
    turn: int  # number of events so far; a vote names it, so that the same vote sent twice is counted once
    prompt: Prompt
    left: Completion
    right: Completion


@dataclass(frozen=True)
class Progress:
    """How far one rater is."""

    num_done: int
    num_left: int
    seconds_left: float | None  # None until the rater has a pace


@dataclass(frozen=True)
class LastVote:
    """What an undo would take back."""

    id: str
    turn: int
    outcome: Outcome
    strength: Strength | None


def votes_path(run_folder: Path) -> Path:
    """Where a run keeps its votes."""
    return run_folder / "rating" / "votes.sqlite"


class Store:
    """The votes of one run. Safe to call from several threads, beside other processes on the same file."""

    def __init__(
        self,
        path: Path,
        plan: Plan | None = None,
        *,
        busy_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
        sides: random.Random | None = None,
    ) -> None:
        self.path = path
        self.plan = plan or Plan()
        self.clock = clock
        self.sides = sides or random.SystemRandom()
        self._db = schema.connect(path, busy_seconds=busy_seconds)
        self._lock = threading.RLock()
        self._is_writing = False

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing. SQLite's own errors come out as UserError.

        Inside another one it is part of that: a vote and the next pair are one transaction, and one wait for the disk.
        """
        with self._lock:
            if self._is_writing:
                yield self._db
                return
            try:
                with self._transaction():
                    yield self._db
            except sqlite3.OperationalError as error:
                raise schema.explained(error, self.path) from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        self._is_writing = True
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        finally:
            self._is_writing = False

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.OperationalError as error:
                raise schema.explained(error, self.path) from None

    # --- pairs and raters ---------------------------------------------------------------------------------------

    def add_pairs(self, pairs: Iterable[Pair], *, seed: int = 0) -> int:
        """Add pairs in a shuffled order; those that are there already stay as they are, but for one from a chat that is
        given out from now on. Returns how many are new.

        Pairs of two writers come before others: whoever asks for them wants them rated now.
        """
        new = list(pairs)
        order = random.Random(f"order of pairs {seed}")
        values = [
            (
                *(
                    p.id,
                    to_json(p.prompt),
                    to_json(p.first),
                    to_json(p.second),
                    p.source,
                    p.gold,
                    order.random() - bool(p.writers),
                ),
                *(p.writers or (None, None)),
            )
            for p in new
        ]
        with self.writing() as db:
            before = db.total_changes
            db.executemany(
                "INSERT INTO pair (id, prompt, first, second, source, gold, position, first_writer, second_writer)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE"
                " SET source = excluded.source, gold = excluded.gold, position = excluded.position"
                f" WHERE NOT ({assignment.OFFERED}) AND excluded.source NOT LIKE '{CHAT}%'"
                f" AND excluded.source NOT LIKE '{IMPORT}%'",  # a file of votes asks nobody to rate
                values,
            )
            return db.total_changes - before

    def pairs(self) -> dict[str, Pair]:
        with self.reading() as db:
            rows = db.execute("SELECT * FROM pair ORDER BY position").fetchall()
        return {
            row["id"]: Pair(
                prompt=json.loads(row["prompt"]),
                first=json.loads(row["first"]),
                second=json.loads(row["second"]),
                source=row["source"],
                gold=row["gold"],
                writers=(row["first_writer"], row["second_writer"]) if row["first_writer"] else None,
            )
            for row in rows
        }

    def rater(self, name: str, kind: Kind = "human", *, origin: str | None = None) -> int:
        """The number of a rater, made at first sight. Raises UserError where the name is of another kind of rater."""
        if not name.strip() or len(name) > 200:
            raise UserError(f"a rater's name has 1 to 200 characters; got {name[:80]!r}. Type --rater ann")
        with self.writing() as db:
            db.execute(
                "INSERT OR IGNORE INTO rater (name, kind, origin, created) VALUES (?, ?, ?, ?)",
                (name, kind, origin, self.clock()),
            )
            row = db.execute("SELECT id, kind FROM rater WHERE name = ?", (name,)).fetchone()
        if row["kind"] != kind:
            raise UserError(
                f"the rater {name!r} is {row['kind']}, not {kind}; votes of one name are of one kind. Give another "
                "name: type --rater NAME"
            )
        return int(row["id"])

    def rater_name(self, rater: int) -> str:
        with self.reading() as db:
            return str(db.execute("SELECT name FROM rater WHERE id = ?", (rater,)).fetchone()["name"])

    # --- what a rater does --------------------------------------------------------------------------------------

    def next(self, rater: int) -> Shown | None:
        """The pair to show: the same one until it has a vote. None when nothing is left for this rater."""
        with self.writing() as db:
            name = assignment.assign(db, self.plan, Moment(rater, self.clock(), self.sides))
            if name is None:
                return None
            row = db.execute(
                "SELECT p.id, p.swapped, p.num_events, pair.prompt, pair.first, pair.second FROM presentation p"
                " JOIN pair ON pair.id = p.pair WHERE p.id = ?",
                (name,),
            ).fetchone()
        first, second = json.loads(row["first"]), json.loads(row["second"])
        left, right = (second, first) if row["swapped"] else (first, second)
        return Shown(row["id"], row["num_events"], json.loads(row["prompt"]), left, right)

    def vote(
        self,
        rater: int,
        presentation: str,
        *,
        turn: int,
        outcome: Outcome,
        strength: Strength | None = None,
        seconds: float | None = None,
    ) -> bool:
        """Add one vote; False where this very vote is there already. It is on disk when this returns.

        A vote is taken even after its lease ended: a late vote is better than a lost one.
        """
        with self.writing() as db:
            row = self._presentation(db, rater, presentation, turn)
            if turn < row["num_events"]:
                return False
            if row["state"] == "voted":
                raise UnknownPresentationError("this pair has a vote already; take it back (U) to vote anew")
            now = self.clock()
            if seconds is not None:  # the page's clock can be wrong, but not by more than all the time there was
                seconds = min(max(seconds, 0.0), max(now - row["created"], 0.0))
            event = db.execute(
                "INSERT INTO event (presentation, turn, kind, outcome, strength, seconds, at)"
                " VALUES (?, ?, 'vote', ?, ?, ?, ?)",
                (presentation, turn, outcome, strength, seconds, now),
            ).lastrowid
            db.execute(
                "UPDATE presentation SET state = 'voted', num_events = num_events + 1, changed = ? WHERE id = ?",
                (event, presentation),
            )
            self._count(db, row["pair"], row["purpose"], row["kind"], outcome, 1)
            return True

    def undo(self, rater: int, presentation: str, *, turn: int, then: Literal["open", "lapsed"] = "open") -> bool:
        """Take back the vote at `turn` by another event; False where that is done already.

        The rating page shows the pair again, unless it is left as `lapsed`.
        """
        with self.writing() as db:
            row = self._presentation(db, rater, presentation, turn)
            if row["state"] != "voted" or turn != row["num_events"] - 1:
                return False
            (outcome,) = db.execute(
                "SELECT outcome FROM event WHERE presentation = ? AND turn = ?", (presentation, turn)
            ).fetchone()
            now = self.clock()
            event = db.execute(
                "INSERT INTO event (presentation, turn, kind, at) VALUES (?, ?, 'undo', ?)",
                (presentation, turn + 1, now),
            ).lastrowid
            db.execute(
                "UPDATE presentation SET state = ?, num_events = num_events + 1, changed = ?, lease_ends = ?"
                " WHERE id = ?",
                (then, event, now + self.plan.lease_seconds, presentation),
            )
            self._count(db, row["pair"], row["purpose"], row["kind"], outcome, -1)
            return True

    def last_vote(self, rater: int) -> LastVote | None:
        """The rater's newest vote on what the rating page showed."""
        with self.reading() as db:
            row = db.execute(
                "SELECT p.id, e.turn, e.outcome, e.strength FROM presentation p"
                " JOIN event e ON e.presentation = p.id AND e.turn = p.num_events - 1"
                f" JOIN pair ON pair.id = p.pair WHERE p.rater = ? AND p.state = 'voted' AND {assignment.OFFERED}"
                " ORDER BY p.changed DESC LIMIT 1",
                (rater,),
            ).fetchone()
        return LastVote(row["id"], row["turn"], row["outcome"], row["strength"]) if row else None

    def progress(self, rater: int) -> Progress:
        """Done and left of what the rating page shows, and the seconds that the rest will take at this rater's pace."""
        with self.reading() as db:
            counts = dict(
                db.execute(
                    "SELECT state, count(*) FROM presentation p JOIN pair ON pair.id = p.pair"
                    f" WHERE rater = ? AND {assignment.OFFERED} GROUP BY state",
                    (rater,),
                ).fetchall()
            )
            left = counts.get("open", 0) + max(assignment.num_waiting(db, self.plan, rater), 0)
            recent = db.execute(
                "SELECT seconds FROM presentation p JOIN event e ON e.presentation = p.id AND e.turn = p.num_events - 1"
                " WHERE p.rater = ? AND p.state = 'voted' AND seconds IS NOT NULL ORDER BY p.changed DESC LIMIT 25",
                (rater,),
            ).fetchall()
        pace = median([row["seconds"] for row in recent])
        return Progress(counts.get("voted", 0), left, None if pace is None else pace * left)

    def record(self, rater: int, votes: Iterable[tuple[str, Outcome, Strength | None]]) -> int:
        """Add votes that were made elsewhere: (pair, outcome, strength), `left` meaning the pair's first completion.

        Returns how many are new: a rater has one vote a pair. Raises UserError, and adds none, where a pair is unknown.
        """
        new = 0
        with self.writing() as db:
            known = {row["id"]: row["gold"] for row in db.execute("SELECT id, gold FROM pair")}
            votes = list(votes)
            if unknown := sum(pair not in known for pair, _, _ in votes):
                raise UserError(f"{unknown} of {len(votes)} votes are for pairs that are not here; add the pairs first")
            for pair, outcome, strength in votes:
                new += self._record_one(db, rater, pair, outcome, strength, "gold" if known[pair] else "main")
        return new

    # --- what others read ---------------------------------------------------------------------------------------

    def votes(self) -> list[Vote]:
        """All votes that stand, oldest first."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT p.pair, r.name AS rater, r.kind, p.purpose, p.swapped, e.outcome, e.strength, e.seconds, e.at"
                " FROM event e JOIN presentation p ON p.id = e.presentation AND e.turn = p.num_events - 1"
                " JOIN rater r ON r.id = p.rater WHERE e.kind = 'vote' ORDER BY e.id"
            ).fetchall()
        return [Vote(**{**dict(row), "swapped": bool(row["swapped"])}) for row in rows]

    def copy_to(self, path: Path) -> None:
        """A copy of the whole database as it is at this moment; sessions stay behind."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.reading() as db, closing(sqlite3.connect(path)) as copy:
            db.backup(copy)
            copy.execute("DELETE FROM session")
            copy.commit()

    def num_events(self) -> int:
        with self.reading() as db:
            return int(db.execute("SELECT count(*) FROM event").fetchone()[0])

    # --- inside a transaction -----------------------------------------------------------------------------------

    def _record_one(
        self, db: sqlite3.Connection, rater: int, pair: str, outcome: Outcome, strength: Strength | None, purpose: str
    ) -> bool:
        name, now = secrets.token_urlsafe(15), self.clock()
        added = db.execute(
            "INSERT OR IGNORE INTO presentation"
            " (id, pair, rater, purpose, swapped, state, num_events, changed, created, lease_ends)"
            " VALUES (?, ?, ?, ?, 0, 'voted', 1, 0, ?, ?)",
            (name, pair, rater, purpose, now, now),
        ).rowcount
        if not added:
            return False
        db.execute(
            "INSERT INTO event (presentation, turn, kind, outcome, strength, at) VALUES (?, 0, 'vote', ?, ?, ?)",
            (name, outcome, strength, now),
        )
        (kind,) = db.execute("SELECT kind FROM rater WHERE id = ?", (rater,)).fetchone()
        self._count(db, pair, purpose, kind, outcome, 1)
        return True

    def _presentation(self, db: sqlite3.Connection, rater: int, presentation: str, turn: int) -> sqlite3.Row:
        row: sqlite3.Row | None = db.execute(
            "SELECT pair, purpose, state, num_events, p.created, kind FROM presentation p"
            " JOIN rater r ON r.id = p.rater WHERE p.id = ? AND p.rater = ?",
            (presentation, rater),
        ).fetchone()
        if row is None or turn > row["num_events"] or turn < 0:
            raise UnknownPresentationError(
                "this pair was not shown to you, so the vote was not taken; reload the page to get a pair"
            )
        return row

    def _count(
        self, db: sqlite3.Connection, pair: str, purpose: str, kind: Kind, outcome: Outcome, change: int
    ) -> None:
        """Only votes of people fill a pair: simulated and imported votes must not keep it from being shown."""
        if purpose == "main" and kind == "human" and outcome in COUNTED:
            db.execute("UPDATE pair SET num_votes = num_votes + ? WHERE id = ?", (change, pair))


def median(values: Sequence[float]) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
