"""The page over plain HTTP: who gets in, what leaves, what a foreign page can do. The real app under uvicorn."""

import io
import logging
import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from rlhf_lab.rating import sessions
from rlhf_lab.rating.pairs import make_pair
from rlhf_lab.rating.store import Store
from tests.rating.desk import Plan, Served, desk, request, served, sign_in, some_pairs

pytest.importorskip("fastapi", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
pytest.importorskip("uvicorn", reason='the page needs the extra: pip install "rlhf-lab[rate]"')


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Served]:
    with served(desk(tmp_path, 30, Plan(raters_per_pair=2, gold_rate=0, repeat_rate=0), busy_seconds=0.2)) as running:
        yield running


def get(page: Served, path: str, **headers: str) -> int:
    return request(page.port, "GET", path, **headers).status


def test_a_link_works_once_and_gives_a_cookie_that_scripts_and_other_sites_can_not_use(page: Served) -> None:
    path = page.link("ann").partition(str(page.port))[2]
    first = request(page.port, "GET", path)
    assert first.status == 200
    attributes = {part.strip().lower() for part in first.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    assert request(page.port, "GET", path).status == 401, "used up"
    cookie = first.headers["set-cookie"].partition(";")[0]
    assert get(page, "/", Cookie=cookie) == 200


@pytest.mark.parametrize("path", ["/", "/api/next", "/agreement"])
def test_without_a_cookie_or_with_a_wrong_one_nothing_is_shown(page: Served, path: str) -> None:
    assert get(page, path) == 401
    assert get(page, path, Cookie=f"rlhf_lab_rate_{page.port}=guessed") == 401


@pytest.mark.parametrize("token", ["", "wrong", "%ff%fe", "a" * 5000])
def test_a_wrong_token_is_refused(page: Served, token: str) -> None:
    page.link("ann")
    answer = request(page.port, "GET", f"/enter?token={token}")
    assert answer.status == 401
    assert "set-cookie" not in answer.headers


def test_a_session_ends_after_a_week_and_outlives_a_restart(page: Served) -> None:
    cookie = sign_in(page, "ann")
    again = sessions.Sessions(Store(page.store.path, clock=page.store.clock))
    value = cookie.partition("=")[2]
    assert again.visitor(value) is not None
    page.store.clock.now += sessions.SESSION_SECONDS + 1  # type: ignore[attr-defined]
    assert get(page, "/", Cookie=cookie) == 401


def test_neither_tokens_nor_cookies_are_stored(page: Served) -> None:
    token = page.link("ann").partition("token=")[2]
    cookie = sign_in(page, "bob").partition("=")[2]
    with sqlite3.connect(page.store.path) as db:
        dump = "\n".join(db.iterdump())
    assert cookie not in dump
    assert token not in dump
    assert sessions.digest(cookie) in dump


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "-", ""])
def test_a_foreign_host_is_refused_even_with_the_cookie(page: Served, host: str) -> None:
    cookie = sign_in(page, "ann")
    assert get(page, "/api/next", Cookie=cookie) == 200
    assert get(page, "/api/next", Cookie=cookie, Host=host.format(port=page.port)) in (400, 403)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "-", "http://127.0.0.1:1", "https://localhost"])
def test_a_vote_from_a_foreign_page_is_refused_even_with_the_cookie(page: Served, origin: str) -> None:
    cookie = sign_in(page, "ann")
    pair = request(page.port, "GET", "/api/next", cookie=cookie).json()["pair"]
    body = {"presentation": pair["presentation"], "turn": 0, "outcome": "left"}
    assert request(page.port, "POST", "/api/vote", body=body, cookie=cookie, Origin=origin).status == 403
    assert page.store.votes() == []
    assert request(page.port, "POST", "/api/vote", body=body, cookie=cookie).status == 200
    assert len(page.store.votes()) == 1


