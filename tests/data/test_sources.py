"""Rows from hostile files, and cleaned rows. No test prints a row."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

from rlhf_lab.data.sources import (
    Cleaned,
    demonstrations,
    load_from_hub,
    load_rows,
    preferences,
    prompts,
)
from rlhf_lab.data.splits import split_by_prompt
from rlhf_lab.errors import UserError

HARMLESS = Path(__file__).parents[2].parent / "shared/data/hh_rlhf_harmless"
SECRET = "SECRETWORD"  # stands in rows; no error may repeat it
ASK = {"role": "user", "content": "why?"}
YES = {"role": "assistant", "content": "Yes, since."}
NO = {"role": "assistant", "content": "Yes, but no."}


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(*rows: dict[str, Any]) -> Dataset:
    return Dataset.from_list(list(rows))


def all_of(cleaned: Cleaned) -> list[dict[str, Any]]:
    return cleaned.dataset.to_list()


# Files


def test_jsonl_with_bom_crlf_blank_end_unicode_and_ragged_keys(tmp_path: Path) -> None:
    text = lines({"prompt": "p\u2028ü"}, {"prompt": "猫 🙂", "extra": 1}).replace("\n", "\r\n") + "\r\n\n  \n"
    rows = load_rows(write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + text.encode()))
    assert rows.to_list() == [{"prompt": "p\u2028ü", "extra": None}, {"prompt": "猫 🙂", "extra": 1}]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ('{"prompt": "SECRETWORD"', "broken JSON"),
        ('{"prompt": SECRETWORD}', "broken JSON"),
        ('{"prompt": "SECRETWORD', "broken JSON"),
        ('["SECRETWORD"]', "not an object"),
        ('"SECRETWORD"', "not an object"),
        ('{"prompt": "SECRETWORD \\ud83d"}', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        (b'{"prompt": "SECRETWORD \xff"}', "not UTF-8"),
    ],
)
def test_broken_line_is_named_by_number_and_not_quoted(tmp_path: Path, broken: str | bytes, says: str) -> None:
    raw = broken if isinstance(broken, bytes) else broken.encode()
    source = write(tmp_path / "a.jsonl", b'{"prompt": "fine"}\n\n' + raw + b'\n{"prompt": "fine"}\n')
    with pytest.raises(UserError, match=rf"a\.jsonl:3: .*{says}") as caught:
        load_rows(source)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ""),
        ("a.jsonl", "\ufeff\n\n"),
        ("a.json", "[]"),
        ("a.json", ""),
        ("a.csv", ""),
        ("a.csv", "prompt\n"),
    ],
)
def test_empty_file_is_refused(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(UserError, match="no rows"):
        load_rows(write(tmp_path / name, content))


def test_json_list_json_lines_and_gzip_are_the_same_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "margin": 0.5}, {"prompt": "b", "margin": None}]
    sources = [
        write(tmp_path / "list.json", "\ufeff\n" + json.dumps(rows, indent=2)),
        write(tmp_path / "lines.json", lines(*rows)),
        write(tmp_path / "lines.jsonl.gz", gzip.compress(lines(*rows).encode())),
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for source in [*sources, str(tmp_path / "a.parquet")]:
        assert load_rows(source).to_list() == rows


def test_broken_json_list_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json:3: broken JSON") as caught:
        load_rows(write(tmp_path / "a.json", '[\n{"prompt": "SECRETWORD"},\n{"prompt" "SECRETWORD"}\n]'))
    assert SECRET not in str(caught.value)
    with pytest.raises(UserError, match="not an object"):
        load_rows(write(tmp_path / "b.json", '["SECRETWORD"]'))


def test_csv_keeps_text_as_written_and_reads_numbers(tmp_path: Path) -> None:
    long = "1" * 200_000
    text = f'\ufeffprompt,completion,margin,note\r\nNA,42,0.5,n\r\n"a ""b"",\r\nc",{long},,7\r\n\r\n'
    assert load_rows(write(tmp_path / "a.csv", text)).to_list() == [
        {"prompt": "NA", "completion": "42", "margin": 0.5, "note": "n"},
        {"prompt": 'a "b",\r\nc', "completion": long, "margin": None, "note": "7"},
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt,completion\na,b\nSECRETWORD,b,c\n", r"a\.csv:3: 3 cells under 2"),
        ("prompt,completion\na,b\nSECRETWORD\n", r"a\.csv:3: 1 cells under 2"),
        ('prompt,completion\na,b\n"SECRETWORD,b\n', r"a\.csv:\d: broken CSV"),
        ("prompt,prompt\nSECRETWORD,b\n", "stands twice"),
    ],
)
def test_broken_csv_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load_rows(write(tmp_path / "a.csv", text))
    assert SECRET not in str(caught.value)


def test_csv_without_header_does_not_show_its_first_row(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path / "a.csv", f"a {SECRET} here,b\nc,d\n"))
    with pytest.raises(UserError, match=r"need the columns chosen \+ rejected") as caught:
        preferences(rows, invalid_rows="drop")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz"])
def test_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="not what its name says"):
        load_rows(write(tmp_path / name, "no such thing"))


def test_mixed_types_keep_every_value(tmp_path: Path) -> None:
    """Text that looks like JSON stays text, also in a column with numbers and through cleaning."""
    values = ["5", 1.5, "null", None, "[1]", [1], {"a": "5"}, True]
    rows = load_rows(write(tmp_path / "a.jsonl", lines(*({"prompt": "p", "extra": value} for value in values))))
    assert rows["extra"][:] == values
    assert prompts(rows, invalid_rows="refuse").dataset["extra"][:] == values
    rows = load_rows(write(tmp_path / "b.jsonl", lines({"prompt": "42"}, {"prompt": 42}, {"prompt": "null"})))
    assert prompts(rows, invalid_rows="drop").dataset["prompt"][:] == ["42", "null"]


def test_number_beyond_64_bits_does_not_stop_the_rest(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path / "a.jsonl", lines({"prompt": "a", "n": 2**70}, {"prompt": "b", "n": 1})))
    assert rows["prompt"][:] == ["a", "b"]
    assert prompts(rows, invalid_rows="refuse").dataset["n"][1] == 1


# Folders and names


def test_folder_gives_the_files_of_the_split(tmp_path: Path) -> None:
    for name in ("train-00000.jsonl", "train-00001.jsonl", "test.jsonl", "val.jsonl", "harmless.jsonl"):
        write(tmp_path / name, lines({"prompt": name}))
    write(tmp_path / "notes.txt", "no data")
    assert load_rows(str(tmp_path))["prompt"][:] == ["train-00000.jsonl", "train-00001.jsonl"]
    assert load_rows(str(tmp_path), split="test")["prompt"][:] == ["test.jsonl"]
    assert load_rows(str(tmp_path), split="validation")["prompt"][:] == ["val.jsonl"]
    assert load_rows(str(tmp_path), split="harmless")["prompt"][:] == ["harmless.jsonl"]
    with pytest.raises(UserError, match=r"no split extra; it holds test, train, validation"):
        load_rows(str(tmp_path), split="extra")


def test_folder_with_one_file_or_with_parts(tmp_path: Path) -> None:
    write(tmp_path / "one/test.jsonl", lines({"prompt": "t"}))
    write(tmp_path / "one/dataset_info.json", "{}")
    assert len(load_rows(str(tmp_path / "one"))) == 1
    with pytest.raises(UserError, match="no split validation; it holds test"):
        load_rows(str(tmp_path / "one"), split="validation")
    write(tmp_path / "two/b.jsonl", lines({"prompt": "b"}))
    write(tmp_path / "two/a.json", lines({"prompt": "a"}))
    assert load_rows(str(tmp_path / "two"))["prompt"][:] == ["a", "b"]
    assert load_rows(str(tmp_path), data_dir="two")["prompt"][:] == ["a", "b"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no data file"):
        load_rows(str(tmp_path / "none"))


def test_flags_that_mean_nothing_here_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", lines({"prompt": "a"}))
    with pytest.raises(UserError, match="leave name out"):
        load_rows(source, name="x")
    with pytest.raises(UserError, match="data_dir too"):
        load_rows(source, data_dir="x")
    with pytest.raises(UserError, match="ending"):
        load_rows(write(tmp_path / "a.txt", "x"))


@pytest.mark.parametrize("source", ["missing.jsonl", "./missing", "/no/such/folder", "a/b/c", "~/no such"])
def test_missing_path_is_not_looked_for_on_the_hub(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_lab.data.sources.load_dataset", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="no file or folder"):
        load_rows(source)


@pytest.mark.parametrize("source", ["nobody/no-such-set", "nosuchset"])
def test_hub_out_of_reach_names_the_embedded_default(source: str) -> None:
    with pytest.raises(UserError, match=r"neither a file .*`rlhf-lab run`.*configs/assistant\.yaml"):
        load_rows(source)


def test_hub_path_passes_everything_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "set/part/test.jsonl", lines({"prompt": "t"}))
    write(tmp_path / "set/test.jsonl", lines({"prompt": "not this one"}))
    source = str(tmp_path / "set")
    assert load_from_hub(source, data_dir="part", split="test", name=None).to_list() == [{"prompt": "t"}]
    with pytest.raises(UserError, match="Unknown split"):
        load_from_hub(source, data_dir="part", split="extra", name=None)
    with pytest.raises(UserError, match="BuilderConfig 'x' not found"):
        load_from_hub(source, data_dir=None, split="test", name="x")


def test_hub_error_about_the_data_does_not_quote_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "set/train.csv", f"prompt\na\n{SECRET},b,c\n")
    with pytest.raises(UserError) as caught:
        load_from_hub(str(tmp_path / "set"), data_dir=None, split="train", name=None)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# Cleaning


def test_demonstrations_from_every_accepted_shape() -> None:
    assert all_of(demonstrations(table({"prompt": "p", "completion": "c", "n": 1}), invalid_rows="refuse")) == [
        {"prompt": "p", "completion": "c"}
    ]
    expected = [{"prompt": [ASK, NO, ASK], "completion": [YES]}]
    for messages in ([ASK, NO, ASK, YES], [ASK, NO, ASK, YES, ASK]):
        assert all_of(demonstrations(table({"messages": messages}), invalid_rows="refuse")) == expected
    pair = {"chosen": "Hi\n\nAssistant: yes", "rejected": "Hi\n\nAssistant: no"}
    assert all_of(demonstrations(table(pair), invalid_rows="refuse")) == [
        {"prompt": "Hi\n\nAssistant:", "completion": " yes"}
    ]


def test_implicit_transcripts_do_not_lend_shared_words_to_the_prompt() -> None:
    start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    cleaned = preferences(table({"chosen": start + " Yes, do", "rejected": start + " Yes, no"}), invalid_rows="refuse")
    assert all_of(cleaned) == [{"prompt": start, "chosen": " Yes, do", "rejected": " Yes, no"}]


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [ASK, YES], "rejected": [ASK, NO]},
        {"prompt": [ASK], "chosen": [YES], "rejected": [NO]},
        {"prompt": [ASK], "chosen": [ASK, YES], "rejected": [ASK, NO]},
        {"prompt": "why?", "chosen": [ASK, YES], "rejected": [ASK, NO]},
    ],
)
def test_conversational_preferences_explicit_and_implicit(row: dict[str, Any]) -> None:
    cleaned = preferences(table({**row, "margin": 2, "source": "x", "messages": [ASK]}), invalid_rows="refuse")
    assert all_of(cleaned) == [{"prompt": [ASK], "chosen": [YES], "rejected": [NO], "margin": 2, "source": "x"}]


def test_extra_columns_keep_their_rows_and_types() -> None:
    rows = table(
        *({"prompt": p, "chosen": "a", "rejected": "b", "margin": m} for p, m in (("x", 1), ("", 2), ("y", 3)))
    )
    rows = rows.cast_column("margin", datasets.Value("float32"))
    rows = rows.add_column("kind", [0, 1, 1], feature=datasets.ClassLabel(names=["no", "yes"]))
    cleaned = preferences(rows, invalid_rows="drop")
    assert cleaned.dataset["margin"][:] == [1.0, 3.0]
    assert cleaned.dataset.features["margin"].dtype == "float32"
    assert cleaned.dataset.features["kind"].int2str(cleaned.dataset["kind"][:]) == ["no", "yes"]


GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": None}, "prompt is missing"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n\t"}, "prompt is empty"),
        ({"prompt": 5}, "prompt is neither text nor"),
        ({"prompt": []}, "prompt is empty"),
        ({"chosen": None}, "chosen is missing"),
        ({"chosen": " "}, "chosen is empty"),
        ({"rejected": ""}, "rejected is empty"),
        ({"rejected": 5.5}, "rejected is neither text nor"),
        ({"rejected": "a"}, "identical"),
        ({"chosen": [YES]}, "one of chosen and rejected is text"),
        ({"chosen": [YES], "rejected": [NO], "prompt": "p"}, "one of prompt and chosen is text"),
        ({"chosen": [YES], "rejected": [{"role": "assistant", "content": " "}], "prompt": [ASK]}, "rejected is empty"),
        ({"chosen": [YES], "rejected": [{"role": "assistant"}], "prompt": [ASK]}, "rejected is neither text nor"),
        ({"chosen": [YES], "rejected": [{**ASK, "content": "x"}], "prompt": [ASK]}, "does not begin with an assistant"),
        ({"margin": "5"}, "margin is not"),
        ({"margin": None}, "margin is not"),
    ],
)
def test_invalid_rows_are_counted_or_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    """Through a file, so that mixed types take the way that a user's do."""
    good = {**GOOD, "margin": 1.0}
    rows = load_rows(write(tmp_path / "a.jsonl", lines(good, {**good, **change}, good, {**good, **change})))
    cleaned = preferences(rows, invalid_rows="drop")
    assert (cleaned.num_rows, cleaned.num_invalid, len(cleaned.dataset)) == (4, 2, 2)
    assert [(reason in key, count) for key, count in cleaned.reasons.items()] == [(True, 2)]
    with pytest.raises(UserError, match=rf"^2 of 4 rows .* row 2: .*{reason}.*type data\.invalid_rows=drop"):
        preferences(rows, invalid_rows="refuse")


