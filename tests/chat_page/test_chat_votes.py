"""Comparisons filed on the chat page: counted once, taken back, refused where they would not be blind."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lab.chat_page import answers
from rlhf_lab.rating.findings import findings
from rlhf_lab.rating.preference_rows import preference_rows
from tests.chat_page.small_run import ask, ballot, chat_served, loaded, post, with_turns
from tests.rating.desk import Served, sign_in

pytest.importorskip("fastapi", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
pytest.importorskip("uvicorn", reason='the page needs the extra: pip install "rlhf-lab[rate]"')


def test_a_vote_goes_to_the_runs_votes_with_both_writers(page: Served) -> None:
    cookie = sign_in(page, "ann")
    question = ask(page, cookie, "Tell me the capital of Peru.")
    left, right = (answer["text"] for answer in question["answers"][1:])
    answer = post(page, cookie, "vote", **ballot(question, 2)).json()
    assert answer["counted"] is True
    assert answer["question"]["pairs"][2] | {"outcome": "left", "strength": "clearly"} == answer["question"]["pairs"][2]
    (row,) = preference_rows(page.store)
    assert (row["prompt"], row["rater"], row["margin"]) == ("Tell me the capital of Peru.\n", "human", 1.0)
    assert (row["chosen"].strip(), row["rejected"].strip()) == (left, right)
    named = post(page, cookie, "names", id=question["id"]).json()["questions"][0]
    writers = {one["text"]: one["stage"] for one in named["answers"]}
    (pair,) = page.store.pairs().values()
    assert pair.writers == (writers[str(pair.first).strip()], writers[str(pair.second).strip()])
    assert not pair.is_offered
    assert findings(page.store, num_resamples=10).num_votes == {"human": 1}


def test_the_column_on_the_left_is_the_left_side_of_the_vote(page: Served) -> None:
    """Whichever of the two texts the store keeps first: twelve times, so that chance does not hide a mistake."""
    cookie = sign_in(page, "ann")
    lefts = []
    for seed in range(12):
        question = ask(page, cookie, seed=seed)
        lefts.append(question["answers"][0]["text"])
        post(page, cookie, "vote", **ballot(question))
    pairs, votes = page.store.pairs(), page.store.votes()
    assert [getattr(pairs[vote.pair], str(vote.preferred)).strip() for vote in votes] == lefts


@pytest.mark.parametrize(("outcome", "strength"), [("right", "slightly"), ("tie", None), ("both_bad", "clearly")])
def test_every_outcome_is_kept_as_it_is(page: Served, outcome: str, strength: str | None) -> None:
    cookie = sign_in(page, "ann")
    post(page, cookie, "vote", **ballot(ask(page, cookie), outcome=outcome, strength=strength))
    (vote,) = page.store.votes()
    assert (vote.outcome, vote.strength) == (outcome, strength if outcome == "right" else None)
    assert (vote.rater, vote.kind, vote.purpose) == ("ann", "human", "main")
    assert 0 <= (vote.seconds or 0) <= 3


def test_the_same_vote_sent_many_times_at_once_counts_once(page: Served) -> None:
    cookie = sign_in(page, "ann")
    body = ballot(ask(page, cookie))
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda _: post(page, cookie, "vote", **body).json(), range(8)))
    assert sum(answer["counted"] for answer in sent) == 1
    assert page.store.num_events() == 1


def test_a_vote_can_be_taken_back_once_and_given_anew(page: Served) -> None:
    cookie = sign_in(page, "ann")
    question = ask(page, cookie)
    voted = post(page, cookie, "vote", **ballot(question)).json()["question"]
    back = {key: value for key, value in ballot(voted).items() if key in ("id", "left", "right", "turn")}
    undone = post(page, cookie, "undo", **back).json()
    assert (undone["undone"], undone["question"]["pairs"][0]["outcome"]) == (True, None)
    assert post(page, cookie, "undo", **back).json()["undone"] is False
    assert page.store.votes() == []
    late = post(page, cookie, "vote", **ballot(question)).json()
    assert late["counted"] is False, "the first vote, sent again after it was taken back"
    anew = post(page, cookie, "vote", **ballot(undone["question"], outcome="right")).json()
    assert anew["counted"] is True
    assert post(page, cookie, "undo", **back).json()["undone"] is False, "the first undo, late"
    assert [vote.outcome for vote in page.store.votes()] == ["right"]
    assert post(page, cookie, "undo", **(back | {"left": back["right"], "right": back["left"]})).status == 404


def test_once_names_are_shown_there_is_no_vote_but_taking_back(page: Served) -> None:
    cookie = sign_in(page, "ann")
    question = ask(page, cookie)
    voted = post(page, cookie, "vote", **ballot(question)).json()["question"]
    post(page, cookie, "names", id=question["id"])
    refused = post(page, cookie, "vote", **ballot(question, 1))
    assert refused.status == 409
    assert "Names are shown, and votes are blind" in refused.json()["error"]
    back = {key: value for key, value in ballot(voted).items() if key in ("id", "left", "right", "turn")}
    undone = post(page, cookie, "undo", **back).json()
    assert undone["undone"] is True
    assert post(page, cookie, "vote", **ballot(undone["question"])).status == 409
    assert page.store.votes() == []
    open_from_the_start = ask(page, cookie, blind=False)
    assert post(page, cookie, "vote", **ballot(open_from_the_start)).status == 409


def test_a_text_that_was_seen_with_its_writers_name_is_not_voted_on_blind(page: Served) -> None:
    ann, bob = sign_in(page, "ann"), sign_in(page, "bob")
    waiting = ask(page, ann, seed=4)
    assert [pair["refused"] for pair in waiting["pairs"]] == [None] * 3
    ask(page, ann, blind=False, seed=4)
    assert "you have seen" in post(page, ann, "vote", **ballot(waiting)).json()["error"].lower()
    again = ask(page, ann, seed=4)
    assert all("name before" in pair["refused"] for pair in again["pairs"])
    assert page.store.votes() == []
    assert post(page, bob, "vote", **ballot(ask(page, bob, seed=4))).json()["counted"] is True


def test_the_same_two_texts_are_voted_on_once_by_one_visitor(page: Served) -> None:
    cookie = sign_in(page, "ann")
    first, again = (ask(page, cookie, seed=4) for _ in range(2))
    post(page, cookie, "vote", **ballot(first))
    ids = {one["text"]: one["id"] for one in again["answers"]}
    texts = {one["id"]: one["text"] for one in first["answers"]}
    same = {ids[texts[first["pairs"][0][side]]] for side in ("left", "right")}
    place = next(n for n, pair in enumerate(again["pairs"]) if {pair["left"], pair["right"]} == same)
    refused = post(page, cookie, "vote", **ballot(again, place))
    assert refused.status == 409
    assert "that vote stands" in refused.json()["error"]
    assert len(page.store.votes()) == 1


def test_equal_texts_are_not_compared(tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "draw_uniforms", lambda rows, tokens, **_: torch.full((rows, tokens), 0.5))
    models, judges = parts
    alike = type(models)(
        models.folder, models.experiment, models.tokenizer, dict.fromkeys(("sft", "ppo"), models.policies["sft"]), {}
    )
    with chat_served(tmp_path, (alike, judges)) as page:
        cookie = sign_in(page, "ann")
        question = ask(page, cookie)
        assert len(question["answers"]) == 2
        assert "both texts are equal" in question["pairs"][0]["refused"]
        assert post(page, cookie, "vote", **ballot(question)).status == 409


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"outcome": "skip"}, 422),
        ({"strength": "very"}, 422),
        ({"seconds": -1}, 422),
        ({"rater": 1}, 422),
        ({"id": "unknown"}, 404),
        ({"left": "unknown"}, 404),
    ],
)
def test_what_is_no_vote_is_refused_in_words(page: Served, change: dict[str, Any], status: int) -> None:
    cookie = sign_in(page, "ann")
    answer = post(page, cookie, "vote", **(ballot(ask(page, cookie)) | change))
    assert answer.status == status
    assert answer.json()["error"]
    assert page.store.votes() == []


def test_a_locked_database_is_said_and_the_same_press_works_later(page: Served) -> None:
    cookie = sign_in(page, "ann")
    body = ballot(ask(page, cookie))
    other = sqlite3.connect(page.store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = post(page, cookie, "vote", **body)
    assert answer.status == 503
    assert "was not saved. Press again" in answer.json()["error"]
    other.execute("ROLLBACK")
    assert post(page, cookie, "vote", **body).json()["counted"] is True


def test_a_conversation_goes_on_from_the_answer_that_was_chosen(tmp_path: Path) -> None:
    with chat_served(tmp_path, loaded(with_turns(tmp_path / "talkative"))) as page:
        cookie = sign_in(page, "ann")
        first = ask(page, cookie, "hello")
        chosen = first["answers"][1]
        second = ask(page, cookie, "and then", after=chosen["id"])
        assert second["after"] == chosen["id"]
        post(page, cookie, "vote", **ballot(second))
        (row,) = preference_rows(page.store)
        assert [message["role"] for message in row["prompt"]] == ["user", "assistant", "user"]
        assert [message["content"].strip() for message in row["prompt"]] == ["hello", chosen["text"], "and then"]
        assert [message["role"] for message in row["chosen"]] == ["assistant"]
        assert post(page, cookie, "ask", question="q", blind=True, temperature=1, after="gone").status == 404
        anew = ask(page, cookie, "hello")
        post(page, cookie, "vote", **ballot(anew))
        assert preference_rows(page.store)[-1]["prompt"] == [{"role": "user", "content": "hello"}]
