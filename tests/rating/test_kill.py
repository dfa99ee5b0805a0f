"""kill -9 while raters vote: every vote that was answered is there, and the database is whole."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.rating.store import Store, votes_path
from tests.rating.desk import PLAIN, request, some_pairs

pytest.importorskip("fastapi", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
pytest.importorskip("uvicorn", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
ROOT = Path(__file__).parents[2]
RATERS, ACKNOWLEDGED = 6, 120


def start(tmp_path: Path) -> tuple[Any, dict[str, str]]:
    """`rlhf-lab rate` as a process of its own; returns it and the link of each rater."""
    names = [word for number in range(RATERS) for word in ("--rater", f"rater-{number}")]
    command = [sys.executable, "-m", "rlhf_lab", "rate", f"runs_dir={tmp_path}", "name=run", "--port", "0", *names]
    server = subprocess.Popen(
        [*command, "--num-pairs", "1", "--gold-rate", "0", "--repeat-rate", "0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    links: dict[str, str] = {}
    for line in server.stdout:
        if found := re.match(r"\s+(rater-\d+): (http://\S+)", line):
            links[found[1]] = found[2]
        if line.startswith("Each link works once"):
            break
    assert len(links) == RATERS, server.stderr.read() if server.stderr else ""
    return server, links


def vote_until_the_end(link: str, acknowledged: list[str], enough: threading.Event) -> None:
    """Vote and vote, noting what the server said was counted, until the server is gone."""
    port, path = re.match(r"http://127.0.0.1:(\d+)(/.*)", link).groups()  # type: ignore[union-attr]
    cookie = request(int(port), "GET", path).headers["set-cookie"].partition(";")[0]
    try:
        state = request(int(port), "GET", "/api/next", cookie=cookie).json()
        while state["pair"]:
            name = state["pair"]["presentation"]
            body = {"presentation": name, "turn": 0, "outcome": "left", "strength": "slightly", "seconds": 1.0}
            state = request(int(port), "POST", "/api/vote", body=body, cookie=cookie).json()
            if state["counted"]:
                acknowledged.append(name)
            if len(acknowledged) >= ACKNOWLEDGED:
                enough.set()
    except (OSError, ValueError, json.JSONDecodeError):
        return  # killed
    except Exception as error:  # http.client's own errors share no base with OSError
        if not type(error).__module__.startswith("http"):
            raise


def test_kill_9_under_load_loses_no_acknowledged_vote(tmp_path: Path) -> None:
    store = Store(votes_path(tmp_path / "run"), PLAIN)
    store.add_pairs(some_pairs(5000))
    store.close()
    server, links = start(tmp_path)
    acknowledged: list[str] = []
    enough = threading.Event()
    threads = [
        threading.Thread(target=vote_until_the_end, args=(link, acknowledged, enough)) for link in links.values()
    ]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    server.send_signal(signal.SIGKILL)
    server.wait()
    for thread in threads:
        thread.join(30)
    output = server.stderr.read()
    with sqlite3.connect(votes_path(tmp_path / "run")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = {name for (name,) in db.execute("SELECT presentation FROM event WHERE kind = 'vote'")}
        counted = db.execute("SELECT sum(num_votes) FROM pair").fetchone()[0]
    assert len(acknowledged) >= ACKNOWLEDGED
    assert set(acknowledged) <= kept
    assert counted == len(kept), "what is derived never runs ahead of the log"
    assert not [link for link in links.values() if link.partition("token=")[2] in output]