def test_implicit_pairs_without_a_prompt_or_an_answer_are_invalid() -> None:
    bad = [
        ("one", "other", "prompt is empty"),
        ("Hi\n\nAssistant:", "Hi\n\nAssistant: yes", "chosen is empty"),
        ("The sky is", "The sky is blue", "chosen is empty"),
    ]
    for chosen, rejected, reason in bad:
        rows = table({"chosen": "Hi you", "rejected": "Hi me"}, {"chosen": chosen, "rejected": rejected})
        assert preferences(rows, invalid_rows="drop").reasons == {reason: 1}
    rows = table({"chosen": [ASK, YES], "rejected": [ASK, NO]}, {"chosen": [ASK, YES], "rejected": [ASK, YES, ASK]})
    assert preferences(rows, invalid_rows="drop").reasons == {"chosen is empty": 1}


def test_nothing_left_and_unknown_policy_are_refused() -> None:
    with pytest.raises(UserError, match="None of 1 rows"):
        demonstrations(table({"prompt": SECRET, "completion": ""}), invalid_rows="drop")
    with pytest.raises(UserError, match="refuse or drop"):
        demonstrations(table({"prompt": "p", "completion": "c"}), invalid_rows="ignore")


def test_rows_of_both_kinds_are_refused(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path / "a.jsonl", lines({"prompt": SECRET}, {"prompt": [ASK]})))
    with pytest.raises(UserError, match="in one way") as caught:
        prompts(rows, invalid_rows="refuse")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "row", "hint"),
    [
        (preferences, {"prompt": SECRET, "choosen": "a", "rejected": "b"}, "did you mean 'chosen' for 'choosen'?"),
        (preferences, {"promt": SECRET, "chosen": "a", "rejected": "b"}, "did you mean 'prompt' for 'promt'?"),
        (demonstrations, {"Prompt": SECRET, "completions": "a"}, "did you mean 'completion' for 'completions'?"),
        (prompts, {"question": SECRET}, "need the columns prompt + completion or messages or chosen + rejected"),
    ],
)
def test_missing_or_misspelt_column(read: Any, row: dict[str, str], hint: str) -> None:
    with pytest.raises(UserError) as caught:
        read(table(row), invalid_rows="drop")
    text = str(caught.value)
    assert hint in text
    assert f"the data has {', '.join(row)}." in text
    assert SECRET not in text


