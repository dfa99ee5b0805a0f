"""report.html from synthetic run folders: whole, partly finished, broken, hostile, and rated by different raters.

No browser and no training.
"""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.errors import UserError
from rlhf_lab.report import write_report
from rlhf_lab.report_page.text import duration, number, percent
from tests.report_page.made_run import GOLD, around, make_run, ppo_rows, write_json, write_lines
from tests.report_page.read_page import Page, page_of


def test_first_sentence_and_key_numbers(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    assert (
        "PPO moved the gold score from 0.46 to 0.79 and helpful from 0.31 to 0.88,"
        " at a KL of 4.1 nats from the SFT policy." in page.text
    )
    assert "By gold score it won 77 % [72, 82] of 256 prompts against SFT." in page.text
    assert "Honest fell from 0.55 to 0.52." in page.text  # what got worse is told as well
    assert "0.46 → 0.79" in page.text
    assert "Took 6 min 53 s" in page.text
    assert "From 2,000 comparisons, simulated raters" in page.text


def test_real_data_speaks_of_score_win_rate_and_kl(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", gold=False, rater="human"))
    assert (
        "PPO moved the reward model’s score from −0.42 to 1.87 and won 91 % of prompts against SFT"
        " by that same score, at a KL of 4.1 nats" in page.text
    )
    assert "so winning 91 % [88, 94] of 256 prompts does not by itself show better completions." in page.text
    assert "Comparisons by people." in page.text
    assert "simulated" not in page.text
    assert "Not measured in this run: gold accuracy." in page.text
    assert "Gold score and its parts" not in page.charts()
    assert "Penalized reward" in page.charts()


def test_a_win_rate_around_one_half_is_no_clear_gain(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    policy = json.loads((folder / "evaluation" / "policy.json").read_text())
    policy["win_rate"]["gold"] = around(0.52, 0.05)
    write_json(folder / "evaluation" / "policy.json", policy)
    assert "The interval holds 50 %, so this run shows no clear gain." in page_of(folder).text


def test_all_curves_are_there_and_told_in_words(tmp_path: Path) -> None:
    charts = page_of(make_run(tmp_path / "run")).charts()
    assert set(charts) == {
        "Score", "Gold score and its parts", "KL from SFT", "Entropy", "Value loss", "KL weight", "Completion length",
        "Explained variance", "Clip fraction", "SFT loss", "SFT token accuracy", "SFT learning rate",
        "Reward-model loss", "Reward-model accuracy", "Reward-model margin",
    }  # fmt: skip
    parts = charts["Gold score and its parts"]
    assert all(f"{part} from" in parts for part in GOLD)
    assert "held-out from −0.39 at PPO update 1 to 1.70 at PPO update 200" in charts["Score"]
    assert "log scale" in charts["Value loss"]  # the spike of the first updates must not flatten the rest
    assert "held-out from" in charts["SFT loss"]
    assert "held-out from" in charts["Reward-model accuracy"]


def test_intervals_samples_and_provenance(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    assert "0.88 [0.85, 0.91]" in page.text
    assert "95 % bootstrap over prompts, 2000 resamples" in page.text
    assert "expected calibration error 2.6 points" in page.text
    assert sum(tag == "article" for tag, _ in page.tags) == 10
    for fact in (
        "ppo.total_episodes=12800",
        "4f2c9d1e8a7b",
        "torch 2.9.1",
        "2 CPU cores",
        "9ac0" * 16,
        "kl_coef: 0.05",
    ):
        assert fact in page.text


@pytest.mark.parametrize(
    ("upto", "sentence", "commands"),
    [
        ("base", "No step of this run has left anything to show yet.", ("sft", "reward", "ppo", "evaluate")),
        ("sft", "Supervised fine-tuning ended at 0.99", ("reward", "ppo", "evaluate")),
        ("comparisons", "The reward model and PPO are not there yet.", ("reward", "ppo", "evaluate")),
        ("reward", "PPO is not there yet.", ("ppo", "evaluate")),
        ("ppo", "The evaluation of both policies is not there yet.", ("evaluate",)),
    ],
)
def test_missing_parts_are_named_with_their_command(
    tmp_path: Path, upto: str, sentence: str, commands: tuple[str, ...]
) -> None:
    folder = make_run(tmp_path / "run", upto=upto)
    page = page_of(folder)
    assert sentence in page.text
    typed = set(re.findall(r"rlhf-lab (\w+) \S+/config\.yaml", page.text))
    assert typed == set(commands)


def test_an_empty_folder_still_has_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "rlhf-lab sft" in page.text
    assert "run.json, which holds command, seed, commit and machine: not there yet." in page.text
    assert page.charts() == {}


def test_no_folder_is_a_mistake_that_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rlhf-lab run"):
        write_report(tmp_path / "nothing")


def test_a_stage_that_has_not_ended_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", upto="reward")
    write_lines(folder / "ppo" / "metrics.jsonl", ppo_rows(random.Random(0), gold=True)[:37])
    page = page_of(folder)
    assert "PPO has begun but not ended." in page.text
    assert "Not ended; at step 37." in page.text
    assert "KL from SFT" in page.charts()


def test_cut_and_broken_files(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    metrics = folder / "ppo" / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole[:-40])  # a writer that is in the middle of its last line
    page = page_of(folder)
    assert "PPO update 199" in page.charts()["KL from SFT"]
    assert "Before you read on" not in page.text
    metrics.write_text("{broken\n" + whole + "[1]\n")
    (folder / "run.json").write_text('{"name": "assis')
    page = page_of(folder)
    assert "ppo/metrics.jsonl: lines left out because they hold no JSON object: 1" in page.text
    assert "run.json holds no readable JSON object" in page.text


def test_repeated_steps_of_a_resumed_run_are_one_point(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", upto="sft")
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}, {"step": 2, "eval_loss": 2.5}, {"step": 2, "loss": 2.0}]
    write_lines(folder / "sft" / "metrics.jsonl", rows)
    label = page_of(folder).charts()["SFT loss"]
    assert "training from 3.00 at step 1 to 2.00 at step 2" in label
    assert "held-out from 2.50" in label


HOSTILE = "<script>alert(1)</script> \" ' & </p></main> \ud800 \x00 $title ${body}"


def test_all_text_from_data_is_escaped(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "<b>run", completion=HOSTILE, rater="<i>r</i>")
    policy = json.loads((folder / "evaluation" / "policy.json").read_text())
    policy["samples"][0] |= {"prompt": "<img src=x onerror=alert(2)>", "kind": "<u>", "sft": None}
    policy |= {"interval": "<s>", "seed": "<s>"}
    policy["policies"]["ppo"]["<em>"] = 1.0
    write_json(folder / "evaluation" / "policy.json", policy)
    run = json.loads((folder / "run.json").read_text())
    run |= {"name": "<q>", "command": HOSTILE, "seed": "<q>", "commit": "<q>", "versions": {"<q>": "<q>"}}
    run["machine"]["platform"] = "<q>"
    run["stages"]["sft"]["data"] = {"source": "<q>", "num_rows": "<q>", "sha256": "<q>"}
    run["stages"]["<q>"] = {"seconds": "<q>", "finished": "<q>"}
    run["stages"]["sft"]["taken_from"] = "runs/<q>"
    write_json(folder / "run.json", run)
    (folder / "config.yaml").write_text("# <q></details>\nmodel: {name_or_path: '<q>', config: {n_layer: '<q>'}}")
    page = page_of(folder)
    tags = [tag for tag, _ in page.tags]
    assert not {"img", "u", "s", "em", "q"} & set(tags)
    assert tags.count("script") == 1
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "<script>alert(1)</script> \" ' & </p></main> ? \ufffd $title ${body}" in page.text
    assert "<q>: report" in page.text


def test_nothing_is_fetched(tmp_path: Path) -> None:
    text = write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert not re.search(
        r"(?:https?:|ws:|url\(|@import|\bsrc=|//\w+\.)", text.replace("http://www.w3.org/2000/svg", "")
    )
    links = [attrs for _, attrs in Page(text).tags if "href" in attrs and "download" not in attrs]
    ids = {attrs.get("id") for _, attrs in Page(text).tags}
    assert all(href == "data:," or href[1:] in ids for href in (str(attrs["href"]) for attrs in links))
    assert "default-src 'none'" in text


def test_nan_none_and_infinity_are_dashes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    policy = json.loads((folder / "evaluation" / "policy.json").read_text())
    policy["policies"]["ppo"]["helpful"] = {"mean": math.nan, "low": None, "high": math.inf}
    policy["samples"][0] |= {"ppo_score": math.nan, "sft_score": None}
    write_json(folder / "evaluation" / "policy.json", policy)
    reward = json.loads((folder / "evaluation" / "reward_model.json").read_text())
    reward["calibration"]["bins"][0]["observed"] = math.nan
    reward["calibration"]["expected_error"] = None
    write_json(folder / "evaluation" / "reward_model.json", reward)
    rows = ppo_rows(random.Random(0), gold=True)
    for row in rows[50:60]:
        row |= {"objective/kl": math.nan, "loss/value_avg": None, "val/explained_variance": -math.inf}
    write_lines(folder / "ppo" / "metrics.jsonl", rows)
    page = page_of(folder)
    assert "PPO score – gold" in page.text
    assert "Helpful part of the gold score 0.31 [0.28, 0.34] –" in page.text
    assert "expected calibration error – points" in page.text
    shown = page.text + " ".join(value or "" for _, attrs in page.tags for value in attrs.values())
    assert not re.search(r"\b(nan|NaN|inf|Infinity|None)\b", shown)
    assert "ppo/metrics.jsonl: values that are not finite: 20, the first objective/kl at step 51" in page.text


def test_simulated_raters_are_never_called_human(tmp_path: Path) -> None:
    text = write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    assert "Comparisons by simulated raters; no person rated these." in Page(text).text
    assert not re.search(r"\bhumans?\b|\bpeople\b|annotator|labell?er", text, re.IGNORECASE)


def test_mixed_and_unknown_raters_are_told_apart(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    with (folder / "comparisons.jsonl").open("a") as lines:
        lines.write('{"prompt": "p", "rater": "human"}\n{"prompt": "p", "rater": "other-model"}\n')
    text = page_of(folder).text
    assert "Comparisons by simulated raters (2,000), people (1), “other-model” (1)." in text
    assert "no person rated these" not in text


def test_page_is_accessible_and_lasting(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    first = write_report(folder).read_text(encoding="utf-8")
    page = Page(first)
    assert all(attrs.get("aria-label") for tag, attrs in page.tags if tag == "svg")
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.tags if tag == "th")
    assert [a["lang"] for tag, a in page.tags if tag == "html"] == ["en"]
    assert "prefers-color-scheme: dark" in first
    assert write_report(folder).read_text(encoding="utf-8") == first  # the same folder gives the same page
    assert [path.name for path in folder.glob("*report*")] + [p.name for p in folder.glob(".report*")] == [
        "report.html"
    ]


def test_long_runs_stay_small_and_flat_curves_draw(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", upto="sft")
    write_lines(folder / "sft" / "metrics.jsonl", [{"step": i, "loss": 2.0} for i in range(1, 20_001)])
    path = write_report(folder)
    assert path.stat().st_size < 100_000
    assert "training from 2.00 at step 84 to 2.00 at step 20,000" in Page(path.read_text()).charts()["SFT loss"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.3141, "0.31"), (12.54, "12.5"), (1204.0, "1,204"), (-0.5, "−0.50"), (0.0031, "0.0031"), (-0.0, "0.00"),
     (5e-5, "5.0e−5"), (True, "–"), ("3", "–"), (10**400, "–")],
)  # fmt: skip
def test_numbers(value: Any, text: str) -> None:
    assert number(value) == text


def test_percent_and_duration() -> None:
    assert [percent(x) for x in (0.784, 1.0, 0.9968, None)] == ["78\u00a0%", "100\u00a0%", "99.7\u00a0%", "–"]
    assert [duration(x) for x in (3.25, 48, 200, 7500, None)] == ["3.2 s", "48 s", "3 min 20 s", "2 h 05 min", "–"]
