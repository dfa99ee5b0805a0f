"""The top of the report: what was trained, on whose comparisons, how long, and warnings before any number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_lab.report_page.raters import learnt_from
from rlhf_lab.report_page.run_data import read_run
from tests.report_page.made_run import change_policy, make_run, with_votes, write_json
from tests.report_page.read_page import page_of


def test_the_top_tells_how_the_run_came_about(tmp_path: Path) -> None:
    text = page_of(make_run(tmp_path / "run", seed=3)).text
    told = (
        "The embedded model (4 layers, 128 wide) learnt from 1,200 demonstrations; a reward model from 2,000"
        " comparisons by simulated raters; and PPO trained the model on 12,800 of its own answers."
        " It took 11 min 18 s on 2 CPU cores, with seed 3."
    )
    assert told in text
    assert text.index(told) < text.index("The three steps")
    assert "From 1,200 demonstrations" in text


def test_votes_of_people_stand_beside_the_simulated_comparisons(tmp_path: Path) -> None:
    text = page_of(with_votes(make_run(tmp_path / "run"), human=20)).text
    assert "a reward model from 20 votes by 1 person and 2,000 comparisons by simulated raters" in text
    assert "The SFT model was taken over from the run first. It took 8 min 32 s" in text  # reward, PPO, evaluation
    assert "From 1,200 demonstrations Taken over from first" in text


def test_another_model_is_named_and_may_be_long(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", upto="sft")
    (folder / "config.yaml").write_text("model: {name_or_path: some-owner/a-model, config: {}}")
    assert "Some-owner" not in page_of(folder).text
    assert "some-owner/a-model learnt from 1,200 demonstrations." in page_of(folder).text


def test_warnings_come_before_every_number(tmp_path: Path) -> None:
    folder = with_votes(make_run(tmp_path / "run"), human=20, warnings=("raters agree as if by <chance>",))
    (folder / "config.yaml").write_text("a: [")
    text = page_of(folder).text
    assert "config.yaml can not be read as settings" in text
    warning = "The votes look unreliable: raters agree as if by <chance>"
    assert text.index(warning) < text.index("PPO moved the gold score")


def test_no_warning_no_box(tmp_path: Path) -> None:
    assert "Before you read on" not in page_of(make_run(tmp_path / "run")).text


@pytest.mark.parametrize("rater", ["unknown", ""])
def test_raters_that_nobody_knows_are_not_given_a_name(tmp_path: Path, rater: str) -> None:
    folder = make_run(tmp_path / "run", rater=rater)
    assert learnt_from(read_run(folder)) == "2,000 comparisons"
    text = page_of(folder).text
    assert "The run does not say who made the comparisons." in text
    assert "“unknown”" not in text


@pytest.mark.parametrize(
    ("raters", "votes", "told"),
    [
        ({"simulated": 2012}, {"simulated": 12}, "2,012 comparisons by simulated raters (with 12 votes by 2 simulated"),
        ({"human": 1}, {"human": 1}, "1 vote by 2 people"),
        (
            {"simulated": 9, "human": 5, "imported": 4},
            {"human": 6, "imported": 4},
            "6 votes by 2 people and 4 votes by 2 raters of imported files and 9 comparisons by simulated raters",
        ),
    ],
)
def test_each_kind_of_rater_is_counted_apart(
    tmp_path: Path, raters: dict[str, int], votes: dict[str, int], told: str
) -> None:
    folder = with_votes(make_run(tmp_path / "run"), human=1)
    run = json.loads((folder / "run.json").read_text())
    run["stages"]["reward"]["data"]["raters"] = raters
    run["stages"]["reward"]["data"]["votes"] |= {"by_kind": votes, "raters_by_kind": dict.fromkeys(votes, 2)}
    write_json(folder / "run.json", run)
    assert learnt_from(read_run(folder)).startswith(told)


def test_an_ended_evaluation_without_values_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "evaluation" / "policy.json").unlink()
    assert "The evaluation: the step ended, but its files hold no such values." in page_of(folder).text


def test_a_page_of_extremes_holds_together(tmp_path: Path) -> None:
    """No value of a run breaks the page: enormous, absent, of the wrong type."""
    folder = make_run(tmp_path / "run", completion="x" * 10_000)
    change_policy(folder, gold={"mean": 1e300, "low": -1e300, "high": 1e300}, kl="many")  # type: ignore[arg-type]
    run = json.loads((folder / "run.json").read_text())
    run["stages"]["sft"] |= {"data": [], "seconds": "soon", "taken_from": 7}
    run["stages"]["reward"]["data"] = {"raters": ["who"], "votes": {"by_kind": 3, "warnings": "none"}}
    run |= {"machine": "a desk", "versions": []}
    write_json(folder / "run.json", run)
    assert "x" * 10_000 in page_of(folder).text