def test_prompts_keep_extras_and_drop_only_taken_duplicates() -> None:
    own = prompts(table({"prompt": "p", "gold": 1}, {"prompt": "p", "gold": 2}), invalid_rows="refuse")
    assert all_of(own) == [{"prompt": "p", "gold": 1}, {"prompt": "p", "gold": 2}]
    answered = [
        {"prompt": p, "chosen": c, "rejected": "r", "gold": n}
        for n, (p, c) in enumerate(zip("pqp", "aab", strict=True))
    ]
    taken = prompts(table(*answered), invalid_rows="refuse")
    assert all_of(taken) == [{"prompt": "p", "gold": 0}, {"prompt": "q", "gold": 1}]
    assert (taken.num_rows, taken.num_invalid) == (3, 0)
    waiting = {**ASK, "content": "and?"}
    talks = table({"messages": [ASK, YES]}, {"messages": [waiting]}, {"messages": [YES, ASK, NO]})
    asked = prompts(talks, invalid_rows="refuse")
    assert all_of(asked) == [{"prompt": [ASK]}, {"prompt": [waiting]}, {"prompt": [YES, ASK]}]


def test_a_split_of_a_single_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "p"}\n')
    with pytest.raises(UserError, match=r"is one file, and split=test chooses.*Leave split out"):
        load_rows(str(file), split="test")


