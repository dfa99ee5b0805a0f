"""Who may rate: a one-time token in a link, exchanged for a session cookie. Only hashes are kept, nothing is logged.

A link is used up by the browser that opens it first. The session outlives a restart of the server, so a page that is
open goes on; a new link is printed at every start.
"""

import hashlib
import hmac
import secrets
import threading
from dataclasses import dataclass

from rlhf_lab.rating.store import Store

SESSION_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Visitor:
    """Whom a session belongs to. Only an owner sees the agreement page, for it shows others' votes in sum."""

    rater: int | None
    is_owner: bool


class Sessions:
    """Invitations (in memory, each good for one use) and sessions (hashed, in the database)."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._invitations: list[tuple[str, Visitor]] = []
        self._lock = threading.Lock()

    def invite(self, rater: int | None, *, is_owner: bool) -> str:
        """A new one-time token."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._invitations.append((digest(token), Visitor(rater, is_owner)))
        return token

    def exchange(self, token: str) -> str | None:
        """The cookie for a token that has not been used; None for any other."""
        given = digest(token)
        with self._lock:
            # Every invitation is compared, each in constant time: how long this takes says nothing
            matching = [one for one in self._invitations if hmac.compare_digest(one[0], given)]
            if not matching:
                return None
            self._invitations.remove(matching[0])
        cookie = secrets.token_urlsafe(32)
        visitor = matching[0][1]
        with self.store.writing() as db:
            db.execute("DELETE FROM session WHERE expires < ?", (self.store.clock(),))
            db.execute(
                "INSERT INTO session (hash, rater, is_owner, expires) VALUES (?, ?, ?, ?)",
                (digest(cookie), visitor.rater, int(visitor.is_owner), self.store.clock() + SESSION_SECONDS),
            )
        return cookie

    def visitor(self, cookie: str | None) -> Visitor | None:
        """Whose cookie this is; None for one that is unknown or too old."""
        if not cookie:
            return None
        given = digest(cookie)
        with self.store.reading() as db:
            row = db.execute("SELECT * FROM session WHERE hash = ?", (given,)).fetchone()
        if row is None or not hmac.compare_digest(row["hash"], given) or row["expires"] < self.store.clock():
            return None
        return Visitor(row["rater"], bool(row["is_owner"]))


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
