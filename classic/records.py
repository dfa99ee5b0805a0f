"""What a lesson leaves behind: a JSON file for programs, a short table for people, files that are whole or not there.

Left out: what is on a picture (`classic.curves`) and in a replay (`classic.replays`).

    python -m classic.q_learning --env CliffWalking-v1 --json cliff.json
"""

import io
import json
import math
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from os import cpu_count
from pathlib import Path
from typing import Any

STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record with the machine and the versions that made it. What is not finite becomes null, as in JSON."""
    text = json.dumps(_finite({**record, "machine": machine()}), indent=2, allow_nan=False)
    write_whole(path, (text + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the file and then take its place: where the disk is full, what was there before is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if takes_no_place(path):
        _write_into(path, content)
        return
    path = path.resolve()  # a link stays one
    half = path.with_name(f"{path.name}.half")
    try:
        half.write_bytes(content)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def write_picture(path: Path, save: Callable[..., object]) -> None:
    """Write a PNG as `write_whole` does, from the method of a figure or an image that saves it into a stream."""
    in_memory = io.BytesIO()
    save(in_memory, format="png")
    write_whole(path, in_memory.getvalue())


def takes_no_place(path: Path) -> bool:
    """Whether no file can take its place: a pipe, a device, what this process has open (/dev/stdout, /dev/fd/3)."""
    return number_of_stream(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def number_of_stream(path: Path) -> int | None:
    """3 for /dev/fd/3, and likewise for the other names that a process has for what it has open; else None."""
    if str(path) in STREAMS:
        return STREAMS[str(path)]
    folder, number = str(path.parent), path.name
    return int(number) if folder in ("/dev/fd", "/proc/self/fd") and number.isdecimal() else None


def _write_into(path: Path, content: bytes) -> None:
    number = number_of_stream(path)
    if number is None:
        path.write_bytes(content)
        return
    # By its number and not by its name: a name would open it a second time, at its beginning where it is a file, and
    # over the table that was printed before; and may not be opened at all where it is another user's terminal.
    for printed in (sys.stdout, sys.stderr):
        printed.flush()
    with open(number, "wb", closefd=False) as stream:
        stream.write(content)


def machine() -> dict[str, Any]:
    """Where a number was measured: processor, cores, Python, and the libraries that it depends on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "num_cores": cpu_count(),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "gymnasium", "torch", "stable-baselines3")},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table_text(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows under their columns, numbers to the right, as one text."""
    cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    is_number = [all(isinstance(row[index], (int, float)) for row in rows) for index in range(len(columns))]
    lines = [
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
