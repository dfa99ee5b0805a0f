"""Tokenised once: what is kept is read again, what would be stale is not, and half a folder is none."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tokenizers import normalizers

from rlhf_lab.data.lengths import Encoded
from rlhf_lab.stages.sft import encode_demonstrations
from rlhf_lab.stages.token_cache import FOLDER, encoded_once, forget_tokens
from tests.tiny_ppo import TOKENS, tiny_tokenizer

ROWS = Dataset.from_list([{"prompt": "ab", "completion": "cd"}, {"prompt": "abcdab", "completion": "b"}])


class Tokeniser:
    """Counts how often rows are tokenised."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self, folder: Path, rows: Dataset = ROWS, tokenizer: Any = None, max_length: int = 6, **more: Any
    ) -> Encoded:
        def encode(*given: Any, **settings: Any) -> Encoded:
            self.calls += 1
            return encode_demonstrations(*given, **settings)

        return encoded_once(folder, encode, rows, tokenizer or tiny_tokenizer(), max_length=max_length, **more)


def test_the_same_rows_are_tokenised_once_and_read_back_as_they_were(tmp_path: Path) -> None:
    tokenise = Tokeniser()
    made, read = tokenise(tmp_path), tokenise(tmp_path)
    assert tokenise.calls == 1
    assert read.rows.to_list() == made.rows.to_list()
    assert read.fit == made.fit
    assert read.fit.num_long == 1


def other_normalizer() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def other_template() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages }}"
    return tokenizer


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": ROWS.select([1, 0])},
        {"max_length": 9},
        {"long_prompts": "drop"},
        {"tokenizer": tiny_tokenizer(tokens=[*TOKENS, "?"])},
        {"tokenizer": other_normalizer()},
        {"tokenizer": other_template()},
    ],
    ids=["rows in another order", "length", "long prompts", "vocabulary", "normalizer", "template"],
)
def test_whatever_decides_the_tokens_makes_them_anew(tmp_path: Path, changed: dict[str, Any]) -> None:
    tokenise = Tokeniser()
    tokenise(tmp_path)
    found = tokenise(tmp_path, **changed)
    assert tokenise.calls == 2
    assert found.rows.to_list() == Tokeniser()(tmp_path / "elsewhere", **changed).rows.to_list()


@pytest.mark.parametrize("broken", ["fit.json", "rows/state.json", "rows/data-00000-of-00001.arrow"])
def test_what_was_cut_short_is_made_anew(tmp_path: Path, broken: str) -> None:
    tokenise = Tokeniser()
    made = tokenise(tmp_path)
    (path,) = (tmp_path / FOLDER).glob(f"*/{broken}")
    path.write_bytes(path.read_bytes()[:10])
    assert tokenise(tmp_path).rows.to_list() == made.rows.to_list()
    assert tokenise.calls == 2
    tokenise(tmp_path)
    assert tokenise.calls == 2


def test_kept_rows_can_be_used_after_they_were_removed(tmp_path: Path) -> None:
    tokenise = Tokeniser()
    made = tokenise(tmp_path)
    read = tokenise(tmp_path)
    forget_tokens(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert read.rows.to_list() == made.rows.to_list()
    forget_tokens(tmp_path)


def test_a_tokenizer_that_does_not_say_what_it_is_keeps_nothing(tmp_path: Path) -> None:
    class Nameless:
        backend_tokenizer = None

    tokenise = Tokeniser()
    for _ in range(2):
        encoded_once(tmp_path, lambda *given: tokenise(tmp_path / "inner"), ROWS, Nameless())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [tmp_path / "inner"]
