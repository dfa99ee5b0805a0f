"""What the tests of rating share: pairs, a store with a clock set by hand, a server in a thread. No test here."""

import http.client
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lab.rating.assignment import Plan
from rlhf_lab.rating.pairs import Pair, make_pair
from rlhf_lab.rating.store import Shown, Store

PLAIN = Plan(raters_per_pair=1, gold_rate=0.0, repeat_rate=0.0, lease_seconds=600)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def some_pairs(number: int, source: str = "model-of-secret-name") -> list[Pair]:
    """Pairs of which one completion is always 'good' and the other 'bad'."""
    return [make_pair(f"question {i}?", f"good {i}", f"bad answer {i}", source=source) for i in range(number)]


def some_gold(number: int) -> list[Pair]:
    return [
        make_pair(f"gold question {i}?", f"right {i}", f"wrong {i}", source="test", preferred=f"right {i}")
        for i in range(number)
    ]


def desk(folder: Path, number: int = 20, plan: Plan = PLAIN, **options: Any) -> Store:
    store = Store(folder / "votes.sqlite", plan, clock=options.pop("clock", Clock()), **options)
    store.sides = random.Random(7)
    store.add_pairs(some_pairs(number))
    return store


def side_of(shown: Shown, start: str) -> str:
    """left or right: where the completion stands that begins so."""
    return "left" if str(shown.left).startswith(start) else "right"


def vote_good(store: Store, rater: int, **options: Any) -> Shown | None:
    """Vote for the good side of what is shown; returns what was shown."""
    shown = store.next(rater)
    if shown is not None:
        side: Any = side_of(shown, "good")
        assert store.vote(rater, shown.id, turn=shown.turn, outcome=side, **options)
    return shown


@dataclass
class Served:
    """A running page: where it is, and how to get a link."""

    store: Store
    sessions: Any
    port: int

    def link(self, rater: str | None, *, is_owner: bool = False) -> str:
        number = None if rater is None else self.store.rater(rater)
        return f"http://127.0.0.1:{self.port}/enter?token={self.sessions.invite(number, is_owner=is_owner)}"


def served(store: Store) -> AbstractContextManager[Served]:
    """The rating page, until the block ends."""
    from rlhf_lab.rating.app import create_app
    from rlhf_lab.rating.guidelines import read_guidelines

    return serving(
        store, lambda sessions, **where: create_app(store, sessions, **where, guidelines=read_guidelines(None))
    )


@contextmanager
def serving(store: Store, create: Callable[..., Any], *, name: str = "rate") -> Iterator[Served]:
    """A real app on a free port of 127.0.0.1, under uvicorn, until the block ends."""
    from rlhf_lab.rating.address import Address, allowed_hosts
    from rlhf_lab.rating.server import server_of
    from rlhf_lab.rating.sessions import Sessions

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # from here on requests wait for the server instead of being refused
    port = listener.getsockname()[1]
    sessions = Sessions(store)
    hosts = allowed_hosts(Address(port=port), port)
    server = server_of(create(sessions, allowed_hosts=hosts, cookie_name=f"rlhf_lab_{name}_{port}"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Served(store, sessions, port)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


@dataclass
class Answer:
    """Status, headers (names in lower case) and body of an answer."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


def request(port: int, method: str, path: str, *, body: Any = None, cookie: str = "", **headers: str) -> Answer:
    """One plain HTTP request, with exactly the headers given; Host and Origin are ours unless named."""
    sent = {"Host": f"127.0.0.1:{port}", **({"Cookie": cookie} if cookie else {})}
    if method == "POST":
        sent |= {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    payload = b"" if body is None else json.dumps(body).encode()
    if body is not None:
        sent["Content-Length"] = str(len(payload))
    for name, value in sent.items():
        if value != "-":  # a dash leaves the header out
            connection.putheader(name, value)
    connection.endheaders(payload)
    answer = connection.getresponse()
    found = Answer(
        answer.status,
        {name.lower(): value for name, value in answer.getheaders()},
        answer.read().decode("utf-8"),
    )
    connection.close()
    return found


def sign_in(page: Served, rater: str | None, *, is_owner: bool = False) -> str:
    """The Cookie header of a new session."""
    path = page.link(rater, is_owner=is_owner).partition(str(page.port))[2]
    answer = request(page.port, "GET", path)
    assert answer.status == 200, answer.body
    return answer.headers["set-cookie"].partition(";")[0]
