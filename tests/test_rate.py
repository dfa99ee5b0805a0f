"""`rlhf-lab rate` from the command line, and votes on their way to the reward model and the report."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset

from rlhf_lab.config import load_experiment
from rlhf_lab.errors import UserError
from rlhf_lab.rate_votes import with_votes
from rlhf_lab.rating.assignment import Plan
from rlhf_lab.rating.store import Store, votes_path
from rlhf_lab.stages.experiment_data import StageData
from rlhf_lab.training.records import read_json, read_jsonl, read_run
from rlhf_lab.training.run_folder import open_run_folder
from tests.rating.desk import request, some_pairs
from tests.test_pipeline import SMALL, invoke

ROOT = Path(__file__).parents[1]
PLAIN_ROW = {"prompt": "q", "chosen": "a", "rejected": "b"}


def flat(text: str) -> str:
    """Without the line breaks that belong to a narrow terminal."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the embedded default with an SFT model and simulated comparisons, and forty pairs to rate."""
    runs = tmp_path_factory.mktemp("runs")
    invoke("sft", f"runs_dir={runs}", "name=small", *SMALL)
    said = invoke("rate", str(runs / "small"), "--num-pairs", "40", "--simulate", "2")
    assert "votes by 2 simulated raters; no person rated these" in said
    return runs / "small"


def vote(folder: Path, name: str, number: int) -> None:
    """A person who always likes the longer answer."""
    store = Store(votes_path(folder))
    store.plan = Plan(raters_per_pair=2, gold_rate=0, repeat_rate=0)
    rater = store.rater(name)
    for _ in range(number):
        shown = store.next(rater)
        assert shown is not None
        left = len(str(shown.left)) > len(str(shown.right))
        store.vote(rater, shown.id, turn=shown.turn, outcome="left" if left else "right", strength="clearly", seconds=4)
    store.close()


def copied(begun: Path, tmp_path: Path, name: str = "copy") -> Path:
    """A new run from the same SFT model and votes, through the command itself."""
    said = invoke("rate", str(begun), f"runs_dir={begun.parent}", "--new-run", f"{tmp_path.name}_{name}")
    return Path(re.findall(r"type: rlhf-lab run (\S+)", flat(said))[0])


def test_pairs_are_samples_of_the_sft_model_on_training_prompts_with_gold_among_them(begun: Path) -> None:
    from rlhf_lab.data.assistant.gold import gold_of_prompt
    from rlhf_lab.data.assistant.world import training_questions

    pairs = list(Store(votes_path(begun)).pairs().values())
    assert sum(pair.gold is None for pair in pairs) == 40
    prompts = {question.prompt for question in training_questions()}
    assert all(pair.prompt in prompts and pair.first != pair.second for pair in pairs)
    for pair in (pair for pair in pairs if pair.gold):
        first, second = (gold_of_prompt(str(pair.prompt), str(text)).total for text in (pair.first, pair.second))
        assert (first > second) is (pair.gold == "first")
        assert abs(first - second) >= 2
    votes = Store(votes_path(begun)).votes()
    assert set(Counter(vote.pair for vote in votes if vote.purpose == "main").values()) == {2}


def test_more_pairs_are_sampled_when_more_are_asked_for_and_no_model_is_loaded_otherwise(
    begun: Path, tmp_path: Path
) -> None:
    folder = copied(begun, tmp_path)
    assert "sampling 5 pairs" in invoke("rate", str(folder), "--num-pairs", "45", "--simulate", "1")
    assert "sampling" not in invoke("rate", str(folder), "--num-pairs", "45", "--simulate", "1")
    assert sum(pair.gold is None for pair in Store(votes_path(folder)).pairs().values()) == 45


def test_the_report_names_raters_and_measures(begun: Path) -> None:
    said = flat(invoke("rate", str(begun), "--report"))
    assert "80 by simulated raters; 40 pairs, 40 of them with several votes" in said
    for words in ("per cent agreement", "Krippendorff's alpha", "Cohen's kappa", "simulated-1", "simulated-2"):
        assert words in said


def test_a_reward_model_is_trained_on_people_and_simulated_raters_and_everything_says_so(
    begun: Path, tmp_path: Path
) -> None:
    folder = copied(begun, tmp_path)
    vote(folder, "ann", 20)
    vote(folder, "bob", 12)
    invoke("reward", str(folder))
    facts = read_run(folder)["stages"]["reward"]["data"]
    comparisons = read_jsonl(folder / "comparisons.jsonl")
    used = read_jsonl(folder / "votes.jsonl")
    assert Counter(row["rater"] for row in used)["human"] == 20
    assert facts["raters"]["human"] == 20
    assert facts["raters"]["simulated"] == len(comparisons) + Counter(row["rater"] for row in used)["simulated"]
    assert facts["num_rows"] + facts["num_heldout"] == sum(facts["raters"].values())
    assert facts["votes"]["by_kind"] == {"human": 32, "simulated": 80}
    assert read_json(folder / "evaluation" / "reward_model.json")["rater"] == "simulated"
    assert "human" in (folder / "reward" / "README.md").read_text(encoding="utf-8")
    invoke("report", str(folder))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "people (20)" in page
    assert "32 votes by 2 people and 80 votes by 2 simulated raters" in flat(page)
    assert "no person rated these" not in page


