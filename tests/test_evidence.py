"""Win rates by every judge and by votes, through the command line, on a run whose policies are two random models."""

import shutil
import sqlite3
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.config import Experiment, load_experiment
from rlhf_lab.data.assistant.world import heldout_questions
from rlhf_lab.errors import UserError
from rlhf_lab.evaluation.answers import answers_of, fingerprint_of_weights, order_of
from rlhf_lab.evidence.judges import asked_of
from rlhf_lab.pipeline import comparisons_of
from rlhf_lab.rate_votes import with_votes
from rlhf_lab.rating.assignment import Plan
from rlhf_lab.rating.pairs import Pair, make_pair
from rlhf_lab.rating.store import Store, votes_path
from rlhf_lab.report import write_report
from rlhf_lab.training.records import read_json, read_jsonl, write_jsonl
from tests.evidence_run import made_run, save_policy
from tests.test_pipeline import invoke

JUDGES = """
def longer(prompts, completions, completion_ids, kind, **kwargs):
    assert len(prompts) == len(completions) == len(completion_ids) == len(kind)
    return [float(len(text.strip())) for text in completions]

async def nothing(completions, **kwargs):
    return [None for _ in completions]

def too_few(completions, **kwargs):
    return [1.0]

def broken(completions, **kwargs):
    return 1 / 0
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("runs")).run_folder


@pytest.fixture
def run(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, in a working directory with a module of judges."""
    shutil.copytree(template, tmp_path / "made")
    (tmp_path / "evidence_judges.py").write_text(JUDGES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("evidence_judges", None)
    return tmp_path / "made"


def experiment_of(run: Path) -> Experiment:
    return load_experiment(run / "config.yaml", [f"runs_dir={run.parent}"])


def rates(run: Path, ours: str = "ppo", theirs: str = "sft") -> dict[str, dict[str, Any]]:
    found = read_json(run / "evaluation" / "win_rates.json")["comparisons"]
    (row,) = [row for row in found if (row["ours"], row["theirs"]) == (ours, theirs)]
    return {judge["judge"]: judge for judge in row["judges"]}


def texts(run: Path, policy: str) -> list[str]:
    return [row["text"] for row in answers(run, policy)]


def answers(run: Path, policy: str) -> list[dict[str, Any]]:
    kept = read_json(run / "evaluation" / "answers" / f"{policy}.json")["answers"]
    return [{"prompt": row["prompt"], "text": row["texts"]} for row in kept]


def vote_for(run: Path, rater: str, choose: Any, number: int = 1000) -> None:
    """`choose(pair)` says which writer's side to take, or an outcome such as tie."""
    store = Store(votes_path(run), Plan(raters_per_pair=99, gold_rate=0, repeat_rate=0))
    pairs = {frozenset((str(p.prompt), str(p.first), str(p.second))): p for p in store.pairs().values()}
    for _ in range(number):
        shown = store.next(store.rater(rater))
        if shown is None:
            break
        pair = pairs[frozenset((str(shown.prompt), str(shown.left), str(shown.right)))]
        wanted = choose(pair)
        if wanted in (pair.writers or ()):
            text = pair.first if (pair.writers or ())[0] == wanted else pair.second
            wanted = "left" if shown.left == text else "right"
        store.vote(store.rater(rater), shown.id, turn=shown.turn, outcome=wanted, seconds=4)
    store.close()


# --- judges that score -------------------------------------------------------------------------------------------


def test_every_judge_judges_the_same_answers(run: Path) -> None:
    said = invoke("evaluate", str(run), "evaluation.reward_funcs=[evidence_judges:longer, evidence_judges:nothing]")
    assert "evidence_judges:nothing has no opinion on any prompt" in said
    found = rates(run)
    assert list(found) == ["gold", "reward model", "evidence_judges:longer"]
    lengths = [(len(a.strip()), len(b.strip())) for a, b in zip(texts(run, "ppo"), texts(run, "sft"), strict=True)]
    longer = found["evidence_judges:longer"]
    assert (longer["wins"], longer["losses"]) == (sum(a > b for a, b in lengths), sum(a < b for a, b in lengths))
    assert longer["wins"] + longer["losses"] > 8, "two random models differ"
    assert longer["length_controlled"]["length_effect"] > 3, "this judge counts letters"
    assert found["gold"]["num_judgements"] == 30
    row = read_json(run / "evaluation" / "win_rates.json")["comparisons"][0]
    assert set(row["right_or_wrong"]) == {"helpful", "harmless", "honest"}
    assert "ppo preferred to sft" in " ".join(said.split())


def test_the_reward_model_by_its_folder_judges_as_the_run_s_own(run: Path) -> None:
    invoke("evaluate", str(run), f"evaluation.reward_funcs=['{run / 'reward'}']")
    own, named = (rates(run)[name] for name in ("reward model", str(run / "reward")))
    assert named["win_rate"] == own["win_rate"]
    assert named["wins"] > 0


def test_answers_are_sampled_once_and_anew_when_a_policy_changes(run: Path) -> None:
    invoke("evaluate", str(run))
    path = run / "evaluation" / "answers" / "ppo.json"
    before, at = path.read_text(encoding="utf-8"), path.stat().st_mtime_ns
    invoke("evaluate", str(run))
    assert path.stat().st_mtime_ns == at
    save_policy(run / "ppo", seed=7)
    invoke("evaluate", str(run))
    assert path.read_text(encoding="utf-8") != before
    experiment = experiment_of(run)
    settings = experiment.evaluation.model_copy(update={"temperature": 0.5})
    asked = asked_of(experiment)
    answers_of(run, "ppo", asked, ppo=experiment.ppo, settings=settings, seed=experiment.seed)
    assert read_json(path)["made_from"]["temperature"] == 0.5


def test_any_change_of_weights_changes_their_fingerprint(run: Path) -> None:
    before = fingerprint_of_weights(run / "ppo")
    weights = next((run / "ppo").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = b"\x01" * 2000
    weights.write_bytes(content)
    assert fingerprint_of_weights(run / "ppo") != before


def test_two_other_policies_are_compared_too_and_stay_compared(run: Path) -> None:
    invoke("evaluate", str(run), "--between", "ppo/checkpoint-1", "ppo")
    assert rates(run, "ppo", "ppo/checkpoint-1")["gold"]["num_judgements"] == 30
    assert rates(run), "PPO against SFT is always there"
    before = read_json(run / "evaluation" / "win_rates.json")
    invoke("evaluate", str(run))
    assert read_json(run / "evaluation" / "win_rates.json") == before
    shutil.rmtree(run / "ppo" / "checkpoint-1")
    assert "ppo against ppo/checkpoint-1 stays as it was" in invoke("evaluate", str(run))
    assert read_json(run / "evaluation" / "win_rates.json") == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--between", "sft", "dpo"], r"has no policy 'dpo'; it has sft, ppo, ppo/checkpoint-1"),
        (["--between", "../made/sft", "ppo"], r"has no policy '../made/sft'"),
        (["evaluation.reward_funcs=[evidence_judges:absent]"], r"has no function 'absent'; it has broken, longer"),
        (["evaluation.reward_funcs=[no_such_module:f]"], r"there is no module 'no_such_module'; it is looked for in"),
        (["evaluation.reward_funcs=['not a name:f']"], r"'not a name:f' is no module:function"),
        (["evaluation.reward_funcs=[absent_folder]"], r"absent_folder"),
        (["--ensemble", "1"], r"--ensemble 1: .*type --ensemble 3"),
    ],
)
def test_what_is_not_there_is_told(run: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        invoke("evaluate", str(run), *words)


def test_a_misspelt_judge_does_not_stay_in_the_config(run: Path) -> None:
    with pytest.raises(UserError):
        invoke("evaluate", str(run), "evaluation.reward_funcs=[evidence_judges:absent]")
    invoke("evaluate", str(run))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_few", "returned 1 scores for 30 completions"),
        ("broken", "evidence_judges:broken raised ZeroDivisionError"),
    ],
)
def test_a_judge_that_fails_costs_no_other_judge_his_win_rates(run: Path, name: str, message: str) -> None:
    names = f"evaluation.reward_funcs=[evidence_judges:{name}, evidence_judges:longer]"
    with pytest.raises(UserError, match=rf"{message}.*evaluation\.reward_funcs=\[\]"):
        invoke("evaluate", str(run), names)
    assert list(rates(run)) == ["gold", "reward model", "evidence_judges:longer"]


