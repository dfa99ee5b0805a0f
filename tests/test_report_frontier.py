"""The frontier's section of report.html: from what evaluation writes, half of it, and rubbish."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.evaluation.frontier import summarize
from rlhf_lab.evaluation.overoptimization import overoptimization
from rlhf_lab.report_page.scatter import Group, Mark, scatter_chart
from tests.test_report import Page, make_run, page_of, ppo_rows, write_json


def values(kl: float, gold: float, *, gold_known: bool = True) -> dict[str, list[float]]:
    found = {"kl": [kl] * 8, "score": [gold / 3] * 8}
    return found | ({"gold": [gold - 0.1, gold + 0.1] * 4} if gold_known else {})


def swept(*, gold: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """frontier.json and overoptimization.json of a small sweep."""
    trained = [
        {"method": method, "kl_coef": w, "seed": s, "values": values(kl + 0.1 * s, top, gold_known=gold)}
        for method, top in (("ppo", 2.6), ("rloo", 2.4), ("dpo", 2.2))
        for w, kl in ((0.4, 0.5), (0.1, 1.2), (0.01, 3.0))
        for s in (0, 1)
    ]
    best = [
        {"n": n, "formula_kl": kl + 0.1, "values": values(kl, 1.7 + math.sqrt(kl) - 0.4 * kl, gold_known=gold)}
        for n, kl in ((1, 0.0), (2, 0.2), (4, 0.6), (16, 1.6), (64, 2.5))
    ]
    points = [*trained, *({"method": "best_of_n", **point} for point in best)]
    judge = "gold" if gold else "score"
    run = values(1.1, 2.7, gold_known=gold)
    found = summarize(points, best[0]["values"], judge=judge, num_bootstrap=50, seed=0, run=run)
    more = {"num_prompts": 8, "settings": {"num_seeds": 2}, "seconds": 1320.0}
    rows = [{k: v for k, v in row.items() if gold or k != "eval_gold"} for row in metrics()]
    return {**found, **more}, overoptimization(rows, best, found["points"])


def metrics() -> list[dict[str, Any]]:
    start = {"step": 0, "eval_kl": 0.0, "eval_scores": -0.4, "eval_gold": 0.46}
    return [start, *ppo_rows(random.Random(0), gold=True)]


def run_with(folder: Path, *, gold: bool = True, frontier: bool = True, traced: bool = True) -> Page:
    run = make_run(folder, gold=gold)
    found, over = swept(gold=gold)
    if frontier:
        write_json(run / "evaluation" / "frontier.json", found)
    if traced:
        write_json(run / "evaluation" / "overoptimization.json", over)
    return page_of(run)


def drawings(page: Page) -> dict[str, str]:
    labels = [str(a.get("aria-label")) for tag, a in page.tags if tag == "svg" and "aria-label" in a]
    return {label.split(" (")[0]: label for label in labels}


def test_every_point_is_drawn_and_told(tmp_path: Path) -> None:
    page = run_with(tmp_path / "run")
    chart = drawings(page)["Gold over KL"]
    assert "PPO, KL weight 0.4, seed 0: 0.50 nats, gold 2.60" in chart
    assert "DPO (TRL), KL weight 0.01, seed 1: 3.10 nats, gold 2.20" in chart
    assert "best of 64: 2.50 nats" in chart
    assert "SFT: gold 1.70" in chart
    assert "this run’s PPO: 1.10 nats, gold 2.70" in chart
    shapes = [tag for tag, _ in page.tags if tag in ("circle", "polygon")]
    assert shapes.count("polygon") > 17, "squares, diamonds and triangles"


def test_areas_and_equal_kl_are_tables(tmp_path: Path) -> None:
    text = run_with(tmp_path / "run").text
    assert "from KL 0 to the 2.50 nats that every method reaches" in text
    assert "seeds averaged at each KL weight: 2;" in text
    assert "PPO 6 points, up to 3.05 nats" in text
    assert "best-of-n 5 points, up to 2.50 nats" in text
    assert "at most 2.50 nats KL of best-of-n: estimated" in text
    assert "exactly 2.60 nats KL of best-of-n: log n − (n − 1)/n" in text
    assert "this run’s PPO, exactly 1.10 nats" in text
    assert "The sweep took 22 min 00 s" in text
    assert "rlhf-lab evaluate --frontier" in text


def test_fits_are_told_in_words_and_a_turn_is_drawn(tmp_path: Path) -> None:
    page = run_with(tmp_path / "run")
    assert "gold turns down at 1.56 nats" in page.text  # d = 1 / (2 * 0.4)
    assert "upright: gold turns down" in page.text
    assert {"Best-of-n", "PPO, along the run", "PPO, along KL weights"} <= set(drawings(page))
    # The SFT model's score is 1.7 / 3, PPO's 2.6 / 3: gains are above SFT, not above the nearest policy
    assert "KL weight 0.4: score 0.30 above SFT at 0.50 nats" in drawings(page)["PPO, along KL weights"]
    assert "update 200: gold" in drawings(page)["PPO, along the run"]


def test_without_a_sweep_the_command_for_it_is_named(tmp_path: Path) -> None:
    page = run_with(tmp_path / "run", frontier=False)
    assert "The frontier, a sweep over KL weights and seeds: not there yet." in page.text
    assert f"rlhf-lab evaluate --frontier {tmp_path / 'run' / 'config.yaml'}" in page.text
    assert "Best-of-n" in drawings(page), "what is there is shown"
    assert "Gold over KL" not in drawings(page)


def test_without_both_files_both_commands_are_named(tmp_path: Path) -> None:
    text = run_with(tmp_path / "run", frontier=False, traced=False).text
    assert "Gold against proxy: the step ended, but its files hold no such values." in text
    assert "a sweep over KL weights and seeds: not there yet." in text


def test_without_gold_the_page_says_whose_score_it_shows(tmp_path: Path) -> None:
    page = run_with(tmp_path / "run", gold=False)
    assert "Score over KL" in drawings(page)
    assert "reward model’s score (no gold is known for this data)" in page.text
    assert "no gold score outside the embedded world" in page.text
    assert "gold turns down" not in page.text


def test_a_policy_that_ran_away_is_told_and_does_not_squeeze_the_others(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    found, _ = swept()
    far = {"method": "dpo", "kl_coef": 0.002, "seed": 0}
    far |= {key: {"mean": mean, "low": mean, "high": mean} for key, mean in (("kl", 95.0), ("gold", 1.39))}
    found["points"].append(far)
    write_json(run / "evaluation" / "frontier.json", found)
    page = page_of(run)
    assert "Too far away to be drawn: DPO (TRL), KL weight 0.002, seed 0: 95.0 nats, gold 1.39." in page.text
    assert "95.0 nats" not in drawings(page)["Gold over KL"]
    assert "Too far away" not in run_with(tmp_path / "other").text


RUBBISH = [
    {},
    {"points": None, "areas": [], "frontiers": 3},
    {"points": [None, 3, {"kl": "far", "gold": {}}, {"kl": {"mean": None}, "gold": {"mean": 1}}]},
    {"points": [{"kl": {"mean": 1.0}, "gold": {"mean": 1.0}, "method": "<script>"}], "areas": {"methods": {"ppo": 1}}},
    {
        "points": [{"kl": {"mean": 1.0}, "gold": {"mean": 1.0}, "method": "ppo", "kl_coef": "x", "seed": None}],
        "frontiers": {"ppo": {"kl": [0, "a"], "gold": [1]}},
        "areas": {"methods": {"ppo": {"mean": "x"}}, "max_kl": "y"},
        "ppo_against_best_of_n": [None, {"question": 3, "ppo": 1}],
    },
    {"ppo": {"points": [{"kl": 1.0, "score": 1.0}, {"kl": None}]}, "best_of_n": {"points": 3}, "sweep": []},
    {"ppo": {"points": [{"kl": 1.0, "score": 1.0, "gold": "x"}], "base_gold": 1.0, "fit": {"a": "x", "b": 1}}},
]


@pytest.mark.parametrize("rubbish", RUBBISH)
@pytest.mark.parametrize("name", ["frontier", "overoptimization"])
def test_rubbish_still_makes_a_page(tmp_path: Path, name: str, rubbish: Any) -> None:
    run = make_run(tmp_path / "run")
    write_json(run / "evaluation" / f"{name}.json", rubbish)
    page = page_of(run)
    assert ("section", {"id": "frontier"}) in page.tags
    assert not [1 for tag, _ in page.tags if tag == "script"][1:], "one script, the page's own"


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "evaluation" / "frontier.json").write_text("{")
    assert "evaluation/frontier.json holds no readable JSON object" in page_of(run).text


def test_words_from_a_file_stay_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    _, over = swept()
    over["ppo"]["words"] = "<img src=x onerror=alert(1)>"
    write_json(run / "evaluation" / "overoptimization.json", over)
    page = page_of(run)
    assert "<img src=x" in page.text
    assert not [1 for tag, _ in page.tags if tag == "img"]


def test_a_chart_of_nothing_is_nothing() -> None:
    assert scatter_chart("t", "u", [Group("a", "tone-ppo", ())], x_label="x") == ""


def test_an_upright_outside_of_the_axis_is_not_drawn() -> None:
    group = [Group("a", "tone-ppo", (Mark(1.0, 1.0, "one"), Mark(2.0, 2.0, "two")))]
    assert "diagonal" in scatter_chart("t", "u", group, x_label="x", upright=1.5, upright_words="here")
    assert "here" not in scatter_chart("t", "u", group, x_label="x", upright=99.0, upright_words="here")


def test_json_files_hold_no_number_that_json_does_not_know(tmp_path: Path) -> None:
    found, over = swept()
    for value in (found, over):
        json.loads(json.dumps(value, allow_nan=False))
