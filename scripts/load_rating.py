"""Load on the rating page: many raters at once on loopback; checks that no vote is lost and prints how fast it answers.

    python scripts/load_rating.py                              200 raters for 60 s, no pause between votes
    python scripts/load_rating.py --raters 20 --seconds 20     the latency that twenty raters see
    python scripts/load_rating.py --raters 20 --pause 2        ... who look at each pair for about two seconds

Starts `rlhf-lab rate` as a process of its own, in a temporary folder, and speaks HTTP to it over kept connections.
"""

import argparse
import asyncio
import json
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_lab.rating.pairs import make_pair
from rlhf_lab.rating.store import Store, votes_path


@dataclass
class Seen:
    """What one rater's requests brought."""

    seconds: list[float] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)


class Connection:
    """One kept HTTP/1.1 connection, no more of it than this server needs."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = ""

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[dict[str, str], str]:
        payload = b"" if body is None else json.dumps(body).encode()
        here = f"127.0.0.1:{self.port}"
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {here}",
            f"Cookie: {self.cookie}",
            f"Content-Length: {len(payload)}",
        ]
        if body is not None:
            lines += ["Content-Type: application/json", f"Origin: http://{here}"]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + payload)
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        text = (await self.reader.readexactly(int(headers["content-length"]))).decode()
        if " 200 " not in head[0] + " ":
            raise RuntimeError(f"{method} {path.partition('?')[0]}: {head[0]} {text[:200]}")
        return headers, text


async def one_rater(link: str, until: float, pause: float, seen: Seen) -> None:
    port, path = re.match(r"http://127.0.0.1:(\d+)(/.*)", link).groups()  # type: ignore[union-attr]
    connection = Connection(int(port))
    await connection.open()
    headers, _ = await connection.ask("GET", path)
    connection.cookie = headers["set-cookie"].partition(";")[0]
    state = json.loads((await connection.ask("GET", "/api/next"))[1])
    rng = random.Random(link)
    while state["pair"] and time.monotonic() < until:
        if pause:
            await asyncio.sleep(rng.expovariate(1 / pause))
        name = state["pair"]["presentation"]
        vote = {"presentation": name, "turn": state["pair"]["turn"], "outcome": rng.choice(["left", "right", "tie"])}
        started = time.monotonic()
        state = json.loads((await connection.ask("POST", "/api/vote", vote))[1])
        seen.seconds.append(time.monotonic() - started)
        if state["counted"]:
            seen.counted.append(name)
    connection.writer.close()


@contextmanager
def running_page(folder: Path, raters: int) -> Iterator[list[str]]:
    """The server's links, one for each rater."""
    names = [word for number in range(raters) for word in ("--rater", f"rater-{number}")]
    command = [sys.executable, "-m", "rlhf_lab", "rate", f"runs_dir={folder}", "name=load", "--port", "0", *names]
    server = subprocess.Popen([*command, "--num-pairs", "1"], stdout=subprocess.PIPE, text=True)
    try:
        links = []
        for line in server.stdout or ():
            links += re.findall(r"^  rater-\d+: (\S+)", line)
            if line.startswith("Each link works once"):
                break
        if len(links) != raters:
            raise RuntimeError("the server did not start; its reason stands above")
        yield links
    finally:
        server.terminate()
        server.wait(30)


async def load(links: list[str], seconds: float, pause: float) -> list[Seen]:
    seen = [Seen() for _ in links]
    until = time.monotonic() + seconds
    await asyncio.gather(*(one_rater(link, until, pause, one) for link, one in zip(links, seen, strict=True)))
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description="Load on the rating page.")
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pause", type=float, default=0.0, help="mean seconds that a rater looks at a pair")
    parser.add_argument("--pairs", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store = Store(votes_path(Path(name) / "load"))
        store.add_pairs(make_pair(f"question {i}", f"one {i}", f"two {i}", source="load") for i in range(options.pairs))
        store.close()
        with running_page(Path(name), options.raters) as links:
            started = time.monotonic()
            seen = asyncio.run(load(links, options.seconds, options.pause))
            spent = time.monotonic() - started
        with sqlite3.connect(votes_path(Path(name) / "load")) as db:
            kept = {one for (one,) in db.execute("SELECT presentation FROM event WHERE kind = 'vote'")}
            (counted,) = db.execute("SELECT sum(num_votes) FROM pair").fetchone()
            (main_votes,) = db.execute(
                "SELECT count(*) FROM presentation WHERE purpose = 'main' AND state = 'voted'"
            ).fetchone()
            (overfull,) = db.execute("SELECT count(*) FROM pair WHERE num_votes > 1").fetchone()
            (whole,) = db.execute("PRAGMA integrity_check").fetchone()
    acknowledged = {one for rater in seen for one in rater.counted}
    times = sorted(second for rater in seen for second in rater.seconds)
    lost = len(acknowledged - kept)
    print(f"{options.raters} raters, {spent:.1f} s, pause {options.pause:g} s: {len(acknowledged)} votes acknowledged")
    print(
        f"kept {len(kept)}, lost {lost}, counters {'agree' if counted == main_votes else 'DISAGREE'}, database {whole}"
    )
    print(f"pairs with more votes than asked for: {overfull}; votes per second: {len(acknowledged) / spent:.0f}")
    for share in (0.5, 0.95, 0.99):
        print(
            f"answered within {1000 * times[min(len(times) - 1, int(share * len(times)))]:.0f} ms: {100 * share:.0f} %"
        )
    return 1 if lost or counted != main_votes or whole != "ok" else 0


if __name__ == "__main__":
    sys.exit(main())
