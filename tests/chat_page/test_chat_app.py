"""The chat page over plain HTTP: who gets in, what a blind visitor can not learn, what becomes of a vote."""

import io
import logging
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.chat_page import answers
from tests.chat_page.small_run import ask, ballot, chat_served, post
from tests.rating.desk import Served, request, sign_in

pytest.importorskip("fastapi", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
pytest.importorskip("uvicorn", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
from rlhf_lab.chat_page.app import LONGEST, MAX_BODY

# --- who gets in --------------------------------------------------------------------------------------------------


def test_without_the_link_nothing_is_shown_and_nothing_is_asked(page: Served) -> None:
    for path in ("/", "/api/questions"):
        assert request(page.port, "GET", path).status == 401
    answer = post(page, f"rlhf_lab_chat_{page.port}=guessed", "ask", question="q", blind=True, temperature=1)
    assert answer.status == 401
    assert "the link that rlhf-lab chat --web printed" in answer.json()["error"]


def test_a_link_works_once_and_its_cookie_is_out_of_reach_for_scripts_and_other_sites(page: Served) -> None:
    path = page.link("ann").partition(str(page.port))[2]
    first = request(page.port, "GET", path)
    attributes = {part.strip().lower() for part in first.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict"} <= attributes
    again = request(page.port, "GET", path)
    assert again.status == 401
    assert "Start rlhf-lab chat --web again" in again.body


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "-"}])
def test_other_sites_can_neither_ask_nor_vote_nor_read(page: Served, headers: dict[str, str]) -> None:
    cookie = sign_in(page, "ann")
    question = ask(page, cookie)
    body = {"question": "q", "blind": True, "temperature": 1}
    for path, sent in (("ask", body), ("vote", ballot(question)), ("names", {"id": question["id"]})):
        answer = request(page.port, "POST", f"/api/{path}", body=sent, cookie=cookie, **headers)
        assert answer.status == 403
        assert "rlhf-lab chat --web" in answer.json()["error"]
    assert page.store.votes() == []
    kept = request(page.port, "GET", "/api/questions", cookie=cookie).json()["questions"]
    assert [(one["id"], one["named"]) for one in kept] == [(question["id"], False)]
    if "Host" in headers:
        assert request(page.port, "GET", "/api/questions", cookie=cookie, **headers).status == 403


def test_nothing_comes_from_elsewhere_and_nothing_is_inline(page: Served) -> None:
    cookie = sign_in(page, "ann")
    html = request(page.port, "GET", "/", cookie=cookie).body
    addresses = re.findall(r"""(?:src|href|action)=["']([^"']+)""", html)
    assert {"/static/chat.js", "/static/chat.css", "/static/style.css"} <= set(addresses)
    for path in (*addresses, "/static/tokens.js"):
        assert path.startswith("/static/"), path
        answer = request(page.port, "GET", path)
        assert answer.status == 200
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|innerHTML|insertAdjacent|eval\(", answer.body)
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", html)
    for path in ("/", "/api/questions", "/static/chat.js", "/nowhere"):
        headers = request(page.port, "GET", path, cookie=cookie, Origin="http://evil.example").headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert not [name for name in headers if name.startswith("access-control")], "no CORS"
    assert request(page.port, "GET", "/static/rate.js").status == 404, "the other page's"


def test_names_that_are_markup_are_text(tmp_path: Path, parts: Any) -> None:
    with chat_served(tmp_path, parts) as page:
        cookie = sign_in(page, "<img src=x onerror=alert(1)>")
        html = request(page.port, "GET", "/", cookie=cookie).body
    assert "<img" not in html
    assert "&lt;img src=x" in html


def test_no_token_reaches_a_log(tmp_path: Path, parts: Any, caplog: pytest.LogCaptureFixture) -> None:
    out, err = io.StringIO(), io.StringIO()
    with (
        caplog.at_level(logging.DEBUG),
        redirect_stdout(out),
        redirect_stderr(err),
        chat_served(tmp_path, parts) as page,
    ):
        path = page.link("ann").partition(str(page.port))[2]
        for _ in range(2):
            request(page.port, "GET", path)
    assert path.partition("token=")[2] not in caplog.text + out.getvalue() + err.getvalue()


# --- what is asked ------------------------------------------------------------------------------------------------


def test_a_blind_answer_says_neither_who_wrote_it_nor_what_it_scored(page: Served) -> None:
    cookie = sign_in(page, "ann")
    question = ask(page, cookie, seed=5)
    assert [set(answer) for answer in question["answers"]] == [{"id", "letter", "text"}] * 3
    assert [answer["letter"] for answer in question["answers"]] == ["A", "B", "C"]
    kept = request(page.port, "GET", "/api/questions", cookie=cookie)
    assert kept.json()["questions"] == [question]
    assert not re.search(r"sft|ppo|base|score|log_ratio|value|tokens", kept.body.lower())


def test_blind_answers_stand_in_random_order_and_named_ones_in_the_order_of_training(page: Served) -> None:
    cookie = sign_in(page, "ann")
    orders: Counter[tuple[str, ...]] = Counter()
    for _ in range(40):
        question = ask(page, cookie)
        (named,) = [
            one
            for one in post(page, cookie, "names", id=question["id"]).json()["questions"]
            if one["id"] == question["id"]
        ]
        assert [one["text"] for one in named["answers"]] == [one["text"] for one in question["answers"]]
        orders[tuple(one["stage"] for one in named["answers"])] += 1
    assert len(orders) >= 4, "of six; all forty in three or fewer is as likely as 1e-11"
    named = ask(page, cookie, blind=False)
    assert [one["name"] for one in named["answers"]] == ["Base", "SFT", "PPO"]
    assert all(len(one["tokens"]) == one["length"] for one in named["answers"])


def test_the_seed_that_is_shown_gives_the_same_answers_again(page: Served) -> None:
    cookie = sign_in(page, "ann")
    first = ask(page, cookie, blind=False)
    again = ask(page, cookie, blind=False, seed=first["seed"])
    other = ask(page, cookie, blind=False)
    texts = [[one["text"] for one in question["answers"]] for question in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question": " \n "}, "Type a question first."),
        ({"question": "a\ud800"}, "half a character"),
        ({"question": "x" * (LONGEST + 1)}, f"at most {LONGEST} characters"),
        ({"question": 7}, "question is wrong"),
        ({"temperature": 0}, "temperature is wrong"),
        ({"temperature": "nan"}, "temperature is wrong"),
        ({"seed": -1}, "seed is wrong"),
        ({"seed": 2**31}, "seed is wrong"),
        ({"model": "ppo"}, "model is wrong"),
        ({"after": "x"}, "single questions"),
    ],
)
def test_what_can_not_be_asked_is_refused_in_words(page: Served, change: dict[str, Any], words: str) -> None:
    body = {"question": "q", "blind": True, "temperature": 1.0} | change
    answer = post(page, sign_in(page, "ann"), "ask", **body)
    assert answer.status in (413, 422)
    assert words in answer.json()["error"]


