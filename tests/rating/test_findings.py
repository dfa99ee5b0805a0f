"""Raters with known habits: what the findings say of them, and when they warn."""

import random
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.data.assistant.world import training_questions
from rlhf_lab.rating.agreement_page import page_values, print_findings
from rlhf_lab.rating.findings import Findings, findings
from rlhf_lab.rating.pairs import make_pair
from rlhf_lab.rating.simulated import simulate
from rlhf_lab.rating.store import Store
from tests.rating.desk import PLAIN, Plan, desk, side_of, some_gold

CROWD = Plan(raters_per_pair=3, gold_rate=0.2, repeat_rate=0.2)


def rate_all(store: Store, name: str, choose: Any, *, seconds: float | None = 5.0) -> None:
    rater = store.rater(name)
    while shown := store.next(rater):
        store.clock.now += 10  # type: ignore[attr-defined]
        outcome, strength = choose(shown)
        store.vote(rater, shown.id, turn=shown.turn, outcome=outcome, strength=strength, seconds=seconds)


def careful(shown: Any) -> tuple[str, str]:
    return side_of(shown, "right" if "gold" in shown.prompt else "good"), "clearly"


def always_left(shown: Any) -> tuple[str, str]:
    return "left", "slightly"


def coin(seed: int) -> Any:
    rng = random.Random(seed)
    return lambda shown: (rng.choice(["left", "right"]), "slightly")


def crowd(folder: Path, **choices: Any) -> Findings:
    store = desk(folder, 60, CROWD)
    store.add_pairs(some_gold(30))
    for name, choose in choices.items():
        rate_all(store, name, choose)
    return findings(store, num_resamples=300)


def test_careful_raters_agree_and_nobody_is_warned_about(tmp_path: Path) -> None:
    found = crowd(tmp_path, ann=careful, bob=careful)
    assert found.agreement.value == 1
    assert [kappa.interval.value for kappa in found.kappas] == [pytest.approx(1)]
    assert found.alpha.value == pytest.approx(1)
    assert found.warnings == ()
    for rater in found.raters:
        assert rater.gold.part == rater.gold.whole > 5
        assert rater.consistent.part == rater.consistent.whole > 5
        assert rater.longer.part == 0, "'good 1' is shorter than 'bad answer 1'"
        assert rater.median_seconds == 5


def test_coin_tossers_are_found_out_in_every_way(tmp_path: Path) -> None:
    found = crowd(tmp_path, ann=coin(1), bob=coin(2), cem=coin(3))
    assert abs(found.alpha.value) < 0.2
    assert found.num_shared == 60
    told = "\n".join(found.warnings)
    assert "people agree no more than by chance" in told
    assert "a reward model would learn noise" in told
    for name in ("ann", "bob", "cem"):
        assert f"{name} answered" in told or f"{name} said the same" in told


def test_whoever_always_takes_the_left_is_named(tmp_path: Path) -> None:
    found = crowd(tmp_path, ann=careful, bob=always_left)
    (bob,) = [rater for rater in found.raters if rater.name == "bob"]
    assert bob.left.part == bob.left.whole
    assert bob.left.p_value < 1e-9
    assert bob.consistent.part == 0, "a repeated pair has its sides swapped"
    assert any(warning.startswith("bob chose the left side in") for warning in found.warnings)
    assert not any(warning.startswith("ann") for warning in found.warnings)


def test_whoever_does_not_read_is_named(tmp_path: Path) -> None:
    store = desk(tmp_path, 20)
    rate_all(store, "ann", careful, seconds=0.4)
    assert any("ann takes 0.4 s a pair" in warning for warning in findings(store, num_resamples=10).warnings)


def test_an_imported_vote_has_no_side_and_no_time(tmp_path: Path) -> None:
    store = desk(tmp_path, 20)
    store.record(store.rater("file", "imported"), [(pair, "left", None) for pair in store.pairs()])
    (rater,) = findings(store, num_resamples=10).raters
    assert rater.left.whole == 0
    assert rater.median_seconds is None


def test_simulated_raters_take_their_seats_and_are_called_simulated(tmp_path: Path) -> None:
    """Two raters with the default's noise agree about as often as published labellers do, never perfectly."""
    store = Store(tmp_path / "votes.sqlite", PLAIN)
    prompts = [question.prompt for question in training_questions()[:150]]
    answers = ["It is Paris.", "Nobody can know that.", "Look it up yourself, you fool."]
    rng = random.Random(0)
    store.add_pairs(make_pair(prompt, *rng.sample(answers, 2), source="test") for prompt in prompts)
    added = simulate(store, num_raters=2, noise=0.43, seed=0)
    assert added == 300
    assert {vote.kind for vote in store.votes()} == {"simulated"}
    found = findings(store, num_resamples=50)
    assert 0.6 < found.agreement.value < 0.98
    exact = Store(tmp_path / "exact.sqlite", PLAIN)
    exact.add_pairs(store.pairs().values())
    simulate(exact, num_raters=2, noise=0.0, seed=0)
    assert findings(exact, num_resamples=10).agreement.value == 1
    assert simulate(store, num_raters=2, noise=0.43, seed=0) == 0, "nothing is left for them"


def test_steady_simulated_raters_hide_no_guessing_people_and_take_nobodys_place(tmp_path: Path) -> None:
    store = desk(tmp_path, 60, Plan(raters_per_pair=2, gold_rate=0, repeat_rate=0))
    for number in range(6):
        rater = store.rater(f"simulated-{number}", "simulated")
        store.record(rater, [(pair, "left", "clearly") for pair in store.pairs()])
    rate_all(store, "ann", coin(1))
    rate_all(store, "bob", coin(2))
    found = findings(store, num_resamples=300)
    assert found.num_votes == {"human": 120, "simulated": 360}
    assert found.agreement.value > 0.6
    assert any(warning.startswith("people agree no more than by chance") for warning in found.warnings)


def test_the_terminal_says_what_the_page_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = crowd(tmp_path, ann=careful, bob=always_left)
    print_findings(found)
    shown = " ".join(capsys.readouterr().out.split())
    values = page_values(found)
    assert values["headline"] in shown
    assert values["measures"][1]["value"] in shown
    assert "warning: bob chose the left side" in shown


def test_no_votes_and_no_overlap_are_said_in_words(tmp_path: Path) -> None:
    store = desk(tmp_path, 3, PLAIN)
    assert page_values(findings(store))["headline"] == "No votes yet."
    rate_all(store, "ann", careful)
    values = page_values(findings(store))
    assert values["headline"].startswith("No pair has two votes yet")
    assert values["measures"][0]["value"] == "–"
