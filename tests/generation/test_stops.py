"""What ends a completion: EOS ids, named tokens, texts of several tokens."""

import pytest
import torch

from rlhf_lab.errors import UserError
from rlhf_lab.generation.stops import Stops, stops_of
from tests.models.test_language import END, EOS, byte_tokenizer, tiny_gpt2


def test_every_eos_id_of_the_generation_config_ends_a_completion() -> None:
    model = tiny_gpt2()
    assert stops_of(model, byte_tokenizer()) == Stops((EOS,))
    model.generation_config.eos_token_id = [7, EOS, 5]
    assert stops_of(model, byte_tokenizer()) == Stops((EOS, 5, 7))
    model.generation_config.eos_token_id = 9
    assert stops_of(model, byte_tokenizer()) == Stops((EOS, 9))
    model.generation_config.eos_token_id = None
    assert stops_of(model, byte_tokenizer()) == Stops((EOS,))
    model.generation_config = None
    assert stops_of(model, byte_tokenizer()) == Stops((EOS,))


def test_named_stop_tokens_replace_the_eos_ids() -> None:
    tokenizer = byte_tokenizer()
    (newline,) = tokenizer.encode("\n")
    found = stops_of(tiny_gpt2(), tokenizer, ["\n", "<end>", 9, 9])
    assert found == Stops(tuple(sorted([newline, END, 9])))


def test_nothing_named_ends_nothing() -> None:
    stops = stops_of(tiny_gpt2(), byte_tokenizer(), [])
    assert not stops
    assert not stops.places(torch.tensor([[EOS, 5, EOS]])).any()


@pytest.mark.parametrize(
    ("text", "place"), [("Human: no", 5), ("nothing", None), ("Huma", None), ("HumHuman", 7), ("xx Human Human", 7)]
)
def test_a_text_ends_a_completion_where_it_is_complete(text: str, place: int | None) -> None:
    tokenizer = byte_tokenizer()
    stops = stops_of(tiny_gpt2(), tokenizer, ["Human", "<end>"])
    assert stops.texts == ("Human",)
    assert stops.token_ids == (END,)
    row = tokenizer.encode(text)
    expected = None if place is None else text.index("Human") + len("Human") - 1
    assert stops.first_place(row) == expected
    assert stops.first_place([*row[:3], END, *row[3:]]) == 3, "a token and a text: whichever comes first"


def test_the_first_place_of_every_row_is_that_of_the_row_alone() -> None:
    tokenizer = byte_tokenizer()
    stops = stops_of(tiny_gpt2(), tokenizer, ["ab", "bba"])
    rows = torch.tensor([tokenizer.encode(text) for text in ("xxabxx", "bbaxab", "aaaaaa", "xxxxab")])
    places = stops.places(rows)
    firsts = [int(row.nonzero()[0]) if row.any() else None for row in places]
    assert firsts == [stops.first_place(row.tolist()) for row in rows] == [3, 2, None, 5]


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        ("", "a stop token is an empty text"),
        (258, "token 258 is no id of this tokenizer, which knows 0 to 257"),
        (-1, "token -1 is no id"),
    ],
)
def test_what_the_tokenizer_can_not_write_is_refused(stop: int | str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        stops_of(tiny_gpt2(), byte_tokenizer(), [stop])
