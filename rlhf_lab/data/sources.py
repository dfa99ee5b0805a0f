"""Demonstrations, preferences and prompts from files or the hub, as TRL's columns, with bad rows counted or refused.

    pairs = preferences(load_rows("pairs.jsonl"), invalid_rows="drop").dataset      # prompt, chosen, rejected

Left out: tokens (`prompts.py`), which rows are held out (`splits.py`), streaming, folders of `Dataset.save_to_disk`.
Text of a row never enters an error or a log: preference data is often offensive, or private.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow
import pyarrow.parquet
from datasets import Dataset, Features, Json, load_dataset

from rlhf_lab.data.prompts import Prompt, canonical_json, implicit_prompt_length, is_messages, prompt_key
from rlhf_lab.errors import UserError

Row: TypeAlias = dict[str, Any]

DATA_FILES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".parquet")
NOT_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # what `datasets` writes
SPLITS = {"train": "train training", "validation": "validation valid val dev", "test": "test testing eval evaluation"}
SPLIT_NAMED = {word: split for split, words in SPLITS.items() for word in words.split()}

PAIR = ("chosen", "rejected")
DEMONSTRATION_SETS = (("prompt", "completion"), ("messages",), PAIR)
PROMPT_SETS = (*DEMONSTRATION_SETS, ("prompt",))
TEXT_COLUMNS = ("prompt", "completion", "messages", *PAIR)


@dataclass(frozen=True)
class Cleaned:
    """Rows that can be used, and the count of those that could not."""

    dataset: Dataset
    num_rows: int  # rows that were given
    num_invalid: int  # of these, left out as invalid (`prompts` also leaves out duplicates, which are not invalid)
    reasons: dict[str, int]  # why, and how often; adds up to num_invalid


class _InvalidRow(Exception):
    """Why a row cannot be used; caught in `_clean`."""


def load_rows(source: str, *, data_dir: str | None = None, split: str = "train", name: str | None = None) -> Dataset:
    """Rows of a file, a folder of files, or a hub data set, with the columns that they came with.

    `split` chooses among a folder's files by their names (`test.jsonl`, `train-00000.parquet`); a folder with one file
    gives that file to the default "train" whatever it is called, and so does a file. `data_dir` is a folder inside
    `source`.
    """
    path = Path(source).expanduser()
    # A hub id is `name` or `owner/name`; whatever else was typed must have been meant as a path.
    is_hub_id = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source) and not source.endswith(DATA_FILES)
    if is_hub_id and not path.exists():
        return load_from_hub(source, data_dir=data_dir, split=split, name=name)
    if name is not None or (data_dir is not None and path.is_file()):
        raise UserError(f"{source} is on this disk: leave name out (and data_dir too, if it is a file).")
    if path.is_file() and split != "train":
        raise UserError(
            f"{source} is one file, and split={split} chooses among the files of a folder or the splits of a hub data "
            "set. Leave split out, or give the folder."
        )
    path = path / data_dir if data_dir is not None else path
    if not path.exists():
        raise UserError(
            f"There is no file or folder {path}. Give one ({', '.join(DATA_FILES)}) or a hub id, owner/name."
        )
    files = _files_of_split(path, split) if path.is_dir() else [path]
    rows = [row for file in files for row in _read_file(file)]
    if not rows:
        raise UserError(f"{path} holds no rows. Give a file with at least one row.")
    return _dataset_from_rows(rows)


def load_from_hub(source: str, *, data_dir: str | None, split: str, name: str | None) -> Dataset:
    """`datasets.load_dataset`, whose many ways to fail end in one error that says what to type."""
    try:
        return load_dataset(source, name=name, data_dir=data_dir, split=split)
    except Exception as error:  # httpx, huggingface_hub and datasets share no base class
        words = str(error).splitlines()[0] if str(error) else ""
        if words.startswith(("Unknown split", "BuilderConfig", "Config name is missing")):
            raise UserError(f"The hub data set {source} was found, but: {words} Change split or name.") from None
        raise UserError(
            f"{source} is neither a file or folder here nor a hub data set within reach ({type(error).__name__}). "
            "Check the spelling and the network (HF_HUB_OFFLINE unset; private sets: `hf auth login`), or use our own "
            "data: type `rlhf-lab run` without a config, or take configs/assistant.yaml."
        ) from (error if isinstance(error, OSError) else None)  # other errors may quote rows


def _files_of_split(folder: Path, split: str) -> list[Path]:
    files = _data_files(folder.iterdir()) or _data_files(folder.rglob("*"))
    if not files:
        raise UserError(f"The folder {folder} holds no data file; it needs one that ends in {', '.join(DATA_FILES)}.")
    named = {file: SPLIT_NAMED.get(re.split(r"[-_.]", file.name.lower())[0]) for file in files}
    chosen = [file for file in files if named[file] == split or file.name.split(".")[0] == split]
    known = sorted({word for word in named.values() if word})
    if not chosen and known and (len(files) > 1 or split != "train"):
        raise UserError(f"The folder {folder} holds no split {split}; it holds {', '.join(known)}. Change the split.")
    return chosen or files


def _data_files(paths: Iterable[Path]) -> list[Path]:
    files = sorted(path for path in paths if path.name.endswith(DATA_FILES) and path.is_file())
    return [path for path in files if path.name not in NOT_DATA and not path.name.startswith(".")]


def _read_file(path: Path) -> list[Row]:
    if not path.name.endswith(DATA_FILES):
        raise UserError(f"{path} has an ending that is not known; it must be one of {', '.join(DATA_FILES)}.")
    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path).to_pylist()
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (pyarrow.ArrowException, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is cut short, or not what its name says ({type(error).__name__}).") from None
    lines = _decoded_lines(path, content)
    if path.suffix == ".csv":
        return _read_csv(path, lines)
    whole = "".join(lines)
    if ".jsonl" not in path.name and whole.lstrip().startswith("["):
        rows = list(enumerate(_parse_json(whole, path, 1), start=1))
    else:  # many published .json files are JSON lines
        rows = [
            (number, _parse_json(line.rstrip(), path, number))
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
    wrong = next((number for number, row in rows if not isinstance(row, dict)), None)
    if wrong is not None:
        raise UserError(f"{path}:{wrong}: not an object {{...}}. Write one on each line, or one list of them (.json).")
    return [row for _, row in rows]


def _decoded_lines(path: Path, content: bytes) -> list[str]:
    """Lines with their ends, cut at newlines only: JSON text may hold U+2028, where `str.splitlines` would cut."""
    lines = []
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            lines.append(raw.decode("utf-8") + "\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: byte {error.start + 1} is not UTF-8. Save the file as UTF-8.") from None
    return lines


def _parse_json(text: str, path: Path, first_line: int) -> Any:
    try:
        value = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair is valid JSON, but no text
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except json.JSONDecodeError as error:
        where = f"{path}:{first_line + error.lineno - 1}"
        raise UserError(f"{where}: broken JSON, {error.msg} (column {error.colno}). Mend or delete the line.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}:{first_line}: JSON that cannot be read ({type(error).__name__}). Mend it.") from None


def _read_csv(path: Path, lines: list[str]) -> list[Row]:
    limit = csv.field_size_limit(2**31 - 1)  # 128 kB is too little for a long conversation
    reader, records = csv.reader(lines, strict=True), []
    try:
        header = next(reader, [])
        for cells in filter(None, reader):
            if len(cells) != len(header):
                raise UserError(f"{path}:{reader.line_num}: {len(cells)} cells under {len(header)} column names.")
            records.append(cells)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: broken CSV, {error}. Check the quotes around this row.") from None
    finally:
        csv.field_size_limit(limit)
    if len(set(header)) != len(header):
        raise UserError(f"{path}:1: a column name stands twice in {shown_names(header)}. Rename one.")
    columns = [[cells[i] for cells in records] for i in range(len(header))]
    # Cells of text stay as written ("NA" and "42" are answers); numbers elsewhere (margin) become numbers.
    values = [c if key in TEXT_COLUMNS else _numbers(c) for key, c in zip(header, columns, strict=True)]
    return [dict(zip(header, cells, strict=True)) for cells in zip(*values, strict=True)]


def _numbers(cells: list[str]) -> list[Any]:
    try:
        return [float(cell) if cell else None for cell in cells]
    except ValueError:
        return list(cells)


def _dataset_from_rows(rows: list[Row]) -> Dataset:
    names = dict.fromkeys(key for row in rows for key in row)  # `Dataset.from_list` would keep the first row's only
    columns, types = {key: [row.get(key) for row in rows] for key in names}, Features()
    for key, values in columns.items():
        try:
            types.update(Dataset.from_dict({key: values}).features)
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
            # A number among texts stays one, for `_clean` to count. `datasets` alone would read the text "5" as 5.
            types[key], columns[key] = Json(), [canonical_json(value) for value in values]
    return Dataset.from_dict(columns, features=types)


def shown_names(names: Iterable[str]) -> str:
    """Column names for an error. What is no plain name may be a row, in a CSV file without a header."""
    return ", ".join(name if re.fullmatch(r"[\w./-]{1,40}", name) else f"({len(name)} characters)" for name in names)


def demonstrations(rows: Dataset, *, invalid_rows: str) -> Cleaned:
    """Columns `prompt, completion`. Of messages the last assistant turn is the completion, of a pair the chosen."""
    columns = _chosen_columns(rows, DEMONSTRATION_SETS, "Demonstrations")
    return _clean(rows.select_columns(list(columns)), _demonstration, invalid_rows)


def preferences(rows: Dataset, *, invalid_rows: str) -> Cleaned:
    """Columns `prompt, chosen, rejected`, and all others (`margin` among them); the prompt may be implicit."""
    _chosen_columns(rows, (PAIR,), "Preferences")
    return _clean(rows, _preference, invalid_rows)


def prompts(rows: Dataset, *, invalid_rows: str) -> Cleaned:
    """Column `prompt`, and all others but the answers; of answered rows that share a prompt, only the first."""
    columns = _chosen_columns(rows, PROMPT_SETS, "Prompts")
    unused = [key for key in rows.column_names if key in TEXT_COLUMNS and key not in columns]
    cleaned = _clean(rows.remove_columns(unused), _prompt_only, invalid_rows)
    if columns == ("prompt",):
        return cleaned  # here repeating a prompt is the author's choice
    first = {prompt_key(prompt): i for i, prompt in reversed(list(enumerate(cleaned.dataset["prompt"])))}
    return replace(cleaned, dataset=cleaned.dataset.select(sorted(first.values())))


def _chosen_columns(rows: Dataset, accepted: tuple[tuple[str, ...], ...], what: str) -> tuple[str, ...]:
    """The first accepted set that is all there, with `prompt` where a pair has one."""
    found = rows.column_names
    wanted = list(dict.fromkeys(["prompt", *(key for columns in accepted for key in columns)]))
    spelt = {key.strip().lower(): key for key in found if key not in TEXT_COLUMNS}
    close = {key: difflib.get_close_matches(key, spelt, n=1, cutoff=0.85) for key in wanted if key not in found}
    columns = next((columns for columns in accepted if set(columns) <= set(found)), None)
    if columns == PAIR and not close.get("prompt"):  # a misspelt prompt must not pass for an implicit one
        return ("prompt", *PAIR) if "prompt" in found else PAIR
    if columns is not None and columns != PAIR:
        return columns
    hints = [f"did you mean '{key}' for '{spelt[near[0]]}'?" for key, near in close.items() if near]
    needed = " or ".join(" + ".join(columns) for columns in accepted)
    raise UserError(
        f"{what} need the columns {needed}{' (with or without prompt)' if PAIR in accepted else ''}; the data has "
        f"{shown_names(found)}. Rename the columns{': ' + ' '.join(hints) if hints else '.'}"
    )


def _clean(rows: Dataset, read: Callable[[Row], Row], invalid_rows: str) -> Cleaned:
    if invalid_rows not in ("refuse", "drop"):
        raise UserError(f"data.invalid_rows={invalid_rows} is not known; type refuse or drop.")
    good: dict[int, Row] = {}
    bad: dict[int, str] = {}
    for index, row in enumerate(rows):
        try:
            good[index] = read(row)
        except _InvalidRow as error:
            bad[index] = str(error)
    first = f"; the first is row {min(bad) + 1}: {bad[min(bad)]}" if bad else ""
    if bad and invalid_rows == "refuse":
        remedy = "Mend them, or type data.invalid_rows=drop to leave such rows out (counted)."
        raise UserError(f"{len(bad)} of {len(rows)} rows cannot be used{first}. {remedy}")
    if not good:
        raise UserError(f"None of {len(rows)} rows can be used{first}. Give other data.")
    return Cleaned(_with_extras(rows, good), len(rows), len(bad), dict(Counter(bad.values())))


def _with_extras(rows: Dataset, good: dict[int, Row]) -> Dataset:
    """The texts of the good rows, then the other columns with the types that they had."""
    if len({type(row["prompt"]) for row in good.values()}) > 1:
        raise UserError("Some rows are text and others lists of messages. Write all in one way, or in two data sets.")
    texts = Dataset.from_dict({key: [row[key] for row in good.values()] for key in next(iter(good.values()))})
    extras = [key for key in rows.column_names if key not in TEXT_COLUMNS]
    kept = rows.select_columns(extras).select(list(good)) if extras else texts
    stored = kept.with_format("arrow")[:]  # as Arrow holds it: decoding and encoding again would change Json columns
    columns = {**texts[:], **{key: stored[key] for key in extras}}
    return Dataset.from_dict(columns, features=Features({**texts.features, **kept.features}))


def _prompt_only(row: Row) -> Row:
    if "messages" in row and is_messages(row["messages"]) and all(m["role"] != "assistant" for m in row["messages"]):
        return {"prompt": _checked(row["messages"], "messages")}  # a question that waits for its answer
    answered = {"completion", "messages", *PAIR} & set(row)
    return {"prompt": _demonstration(row)["prompt"] if answered else _checked(row["prompt"], "prompt")}


def _demonstration(row: Row) -> Row:
    if "chosen" in row:
        pair = _pair(row)
        return {"prompt": pair["prompt"], "completion": pair["chosen"]}
    if "completion" in row:
        prompt, completion = (_checked(row[key], key) for key in ("prompt", "completion"))
    else:
        messages = _checked(row["messages"], "messages")
        roles = [] if isinstance(messages, str) else [message["role"] for message in messages]
        if "assistant" not in roles:
            raise _InvalidRow("messages hold no assistant turn")
        last = len(roles) - 1 - roles[::-1].index("assistant")
        prompt, completion = messages[:last], messages[last : last + 1]
    return _fitting({"prompt": prompt, "completion": completion})


def _preference(row: Row) -> Row:
    margin = row.get("margin", 0.0)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
        raise _InvalidRow("margin is not a finite number")
    return _pair(row)


def _pair(row: Row) -> Row:
    chosen, rejected = (_checked(row[key], key) for key in PAIR)
    if chosen == rejected:
        raise _InvalidRow("chosen and rejected are identical")
    if type(chosen) is not type(rejected):
        raise _InvalidRow("one of chosen and rejected is text, the other messages")
    prompt = _checked(row["prompt"], "prompt") if "prompt" in row else None
    if isinstance(prompt, str) and not isinstance(chosen, str) and chosen[0]["role"] != "assistant":
        prompt = None  # text beside whole conversations, as in UltraFeedback: the conversations say more
    shared = 0
    if prompt is None:
        shared = implicit_prompt_length(chosen, rejected)
        prompt = chosen[:shared]
    elif not isinstance(prompt, str) and chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
        shared = len(prompt)  # the prompt's messages stand in front of both answers once more
    return _fitting({"prompt": prompt, "chosen": chosen[shared:], "rejected": rejected[shared:]})


def _fitting(row: Row) -> Row:
    """The row, if nothing in it is empty and its answers are what a model could say after its prompt."""
    for key, value in row.items():
        _checked(value, key)
        if isinstance(value, str) != isinstance(row["prompt"], str):
            raise _InvalidRow(f"one of prompt and {key} is text, the other messages")
        if key != "prompt" and not isinstance(value, str) and value[0]["role"] != "assistant":
            raise _InvalidRow(f"{key} does not begin with an assistant message")
    return row


def _checked(value: Any, key: str) -> Prompt:
    if value is None:
        raise _InvalidRow(f"{key} is missing")
    if value == [] or (isinstance(value, str) and not value.strip()):
        raise _InvalidRow(f"{key} is empty")
    if isinstance(value, str):
        return value
    if not is_messages(value):
        raise _InvalidRow(f"{key} is neither text nor a list of messages with role and content")
    if not value[-1]["content"].strip():
        raise _InvalidRow(f"{key} is empty")
    # Arrow fills a key that only some messages have with None; only what was written is kept.
    return [{key: text for key, text in message.items() if isinstance(text, str)} for message in value]
