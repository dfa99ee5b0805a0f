"""The report's evidence: win rates by judge, the reward model's habits, learning curve, ensemble, alarms."""

from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.report import write_report
from rlhf_lab.report_page.estimates import Estimate
from rlhf_lab.report_page.interval_chart import Means, Place, interval_chart
from rlhf_lab.stages.ppo_alarms import LIMITS
from rlhf_lab.training.records import read_json, write_json
from tests.test_report import Page, around, make_run


def judge(name: str, kind: str, mean: float, **more: Any) -> dict[str, Any]:
    return {
        "judge": name,
        "kind": kind,
        "num_judgements": 200,
        "num_prompts": 100,
        "win_rate": around(mean, 0.03),
        "length_controlled": {**around(mean - 0.1, 0.03), "length_effect": 1.5},
        "sign_test": {"won": 60, "lost": 20, "p_value": 0.04},
        "prompts_needed": [{"half_width": 0.03, "num_prompts": 1234}],
        **more,
    }


WIN_RATES = {
    "comparisons": [
        {
            "ours": "ppo",
            "theirs": "sft",
            "num_prompts": 512,
            "equal_fraction": 0.22,
            "judges": [
                judge("gold", "gold", 0.81),
                judge("reward model", "reward_model", 0.84),
                judge("<b>mine</b>:short", "reward_function", 0.5),
                judge("votes: human", "votes", 0.9, raters="human", over_all_prompts=around(0.8, 0.03)),
                {
                    "judge": "votes: simulated",
                    "kind": "votes",
                    "raters": "simulated",
                    "num_judgements": 0,
                    "left_out": {"skip: no judgement": 4},
                },
            ],
            "right_or_wrong": {"helpful": {"num_prompts": 300, "only_ours": 202, "only_theirs": 10, "p_value": 1e-9}},
        },
        {
            "ours": "ppo",
            "theirs": "ppo/checkpoint-64",
            "num_prompts": 512,
            "equal_fraction": 0.9,
            "judges": [judge("gold", "gold", 0.52)],
        },
    ],
    "position": {"human": {"left": 60, "num_votes": 100, "p_value": 0.057}},
}
BIN = {"from": -3.0, "to": -1.0, "mean": -2.0, "num_pairs": 80, "accuracy": around(0.7, 0.05)}
HABITS = {
    "by_margin": [{**BIN, "from": 0.0, "to": 0.4}, {**BIN, "from": 0.4, "to": 2.5, "accuracy": around(0.97, 0.02)}],
    "by_length": [BIN, {**BIN, "from": 1.0, "to": 1.0}],
    "by_gold_gap": [{**BIN, "from": 1.0, "to": 1.0}],
    "length_bias": {
        "num_pairs": 300,
        "raters": around(0.5, 0.03),
        "reward_model": around(0.58, 0.03),
        "gold": None,
        "difference": around(0.08, 0.02),
    },
    "score_length_correlation": around(0.31, 0.05),
}
CURVE = {
    "points": [
        {"num_pairs": n, "num_prompts": n // 4, "accuracy": around(a, 0.02), "gold_accuracy": around(a + 0.1, 0.02)}
        for n, a in ((500, 0.6), (1000, 0.66), (2000, 0.72))
    ]
}
SPREAD = dict.fromkeys(("0.05", "0.25", "0.5", "0.75", "0.95"), 0.1)
ENSEMBLE = {
    "used": [0, 1, 2],
    "spread": {"sft": {**around(0.2, 0.01), "quantiles": SPREAD}, "ppo": {**around(0.5, 0.02), "quantiles": SPREAD}},
    "ratio": around(2.5, 0.2),
    "gain": {"mean": around(0.9, 0.1), "by_member": [1.0, 0.9, 0.8], "worst": 0.8},
    "alarm": True,
    "alarm_above": 1.5,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "run")
    evaluation = folder / "evaluation"
    write_json(evaluation / "win_rates.json", WIN_RATES)
    write_json(evaluation / "reward_model.json", read_json(evaluation / "reward_model.json") | HABITS)
    write_json(evaluation / "learning_curve.json", CURVE)
    write_json(evaluation / "ensemble.json", ENSEMBLE)
    ring(folder, {})
    return folder


def ring(folder: Path, rang: dict[str, Any]) -> None:
    record = read_json(folder / "run.json")
    record["stages"]["ppo"]["alarms"] = {"limits": LIMITS, "rang": rang}
    write_json(folder / "run.json", record)


def words(folder: Path) -> str:
    """Visible text of the page, its tags checked for balance."""
    return " ".join(" ".join(Page(write_report(folder).read_text(encoding="utf-8")).words).split())


def test_every_judge_has_its_row(run: Path) -> None:
    text = words(run)
    assert "PPO against SFT on 512 held-out prompts; to 22 % of them both answer the same" in text
    for told in ("Gold score", "The run’s reward model", "People 200 votes on 100 pairs that differ; 80 % [77, 83]"):
        assert told in text
    assert "81 % [78, 84] 71 % [68, 74] p = 0.040 1,234" in text
    assert "no judgement" in text
    assert "4 left out, skip: no judgement" in text
    assert "PPO against ppo/checkpoint-64" in text
    assert "McNemar’s test Helpful 300 202 10 p < 0.001" in text


def test_win_rates_stand_in_one_place(run: Path) -> None:
    """policy.json has those by gold and by reward model too: shown where no table of all judges is."""
    caption = "Prompts on which PPO beats SFT"
    assert caption not in words(run)
    (run / "evaluation" / "win_rates.json").unlink()
    assert caption in words(run)


def test_names_of_judges_are_text(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert "<b>mine</b>" not in page
    assert "&lt;b&gt;mine&lt;/b&gt;:short" in page


def test_the_reward_model_s_habits_are_drawn_and_told(run: Path) -> None:
    text = words(run)
    for title in ("Accuracy by margin", "Accuracy by gold gap", "Accuracy by length", "Learning curve"):
        assert title in text
    assert "The reward model prefers the longer answer 8.0 points more often than its raters do." in text
    assert "score and length correlate by 0.31" in text
    assert "People chose the left side in 60 % of 100 votes (p = 0.057)" in text
    bias = HABITS | {"length_bias": {**HABITS["length_bias"], "difference": around(0.01, 0.02)}}  # type: ignore[dict-item]
    path = run / "evaluation" / "reward_model.json"
    write_json(path, read_json(path) | bias)
    assert "prefers the longer answer as often as its raters do" in words(run)


def test_the_ensemble_says_whether_it_rings(run: Path) -> None:
    text = words(run)
    assert "3 reward models that differ in their seed" in text
    assert "2.50 [2.30, 2.70] times as much" in text
    page = (run / "report.html").read_text(encoding="utf-8")
    assert '<div class="notice"><h3>3 reward models' in page
    write_json(run / "evaluation" / "ensemble.json", ENSEMBLE | {"alarm": False})
    write_report(run)
    assert '<div class="notice"><h3>' not in (run / "report.html").read_text(encoding="utf-8")


def test_alarms_that_rang_stand_in_a_notice_and_silent_ones_in_the_table(run: Path) -> None:
    text = words(run)
    assert "PPO rang an alarm" not in text
    assert text.count("silent") == len(LIMITS)
    ring(run, {"kl": {"update": 40, "words": "the policy is <far> away"}})
    text = words(run)
    assert "PPO rang an alarm. the policy is <far> away" in text
    assert "rang at update 40" in text
    assert text.count("silent") == len(LIMITS) - 1


def test_what_is_missing_is_named_with_its_command(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "old")
    text = words(folder)
    assert "Win rates by every judge" in text
    assert "--ensemble 3" in text
    assert "--learning-curve" in text
    assert "PPO’s alarms: not recorded in this run; an older version trained it." in text
    assert "PPO has not ended yet" in words(make_run(tmp_path / "young", upto="reward"))


@pytest.mark.parametrize("name", ["win_rates", "learning_curve", "ensemble"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"comparisons": 3, "points": [1, {}], "ratio": {"mean": null}}'])
def test_broken_files_do_not_break_the_page(run: Path, name: str, content: str) -> None:
    (run / "evaluation" / f"{name}.json").write_text(content, encoding="utf-8")
    assert "Samples, side by side" in words(run)


def test_a_chart_leaves_out_what_was_not_measured() -> None:
    points = (Estimate(0.6, 0.55, 0.65), None, Estimate(0.99, 0.97, 1.0))
    places = [Place("a", 1), Place("b", 2), Place("c", 3)]
    drawn = interval_chart("t", "u", places, [Means("accuracy", "tone-ppo", points)], x_label="x")
    assert drawn.count("<circle") == drawn.count("whisker") == 2
    assert "accuracy at c: 0.99, 0.97 to 1.00" in drawn
    assert interval_chart("t", "u", places, [Means("accuracy", "tone-ppo", (None, None, None))], x_label="x") == ""