def test_every_answer_forbids_what_is_not_from_here(page: Served) -> None:
    cookie = sign_in(page, "ann")
    for path in ("/", "/api/next", "/static/rate.js", "/nowhere", "/enter?token=x"):
        headers = request(page.port, "GET", path, cookie=cookie, Origin="http://evil.example").headers
        assert "default-src 'self'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert not [name for name in headers if name.startswith("access-control")], "no CORS"
        assert "uvicorn" not in headers.get("server", "")


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline(page: Served) -> None:
    cookie = sign_in(page, "ann", is_owner=True)
    for path in ("/", "/agreement"):
        html = request(page.port, "GET", path, cookie=cookie).body
        for address in re.findall(r"""(?:src|href|action)=["']([^"']+)""", html):
            assert address.startswith("/"), address
            if address.startswith("/static/"):
                assert get(page, address) == 200
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", html)
    assert get(page, "/static/../app.py") in (401, 404)
    assert get(page, "/static/app.py") == 404
    assert get(page, "/docs") == get(page, "/openapi.json") == 404


def test_the_browser_learns_nothing_of_models_pairs_and_purposes(page: Served) -> None:
    cookie = sign_in(page, "ann")
    text = request(page.port, "GET", "/", cookie=cookie).body
    answer = request(page.port, "GET", "/api/next", cookie=cookie)
    assert "secret" not in text + answer.body
    found = answer.json()
    assert set(found) == {"pair", "progress", "last"}
    assert set(found["pair"]) == {"presentation", "turn", "prompt", "left", "right"}
    assert not set(page.store.pairs()) & set(re.findall(r"\w+", answer.body)), "no pair's own id"
    shown = {found["pair"]["left"][0]["text"], found["pair"]["right"][0]["text"]}
    assert any(shown == {str(pair.first), str(pair.second)} for pair in page.store.pairs().values())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"presentation": "x", "turn": 0, "outcome": "best"},
        {"presentation": "x", "turn": -1, "outcome": "left"},
        {"presentation": "x", "turn": 0, "outcome": "left", "strength": "very"},
        {"presentation": "x", "turn": 0, "outcome": "left", "seconds": -5},
        {"presentation": "x", "turn": 0, "outcome": "left", "rater": 1},
        ["left"],
    ],
)
def test_what_is_no_vote_is_refused_in_words(page: Served, body: object) -> None:
    answer = request(page.port, "POST", "/api/vote", body=body, cookie=sign_in(page, "ann"))
    assert answer.status == 422
    assert answer.json()["error"].startswith("This is no vote:")


def test_a_vote_for_an_unknown_pair_is_refused_in_words(page: Served) -> None:
    body = {"presentation": "unknown", "turn": 0, "outcome": "left"}
    answer = request(page.port, "POST", "/api/vote", body=body, cookie=sign_in(page, "ann"))
    assert answer.status == 404
    assert "was not shown to you" in answer.json()["error"]


def test_a_body_that_is_too_long_is_not_read(page: Served) -> None:
    body = {"presentation": "x" * 20_000, "turn": 0, "outcome": "left"}
    assert request(page.port, "POST", "/api/vote", body=body, cookie=sign_in(page, "ann")).status == 413


def test_one_rater_can_not_vote_on_what_another_was_shown(page: Served) -> None:
    ann, bob = sign_in(page, "ann"), sign_in(page, "bob")
    pair = request(page.port, "GET", "/api/next", cookie=ann).json()["pair"]
    body = {"presentation": pair["presentation"], "turn": 0, "outcome": "left"}
    assert request(page.port, "POST", "/api/vote", body=body, cookie=bob).status == 404
    assert request(page.port, "POST", "/api/vote", body=body, cookie=ann).json()["counted"] is True


def test_only_the_owner_sees_the_agreement_and_the_owner_without_a_rater_rates_nothing(page: Served) -> None:
    ann, owner = sign_in(page, "ann"), sign_in(page, None, is_owner=True)
    assert get(page, "/agreement", Cookie=ann) == 403
    assert "No votes yet." in request(page.port, "GET", "/agreement", cookie=owner).body
    assert get(page, "/api/next", Cookie=owner) == 403