@pytest.mark.skipif(not HARMLESS.is_dir(), reason=f"{HARMLESS} is not here: 2,312 pairs of Anthropic/hh-rlhf")
def test_published_transcripts() -> None:
    rows = load_rows(str(HARMLESS))
    cleaned = preferences(rows, invalid_rows="drop")
    assert (cleaned.num_rows, cleaned.num_invalid, len(cleaned.dataset)) == (2312, 4, 2308)
    assert sum(cleaned.reasons.values()) == 4
    ends = sum(prompt.endswith("\n\nAssistant:") for prompt in cleaned.dataset["prompt"])
    whole = {(row["chosen"], row["rejected"]) for row in rows}
    joined = {(r["prompt"] + r["chosen"], r["prompt"] + r["rejected"]) for r in cleaned.dataset}
    later = sum("\n\nHuman:" in r["chosen"] + r["rejected"] for r in cleaned.dataset)
    counts = (ends, len(joined - whole), later)  # compared as numbers, so that a failure prints no row
    assert counts == (2308, 0, 0)
    train, held = split_by_prompt(cleaned.dataset, heldout=0.1, seed=0)
    assert len(set(train["prompt"]) & set(held["prompt"])) == 0
    with pytest.raises(UserError, match=r"^4 of 2312 rows"):
        preferences(rows, invalid_rows="refuse")
