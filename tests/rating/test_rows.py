"""Votes to TRL's rows and back: majority, ties, conflicts, kinds of raters, bad files."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.data import sources
from rlhf_lab.errors import UserError
from rlhf_lab.rating.imported import import_votes
from rlhf_lab.rating.outcomes import Strength
from rlhf_lab.rating.pairs import make_pair, read_pairs
from rlhf_lab.rating.preference_rows import num_tied, preference_rows
from rlhf_lab.rating.store import Store
from tests.rating.desk import PLAIN, some_gold

PAIR = make_pair("q", "good", "poor", source="test")
GOOD, POOR = ("left", "right") if PAIR.first == "good" else ("right", "left")
SAYS: dict[str, Any] = {"good": GOOD, "poor": POOR, "tie": "tie", "both_bad": "both_bad", "skip": "skip"}


def rated(folder: Path, *said: str, kind: Any = "human", strengths: dict[int, Strength] | None = None) -> Store:
    """One pair, one rater for each word: good, poor, tie, both_bad, skip."""
    store = Store(folder / "votes.sqlite", PLAIN)
    store.add_pairs([PAIR])
    for number, word in enumerate(said):
        rater = store.rater(f"{kind} {number}", kind)
        store.record(rater, [(PAIR.id, SAYS[word], (strengths or {}).get(number))])
    return store


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_majority_is_one_row_with_all_votes_counted(tmp_path: Path) -> None:
    (row,) = preference_rows(rated(tmp_path, "good", "poor", "good", "both_bad", "skip"))
    assert (row["prompt"], row["chosen"], row["rejected"], row["rater"]) == ("q", "good", "poor", "human")
    assert row["votes"] == {"chosen": 2, "rejected": 1, "tie": 0, "both_bad": 1}


def test_each_vote_can_be_a_row_of_its_own(tmp_path: Path) -> None:
    rows = preference_rows(rated(tmp_path, "good", "poor", "tie"), rows="each")
    assert [(row["chosen"], row["rater_name"]) for row in rows] == [("good", "human 0"), ("poor", "human 1")]


@pytest.mark.parametrize("said", [["tie"], ["good", "poor"], ["both_bad", "tie"], ["good", "poor", "tie"]])
def test_ties_are_dropped_or_written_in_both_directions(tmp_path: Path, said: list[str]) -> None:
    store = rated(tmp_path, *said)
    assert preference_rows(store) == []
    both = preference_rows(store, ties="both")
    assert sorted((row["chosen"], row["rejected"]) for row in both) == [("good", "poor"), ("poor", "good")]
    assert all(row["tie"] and row["margin"] == 0 for row in both)
    assert num_tied(store) == 1


def test_margins_are_llama_2s_smaller_scale_averaged_over_votes(tmp_path: Path) -> None:
    """Table 27 of arXiv 2307.09288: significantly better 1, slightly better 1/3."""
    (one,) = preference_rows(rated(tmp_path / "a", "good", strengths={0: "clearly"}))
    assert one["margin"] == 1
    (other,) = preference_rows(rated(tmp_path / "b", "poor", strengths={0: "slightly"}))
    assert other["margin"] == pytest.approx(1 / 3, abs=1e-6)
    (mixed,) = preference_rows(
        rated(tmp_path / "c", "good", "good", "poor", strengths=dict.fromkeys(range(3), "clearly"))
    )
    assert mixed["margin"] == pytest.approx(1 / 3, abs=1e-6), "by hand: (1 + 1 - 1) / 3"
    (ungraded,) = preference_rows(rated(tmp_path / "d", "good"))
    assert ungraded["margin"] == 0


def test_a_majority_of_weak_votes_against_a_strong_one_asks_for_no_negative_margin(tmp_path: Path) -> None:
    strengths: dict[int, Strength] = {0: "slightly", 1: "slightly", 2: "clearly"}
    (row,) = preference_rows(rated(tmp_path, "good", "good", "poor", strengths=strengths))
    assert (row["chosen"], row["margin"]) == ("good", 0)


def test_kinds_of_raters_are_never_added_up(tmp_path: Path) -> None:
    store = rated(tmp_path, "good")
    store.record(store.rater("simulated-1", "simulated"), [(PAIR.id, SAYS["poor"], None)])
    rows = preference_rows(store)
    assert [(row["rater"], row["chosen"]) for row in rows] == [("human", "good"), ("simulated", "poor")]


def test_gold_questions_and_repeats_give_no_rows(tmp_path: Path) -> None:
    store = rated(tmp_path, "good")
    (gold,) = some_gold(1)
    store.add_pairs([gold])
    store.record(store.rater("human 0"), [(gold.id, "left", None)])
    assert len(preference_rows(store)) == 1


def test_what_was_written_is_read_by_the_reward_models_own_reader(tmp_path: Path) -> None:
    """The columns of TRL's explicit-prompt format, through the same cleaning as any preference file."""
    rows = preference_rows(rated(tmp_path, "good", "good", "poor"))
    path = write(tmp_path / "votes.jsonl", *rows)
    cleaned = sources.preferences(sources.load_rows(path), invalid_rows="refuse").dataset
    assert cleaned[0]["chosen"] == "good"
    assert cleaned[0]["margin"] == 0