def test_a_language_model_is_no_judge_and_costs_no_other_one(run: Path) -> None:
    """With a head drawn at random it would say something."""
    with pytest.raises(UserError, match=r"no score head.*evaluation\.reward_funcs=\[\]"):
        invoke("evaluate", str(run), f"evaluation.reward_funcs=[{run / 'sft'}]")
    assert list(rates(run)) == ["gold", "reward model"]


@pytest.mark.parametrize(
    ("judge", "message"),
    [("no/such/folder", "no folder 'no/such/folder'"), ("collections:Counter", "Counter is a class")],
)
def test_a_judge_that_can_not_be_does_not_stay_in_the_config(run: Path, judge: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        invoke("evaluate", str(run), f"evaluation.reward_funcs=[{judge}]")
    invoke("evaluate", str(run))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("reward", "ppo", "no policy 'reward'; it has"),
        ("ppo/value_model", "sft", "no policy 'ppo/value_model'"),
        ("./sft", "ppo", "no policy './sft'"),
        ("sft", "sft", "names one policy twice"),
    ],
)
def test_only_two_policies_can_be_compared(run: Path, first: str, second: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        invoke("evaluate", str(run), "--between", first, second)


def test_later_policies_are_held_against_earlier_ones() -> None:
    names = ["ppo", "ppo/checkpoint-64", "base", "ppo/checkpoint-128", "sft", "elsewhere"]
    road = ["base", "sft", "ppo/checkpoint-64", "ppo/checkpoint-128", "ppo", "elsewhere"]
    assert sorted(names, key=order_of) == road


# --- votes -------------------------------------------------------------------------------------------------------


def test_pairs_between_two_policies_are_their_answers_to_held_out_prompts(run: Path) -> None:
    said = invoke("rate", str(run), "--between", "sft", "ppo", "--num-pairs", "12", "--simulate", "1")
    assert "12 new pairs of sft and ppo" in said
    pairs = list(Store(votes_path(run)).pairs().values())
    assert len(pairs) == 12
    held = {question.prompt for question in heldout_questions()}
    of = {policy: {row["prompt"]: row["text"] for row in answers(run, policy)} for policy in ("sft", "ppo")}
    for pair in pairs:
        assert pair.prompt in held
        assert pair.writers is not None
        assert set(pair.writers) == {"sft", "ppo"}
        for writer, text in zip(pair.writers, (pair.first, pair.second), strict=True):
            assert of[writer][str(pair.prompt)] == text
    assert "0 new pairs" in invoke("rate", str(run), "--between", "ppo", "sft", "--num-pairs", "12", "--simulate", "1")
    assert "3 new pairs" in invoke("rate", str(run), "--between", "sft", "ppo", "--num-pairs", "15", "--simulate", "1")


def test_win_rates_by_votes_keep_kinds_of_raters_apart(run: Path) -> None:
    invoke("rate", str(run), "--between", "sft", "ppo", "--num-pairs", "16", "--simulate", "2")
    vote_for(run, "ann", lambda pair: "ppo")
    turns = iter(["tie", "skip", "both_bad", "flag", *["sft"] * 12])
    vote_for(run, "bob", lambda pair: next(turns))
    export = run.parent / "votes.jsonl"
    write_jsonl(export, [imported_row(pair) for pair in list(Store(votes_path(run)).pairs().values())[:5]])
    invoke("rate", str(run), "--import", str(export))
    said = invoke("evaluate", str(run))
    found = rates(run)
    people, machines, imported = (found[f"votes: {kind}"] for kind in ("human", "simulated", "imported"))
    assert (people["wins"], people["losses"], people["ties"]) == (16, 12, 2)
    assert people["win_rate"]["mean"] == pytest.approx((16 + 1) / 30)
    assert people["left_out"] == {"skip: no judgement": 1, "flag: no judgement": 1}
    assert people["num_prompts"] == 16
    assert machines["num_judgements"] == 32
    assert (imported["wins"], imported["losses"]) == (0, 5)
    equal = read_json(run / "evaluation" / "win_rates.json")["comparisons"][0]["equal_fraction"]
    assert people["over_all_prompts"]["mean"] == pytest.approx(equal / 2 + (1 - equal) * 17 / 30)
    assert "votes: human" in said


def imported_row(pair: Pair) -> dict[str, Any]:
    """Somebody elsewhere prefers what SFT wrote."""
    sft_first = (pair.writers or ())[0] == "sft"
    chosen, rejected = (pair.first, pair.second) if sft_first else (pair.second, pair.first)
    names = {"chosen_writer": "sft", "rejected_writer": "ppo"}
    return {"prompt": pair.prompt, "chosen": chosen, "rejected": rejected, **names}


def test_votes_on_the_answers_of_another_model_do_not_count(run: Path) -> None:
    invoke("rate", str(run), "--between", "sft", "ppo", "--num-pairs", "16", "--simulate", "1")
    invoke("evaluate", str(run))
    assert rates(run)["votes: simulated"]["num_judgements"] == 16
    save_policy(run / "ppo", seed=7)
    invoke("evaluate", str(run))
    judge = rates(run)["votes: simulated"]
    assert judge["num_judgements"] == 0
    assert judge["left_out"] == {"on answers that these policies do not give": 16}
    assert "no judgement" in (write_report(run)).read_text(encoding="utf-8")


def test_votes_between_models_train_no_reward_model(run: Path) -> None:
    experiment = experiment_of(run)
    before = with_votes(experiment, comparisons_of(experiment))
    invoke("rate", str(run), "--between", "sft", "ppo", "--num-pairs", "10", "--simulate", "2")
    after = with_votes(experiment, comparisons_of(experiment))
    assert after.facts == before.facts
    only = experiment.model_copy(update={"reward": experiment.reward.model_copy(update={"votes": "only"})})
    with pytest.raises(UserError, match=r"--between measure models and train none"):
        with_votes(only, comparisons_of(experiment))
    invoke("rate", str(run), "--num-pairs", "4", "--simulate", "1")
    mixed = with_votes(experiment, comparisons_of(experiment))
    assert mixed.facts["votes"]["by_kind"]["simulated"] < 20, "findings of training pairs only"
    used = read_jsonl(run / "votes.jsonl")
    assert 0 < len(used) <= 4
    assert not any("chosen_writer" in row for row in used)


def test_votes_on_two_models_elsewhere_train_and_are_no_win_rate(run: Path) -> None:
    """As a chat files them: on a question of the visitor's own, with the names of those who answered."""
    invoke("rate", str(run), "--between", "sft", "ppo", "--num-pairs", "5", "--simulate", "1")
    store = Store(votes_path(run))
    own = make_pair("What shall I cook?\n", "Soup.", "Nothing.", source="chat", writers=("ppo", "sft"))
    other = make_pair(own.prompt, "Soup.", "Stew.", source="chat", writers=("ppo/checkpoint-1", "sft"))
    store.add_pairs([own, other])
    store.record(store.rater("ann"), [(own.id, "left", "clearly"), (other.id, "tie", None)])
    store.close()
    experiment = experiment_of(run)
    found = with_votes(experiment, comparisons_of(experiment))
    assert found.facts["raters"]["human"] == 1
    assert [row["prompt"] for row in read_jsonl(run / "votes.jsonl")] == ["What shall I cook?\n"]
    invoke("evaluate", str(run))
    people = rates(run)["votes: human"]
    assert people["num_judgements"] == 0
    assert people["left_out"] == {"on prompts that these policies are not evaluated on": 1}
    assert len(read_json(run / "evaluation" / "win_rates.json")["comparisons"]) == 1, "nobody asked for the other two"


def test_pairs_between_models_come_first_and_their_writers_survive_an_export(run: Path) -> None:
    invoke("rate", str(run), "--num-pairs", "6", "--gold-rate", "0", "--simulate", "1")
    invoke("rate", str(run), "--between", "sft", "ppo", "--num-pairs", "6", "--gold-rate", "0", "--simulate", "1")
    seen: list[bool] = []
    vote_for(run, "ann", lambda pair: seen.append(pair.writers is not None) or "ppo" if pair.writers else "tie", 6)
    assert seen == [True] * 6
    path = run.parent / "out.jsonl"
    invoke("rate", str(run), "--export", str(path), "--ties", "both")
    rows = read_jsonl(path)
    by_ann = [row for row in rows if row["rater"] == "human" and "chosen_writer" in row]
    assert Counter(row["chosen_writer"] for row in by_ann) == {"ppo": 6}
    assert {row["rejected_writer"] for row in by_ann} == {"sft"}
    other = made_run(run.parent, "other").run_folder
    invoke("rate", str(other), "--import", str(path))
    writers = [pair.writers for pair in Store(votes_path(other)).pairs().values() if pair.writers]
    assert len(writers) == 6


def test_a_row_with_one_writer_is_left_out_and_counted(run: Path) -> None:
    path = run.parent / "odd.jsonl"
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    write_jsonl(path, [good, {**good, "chosen": "c", "chosen_writer": "ppo"}])
    assert "1 rows left out: chosen_writer and rejected_writer are not two names" in " ".join(
        invoke("rate", str(run), "--import", str(path)).split()
    )


def test_the_side_that_raters_choose_is_in_the_report(run: Path) -> None:
    invoke("rate", str(run), "--between", "sft", "ppo", "--num-pairs", "10", "--simulate", "1")
    vote_for(run, "ann", lambda pair: "left")
    invoke("evaluate", str(run))
    position = read_json(run / "evaluation" / "win_rates.json")["position"]
    assert position["human"] == {"left": 10, "num_votes": 10, "p_value": 2 / 2**10}
    page = write_report(run).read_text(encoding="utf-8")
    assert "People chose the left side in 100\u00a0% of 10 votes (p = 0.002)" in page


def test_votes_that_can_not_be_read_cost_nothing_else(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Store.__init__.__kwdefaults__, "busy_seconds", 0.2)  # type: ignore[misc]
    invoke("rate", str(run), "--between", "sft", "ppo", "--num-pairs", "5", "--simulate", "1")
    locked = sqlite3.connect(votes_path(run))
    locked.execute("BEGIN EXCLUSIVE")
    said = invoke("evaluate", str(run))
    assert "votes are left out:" in said
    assert "is locked by another program" in said
    assert list(rates(run)) == ["gold", "reward model"]
    locked.rollback()
    locked.close()
    invoke("evaluate", str(run))
    assert "votes: simulated" in rates(run)
    votes_path(run).write_bytes(b"no database at all" * 100)
    for leftover in votes_path(run).parent.glob("votes.sqlite-*"):
        leftover.unlink()
    assert "is not a database of votes" in invoke("evaluate", str(run))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--between", "sft", "sft"], r"--between sft sft names one policy twice; type --between sft ppo"),
        (["--between", "sft", "dpo"], r"has no policy 'dpo'"),
        (["--between", "sft", "ppo", "--pairs", "x.jsonl"], r"--pairs and --between were given together"),
        (["--between", "sft", "ppo", "--report"], r"--between brings pairs to rate, and --report takes none"),
    ],
)
def test_mistakes_with_between_say_what_to_type(run: Path, words: list[str], message: str) -> None:
    if "--report" not in words:
        words = [*words, "--simulate", "1"]
    with pytest.raises(UserError, match=message):
        invoke("rate", str(run), *words)


def test_two_policies_that_always_say_the_same_leave_nothing_to_rate(run: Path) -> None:
    save_policy(run / "ppo", seed=0)
    with pytest.raises(UserError, match=r"sft and ppo give the same answer to 30, .*there is nothing to compare"):
        invoke("rate", str(run), "--between", "sft", "ppo", "--simulate", "1")
    invoke("evaluate", str(run))
    assert rates(run)["gold"]["win_rate"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
