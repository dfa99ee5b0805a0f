"""Votes on pairs from a chat: counted like others, given to nobody else, taken back without a trace for raters."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.rating.chat_votes import ComparedBeforeError, file_comparison
from rlhf_lab.rating.findings import findings
from rlhf_lab.rating.imported import import_votes
from rlhf_lab.rating.pairs import CHAT, Pair, make_pair
from rlhf_lab.rating.preference_rows import preference_rows
from rlhf_lab.rating.store import Store
from rlhf_lab.training.records import write_jsonl
from tests.rating.desk import PLAIN, Clock, desk, vote_good

MET = make_pair("asked in a chat", "by sft", "by ppo", source=f"{CHAT}run", writers=("sft", "ppo"))


def file(store: Store, rater: int, left: str = "by sft", pair: Pair = MET, **options: Any) -> Any:
    """A vote for the left side, on which `left` stands."""
    said = {"outcome": "left", "strength": "clearly", "seconds": 3.0, "shown_at": store.clock()} | options
    return file_comparison(store, rater, pair, swapped=pair.first != left, **said)


@pytest.mark.parametrize("left", ["by sft", "by ppo"])
def test_the_vote_prefers_what_stood_on_the_left_and_reaches_report_and_rows(tmp_path: Path, left: str) -> None:
    store = desk(tmp_path, 3)
    file(store, store.rater("ann"), left)
    (row,) = preference_rows(store)
    assert (row["prompt"], row["chosen"], row["margin"], row["rater"]) == ("asked in a chat", left, 1.0, "human")
    found = findings(store, num_resamples=10)
    assert found.num_votes == {"human": 1}
    assert (found.raters[0].name, found.raters[0].left.part) == ("ann", 1)
    assert set(store.pairs()[MET.id].writers or ()) == {"sft", "ppo"}


def test_the_rating_page_gives_such_a_pair_to_nobody(tmp_path: Path) -> None:
    plan = replace(PLAIN, raters_per_pair=2, repeat_rate=1.0)
    store = desk(tmp_path, 8, plan)
    ann, bob = store.rater("ann"), store.rater("bob")
    left = store.progress(ann).num_left
    filed = file(store, ann)
    assert store.last_vote(ann) is None, "U on the rating page takes back what that page showed"
    assert (store.progress(ann).num_done, store.progress(ann).num_left, store.progress(bob).num_left) == (0, left, left)
    assert store.undo(ann, filed.id, turn=filed.turn, then="lapsed")
    file(store, bob)
    prompts = []
    for rater in (ann, bob):
        while shown := vote_good(store, rater):
            prompts.append(shown.prompt)
    assert len(prompts) > 16, "every pair twice, and repeats"
    assert MET.prompt not in prompts


def test_taken_back_it_can_be_voted_on_anew_with_its_sides_the_other_way(tmp_path: Path) -> None:
    store = desk(tmp_path, 0)
    ann = store.rater("ann")
    filed = file(store, ann, "by sft")
    with pytest.raises(ComparedBeforeError, match="that vote stands"):
        file(store, ann, "by ppo")
    assert store.undo(ann, filed.id, turn=filed.turn, then="lapsed")
    assert store.votes() == []
    assert not store.undo(ann, filed.id, turn=filed.turn, then="lapsed"), "once"
    again = file(store, ann, "by ppo")
    assert (again.id, again.turn) == (filed.id, 2)
    assert [row["chosen"] for row in preference_rows(store)] == ["by ppo"]
    assert store.num_events() == 3, "nothing is ever deleted"


def test_a_pair_that_the_rating_page_holds_for_this_rater_has_its_vote_then(tmp_path: Path) -> None:
    store = desk(tmp_path, 1)
    ann = store.rater("ann")
    shown = store.next(ann)
    assert shown is not None
    (pair,) = store.pairs().values()
    file(store, ann, str(pair.second), replace(pair, source=f"{CHAT}run"))
    assert [vote.preferred for vote in store.votes()] == ["second"]
    assert store.next(ann) is None
    assert next(iter(store.pairs().values())).source == pair.source, "still one of the rating page's"


def test_a_pair_from_a_chat_that_is_sampled_for_raters_later_is_given_out(tmp_path: Path) -> None:
    store = desk(tmp_path, 0, replace(PLAIN, raters_per_pair=2))
    file(store, store.rater("ann"))
    bob = store.rater("bob")
    assert store.next(bob) is None
    assert store.add_pairs([MET]) == 0
    assert store.add_pairs([replace(MET, source="sft of run", writers=None)]) == 1
    shown = store.next(bob)
    assert shown is not None
    assert shown.prompt == MET.prompt
    assert store.pairs()[MET.id].writers == MET.writers


def test_its_own_export_imported_again_shows_it_to_nobody(tmp_path: Path) -> None:
    store = desk(tmp_path, 0)
    file(store, store.rater("ann"))
    write_jsonl(tmp_path / "votes.jsonl", preference_rows(store))
    import_votes(store, str(tmp_path / "votes.jsonl"))
    assert store.pairs()[MET.id].source == MET.source
    assert store.next(store.rater("bob")) is None


def test_pair_and_vote_come_together_or_not_at_all(tmp_path: Path) -> None:
    store = desk(tmp_path, 0)
    with pytest.raises(Exception, match="CHECK"):
        file(store, store.rater("ann"), outcome="best")
    assert store.pairs() == {}
    assert store.num_events() == 0


def test_time_taken_is_no_longer_than_the_answers_were_there(tmp_path: Path) -> None:
    clock = Clock()
    store = desk(tmp_path, 0, clock=clock)
    clock.now += 5
    file(store, store.rater("ann"), seconds=9999.0, shown_at=clock.now - 5)
    assert [vote.seconds for vote in store.votes()] == [5.0]
