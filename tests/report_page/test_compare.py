"""One page on several runs: which runs, what was done differently, what came of it, and what can not be said."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.errors import UserError
from rlhf_lab.report import write_comparison
from tests.report_page.made_run import around, change_policy, make_run, with_votes, write_json
from tests.report_page.read_page import Page

BETTER = {"gold": around(0.9, 0.03), "helpful": around(0.88, 0.03), "honest": around(0.4, 0.03)}
BETTER |= {"length": around(24.0, 0.9), "kl": around(4.15, 0.2)}


def compared(*folders: Path) -> Page:
    return Page(write_comparison([str(folder) for folder in folders]).read_text(encoding="utf-8"))


def edit(folder: Path, **changes: Any) -> Path:
    """Change run.json: "stages.ppo.data.heldout_sha256" is written stages__ppo__data__heldout_sha256."""
    run = json.loads((folder / "run.json").read_text())
    for keys, value in changes.items():
        place = run
        *way, last = keys.split("__")
        for key in way:
            place = place[key]
        place[last] = value
    write_json(folder / "run.json", run)
    return folder


def test_twenty_votes_and_what_they_changed(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first")
    second = change_policy(with_votes(make_run(tmp_path / "second"), human=20), **BETTER)
    text = compared(first, second).text
    assert (
        "With 20 votes by 1 person added to the 2,000 comparisons by simulated raters, PPO’s gold score went from 0.79"
        " to 0.90: better by 0.11 [0.07, 0.15]." in text
    )
    assert "Better: gold score 0.79 → 0.90 (+0.11 [0.07, 0.15])." in text
    assert "Worse: honest 0.52 → 0.40 (−0.12 [−0.16, −0.08])." in text
    assert "Lower: length 27.9 → 24.0 (−3.9 [−5.2, −2.6])." in text
    assert "No difference that the intervals show: helpful, harmless, KL from SFT" in text
    assert (
        "Not compared: score and win rate against SFT by the reward model’s score, since each run has its own" in text
    )
    assert "Both start from the same SFT model; each has its own reward model." in text
    assert "8 min 32 s, with the SFT model of first" in text
    assert "Metric first second All runs, own scale Score" in text
    told = "0.79 [0.76, 0.82] SFT 0.46 0.90 [0.87, 0.93] SFT 0.46 +0.11 [0.07, 0.15] better Helpful"
    assert f"Gold score known to the embedded world only; no step trains on it {told}" in text
    assert "not when the training is repeated with another seed" in text


def test_votes_in_place_of_the_comparisons(tmp_path: Path) -> None:
    second = with_votes(make_run(tmp_path / "second"), human=20)
    edit(second, stages__reward__data__raters={"human": 20}, stages__comparisons__rater=None)
    text = compared(make_run(tmp_path / "first"), second).text
    assert (
        "With a reward model trained on 20 votes by 1 person instead of 2,000 comparisons by simulated raters, PPO’s"
        in text
    )


def test_a_setting_is_named_as_the_cause(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second")
    config = (second / "config.yaml").read_text()
    config = config.replace("kl_coef: 0.05", "kl_coef: 0.2").replace("logging_steps: 1", "logging_steps: 7")
    (second / "config.yaml").write_text(config.replace("target_kl: null", "target_kl: 6.0"))
    text = compared(first, second).text
    assert "With ppo.kl_coef 0.2 instead of 0.05 and ppo.target_kl 6.0 instead of null, PPO’s gold score" in text
    assert "ppo.kl_coef 0.05 0.2" in text
    assert "ppo.target_kl null 6.0" in text
    assert "ppo.logging_steps 1 7" in text  # shown, and no cause
    assert "model.config.n_layer" not in text  # the same in both
    assert "All other settings are the same." in text
    assert "Both start from the same SFT model and follow the same reward model." in text


def test_many_causes_are_counted(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second", seed=1)
    (first / "config.yaml").write_text("ppo: {a: 1, b: 1, c: 1, d: 1, old: 1}\nmodel: {}")
    (second / "config.yaml").write_text("ppo: {a: 2, b: 2, c: 2, d: 2}\nmodel: {}")
    text = compared(first, second).text
    assert "With ppo.a 2 instead of 1, ppo.b 2 instead of 1 and 3 other differences, PPO’s" in text
    assert "ppo.old 1 not in its config.yaml" in text


def test_with_the_same_reward_model_scores_can_be_compared(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", gold=False)
    second = change_policy(make_run(tmp_path / "second", gold=False), score=around(2.5, 0.1))
    text = compared(first, second).text
    assert "Higher: score 1.87 → 2.50 (+0.63 [0.48, 0.78])." in text
    assert "Not compared" not in text


def test_another_seed_has_models_of_its_own(tmp_path: Path) -> None:
    text = compared(make_run(tmp_path / "first"), make_run(tmp_path / "second", seed=1)).text
    assert "With seed 1 instead of 0, PPO’s gold score went from 0.79 to 0.79: no difference" in text
    assert "Not compared: KL from SFT, since each run has its own SFT model." in text
    assert "Each has an SFT model of its own." in text
    assert "All settings are the same." in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stages__ppo__data__heldout_sha256": "other"}, "their held-out prompts are not the same"),
        ({}, "their prompts come from different data, “assistant” and “tldr”"),
        ({"temperature": 0.7}, "they were sampled at different temperatures, 1.00 and 0.70"),
    ],
)
def test_runs_of_different_worlds_get_no_verdict(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    first, second = make_run(tmp_path / "first"), change_policy(make_run(tmp_path / "second"), **BETTER)
    if "temperature" in changes:
        policy = json.loads((second / "evaluation" / "policy.json").read_text())
        write_json(second / "evaluation" / "policy.json", policy | changes)
    elif changes:
        edit(second, **changes)
    else:
        config = (second / "config.yaml").read_text()
        (second / "config.yaml").write_text(config.replace("prompts: assistant", "prompts: tldr"))
    page = compared(first, second)
    assert f"second and first can not be compared by their results: {reason}." in page.text
    assert "There is no number by which these runs can be compared." in page.text
    assert not re.search(r"\b(better|worse|no clear difference)\b|Better:|Worse:", page.text.partition("Words")[0])
    assert "Gold score" in page.charts()  # they stand side by side all the same


def test_three_runs_are_compared_with_the_first(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first")
    second = change_policy(make_run(tmp_path / "second"), **BETTER)
    third = change_policy(make_run(tmp_path / "third"), gold=around(0.8, 0.03))
    page = compared(first, second, third)
    assert (
        "PPO’s gold score was 0.79 in first, 0.90 in second (better) and 0.80 in third (no clear difference)."
        in page.text
    )
    chart = page.charts()["KL from SFT"]
    assert all(f"{name} from" in chart for name in ("first", "second", "third"))
    tones = {
        str(attrs.get("class")) for tag, attrs in page.tags if tag == "g" and "tone-run" in str(attrs.get("class"))
    }
    assert tones == {"tone-run-1", "tone-run-2", "tone-run-3"}


def test_samples_of_the_same_prompts_with_marks(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first")
    second = make_run(tmp_path / "second", completion="Bees make wax.")
    policy = json.loads((second / "evaluation" / "policy.json").read_text())
    policy["samples"] = [
        policy["samples"][3] | {"ppo": "Bees make <i>wax</i>."},
        policy["samples"][5]
        | {"ppo": json.loads((first / "evaluation" / "policy.json").read_text())["samples"][5]["ppo"]},
        {"prompt": "only here", "sft": "a", "ppo": "b"},
    ]
    write_json(second / "evaluation" / "policy.json", policy)
    page = compared(first, second)
    assert "PPO’s answers to the 2 prompts of which all runs kept samples." in page.text
    assert "1 prompt was answered in the same words by all runs" in page.text
    assert "only here" not in page.text
    tags = [tag for tag, _ in page.tags]
    assert tags.count("ins") == 1  # <i>wax</i>
    assert tags.count("del") >= 1
    assert "<i>wax</i>" in page.text
    assert "SFT score −0.01 gold 0.40 Bees make honey." in page.text


def test_runs_without_shared_samples_say_so(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second")
    policy = json.loads((second / "evaluation" / "policy.json").read_text())
    policy["samples"] = [row | {"prompt": f"other {i}"} for i, row in enumerate(policy["samples"])]
    write_json(second / "evaluation" / "policy.json", policy)
    assert "The runs kept samples of different prompts" in compared(first, second).text
    assert "Not all of the runs have samples" in compared(first, make_run(tmp_path / "third", upto="reward")).text


def test_a_run_that_was_not_evaluated_is_named_with_its_command(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second", upto="ppo")
    page = compared(first, second)
    assert f"second has not been evaluated; to do it, type: rlhf-lab evaluate {second}/config.yaml" in page.text
    assert "KL from SFT" in page.charts()
    both = compared(second, make_run(tmp_path / "third", upto="base"))
    assert "No step of this run has left anything to show yet." in both.text
    assert f"rlhf-lab evaluate {tmp_path}/third/config.yaml" in both.text


def test_the_results_can_be_saved(tmp_path: Path) -> None:
    page = compared(make_run(tmp_path / "first"), make_run(tmp_path / "second"))
    head, *rows = page.downloads()["results.csv"]
    assert head == ["metric", "run", "policy", "mean", "low", "high"]
    assert ["gold", "second", "ppo", "0.79", "0.76", "0.8200000000000001"] in rows
    assert ["win_rate.gold", "first", "ppo", "0.77", "0.72", "0.8200000000000001"] in rows
    assert page.downloads()["kl_from_sft.csv"][0] == ["PPO update", "first", "second"]


def test_names_are_told_apart_and_are_text(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a" / "<b>run")
    second = make_run(tmp_path / "c" / "<b>run")
    edit(second, commit="<q>", machine={"device": "<q>"}, versions={"<q>": "<q>"}, seed="<q>")
    page = compared(first, second)
    assert "c/<b>run against a/<b>run" in page.text
    assert "q" not in {tag for tag, _ in page.tags}


def test_hostile_and_broken_runs_make_a_page(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", completion="</p></main><script>alert(1)</script>" + "long " * 2000)
    second = make_run(tmp_path / "second", completion="$body </article>")
    change_policy(first, gold={"mean": math.nan, "low": None, "high": math.inf})
    change_policy(second, **{"<em>": 1.0, "score": "much"})
    (second / "config.yaml").write_text("a: [")
    edit(second, stages__reward__data=[], stages__sft__eval_loss="low", versions=3)
    page = compared(first, second)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "em" not in {tag for tag, _ in page.tags}
    assert not re.search(r"\b(nan|NaN|inf|Infinity|None)\b", page.text)
    assert "second: config.yaml can not be read as settings" in page.text


def test_the_page_fetches_nothing_and_lasts(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second", seed=1)
    path = write_comparison([str(first), str(second)])
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "comparison_first_second.html"
    assert not re.search(
        r"(?:https?:|ws:|url\(|@import|\bsrc=|//\w+\.)", text.replace("http://www.w3.org/2000/svg", "")
    )
    page = Page(text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    inside = [str(a["href"])[1:] for tag, a in page.tags if tag == "a" and "download" not in a]
    assert set(inside) <= set(ids)
    assert len(page.downloads()) == [tag for tag, _ in page.tags].count("figure") + 1
    assert write_comparison([str(first), str(second)]).read_text(encoding="utf-8") == text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["comparison_first_second.html", "first", "second"]


def test_runs_are_found_by_name_and_the_page_goes_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "runs" / "first")
    make_run(tmp_path / "runs" / "second")
    (tmp_path / "second").mkdir()  # no run: the name means the one in runs/
    monkeypatch.chdir(tmp_path)
    assert write_comparison(["first", "second"]) == tmp_path / "runs" / "comparison_first_second.html"
    assert write_comparison(["runs/first", "second"], Path("mine.html")).resolve() == tmp_path / "mine.html"
    with pytest.raises(UserError, match=r"can not be written to nowhere/mine\.html.*--out FILE"):
        write_comparison(["first", "second"], Path("nowhere/mine.html"))


def test_what_is_no_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = make_run(tmp_path / "first")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"there is no run 'nothing' \(looked for the folders nothing and runs/nothing"):
        write_comparison(["first", "nothing"])
    with pytest.raises(UserError, match=r"empty is a folder, but no run: it holds neither run\.json nor config\.yaml"):
        write_comparison(["first", "empty"])
    with pytest.raises(UserError, match=r"'first' and '.*first/\.' are the same run"):
        write_comparison(["first", f"{first}/."])
    with pytest.raises(UserError, match=r"9 runs were given; one page shows at most 8"):
        write_comparison(["first"] * 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "first"]


def test_long_names_make_a_file_name_that_systems_take(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / (letter * 120), upto="base") for letter in "ab"]
    path = write_comparison([str(folder) for folder in folders])
    assert path.name == f"comparison_{'a' * 120}_and_1_more.html"