def test_a_locked_database_is_said_and_the_same_press_works_later(page: Served) -> None:
    cookie = sign_in(page, "ann")
    pair = request(page.port, "GET", "/api/next", cookie=cookie).json()["pair"]
    body = {"presentation": pair["presentation"], "turn": 0, "outcome": "left"}
    other = sqlite3.connect(page.store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = request(page.port, "POST", "/api/vote", body=body, cookie=cookie)
    assert answer.status == 503
    assert "was not saved. Press again" in answer.json()["error"]
    other.execute("ROLLBACK")
    assert request(page.port, "POST", "/api/vote", body=body, cookie=cookie).json()["counted"] is True


def test_a_disk_that_can_not_be_written_is_said_without_paths_and_the_page_goes_on(
    page: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    page.store.add_pairs(some_pairs(600))
    cookie = sign_in(page, "ann")
    pair = request(page.port, "GET", "/api/next", cookie=cookie).json()["pair"]
    body = {"presentation": pair["presentation"], "turn": 0, "outcome": "left"}
    with page.store.writing() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")  # a full disk, as far as SQLite can tell
    texts = []
    for _ in range(600):
        answer = request(page.port, "POST", "/api/vote", body=body, cookie=cookie)
        if answer.status != 200:
            break
        texts.append(body["presentation"])
        state = answer.json()
        body = {"presentation": state["pair"]["presentation"], "turn": 0, "outcome": "left"}
    assert answer.status == 503
    assert str(page.store.path) not in answer.body
    assert "disk is full" in capfd.readouterr().err
    with page.store.reading() as db:
        db.execute("PRAGMA max_page_count = 100000")
    assert request(page.port, "POST", "/api/vote", body=body, cookie=cookie).json()["counted"] is True
    assert len(page.store.votes()) == len(texts) + 1, "nothing that was acknowledged is lost"


def test_the_same_vote_sent_many_times_at_once_counts_once(page: Served) -> None:
    cookie = sign_in(page, "ann")
    pair = request(page.port, "GET", "/api/next", cookie=cookie).json()["pair"]
    body = {"presentation": pair["presentation"], "turn": 0, "outcome": "left", "strength": "clearly"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: request(page.port, "POST", "/api/vote", body=body, cookie=cookie), range(8)))
    assert sum(answer.json()["counted"] for answer in answers) == 1
    assert len(page.store.votes()) == 1


def test_hostile_text_travels_as_json_text(page: Served) -> None:
    evil = "<script>document.title='taken'</script>" + "x" * 10_000
    page.store.add_pairs([make_pair("</script><b>q", evil, "plain", source="test")])
    cookie = sign_in(page, "ann")
    texts = []
    for _ in range(31):
        answer = request(page.port, "GET", "/api/next", cookie=cookie)
        assert answer.headers["content-type"].startswith("application/json")
        pair = answer.json()["pair"]
        texts += [pair["left"][0]["text"], pair["right"][0]["text"]]
        body = {"presentation": pair["presentation"], "turn": 0, "outcome": "skip"}
        request(page.port, "POST", "/api/vote", body=body, cookie=cookie)
    assert evil in texts


def test_a_rater_with_a_hostile_name_is_text_on_the_agreement_page(page: Served) -> None:
    name = "<img src=x onerror=alert(1)>"
    cookie = sign_in(page, name, is_owner=True)
    pair = request(page.port, "GET", "/api/next", cookie=cookie).json()["pair"]
    body = {"presentation": pair["presentation"], "turn": 0, "outcome": "left"}
    request(page.port, "POST", "/api/vote", body=body, cookie=cookie)
    html = request(page.port, "GET", "/agreement", cookie=cookie).body
    assert "<img" not in html
    assert "&lt;img src=x" in html


def test_no_token_reaches_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, err = io.StringIO(), io.StringIO()
    with caplog.at_level(logging.DEBUG), redirect_stdout(out), redirect_stderr(err), served(desk(tmp_path)) as page:
        path = page.link("ann").partition(str(page.port))[2]
        for _ in range(2):
            request(page.port, "GET", path)
        request(page.port, "GET", path, Host="evil.example")
    token = path.partition("token=")[2]
    assert token not in caplog.text + out.getvalue() + err.getvalue()


def test_json_in_the_database_is_what_was_given(page: Served) -> None:
    """Texts go in and out unchanged, whatever characters they hold."""
    odd = "line\u2028separator, \x00 nul, \U0001f600, \u202e right to left, ' quote"
    page.store.add_pairs([make_pair(odd, odd + "a", odd + "b", source="test")])
    assert odd in [pair.prompt for pair in page.store.pairs().values()]
