"""The database of votes: its tables, its version, and opening it on a disk that may be read-only, locked or newer.

Votes are events that are only ever added; triggers refuse to change or delete one. What is derived (`num_votes`,
`num_events`, `state`) changes in the same transaction as the event it comes from.
"""

import sqlite3
from pathlib import Path

from rlhf_lab.errors import UserError

VERSION_1 = """
CREATE TABLE pair (
    id TEXT PRIMARY KEY,                       -- hash of prompt and both completions, whichever comes first
    prompt TEXT NOT NULL, first TEXT NOT NULL, second TEXT NOT NULL,         -- JSON: text or messages
    source TEXT NOT NULL,                      -- where the pair comes from; never leaves the database for the page
    gold TEXT CHECK (gold IN ('first', 'second')),                           -- the known answer of a gold question
    position REAL NOT NULL,                    -- order of presentation, drawn when the pair was added
    num_votes INTEGER NOT NULL DEFAULT 0       -- of people, on this pair as a main one
) STRICT;
CREATE INDEX pair_waiting ON pair (num_votes DESC, position) WHERE gold IS NULL;
CREATE TABLE rater (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('human', 'simulated', 'imported')),
    origin TEXT,                               -- for imported votes: who rated, as their file says
    created REAL NOT NULL
) STRICT;
CREATE TABLE presentation (
    id TEXT PRIMARY KEY,                       -- random: all that the page knows of a pair
    pair TEXT NOT NULL REFERENCES pair, rater INTEGER NOT NULL REFERENCES rater,
    purpose TEXT NOT NULL CHECK (purpose IN ('main', 'gold', 'repeat')),
    swapped INTEGER NOT NULL CHECK (swapped IN (0, 1)),                      -- 1: the second stands on the left
    state TEXT NOT NULL CHECK (state IN ('open', 'voted', 'lapsed')),
    num_events INTEGER NOT NULL DEFAULT 0,
    changed INTEGER NOT NULL,                  -- the newest event then: clocks can stand still or go back
    created REAL NOT NULL, lease_ends REAL NOT NULL,
    UNIQUE (pair, rater, purpose)
) STRICT;
CREATE INDEX presentation_of_rater ON presentation (rater, state, changed);
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    presentation TEXT NOT NULL REFERENCES presentation,
    turn INTEGER NOT NULL,                     -- which event of its presentation: a vote sent twice is one vote
    kind TEXT NOT NULL CHECK (kind IN ('vote', 'undo')),
    outcome TEXT CHECK (outcome IN ('left', 'right', 'tie', 'both_bad', 'skip', 'flag')),
    strength TEXT CHECK (strength IN ('slightly', 'clearly')),
    seconds REAL, at REAL NOT NULL,
    UNIQUE (presentation, turn),
    CHECK ((kind = 'vote') = (outcome IS NOT NULL))
) STRICT;
CREATE TRIGGER event_is_never_changed BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'votes are append-only'); END;
CREATE TRIGGER event_is_never_deleted BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'votes are append-only'); END;
CREATE TABLE session (
    hash TEXT PRIMARY KEY,                     -- SHA-256 of the cookie, never the cookie
    rater INTEGER REFERENCES rater, is_owner INTEGER NOT NULL, expires REAL NOT NULL
) STRICT;
"""

VERSION_2 = """
ALTER TABLE pair ADD COLUMN first_writer TEXT;   -- the model that wrote it, where the pair sets two against each other
ALTER TABLE pair ADD COLUMN second_writer TEXT;
"""

# The script at place n leads from version n to n + 1. A published script is never edited, only followed by another.
MIGRATIONS: list[str] = [VERSION_1, VERSION_2]
APPLICATION_ID = 0x524C4846  # "RLHF": says in the file's header whose database this is


class LockedError(UserError):
    """Another program holds the database; the same call can succeed a moment later."""


def connect(path: Path, *, busy_seconds: float = 5.0) -> sqlite3.Connection:
    """Open or make the database at `path` and bring it to this version.

    Raises UserError for a folder or file that can not be written, a file that is something else, and a database that a
    newer version wrote; LockedError where another program holds it for longer than `busy_seconds`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise _cannot_write(path, error) from None
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise explained(error, path) from None
    except BaseException:
        connection.close()
        raise
    return connection


def explained(error: sqlite3.Error, path: Path) -> UserError:
    """SQLite's words as ours: what happened to the database, and what to do."""
    words = str(error)
    if "locked" in words or "busy" in words:
        return LockedError(
            f"{path} is locked by another program, and nothing was written; close that program (a database browser "
            "that has unsaved changes?) and try again"
        )
    if isinstance(error, sqlite3.DatabaseError) and ("not a database" in words or "malformed" in words):
        return UserError(f"{path} is not a database of votes ({words}); move it away, or give another name=")
    return _cannot_write(path, error)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.row_factory = sqlite3.Row
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (num_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if num_tables and owner != APPLICATION_ID:
        raise UserError(f"{path} is a database, but not one of votes; move it away, or give another name=")
    if version > len(MIGRATIONS):
        raise UserError(
            f"{path} has schema version {version}, and this rlhf_lab knows versions up to {len(MIGRATIONS)}: a newer "
            'rlhf_lab wrote it. Nothing was changed; type: pip install -U "rlhf-lab[rate]"'
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # an acknowledged vote survives a power cut, not only kill -9
    connection.execute("PRAGMA foreign_keys = ON")
    _migrate(connection)
    # A read-only file opens without complaint, and even begins a transaction; only writing tells, before anybody votes
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("ROLLBACK")


def _migrate(connection: sqlite3.Connection) -> None:
    """Apply what is missing, all or nothing; another process may be doing the same."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for script in MIGRATIONS[version:]:
            for statement in statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def statements(script: str) -> list[str]:
    """The script's statements; `executescript` would commit before each."""
    found, begun = [], ""
    for line in script.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            found.append(begun)
            begun = ""
    return [*found, begun] if begun.strip() else found


def _cannot_write(path: Path, error: Exception) -> UserError:
    return UserError(
        f"can not write {path} ({error}); votes need a folder that can be written; type runs_dir=/another/disk"
    )
