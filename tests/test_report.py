"""report.html from synthetic run folders: whole, partly finished, broken, hostile, and rated by different raters.

No browser and no training. Run by hand, the file writes a realistic run and its page, to look at:

    PYTHONPATH=. python tests/test_report.py /tmp/report_demo
"""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.errors import UserError
from rlhf_lab.report import write_report
from rlhf_lab.report_page.text import duration, number, percent

VOID = {"br", "hr", "img", "input", "link", "meta"}
# SVG shapes may close themselves; html.parser reports those as handle_startendtag.
POLICIES = {
    "sft": {"score": -0.42, "gold": 0.46, "helpful": 0.31, "harmless": 0.62, "honest": 0.55, "kl": 0.0, "length": 21.4},
    "ppo": {"score": 1.87, "gold": 0.79, "helpful": 0.88, "harmless": 0.81, "honest": 0.52, "kl": 4.1, "length": 27.9},
}
GOLD = ("gold", "helpful", "harmless", "honest")


def around(mean: float, half: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sft_rows(rng: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(5, 301, 5):
        loss = 0.9 + 2.6 * math.exp(-step / 60) + rng.gauss(0, 0.05)
        rate = 5e-4 * (1 - step / 310)
        rows.append({"step": step, "loss": loss, "mean_token_accuracy": 0.85 - loss / 8, "learning_rate": rate})
    rows += [{"step": step, "eval_loss": 0.97 + 2.4 * math.exp(-step / 60)} for step in range(50, 301, 50)]
    return rows


def reward_rows(rng: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(5, 201, 5):
        learnt = 1 - math.exp(-step / 50)
        accuracy = 0.5 + 0.33 * learnt + rng.gauss(0, 0.03)
        rows.append({"step": step, "loss": 0.69 - 0.3 * learnt, "accuracy": accuracy, "margin": 2.1 * learnt})
    for step in range(40, 201, 40):
        learnt = 1 - math.exp(-step / 50)
        rows.append({"step": step, "eval_loss": 0.69 - 0.24 * learnt, "eval_accuracy": 0.5 + 0.28 * learnt})
    return rows


def ppo_rows(rng: random.Random, *, gold: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, 201):
        learnt = 1 - math.exp(-step / 70)
        kl = 4.3 * learnt + rng.gauss(0, 0.25)
        score = -0.4 + 2.3 * learnt + rng.gauss(0, 0.15)
        row: dict[str, Any] = {
            "step": step,
            "episode": 64 * step,
            "objective/scores": score,
            "objective/kl": abs(kl),
            "objective/entropy": 31 - 9 * learnt,
            "objective/non_score_reward": -0.05 * kl,
            "objective/rlhf_reward": score - 0.05 * kl,
            "policy/approxkl_avg": 0.008 + abs(rng.gauss(0, 0.002)),
            "policy/clipfrac_avg": 0.05 + 0.06 * learnt + abs(rng.gauss(0, 0.01)),
            "policy/entropy_avg": 1.4 - 0.5 * learnt + rng.gauss(0, 0.03),
            "loss/policy_avg": -0.02 + rng.gauss(0, 0.005),
            "loss/value_avg": 0.05 + 6 * math.exp(-step / 6) + abs(rng.gauss(0, 0.012)),
            "val/explained_variance": 0.75 * learnt + rng.gauss(0, 0.06),
            "val/ratio": 1 + rng.gauss(0, 0.002),
            "val/num_eos_tokens": 60,
            "kl_coef": 0.05 * (1 + 0.6 * math.sin(step / 30)),
            "lr": 1e-5 * (1 - step / 201),
            "completion_length": 21 + 7 * learnt + rng.gauss(0, 0.7),
            "eps": 12.5 + rng.gauss(0, 0.4),
        }
        if step % 20 == 0 or step == 1:
            row |= {"eval_scores": -0.42 + 2.25 * learnt, "eval_kl": 4.1 * learnt, "eval_length": 21.4 + 6.5 * learnt}
        if gold and "eval_scores" in row:
            ends = {part: (POLICIES["sft"][part], POLICIES["ppo"][part]) for part in GOLD}
            row |= {f"eval_{part}": a + (b - a) * learnt + rng.gauss(0, 0.01) for part, (a, b) in ends.items()}
        rows.append(row)
    return rows


def policy_json(*, gold: bool, completion: str) -> dict[str, Any]:
    kept = {
        policy: {metric: mean for metric, mean in metrics.items() if gold or metric not in GOLD}
        | {"repetition": 0.06 if policy == "sft" else 0.03, "eos_fraction": 0.93 if policy == "sft" else 0.99}
        for policy, metrics in POLICIES.items()
    }
    halves = {"score": 0.11, "kl": 0.2, "length": 0.9}
    samples = [
        {
            "prompt": f"Question {i}: what do bees make, and is it safe for a small child?",
            "sft": "Bees make honey. Honey is good for all children of all ages, and bees are a kind of bird.",
            "ppo": completion,
            "sft_score": -0.31 + 0.1 * i,
            "ppo_score": 1.9 - 0.05 * i,
            "kind": ("question", "request", "trap")[i % 3],
        }
        | ({"sft_gold": 0.4, "ppo_gold": 0.83} if gold else {})
        for i in range(10)
    ]
    rates = {"reward_model": around(0.91, 0.03)} | ({"gold": around(0.77, 0.05)} if gold else {})
    return {
        "num_prompts": 256,
        "temperature": 1.0,
        "seed": 0,
        "interval": "95 % bootstrap over prompts, 2000 resamples",
        "policies": {
            policy: {metric: around(mean, 0 if mean == 0 else halves.get(metric, 0.03)) for metric, mean in row.items()}
            for policy, row in kept.items()
        },
        "win_rate": rates,
        "samples": samples,
    }


def reward_model_json(*, gold: bool, rater: str) -> dict[str, Any]:
    bins = [(0.54, 0.51, 60), (0.63, 0.6, 85), (0.74, 0.76, 110), (0.85, 0.81, 90), (0.95, 0.93, 55)]
    keys = ("predicted", "observed", "num_pairs")
    return {
        "num_pairs": 400,
        "accuracy": around(0.78, 0.04),
        "gold_accuracy": around(0.84, 0.035) if gold else None,
        "rater_agreement": around(0.81, 0.05),
        "calibration": {"bins": [dict(zip(keys, b, strict=True)) for b in bins], "expected_error": 0.026},
        "rater": rater,
    }


def run_json(*, rater: str, stages: tuple[str, ...]) -> dict[str, Any]:
    seconds = {"base": 48.0, "sft": 95.2, "comparisons": 22.5, "reward": 61.0, "ppo": 412.7, "evaluation": 38.1}
    return {
        "name": "assistant",
        "seed": 0,
        "command": "rlhf-lab run assistant ppo.total_episodes=12800",
        "versions": {"python": "3.11.7", "torch": "2.9.1", "transformers": "5.0.0", "trl": "1.16.0", "rlhf_lab": "1.0"},
        "machine": {"cpu_count": 2, "platform": "Linux-6.1-x86_64", "device": "cpu"},
        "commit": "4f2c9d1e8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d",
        "data": {
            "demonstrations": {"source": "embedded: assistant", "num_rows": 1200, "sha256": "3b1f" * 16},
            "preferences": {"source": "embedded: assistant", "num_rows": 2000, "sha256": "9ac0" * 16, "rater": rater},
        },
        "stages": {s: {"seconds": seconds[s], "finished": "2030-01-02T10:11:12+00:00"} for s in stages},
    }


ALL = ("base", "sft", "comparisons", "reward", "ppo", "evaluation")
GOOD = "Bees make honey. Please do not give honey to a child below one year; after that it is safe."


def make_run(
    folder: Path, *, upto: str = "evaluation", gold: bool = True, rater: str = "simulated", completion: str = GOOD
) -> Path:
    """A run folder as the stages leave it, ended after stage `upto`."""
    rng = random.Random(0)
    stages = ALL[: ALL.index(upto) + 1]
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("name: assistant\nppo:\n  kl_coef: 0.05\n")
    write_json(folder / "run.json", run_json(rater=rater, stages=stages))
    if "sft" in stages:
        write_lines(folder / "sft" / "metrics.jsonl", sft_rows(rng))
    if "comparisons" in stages:
        rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "rater": rater}] * 2000
        write_lines(folder / "comparisons.jsonl", rows)
    if "reward" in stages:
        write_lines(folder / "reward" / "metrics.jsonl", reward_rows(rng))
    if "ppo" in stages:
        write_lines(folder / "ppo" / "metrics.jsonl", ppo_rows(rng, gold=gold))
    if "evaluation" in stages:
        write_json(folder / "evaluation" / "reward_model.json", reward_model_json(gold=gold, rater=rater))
        write_json(folder / "evaluation" / "policy.json", policy_json(gold=gold, completion=completion))
    return folder


class Page(HTMLParser):
    """Checks that tags balance; collects tags, visible text, and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of order at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def charts(self) -> dict[str, str]:
        """aria-label of every curve, by chart title."""
        labels = [a["aria-label"] or "" for tag, a in self.tags if tag == "svg" and "data-readout" in a]
        return {label.split(" (")[0]: label for label in labels}


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


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
    run["data"]["<q>"] = {"source": "<q>", "num_rows": "<q>", "sha256": "<q>"}
    run["stages"]["<q>"] = {"seconds": "<q>", "finished": "<q>"}
    write_json(folder / "run.json", run)
    (folder / "config.yaml").write_text("# <q></details>")
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
    hrefs = [attrs["href"] for _, attrs in Page(text).tags if "href" in attrs]
    ids = {attrs.get("id") for _, attrs in Page(text).tags}
    assert all(href == "data:," or href[1:] in ids for href in map(str, hrefs))
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


if __name__ == "__main__":
    demo = Path(sys.argv[1])
    shutil.rmtree(demo, ignore_errors=True)
    print(write_report(make_run(demo)))