def test_near_random_votes_are_warned_about_before_training_and_in_the_report(begun: Path, tmp_path: Path) -> None:
    folder = copied(begun, tmp_path)
    store = Store(votes_path(folder))
    for number, pair in enumerate(store.pairs()):
        for rater, side in (("ann", number % 2), ("bob", number // 2 % 2)):
            store.record(store.rater(rater), [(pair, ("left", "right")[side], None)])
    store.close()
    invoke("rate", str(folder), "reward.votes=only", "--report")
    said = invoke("reward", str(folder))
    assert re.search(r"reward  WARNING: people (agree no more than by chance|hardly agree)", said)
    assert said.index("WARNING") < said.index("reward  finished")
    invoke("report", str(folder))
    assert "The votes look unreliable." in (folder / "report.html").read_text(encoding="utf-8")


def test_votes_only_and_votes_ignored(begun: Path, tmp_path: Path) -> None:
    folder = copied(begun, tmp_path, "only")
    vote(folder, "ann", 20)
    invoke("reward", str(folder), "reward.votes=only", "reward.vote_rows=each", "reward.tied_votes=both")
    facts = read_run(folder)["stages"]["reward"]["data"]
    used = read_jsonl(folder / "votes.jsonl")
    assert facts["num_rows"] == len(used), "training rows are the votes"
    assert facts["votes"]["rows"] == "each"
    ignored = copied(begun, tmp_path, "ignored")
    invoke("reward", str(ignored), "reward.votes=ignore")
    assert "votes" not in read_run(ignored)["stages"]["reward"]["data"]
    assert not (ignored / "votes.jsonl").exists()


def test_a_training_that_was_cut_short_goes_on_with_the_votes_that_it_began_with(begun: Path, tmp_path: Path) -> None:
    folder = copied(begun, tmp_path)
    experiment = load_experiment(folder / "config.yaml")
    vote(folder, "ann", 5)
    rows = StageData(*(Dataset.from_list([PLAIN_ROW, {**PLAIN_ROW, "prompt": "other"}]) for _ in range(2)), facts={})
    first = with_votes(experiment, rows)
    (folder / "reward" / "checkpoint-1").mkdir(parents=True)
    vote(folder, "bob", 12)
    again = with_votes(experiment, rows)
    assert again.facts["sha256"] == first.facts["sha256"]
    (folder / "reward" / "checkpoint-1").rmdir()
    assert with_votes(experiment, rows).facts["sha256"] != first.facts["sha256"]


def test_votes_only_without_votes_says_what_to_type(begun: Path, tmp_path: Path) -> None:
    folder = copied(begun, tmp_path)
    votes_path(folder).unlink()
    with pytest.raises(UserError, match=r"reward.votes=only, but there are no votes .*type rlhf-lab rate first"):
        invoke("reward", str(folder), "reward.votes=only")


def test_a_new_run_starts_where_the_reward_model_began_and_takes_no_name_twice(begun: Path, tmp_path: Path) -> None:
    folder = copied(begun, tmp_path)
    assert set(read_run(folder)["stages"]) == {"base", "sft"}
    assert read_run(folder)["stages"]["sft"]["taken_from"] == str(begun)
    assert (folder / "sft" / "model.safetensors").read_bytes() == (begun / "sft" / "model.safetensors").read_bytes()
    assert Store(votes_path(folder)).votes() == Store(votes_path(begun)).votes()
    with pytest.raises(UserError, match="exists already"):
        invoke("rate", str(begun), f"runs_dir={begun.parent}", "--new-run", folder.name)
    with pytest.raises(UserError, match="plain folder name"):
        invoke("rate", str(begun), "--new-run", "a/b")


def test_export_and_import_from_the_command_line(begun: Path, tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    assert "rows" in invoke("rate", str(begun), "--export", str(path), "--ties", "both", "--rows", "each")
    rows = read_jsonl(path)
    assert {"prompt", "chosen", "rejected", "margin", "rater", "votes", "rater_name"} <= set(rows[0])
    words = [f"runs_dir={tmp_path}", "name=other"]
    said = invoke("rate", *words, "--import", str(path))
    assert "80 votes imported" in said
    assert "80 by imported votes" in flat(invoke("rate", *words, "--report"))


def test_a_config_written_before_a_key_was_known_can_be_continued(tmp_path: Path) -> None:
    experiment = load_experiment(None, [f"runs_dir={tmp_path}", "name=old"])
    folder = open_run_folder(experiment)
    (folder / "reward").mkdir()
    text = (folder / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(re.sub(r"  votes: add\n", "", text), encoding="utf-8")
    assert open_run_folder(experiment) == folder
    with pytest.raises(UserError, match=r"reward.votes was 'add' and is 'only'"):
        open_run_folder(load_experiment(None, [f"runs_dir={tmp_path}", "name=old", "reward.votes=only"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--report"], r"there are no votes in .*--import FILE"),
        (["--export", "x.jsonl"], r"there are no votes in "),
        (["--report", "--export", "x"], r"--report and --export were given together"),
        (["--simulate", "1"], r"there is no SFT model in .*type rlhf-lab sft first.*--pairs FILE"),
        (["--host", "0.0.0.0"], r"would let other machines in.*--open-to-network --rater NAME"),
        (["--host", "10.0.0.1", "--open-to-network"], r"needs raters by name.*--rater ann"),
        (["--host", "0.0.0.0", "--open-to-network", "--rater", "ann"], r"type --public-name"),
        (["--guidelines", "absent.txt"], r"can not read the guidelines absent.txt"),
        (["--pairs", "absent.jsonl"], r"there is no file absent.jsonl"),
        (["--new-run", "b"], r"has no finished SFT model to start from"),
    ],
)
def test_mistakes_say_what_to_type(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        invoke("rate", f"runs_dir={tmp_path}", "name=nothing", *words)


def test_without_the_extra_the_command_says_how_to_install_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None; sys.argv = ['rlhf-lab', 'rate', *sys.argv[1:]]\n"
        "from rlhf_lab.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"runs_dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert 'type: pip install "rlhf-lab[rate]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_serves_the_pairs_of_a_file_and_help_loads_neither_torch_nor_fastapi(tmp_path: Path) -> None:
    code = (
        "import sys, rlhf_lab.cli\nfrom typer.testing import CliRunner\n"
        "assert CliRunner().invoke(rlhf_lab.cli.app, ['rate', '--help']).exit_code == 0\n"
        "sys.exit(str(found) if (found := {'torch', 'fastapi', 'numpy'} & set(sys.modules)) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
    rows = [{"prompt": pair.prompt, "completions": [pair.first, pair.second]} for pair in some_pairs(3)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "rlhf_lab", "rate", f"runs_dir={tmp_path}", "name=mine", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--pairs", str(tmp_path / "pairs.jsonl")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in range(3)]
    finally:
        server.terminate()
        server.wait(20)
    assert lines[0].endswith("3 pairs; 3 are new\n")
    assert lines[1] == f"votes go to {votes_path(tmp_path / 'mine')}\n"
    assert re.fullmatch(r"  rater: http://127\.0\.0\.1:\d+/enter\?token=[\w-]{43}\n", lines[2])
    with sqlite3.connect(votes_path(tmp_path / "mine")) as db:
        assert db.execute("SELECT count(*) FROM pair").fetchone() == (3,)


@pytest.mark.slow
def test_from_a_finished_run_over_twenty_votes_to_a_report_that_says_what_changed(tmp_path: Path) -> None:
    """Run, rate twenty pairs over HTTP, train the reward model on them and the simulated ones, PPO, report."""
    pytest.importorskip("fastapi", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
    invoke("run", f"runs_dir={tmp_path}", "name=first", *SMALL)
    before = read_run(tmp_path / "first")
    command = [sys.executable, "-m", "rlhf_lab", "rate", str(tmp_path / "first"), "--port", "0", "--num-pairs", "20"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        link = next(
            found for line in server.stdout or () if (found := re.search(r"http://127.0.0.1:(\d+)(/\S+)", line))
        )
        port = int(link[1])
        cookie = request(port, "GET", link[2]).headers["set-cookie"].partition(";")[0]
        state = request(port, "GET", "/api/next", cookie=cookie).json()
        while state["pair"]:
            body = {"presentation": state["pair"]["presentation"], "turn": 0, "outcome": "left", "seconds": 3}
            state = request(port, "POST", "/api/vote", body=body, cookie=cookie).json()
    finally:
        server.send_signal(signal.SIGINT)
        rest = server.communicate(timeout=30)[0]
    assert "this run's reward model is trained, so type: rlhf-lab rate" in flat(rest)
    assert server.returncode == 0
    invoke("rate", str(tmp_path / "first"), "--new-run", "second")
    invoke("run", str(tmp_path / "second"))
    assert read_run(tmp_path / "first") == before, "the first run is as it was"
    facts = read_run(tmp_path / "second")["stages"]
    assert facts["reward"]["data"]["raters"]["human"] == 20
    assert facts["ppo"]["num_updates"] == before["stages"]["ppo"]["num_updates"]
    assert "20 votes by 1 person" in flat((tmp_path / "second" / "report.html").read_text(encoding="utf-8"))
    said = invoke("report", str(tmp_path / "first"), str(tmp_path / "second"))
    page = Path(said.removeprefix("report  ").strip()).read_text(encoding="utf-8")
    assert "With 20 votes by 1 person added to the" in flat(page)
    assert "PPO’s gold score" in flat(page)
    assert "Both start from the same SFT model; each has its own reward model." in flat(page)
