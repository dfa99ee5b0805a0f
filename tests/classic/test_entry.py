"""Ctrl-C while a lesson is still being loaded ends it as it does later: one line, exit code 130."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = ["what_is_rl", "q_learning", "dqn", "policy_gradient", "ppo", "real_world"]
# What a library looks like in whose middle Ctrl-C is pressed, and that does what some libraries do then.
PRESSED = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
SWALLOWED = f"try:\n    {PRESSED.splitlines()[0]}\n    {PRESSED.splitlines()[1]}\nexcept BaseException:\n    pass\n"
TURNED = """
class Field:
    def __set_name__(self, owner, name):
        import os, signal
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

class Model:
    field = Field()
"""


def ended(lesson: str, library: str, source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The lesson, with a library of this source in place of the installed one."""
    (folder / f"{library}.py").write_text(source, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-m", f"classic.{lesson}", "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("lesson", LESSONS)
def test_ctrl_c_while_libraries_are_loaded_is_one_line(lesson: str, tmp_path: Path) -> None:
    found = ended(lesson, "numpy", PRESSED, tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "stopped by Ctrl-C\n")


@pytest.mark.parametrize(
    ("library", "source"), [("torch", PRESSED), ("gymnasium", PRESSED), ("torch", TURNED), ("torch", SWALLOWED)]
)
def test_whatever_the_library_makes_of_it(library: str, source: str, tmp_path: Path) -> None:
    found = ended("dqn", library, source, tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "stopped by Ctrl-C\n")


def test_where_ctrl_c_is_ignored_it_stays_so(tmp_path: Path) -> None:
    """A shell starts what goes to its background so, and Ctrl-C is meant for somebody else."""
    (tmp_path / "tqdm.py").write_text(PRESSED + "from fake import tqdm\n", encoding="utf-8")
    (tmp_path / "fake.py").write_text("raise SystemExit('went on')\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "classic.q_learning", "--quiet"]
    found = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert "went on" in found.stderr
