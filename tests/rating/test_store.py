"""Who is given what, what a vote does, and what is left after undo, expiry and a second press."""

import random
import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_lab.errors import UserError
from rlhf_lab.rating.assignment import REPEAT_AFTER, Plan
from rlhf_lab.rating.pairs import make_pair
from rlhf_lab.rating.store import Store, UnknownPresentationError
from tests.rating.desk import PLAIN, Clock, desk, side_of, some_gold, some_pairs, vote_good


def test_a_rater_sees_every_pair_once_and_then_nothing(tmp_path: Path) -> None:
    store = desk(tmp_path, 12)
    ann = store.rater("ann")
    shown = [vote_good(store, ann) for _ in range(12)]
    assert len({one.prompt for one in shown if one}) == 12
    assert store.next(ann) is None
    assert all(
        vote.preferred == ("first" if store.pairs()[vote.pair].first[0] == "g" else "second") for vote in store.votes()
    )
    assert store.progress(ann).num_left == 0


def test_the_same_pair_is_shown_until_it_has_a_vote(tmp_path: Path) -> None:
    store = desk(tmp_path)
    ann = store.rater("ann")
    assert store.next(ann) == store.next(ann)
    again = Store(store.path, PLAIN)
    assert again.next(ann) == store.next(ann), "after a restart too, with the same sides"


def test_sides_are_drawn_for_each_rater_and_about_half_are_swapped(tmp_path: Path) -> None:
    store = desk(tmp_path, 200, replace(PLAIN, raters_per_pair=2))
    sides = {}
    for name in ("ann", "bob"):
        rater = store.rater(name)
        while shown := store.next(rater):
            sides[name, shown.prompt] = side_of(shown, "good")
            store.vote(rater, shown.id, turn=shown.turn, outcome="left")
    for name in ("ann", "bob"):
        lefts = sum(side == "left" for (who, _), side in sides.items() if who == name)
        assert 70 <= lefts <= 130, "200 fair coins fall outside once in 40 000 draws; these are seeded"
    same = sum(sides["ann", prompt] == sides["bob", prompt] for who, prompt in sides if who == "ann")
    assert 70 <= same <= 130, "one rater's sides say nothing about another's"


def test_votes_are_kept_in_the_pairs_own_order_whatever_the_side(tmp_path: Path) -> None:
    store = desk(tmp_path, 40)
    ann = store.rater("ann")
    while vote_good(store, ann):
        pass
    assert {vote.swapped for vote in store.votes()} == {True, False}
    pairs = store.pairs()
    assert all(str(getattr(pairs[vote.pair], vote.preferred or "")).startswith("good") for vote in store.votes())


def test_the_same_vote_sent_twice_counts_once(tmp_path: Path) -> None:
    store = desk(tmp_path)
    ann = store.rater("ann")
    shown = store.next(ann)
    assert shown is not None
    assert store.vote(ann, shown.id, turn=0, outcome="left")
    assert not store.vote(ann, shown.id, turn=0, outcome="left")
    assert not store.vote(ann, shown.id, turn=0, outcome="right"), "the first one stands"
    assert [vote.outcome for vote in store.votes()] == ["left"]
    with pytest.raises(UnknownPresentationError, match="has a vote already"):
        store.vote(ann, shown.id, turn=1, outcome="right")


def test_undo_adds_an_event_and_shows_the_pair_again_with_the_same_sides(tmp_path: Path) -> None:
    store = desk(tmp_path)
    ann = store.rater("ann")
    first = vote_good(store, ann)
    following = store.next(ann)
    last = store.last_vote(ann)
    assert first is not None
    assert last is not None
    assert store.undo(ann, last.id, turn=last.turn)
    assert not store.undo(ann, last.id, turn=last.turn), "pressed twice, taken back once"
    assert store.votes() == []
    again = store.next(ann)
    assert again == replace(first, turn=2)
    assert store.vote(ann, first.id, turn=2, outcome="tie")
    assert [vote.outcome for vote in store.votes()] == ["tie"]
    assert store.num_events() == 3, "nothing is ever deleted"
    assert store.next(ann) == following, "what was open before comes back"


