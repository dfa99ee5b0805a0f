"""Which words of two answers are marked."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest

from rlhf_lab.report_page.differences import NOTHING_SHARED, SAME, TOO_LONG, difference
from tests.report_page.made_run import make_run, write_json
from tests.report_page.read_page import page_of


@pytest.mark.parametrize(
    ("before", "after", "marked_before", "marked_after"),
    [
        ("It is Apia.", "I think it is Apia.", "<del>It</del> is Apia.", "<ins>I think it</ins> is Apia."),
        ("a b c d", "a x c d", "a <del>b</del> c d", "a <ins>x</ins> c d"),
        ("a b c", "b c", "<del>a</del> b c", "b c"),
        ("Yes.", "Yes!", "Yes<del>.</del>", "Yes<ins>!</ins>"),
        ("one\n\ntwo  three", "one two three", "one\n\ntwo  three", "one two three"),  # white space is no word
        ("我爱北京", "我爱上海", "我爱<del>北京</del>", "我爱<ins>上海</ins>"),
        ("हिन्दी ठीक", "हिन्दी नहीं", "हिन्दी <del>ठीक</del>", "हिन्दी <ins>नहीं</ins>"),
        ("x & y", "x & <b>", "x &amp; <del>y</del>", "x &amp; <ins>&lt;b&gt;</ins>"),
    ],
)
def test_what_is_only_in_one_answer_is_marked(before: str, after: str, marked_before: str, marked_after: str) -> None:
    found = difference(before, after)
    assert (found.before, found.after, found.note) == (marked_before, marked_after, "")


@pytest.mark.parametrize(("before", "after"), [("a b  c\n", "c a b"), (" x", "y x z "), ("p, (q) r.", "p; q r")])
def test_without_the_marks_the_texts_are_as_they_were(before: str, after: str) -> None:
    found = difference(before, after)
    shown = [unescape(re.sub(r"</?(?:ins|del)>", "", side)) for side in (found.before, found.after)]
    assert shown == [before, after]


def test_nothing_is_marked_where_marks_would_tell_nothing() -> None:
    assert difference("a <b>", "a <b>").note == SAME
    assert difference("one two", "three four").note == NOTHING_SHARED
    assert difference("one two", "three four").after == "three four"
    assert difference("", "three").note == difference(" \n", "three").note == ""
    assert difference("", "").note == SAME


def test_texts_that_would_hold_up_the_page_are_not_marked() -> None:
    """10 kB in which each word could stand for each other one; ordinary words of that length are aligned."""
    same_word = difference("a " * 5000, "a b " * 2500)
    assert same_word.note == TOO_LONG
    assert "<ins>" not in same_word.after
    words = " ".join(f"word{i}" for i in range(1500))
    assert difference(words, words.replace("word700 ", "")).before.count("<del>word700</del>") == 1


def test_frequent_words_of_long_texts_are_aligned_too() -> None:
    """difflib would leave them out from 200 words on, unless it is told not to."""
    texts = [" ".join(f"the {letter}{i}" for i in range(150)) for letter in "ab"]
    assert difference(*texts).after.startswith("the <ins>b0</ins> the <ins>b1</ins>")


def test_samples_of_the_report_are_marked(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", completion="Bees make <b>wax</b>. Honey is good for all children."))
    assert "Underlined: words that the other answer does not have." in page.text
    tags = [tag for tag, _ in page.tags]
    assert tags.count("ins") == 10  # one in each sample: <b>wax</b>
    assert tags.count("del") == 20  # honey; of all ages, and bees are a kind of bird
    assert "<b>wax</b>" in page.text


def test_a_sample_without_an_answer_is_a_dash_and_without_marks(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    policy = json.loads((folder / "evaluation" / "policy.json").read_text())
    policy["samples"] = [{"prompt": "p", "sft": None, "ppo": "x"}, {"prompt": "q", "sft": "same", "ppo": "same"}]
    write_json(folder / "evaluation" / "policy.json", policy)
    page = page_of(folder)
    assert not {"ins", "del"} & {tag for tag, _ in page.tags}
    assert "SFT score – – PPO score – x" in page.text
    assert "the same text" in page.text