@pytest.mark.parametrize("said", [["good", "good", "poor"], ["good", "tie", "both_bad"], ["good", "poor"]])
@pytest.mark.parametrize("form", ["majority", "each"])
def test_export_and_import_keep_every_count(tmp_path: Path, said: list[str], form: Any) -> None:
    before = preference_rows(rated(tmp_path / "a", *said), ties="both")
    path = write(tmp_path / "v.jsonl", *preference_rows(rated(tmp_path / "b", *said), rows=form, ties="both"))
    store = Store(tmp_path / "c" / "votes.sqlite", PLAIN)
    found = import_votes(store, path)
    assert found.num_votes == len(said)
    after = preference_rows(store, ties="both")
    assert [row["votes"] for row in after] == [row["votes"] for row in before]
    assert {row["rater"] for row in after} == {"imported"}
    again = import_votes(store, path)
    assert (again.num_votes, again.num_known) == (0, len(said)), "the same file twice is the same votes once"


def test_three_raters_who_disagree_stay_three_votes(tmp_path: Path) -> None:
    """With names, without names, and a second vote under one name: nothing is lost, and it is said."""
    rows = [
        {"prompt": "q", "chosen": "good", "rejected": "poor"},
        {"prompt": "q", "chosen": "poor", "rejected": "good"},
        {"prompt": "q", "chosen": "good", "rejected": "poor", "margin": 1.0},
    ]
    for number, names in enumerate([None, ["a", "b", "c"], ["a", "a", "a"]]):
        named = [{**row, **({"rater_name": names[i]} if names else {})} for i, row in enumerate(rows)]
        store = Store(tmp_path / str(number) / "votes.sqlite", PLAIN)
        found = import_votes(store, write(tmp_path / f"{number}.jsonl", *named))
        assert (found.num_votes, found.num_conflicting, found.num_new_pairs) == (3, 1, 1)
        assert "1 pairs have votes that disagree; all of them were kept" in found.lines()
        (row,) = preference_rows(store)
        assert row["votes"] == {"chosen": 2, "rejected": 1, "tie": 0, "both_bad": 0}


def test_an_imported_margin_becomes_the_nearest_grade(tmp_path: Path) -> None:
    margins = [1.0, 0.9, 1 / 3, 0.1, 0.0, -1.0, None]
    rows = [{"prompt": f"q{i}", "chosen": "a", "rejected": "b", "margin": m} for i, m in enumerate(margins)]
    store = Store(tmp_path / "votes.sqlite", PLAIN)
    import_votes(store, write(tmp_path / "m.jsonl", *rows))
    prompts = {pair: str(one.prompt) for pair, one in store.pairs().items()}
    found = {prompts[vote.pair]: vote.strength for vote in store.votes()}
    assert [found[f"q{i}"] for i in range(7)] == ["clearly", "clearly", "slightly", "slightly", None, None, None]


def test_bad_rows_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    path = write(
        tmp_path / "f.jsonl",
        good,
        {"prompt": "r", "chosen": "same", "rejected": " same "},
        {"prompt": "s", "chosen": "", "rejected": "b"},
        {"prompt": "t", "chosen": "a"},
    )
    store = Store(tmp_path / "votes.sqlite", PLAIN)
    said = "\n".join(import_votes(store, path).lines())
    assert "1 votes imported from 4 rows, on 1 new pairs" in said
    assert "1 rows left out: both texts are equal, so there is nothing to compare" in said
    assert "1 rows left out: completion is empty" in said
    assert "1 rows left out: rejected missing" in said


def test_a_file_without_votes_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "votes.sqlite", PLAIN)
    with pytest.raises(UserError, match="gives no vote"):
        import_votes(store, write(tmp_path / "f.jsonl", {"prompt": "q", "chosen": "a", "rejected": "a"}))
    with pytest.raises(UserError, match="there is no file"):
        import_votes(store, str(tmp_path / "absent.jsonl"))
    assert store.pairs() == {}


def test_a_file_of_pairs_may_hold_messages_gold_questions_and_mistakes(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "hi"}]
    path = write(
        tmp_path / "pairs.jsonl",
        {"prompt": "p", "completions": ["one", "two"]},
        {"prompt": "p", "completions": ["two", "one"]},
        {"prompt": "p", "completions": ["same", "same"]},
        {"prompt": "p", "completions": ["one"]},
        {"prompt": "g", "chosen": "yes", "rejected": "no", "gold": True},
        {"prompt": "g", "chosen": "maybe", "rejected": "no"},
    )
    found = read_pairs(path)
    assert [pair.gold and getattr(pair, pair.gold) for pair in found.pairs] == [None, "yes", None]
    assert dict(found.left_out) == {
        "the same pair again": 1,
        "both texts are equal, so there is nothing to compare": 1,
        "completions are not two": 1,
    }
    messages = {
        "prompt": asked,
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    }
    (pair,) = read_pairs(write(tmp_path / "messages.jsonl", messages)).pairs
    assert pair.prompt == asked
