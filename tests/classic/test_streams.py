"""Files that are none: a pipe, /dev/stdout, a link. What is written goes into them, and nothing takes their place."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from classic.command_line import file_to_write
from classic.records import write_json


def test_what_is_no_file_is_written_into(tmp_path: Path) -> None:
    """A link stays a link; a pipe (as /dev/stdout may be one) is not replaced by a file."""
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write_json(tmp_path / "link.json", {"a": 1})
    assert (tmp_path / "link.json").is_symlink()
    assert '"a": 1' in (tmp_path / "real.json").read_text(encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_json(tmp_path / "pipe", {"a": 1})
    assert (tmp_path / "pipe").is_fifo()
    assert b'"a": 1' in os.read(end, 10_000)
    os.close(end)


def test_the_numbers_come_after_the_table_where_both_go_into_one_file(tmp_path: Path) -> None:
    """`--json /dev/stdout > file`: as a name it is that file, and would be written anew over the table."""
    command = [sys.executable, "-m", "classic.q_learning", "--env", "CliffWalking-v1", "--steps", "10000", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with (tmp_path / "all.txt").open("wb") as file:
        subprocess.run([*command, "--json", "/dev/stdout"], stdout=file, env=environment, check=True)
    table, brace, numbers = (tmp_path / "all.txt").read_text(encoding="utf-8").partition("{")
    assert table.startswith("q_learning on CliffWalking-v1")
    assert json.loads(brace + numbers)["lesson"] == "q_learning"
    assert [file.name for file in tmp_path.iterdir()] == ["all.txt"]

    piped = subprocess.run([*command, "--json", "/dev/stderr"], capture_output=True, env=environment, check=True)
    assert piped.stdout.decode() != ""
    assert json.loads(piped.stderr)["lesson"] == "q_learning"


def test_what_can_be_written_to_needs_no_folder_that_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but root may make a file in /dev, and there is none to be made."""
    os.mkfifo(tmp_path / "pipe")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: not Path(place).is_dir() and allowed(place, mode))
    for place in (tmp_path / "pipe", Path("/dev/null"), Path("/dev/stdout"), Path("/dev/fd/2")):
        assert file_to_write(str(place)) == place
    with pytest.raises(argparse.ArgumentTypeError, match="may not be written to"):
        file_to_write(str(tmp_path / "found.json"))
    with pytest.raises(argparse.ArgumentTypeError, match="/dev/fd/987 may not be written to; type another place"):
        file_to_write("/dev/fd/987")
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(argparse.ArgumentTypeError, match="pipe may not be written to"):
        file_to_write(str(tmp_path / "pipe"))


def test_what_is_open_only_to_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with (tmp_path / "mine.txt").open("rb") as file, pytest.raises(argparse.ArgumentTypeError, match="may not be wri"):
        file_to_write(f"/dev/fd/{file.fileno()}")
