"""Win rates from scores and votes: by hand, from the other side, with judgements that hang together."""

from typing import Any

import pytest

from rlhf_lab.evaluation.win_rates import (
    Judgements,
    judged_by_scores,
    right_or_wrong,
    verdicts_of_prompts,
    win_rate,
    with_equal_answers,
)

SETTINGS = {"num_resamples": 300, "seed": 0}


def judged(wins: list[float], prompts: list[str] | None = None) -> Judgements:
    names = prompts or [f"prompt {row}" for row in range(len(wins))]
    return Judgements(wins, names, [0.0] * len(wins))


def test_scores_that_are_higher_win_and_those_that_are_missing_do_not_count() -> None:
    ours, theirs = [2.0, 1.0, 3.0, None, 1.0], [1.0, 2.0, 3.0, 1.0, None]
    found = judged_by_scores(ours, theirs, list("abcde"), [5.0, -1.0, 0.0, 0.0, 0.0], [False] * 5)
    assert found.wins == [1.0, 0.0, 0.5]
    assert found.prompts == ["a", "b", "c"]
    assert found.longer == [5.0, -1.0, 0.0]


def test_equal_answers_tie_though_their_scores_differ_in_the_last_digit() -> None:
    found = judged_by_scores([1.0 + 2**-20, 1.0], [1.0, 2.0], list("ab"), [0.0, 0.0], [True, False])
    assert found.wins == [0.5, 0.0]


def test_everything_that_is_said_of_one_judge() -> None:
    found = win_rate(judged([1.0] * 6 + [0.5] * 3 + [0.0]), **SETTINGS)
    assert (found["wins"], found["ties"], found["losses"]) == (6, 3, 1)
    assert found["win_rate"]["mean"] == 0.75
    assert found["sign_test"] == {"won": 6, "lost": 1, "p_value": 2 * (1 + 7) / 128}
    assert [row["half_width"] for row in found["prompts_needed"]] == [0.05, 0.03, 0.01]
    few, more, most = (row["num_prompts"] for row in found["prompts_needed"])
    assert most == pytest.approx(25 * few, rel=0.02)
    assert few < more < most
    assert found["length_controlled"]["mean"] == pytest.approx(0.75, abs=0.01)


def test_the_other_side_wins_the_rest() -> None:
    wins = [1.0, 1.0, 0.0, 0.5, 1.0, 0.0, 1.0, 1.0]
    one, other = (win_rate(judged(those), **SETTINGS) for those in (wins, [1 - win for win in wins]))
    assert other["win_rate"]["mean"] == pytest.approx(1 - one["win_rate"]["mean"])
    assert other["win_rate"]["low"] == pytest.approx(1 - one["win_rate"]["high"])
    assert other["sign_test"]["p_value"] == one["sign_test"]["p_value"]
    assert (other["wins"], other["losses"]) == (one["losses"], one["wins"])


def test_votes_on_one_pair_are_one_trial_of_the_sign_test() -> None:
    votes = judged([1.0, 1.0, 0.0, 0.0, 0.5, 1.0, 1.0, 0.0], ["a", "a", "a", "b", "b", "c", "d", "d"])
    assert verdicts_of_prompts(votes) == {"a": 1, "b": -1, "c": 1, "d": 0}
    found = win_rate(votes, **SETTINGS)
    assert found["num_judgements"] == 8
    assert found["num_prompts"] == 4
    assert found["sign_test"] == {"won": 2, "lost": 1, "p_value": 1.0}


def test_no_judgement_has_no_rate() -> None:
    with pytest.raises(ValueError, match="no judgements; need at least one"):
        win_rate(Judgements(), **SETTINGS)


def test_equal_answers_are_ties_for_people_too() -> None:
    """Ten prompts, on four of which both say the same; people prefer ours on five of the other six."""
    differ = win_rate(judged([1.0] * 5 + [0.0]), **SETTINGS)["win_rate"]
    everything = win_rate(judged([1.0] * 5 + [0.0] + [0.5] * 4), **SETTINGS)["win_rate"]
    found = with_equal_answers(differ, 0.4)
    assert found["mean"] == pytest.approx(everything["mean"])
    assert found["low"] == pytest.approx(0.2 + 0.6 * differ["low"])
    assert found["low"] <= found["mean"] <= found["high"] < differ["high"]


def test_right_or_wrong_takes_each_measure_where_it_applies() -> None:
    ours: dict[str, Any] = {"honest": [1.0, 1.0, 1.0], "helpful": [1.0, None, 0.0]}
    theirs: dict[str, Any] = {"honest": [1.0, 0.0, 0.0], "helpful": [0.0, None, 0.0]}
    found = right_or_wrong(ours, theirs)
    assert found["honest"] == {"num_prompts": 3, "only_ours": 2, "only_theirs": 0, "p_value": 0.5}
    assert found["helpful"] == {"num_prompts": 2, "only_ours": 1, "only_theirs": 0, "p_value": 1.0}