def test_a_pair_whose_vote_was_taken_back_waits_for_a_vote_again(tmp_path: Path) -> None:
    clock = Clock()
    store = desk(tmp_path, 1, replace(PLAIN, lease_seconds=60), clock=clock)
    ann, bob = store.rater("ann"), store.rater("bob")
    vote_good(store, ann)
    assert store.next(bob) is None
    last = store.last_vote(ann)
    assert last is not None
    store.undo(ann, last.id, turn=last.turn)
    assert store.next(bob) is None, "ann has it before her"
    clock.now += 61
    assert store.next(bob) is not None


def test_events_can_be_neither_changed_nor_deleted(tmp_path: Path) -> None:
    store = desk(tmp_path)
    vote_good(store, store.rater("ann"))
    other = sqlite3.connect(store.path)
    for attack in ("UPDATE event SET outcome = 'tie'", "DELETE FROM event"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            other.execute(attack)


def test_a_vote_for_what_was_not_shown_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    store = desk(tmp_path)
    ann, bob = store.rater("ann"), store.rater("bob")
    shown = store.next(ann)
    assert shown is not None
    for rater, name, turn in ((ann, "nothing", 0), (bob, shown.id, 0), (ann, shown.id, 5), (ann, shown.id, -1)):
        with pytest.raises(UnknownPresentationError, match="was not shown to you"):
            store.vote(rater, name, turn=turn, outcome="left")
    assert store.next(ann) == shown


def test_recorded_votes_for_unknown_pairs_are_refused_as_a_whole(tmp_path: Path) -> None:
    store = desk(tmp_path, 2)
    known = next(iter(store.pairs()))
    with pytest.raises(UserError, match="1 of 2 votes are for pairs that are not here"):
        store.record(store.rater("file", "imported"), [(known, "left", None), ("?", "left", None)])
    assert store.votes() == []


def test_two_raters_at_once_never_hold_the_same_pair(tmp_path: Path) -> None:
    store = desk(tmp_path, 10)
    ann, bob = store.rater("ann"), store.rater("bob")
    seen: Counter[str] = Counter()
    for _ in range(5):
        a, b = store.next(ann), store.next(bob)
        assert a is not None
        assert b is not None
        assert a.prompt != b.prompt
        seen.update([str(a.prompt), str(b.prompt)])
        vote_good(store, ann)
        vote_good(store, bob)
    assert store.next(ann) is None
    assert max(seen.values()) == 1


def test_overlap_gives_every_pair_to_k_raters_and_to_no_more(tmp_path: Path) -> None:
    store = desk(tmp_path, 9, replace(PLAIN, raters_per_pair=2))
    raters = [store.rater(name) for name in ("ann", "bob", "cem")]
    while sum(vote_good(store, rater) is not None for rater in raters):
        pass
    per_pair = Counter(vote.pair for vote in store.votes())
    assert set(per_pair.values()) == {2}
    assert len(per_pair) == 9
    assert len({(vote.pair, vote.rater) for vote in store.votes()}) == 18


def test_a_lease_that_ends_gives_the_pair_to_somebody_else_and_a_late_vote_still_counts(tmp_path: Path) -> None:
    clock = Clock()
    store = desk(tmp_path, 1, replace(PLAIN, lease_seconds=60), clock=clock)
    ann, bob = store.rater("ann"), store.rater("bob")
    late = store.next(ann)
    assert late is not None
    assert store.next(bob) is None, "held by ann"
    clock.now += 61
    given = store.next(bob)
    assert given is not None
    assert given.prompt == late.prompt
    assert store.vote(ann, late.id, turn=0, outcome="left"), "late, but not lost"
    assert store.vote(bob, given.id, turn=0, outcome="left")
    assert len(store.votes()) == 2


def test_whoever_comes_back_too_late_gets_another_pair(tmp_path: Path) -> None:
    clock = Clock()
    store = desk(tmp_path, 2, replace(PLAIN, lease_seconds=60), clock=clock)
    ann, bob = store.rater("ann"), store.rater("bob")
    late = store.next(ann)
    clock.now += 61
    vote_good(store, bob)
    shown = store.next(ann)
    assert late is not None
    assert shown is not None
    assert shown.prompt != late.prompt, "the other pair has all the votes that it wants"


def test_skip_and_flag_do_not_count_and_do_not_come_back(tmp_path: Path) -> None:
    store = desk(tmp_path, 2)
    ann, bob = store.rater("ann"), store.rater("bob")
    for outcome in ("skip", "flag"):
        shown = store.next(ann)
        assert shown is not None
        store.vote(ann, shown.id, turn=0, outcome=outcome)  # type: ignore[arg-type]
    assert store.next(ann) is None
    assert [vote_good(store, bob) is not None for _ in range(3)] == [True, True, False]


def test_gold_and_repeats_come_at_their_rates_and_repeats_are_swapped(tmp_path: Path) -> None:
    store = desk(tmp_path, 300, Plan(gold_rate=0.1, repeat_rate=0.1))
    store.add_pairs(some_gold(100))
    ann = store.rater("ann")
    order = []
    while shown := store.next(ann):
        order.append(shown.prompt)
        store.vote(ann, shown.id, turn=shown.turn, outcome="left", strength="clearly")
    votes = store.votes()
    by_purpose = Counter(vote.purpose for vote in votes)
    assert by_purpose["main"] == 300
    assert 20 <= by_purpose["gold"] <= 60
    assert 20 <= by_purpose["repeat"] <= 60
    sides = {(vote.pair, vote.purpose): vote.swapped for vote in votes}
    for vote in votes:
        if vote.purpose == "repeat":
            assert vote.swapped is not sides[vote.pair, "main"]
    places = {prompt: [i for i, p in enumerate(order) if p == prompt] for prompt in order}
    gaps = [after - before for before, after in (p for p in places.values() if len(p) == 2)]
    assert min(gaps) > REPEAT_AFTER
    assert max(map(len, places.values())) == 2


def test_time_left_is_the_raters_pace_times_what_is_left(tmp_path: Path) -> None:
    clock = Clock()
    store = desk(tmp_path, 10, clock=clock)
    ann = store.rater("ann")
    assert store.progress(ann).seconds_left is None
    for seconds in (4.0, 8.0, 60.0):
        store.next(ann)
        clock.now += seconds
        vote_good(store, ann, seconds=seconds)
    progress = store.progress(ann)
    assert (progress.num_done, progress.num_left) == (3, 7)
    assert progress.seconds_left == 7 * 8.0, "the median: one long pause changes nothing"


def test_time_can_not_be_longer_than_the_pair_was_there(tmp_path: Path) -> None:
    clock = Clock()
    store = desk(tmp_path, 2, clock=clock)
    ann = store.rater("ann")
    store.next(ann)
    clock.now += 3
    vote_good(store, ann, seconds=9999.0)
    assert store.votes()[0].seconds == 3


def test_a_name_is_of_one_kind_of_rater(tmp_path: Path) -> None:
    store = desk(tmp_path)
    store.rater("ann")
    with pytest.raises(UserError, match="'ann' is human, not simulated"):
        store.rater("ann", "simulated")
    with pytest.raises(UserError, match="1 to 200 characters"):
        store.rater("  ")


def test_pairs_are_one_whichever_completion_comes_first(tmp_path: Path) -> None:
    store = desk(tmp_path, 5)
    assert store.add_pairs(some_pairs(5)) == 0
    assert store.add_pairs(some_pairs(6)) == 1


def test_who_wrote_which_side_is_kept_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "votes.sqlite")
    texts = [(f"by sft {i}", f"by ppo {i}") for i in range(20)]
    store.add_pairs(make_pair("q", *both, source="test", writers=("sft", "ppo")) for both in texts)
    pairs = store.pairs().values()
    assert all(pair.writers == (str(pair.first).split()[1], str(pair.second).split()[1]) for pair in pairs)
    assert {pair.writers for pair in pairs} == {("sft", "ppo"), ("ppo", "sft")}


def test_the_order_of_pairs_is_shuffled_and_belongs_to_the_seed(tmp_path: Path) -> None:
    orders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        store = Store(tmp_path / name / "votes.sqlite", PLAIN, sides=random.Random(0))
        store.add_pairs(some_pairs(30), seed=seed)
        orders.append(list(store.pairs()))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != [pair.id for pair in some_pairs(30)]
