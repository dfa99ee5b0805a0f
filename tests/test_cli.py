"""The command line: help for every command, mistakes without a traceback, and no heavy import before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from rlhf_lab import cli, doctor
from tests.report_page.made_run import make_run

COMMANDS = sorted(get_command(cli.app).commands)  # type: ignore[attr-defined]
PROMISED = ["chat", "doctor", "evaluate", "ppo", "rate", "report", "reward", "run", "sft"]
CONFIGURED = ["evaluate", "ppo", "rate", "report", "reward", "run", "sft"]


def run_main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """The exit status of `rlhf-lab words...` in this process."""
    monkeypatch.setattr(sys, "argv", ["rlhf-lab", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def python(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, cwd=cwd)


def test_the_promised_commands_are_there() -> None:
    assert set(PROMISED) <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    found = CliRunner().invoke(cli.app, [command, "--help"])
    assert found.exit_code == 0
    assert "Usage" in found.output
    text = get_command(cli.app).commands[command].help  # type: ignore[attr-defined]
    assert text
    assert text.split("\n")[0][:40] in found.output


def test_help_names_every_command() -> None:
    found = CliRunner().invoke(cli.app, ["--help"])
    assert found.exit_code == 0
    assert all(command in found.output for command in COMMANDS)


@pytest.mark.parametrize("command", CONFIGURED)
def test_help_says_how_settings_look(command: str) -> None:
    found = CliRunner().invoke(cli.app, [command, "--help"])
    assert "[CONFIG] [section.key=value ...]" in " ".join(found.output.split())


def test_neither_help_nor_the_package_loads_torch() -> None:
    """In a fresh interpreter: this one has long loaded everything."""
    code = (
        "import sys, rlhf_lab, rlhf_lab.cli, rlhf_lab.config\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(rlhf_lab.cli.app, ['ppo', '--help']).exit_code == 0\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(heavy)}' if heavy else 0)"
    )
    found = python("-c", code)
    assert found.returncode == 0, found.stderr


def test_a_wrong_config_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = python("-m", "rlhf_lab", "ppo", "nothing.yaml", cwd=tmp_path)
    assert found.returncode == 2
    assert "no config file 'nothing.yaml'" in found.stderr
    assert found.stderr.startswith("rlhf-lab: ")
    assert "Traceback" not in found.stderr
    assert found.stdout == ""
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nothing"], "no config file 'nothing'"),
        (["ppo", "ppo.kl_coeff=0.1"], "unknown key 'kl_coeff': did you mean 'kl_coef'?"),
        (["sft", "ppo.minibatch_size=100"], "type minibatch_size=64"),
        (["reward", "a.yaml", "b.yaml"], "two configs were given, 'a.yaml' and 'b.yaml'"),
        (["evaluate", "name=a/b"], "type name=my_run"),
        (["report", "=3"], "type section.key=value"),
    ],
)
def test_mistakes_are_answered_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run_main(monkeypatch, *words) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith("rlhf-lab: ")
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_a_run_folder_that_was_not_evaluated_names_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_main(monkeypatch, "ppo", f"runs_dir={tmp_path}") == 2
    assert "ppo needs base, which is not finished" in capsys.readouterr().err


def test_chat_without_a_run_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_main(monkeypatch, "chat") == 2
    assert "no finished run 'assistant'" in capsys.readouterr().err


def test_unknown_commands_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(monkeypatch, "pppo") == 2
    assert "No such command 'pppo'" in capsys.readouterr().err


def test_without_a_command_there_is_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_main(monkeypatch)
    shown = capsys.readouterr()
    assert "Usage" in shown.out + shown.err


def test_a_run_folder_stands_for_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: mine\nseed: 5\n", encoding="utf-8")
    found = cli._experiment([str(tmp_path), "ppo.kl_coef=0.5"])
    assert (found.run_folder, found.seed, found.ppo.kl_coef) == (tmp_path, 5, 0.5), "the folder, wherever it stands now"
    assert cli._experiment([str(tmp_path), "name=other"]).name == "other"
    assert cli._experiment(["ppo.kl_coef=0.5"]).name == "assistant"


# --- doctor ------------------------------------------------------------------------------------------------------


def test_doctor_shows_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(doctor, "_free_gb", lambda: 5.0)
    assert run_main(monkeypatch, "doctor") == 0
    shown = capsys.readouterr().out
    for word in ("python", "torch", "transformers", "trl", "device", "offline", "5.0 GB", "no problems found"):
        assert word in shown, word


def test_doctor_gives_a_fix_for_every_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(doctor, "_free_gb", lambda: 0.2)
    versions = {"trl": "2.0.0", "gymnasium": None}
    found = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: versions[name] if name in versions else found(name))
    assert doctor.examine() == 1
    shown = capsys.readouterr().out
    assert "\n4 problems" in shown
    for problem, fix in [
        ("trl 2.0.0; needed: >=1.16,<2", 'pip install -c constraints.txt "trl>=1.16,<2"'),
        ("gymnasium is missing; needed: >=1.0", 'pip install -c constraints.txt "gymnasium>=1.0"'),
        ("0.2 GB free here", "type runs_dir=/another/disk, or delete old folders in runs/"),
        ("OMP_NUM_THREADS=1 leaves cores idle", "export OMP_NUM_THREADS=8"),
    ]:
        assert f"problem  {problem}\n    fix  {fix}\n" in shown, "however narrow the terminal, a fix is one line"


def test_doctor_prints_a_folder_with_brackets_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "[red]").mkdir()
    monkeypatch.chdir(tmp_path / "[red]")
    doctor.examine()
    assert str(tmp_path / "[red]") in capsys.readouterr().out


def test_doctor_says_whether_the_hub_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for value, word in (("1", "offline (HF_HUB_OFFLINE is set)"), ("0", "online if the network is")):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        doctor.examine()
        assert word in capsys.readouterr().out


def test_report_of_several_runs_prints_where_the_page_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("first", "second"):
        make_run(tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    assert run_main(monkeypatch, "report", "runs/first", "second") == 0
    page = tmp_path / "runs" / "comparison_first_second.html"
    assert capsys.readouterr().out == f"report  {page}\n"
    assert "second against first" in page.read_text(encoding="utf-8")
    assert run_main(monkeypatch, "report", "first", "second", "--out", "mine.html") == 0
    assert (tmp_path / "mine.html").is_file()
    assert not (tmp_path / "runs" / "first" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["first", "first"], "are the same run"),
        (["first", "nothing"], "there is no run 'nothing'"),
        (["first", "--out", "x.html"], "--out goes with two or more runs"),
        (["first", "second", "seed=1"], "several runs take no settings"),
    ],
)
def test_mistakes_with_several_runs(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    make_run(tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path)
    assert run_main(monkeypatch, "report", *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("word", ["mine", "runs/mine"])
def test_report_of_one_run_by_its_name_or_folder_loads_no_torch(tmp_path: Path, word: str) -> None:
    make_run(tmp_path / "runs" / "mine")
    code = (
        "import sys\n"
        "from rlhf_lab import cli\n"
        f"sys.argv = ['rlhf-lab', 'report', {word!r}]\n"
        "try:\n"
        "    cli.main()\n"
        "finally:\n"
        "    assert 'torch' not in sys.modules\n"
    )
    found = python("-c", code, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "report  runs/mine/report.html\n"
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()
