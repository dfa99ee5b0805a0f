"""Files that describe a run: metrics.jsonl, run.json, other JSON. The one place that writes and reads them.

JSON files are replaced atomically; metrics are appended a line at a time, and a line that a killed process cut short is
skipped when read.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step: after a crash or on a full disk the old file is still whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; a last line without its end is left out."""
    return list(_complete_lines(path)) if path.exists() else []


def append_metrics(folder: Path, step: int, metrics: Mapping[str, Any]) -> None:
    """Append one line to `folder/metrics.jsonl`: `step` first, then the metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(_finite({"step": step, **metrics})) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    return read_jsonl(folder / "metrics.jsonl")


def cut_metrics(folder: Path, last_step: int) -> None:
    """Drop lines after `last_step`: the steps after a checkpoint are taken again on resume."""
    if (folder / "metrics.jsonl").exists():
        write_jsonl(folder / "metrics.jsonl", [line for line in read_metrics(folder) if line["step"] <= last_step])


def record_stage(run_folder: Path, stage: str, facts: Mapping[str, Any]) -> None:
    """Note in run.json that `stage` is finished. What is not noted there is taken up again."""
    record = read_run(run_folder)
    record.setdefault("stages", {})[stage] = dict(facts)
    write_json(run_folder / "run.json", record)


def read_run(run_folder: Path) -> dict[str, Any]:
    path = run_folder / "run.json"
    return read_json(path) if path.exists() else {}


def is_finished(run_folder: Path, stage: str) -> bool:
    return stage in read_run(run_folder).get("stages", {})


def _complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n") and line.strip():
                yield json.loads(line)


def _finite(value: Any) -> Any:
    """NaN and infinity are not JSON: null instead."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
