"""The database on a bad day: newer, foreign, locked, read-only, half migrated."""

import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rlhf_lab.errors import UserError
from rlhf_lab.rating import schema
from rlhf_lab.rating.schema import LockedError
from rlhf_lab.rating.store import Store
from tests.rating.desk import PLAIN, desk, vote_good

NOBODY = 65534


def test_a_database_from_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    store = desk(tmp_path)
    vote_good(store, store.rater("ann"))
    store.close()
    with sqlite3.connect(store.path) as other:
        other.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    with pytest.raises(UserError, match=r"schema version 3.*knows versions up to 2.*pip install -U"):
        Store(store.path)
    with sqlite3.connect(store.path) as other:
        assert other.execute("SELECT count(*) FROM event").fetchone() == (1,)


def test_an_older_database_is_brought_up_to_date_with_its_votes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = desk(tmp_path)
    vote_good(store, store.rater("ann"))
    votes = store.votes()
    store.close()
    step = "ALTER TABLE rater ADD COLUMN note TEXT;\nUPDATE rater SET note = 'migrated';"
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, step])
    newer = Store(store.path)
    assert newer.votes() == votes
    with newer.reading() as db:
        assert db.execute("SELECT note FROM rater").fetchone()[0] == "migrated"
        assert db.execute("PRAGMA user_version").fetchone()[0] == 3


def test_a_database_of_the_first_version_keeps_its_pairs_and_votes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", [schema.VERSION_1])
    path = tmp_path / "votes.sqlite"
    first = schema.connect(path)
    first.execute("INSERT INTO pair (id, prompt, first, second, source, position) VALUES ('p', '1', '2', '3', 's', 0)")
    first.close()
    monkeypatch.undo()
    (pair,) = Store(path).pairs().values()
    assert (pair.source, pair.writers) == ("s", None)


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = desk(tmp_path)
    store.close()
    step = "ALTER TABLE rater ADD COLUMN note TEXT;\nINSERT INTO nowhere VALUES (1);"
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, step])
    with pytest.raises(UserError, match="nowhere"):
        Store(store.path)
    with sqlite3.connect(store.path) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (2,)
        assert "note" not in [row[1] for row in other.execute("PRAGMA table_info(rater)")]


def test_write_ahead_log_and_full_synchronisation_are_on(tmp_path: Path) -> None:
    store = desk(tmp_path)
    with store.reading() as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2, "FULL"
        assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_a_locked_database_says_so_and_the_vote_can_be_sent_again(tmp_path: Path) -> None:
    store = desk(tmp_path, busy_seconds=0.05)
    ann = store.rater("ann")
    shown = store.next(ann)
    assert shown is not None
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LockedError, match="locked by another program, and nothing was written"):
        store.vote(ann, shown.id, turn=0, outcome="left")
    other.execute("ROLLBACK")
    assert store.vote(ann, shown.id, turn=0, outcome="left")
    assert len(store.votes()) == 1


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at " * 20, None])
def test_another_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "votes.sqlite"
    if content is None:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE recipes (name TEXT)")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"not a database of votes|not one of votes"):
        Store(path)
    assert path.read_bytes() == before


def test_a_folder_that_can_not_be_made_is_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "rating").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"can not write .*votes\.sqlite.*type runs_dir="):
        Store(tmp_path / "rating" / "votes.sqlite")


@pytest.mark.parametrize("mode", [0o555, 0o777], ids=["the folder", "the file"])
def test_what_is_read_only_is_refused_before_anybody_votes(mode: int) -> None:
    """Root may write anywhere, so as root the process gives up its rights once everything is imported."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = desk(folder)
        vote_good(store, store.rater("ann"))
        store.close()
        folder.chmod(mode)
        store.path.chmod(0o444)
        code = (
            "import os, pathlib, sys; from rlhf_lab.rating.store import Store\n"
            f"if os.geteuid() == 0: os.setgroups([]); os.setuid({NOBODY})\n"
            "Store(pathlib.Path(sys.argv[1]))"
        )
        command = [sys.executable, "-c", code, str(store.path)]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
        folder.chmod(0o755)
        store.path.chmod(0o644)
        assert "UserError: can not write" in done.stderr
        assert "type runs_dir=" in done.stderr
        assert len(Store(store.path, PLAIN).votes()) == 1
