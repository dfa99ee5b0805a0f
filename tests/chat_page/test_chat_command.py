"""`rlhf-lab chat --web` from the command line, and its votes on their way to report, export and reward model."""

import builtins
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from rlhf_lab.chat import chat_in_browser
from rlhf_lab.config import load_experiment
from rlhf_lab.data.assistant.world import heldout_questions, training_questions
from rlhf_lab.errors import UserError
from rlhf_lab.rate_votes import with_votes
from rlhf_lab.rating.store import votes_path
from rlhf_lab.stages.experiment_data import StageData
from tests.chat_page.small_run import ask, ballot, chat_served, loaded, post, small_run
from tests.rating.desk import Served, request, sign_in
from tests.test_pipeline import invoke

ROOT = Path(__file__).parents[2]


def test_the_command_prints_one_link_that_lets_in_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
    folder = small_run(tmp_path / "tiny")
    (folder / "base" / "model.safetensors").unlink()
    command = [sys.executable, "-m", "rlhf_lab", "chat", str(folder), "--web", "--port", "0", "--rater", "ann"]
    command += ["--temperature", "0.9"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = []
    try:
        for line in server.stdout or ():
            said.append(line)
            if found := re.fullmatch(r"  ann: http://127\.0\.0\.1:(\d+)(/enter\?token=[\w-]{43})\n", line):
                break
        assert found, said
        port = int(found[1])
        cookie = request(port, "GET", found[2]).headers["set-cookie"].partition(";")[0]
        html = request(port, "GET", "/", cookie=cookie).body
        page = Served(None, None, port)  # type: ignore[arg-type]
        question = ask(page, cookie)
        assert post(page, cookie, "vote", **ballot(question)).json()["counted"] is True
    finally:
        server.send_signal(signal.SIGINT)
        rest, errors = server.communicate(timeout=30)
    assert server.returncode == 0, errors
    assert f"1 votes in {votes_path(folder)}; to train on them, type: rlhf-lab rate {folder} --new-run NAME" in rest
    assert found[2].partition("token=")[2] not in rest + errors, "printed once"
    assert any(line.startswith("without the base: ") for line in said)
    assert f"votes go to {votes_path(folder)}\n" in said
    assert 'value="0.9"' in html
    assert "Without the Base" in html
    assert len(question["answers"]) == 2
    assert "1 by people" in invoke("rate", str(folder), "--report")


@pytest.mark.parametrize("words", [["--rater", "ann"], ["--port", "0"]])
def test_what_only_the_page_has_is_refused_in_the_terminal(words: list[str]) -> None:
    with pytest.raises(UserError, match=f"{words[0]} is for the chat in the browser; add --web"):
        invoke("chat", "anything", *words)


def test_without_the_extra_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_fastapi(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "fastapi":
            raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")
        return real(name, *args, **options)

    for module in [
        name for name in sys.modules if name.startswith(("fastapi", "rlhf_lab.chat_page", "rlhf_lab.rating"))
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without_fastapi)
    with pytest.raises(UserError, match=r'the chat page needs fastapi.*type: pip install "rlhf-lab\[rate\]"'):
        chat_in_browser("anything", rater="ann", temperature=1.0, port=0)


def test_a_run_that_is_not_finished_is_said_before_anything_is_written(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
    with pytest.raises(UserError, match="no finished run"):
        invoke("chat", str(tmp_path), "--web")
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_policy_is_an_adapter_is_finished_too(tmp_path: Path) -> None:
    from rlhf_lab.chat_models import finished_run

    folder = small_run(tmp_path / "shared")
    (folder / "ppo" / "config.json").rename(folder / "ppo" / "adapter_config.json")
    assert finished_run(str(folder)) == folder


def test_votes_are_reported_exported_and_train_the_reward_model_unless_held_out(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
    folder = small_run(tmp_path / "tiny")
    known, heldout = training_questions()[0].prompt, heldout_questions()[0].prompt
    with chat_served(folder, loaded(folder)) as page:
        cookie = sign_in(page, "ann")
        for prompt in (known, heldout, "Never asked before?\n"):
            post(page, cookie, "vote", **ballot(ask(page, cookie, prompt)))
    assert "3 by people" in invoke("rate", str(folder), "--report")
    invoke("rate", str(folder), "--export", str(tmp_path / "votes.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "votes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["prompt"] for row in rows} == {known, heldout, "Never asked before?\n"}
    assert {(row["rater"], row["margin"]) for row in rows} == {("human", 1.0)}
    experiment = load_experiment(folder / "config.yaml")
    train, held = (
        Dataset.from_list([{"prompt": prompt, "chosen": "a", "rejected": "b", "rater": "simulated"}])
        for prompt in (known, heldout)
    )
    data = with_votes(experiment, StageData(train, held, {"rater": "simulated"}))
    assert sorted(data.train["prompt"]) == sorted([known, known, "Never asked before?\n"])
    assert list(data.heldout["prompt"]) == [heldout], (
        "between two models on a prompt of the evaluation: not for training"
    )
    assert data.facts["raters"] == {"simulated": 2, "human": 2}