def test_a_body_that_is_too_long_is_not_read(page: Served) -> None:
    answer = post(page, sign_in(page, "ann"), "ask", question="x" * MAX_BODY, blind=True, temperature=1)
    assert answer.status == 413
    assert f"at most {MAX_BODY} bytes" in answer.json()["error"]


def test_ten_kilobytes_are_cut_and_said_to_be_and_take_no_vote(page: Served) -> None:
    cookie = sign_in(page, "ann")
    question = ask(page, cookie, "<script>alert(1)</script> " + "word " * 2048)
    assert "the models read the last 40" in question["note"]
    assert question["question"].startswith("<script>alert(1)</script> word")
    answer = post(page, cookie, "vote", **ballot(question))
    assert answer.status == 409
    assert "only the end of this question" in answer.json()["error"]
    assert page.store.votes() == []


def test_one_visitor_sees_nothing_of_another(page: Served) -> None:
    ann, bob = sign_in(page, "ann"), sign_in(page, "bob")
    question = ask(page, ann)
    assert request(page.port, "GET", "/api/questions", cookie=bob).json() == {"questions": []}
    for path, body in (("vote", ballot(question)), ("names", {"id": question["id"]})):
        answer = post(page, bob, path, **body)
        assert answer.status == 404
        assert "ask it again" in answer.json()["error"]


def test_the_models_are_asked_one_at_a_time_and_a_long_queue_is_refused(
    tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question at the models, two behind it; the fourth is sent away, and everything else still works."""
    may_go, at_work, most = threading.Event(), Counter[str](), []
    measure = answers.measure

    def slow(*args: Any, **options: Any) -> Any:
        at_work["now"] += 1
        most.append(at_work["now"])
        may_go.wait(20)
        at_work["now"] -= 1
        return measure(*args, **options)

    models = answers.Models(*parts, most_waiting=2)
    with chat_served(tmp_path, models) as page, ThreadPoolExecutor(3) as pool:
        cookie = sign_in(page, "ann")
        before = ask(page, cookie)
        monkeypatch.setattr(answers, "measure", slow)
        waiting = [pool.submit(ask, page, cookie) for _ in range(3)]
        while models._places._value:  # until all three have come in
            time.sleep(0.01)
        refused = post(page, cookie, "ask", question="q", blind=True, temperature=1)
        assert refused.status == 503
        assert "Ask again in a moment" in refused.json()["error"]
        assert post(page, cookie, "vote", **ballot(before)).json()["counted"] is True
        assert request(page.port, "GET", "/static/chat.js").status == 200
        may_go.set()
        assert len({one.result(20)["id"] for one in waiting}) == 3
        assert set(most) == {1}, "never two threads in one model"
        assert ask(page, cookie)["answers"], "the places are free again"
