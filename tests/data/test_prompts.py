"""The border between prompt and completion: prefixes, BOS, EOS, chat templates, and prompts that are too long."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rlhf_lab.data.prompts import (
    completion_text,
    encode_completion,
    encode_prompt,
    fit_prompts,
    implicit_prompt_length,
    prompt_key,
    prompt_text,
)
from rlhf_lab.errors import UserError

BOS, EOS = 0, 1
CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
QUESTION = [{"role": "user", "content": "why?"}]
ANSWER = [{"role": "assistant", "content": " since "}]


def tiny_tokenizer(single: str = "$A", chat_template: str | None = None, eos: str | None = "</s>") -> Any:
    """A byte-level BPE built here; `single` says which tokens it sets around a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = ["the sky is blue and the sea is green"] * 5
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos)
    wrapped.chat_template = chat_template
    return wrapped


def own_ids(text: str) -> list[int]:
    return tiny_tokenizer()(text)["input_ids"]


@pytest.mark.parametrize(
    ("single", "front"),
    [("$A", []), ("<s> $A", [BOS]), ("$A </s>", []), ("<s> $A </s>", [BOS])],
)
def test_prompt_keeps_bos_and_never_ends_in_eos(single: str, front: list[int]) -> None:
    assert encode_prompt(tiny_tokenizer(single), "the sky") == front + own_ids("the sky")


def test_bos_that_is_also_eos_stays_in_front_and_goes_at_the_end() -> None:
    before, after = tiny_tokenizer("</s> $A"), tiny_tokenizer("$A </s>")
    before.bos_token = after.bos_token = "</s>"
    assert encode_prompt(before, "the sky") == [EOS, *own_ids("the sky")]
    assert encode_prompt(after, "the sky") == own_ids("the sky")


def test_bos_written_in_the_text_is_not_doubled() -> None:
    assert encode_prompt(tiny_tokenizer("<s> $A"), "<s>the sky") == [BOS, *own_ids("the sky")]


def test_eos_written_at_the_end_of_a_prompt_is_taken_off() -> None:
    assert encode_prompt(tiny_tokenizer(), "the sky</s></s>") == own_ids("the sky")


def test_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="no tokens"):
        encode_prompt(tiny_tokenizer(), "")


@pytest.mark.parametrize("completion", [" is blue", " is blue</s>", " is blue</s></s>", " is blue</s>\n"])
def test_text_completion_is_its_own_ids_and_one_eos(completion: str) -> None:
    tokenizer = tiny_tokenizer("<s> $A </s>")
    assert encode_completion(tokenizer, "the sky", completion) == [*own_ids(" is blue"), EOS]


def test_completion_keeps_its_own_whitespace() -> None:
    assert encode_completion(tiny_tokenizer(), "the sky", " is \n") == [*own_ids(" is \n"), EOS]


def test_no_token_straddles_the_border() -> None:
    """ "th" + "e": together one token, which neither side may swallow."""
    tokenizer = tiny_tokenizer("<s> $A")
    assert len(own_ids("the")) < len(own_ids("th")) + len(own_ids("e"))
    ids = encode_prompt(tokenizer, "th") + encode_completion(tokenizer, "th", "e")
    assert ids == [BOS, *own_ids("th"), *own_ids("e"), EOS]


def test_messages_meet_where_the_generation_prompt_ends() -> None:
    tokenizer = tiny_tokenizer("<s> $A </s>", CHATML)
    assert prompt_text(tokenizer, QUESTION) == "<|user|>why?</s>\n<|assistant|>"
    assert completion_text(tokenizer, QUESTION, ANSWER) == " since "
    assert encode_prompt(tokenizer, QUESTION) == tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_dict=False
    )
    # The newline that the template writes after its EOS is gone, the answer's own space is not.
    assert encode_completion(tokenizer, QUESTION, ANSWER) == [*own_ids(" since "), EOS]


def test_template_with_another_end_mark_still_ends_with_eos() -> None:
    template = CHATML.replace("{{ eos_token }}", "<end>")
    ids = encode_completion(tiny_tokenizer(chat_template=template), QUESTION, ANSWER)
    assert ids == [*own_ids(" since <end>\n"), EOS]


def test_none_that_arrow_fills_in_does_not_reach_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recent releases of transformers see to this themselves; the test looks at what we hand over."""
    tokenizer = tiny_tokenizer(chat_template=CHATML)
    monkeypatch.setattr(type(tokenizer), "apply_chat_template", lambda _, messages, **k: str([*messages[0]]))
    messages: Any = [{"role": "user", "content": "why?", "name": None}]
    assert prompt_text(tokenizer, messages) == "['role', 'content']"


def test_messages_without_a_template_name_the_config_key() -> None:
    with pytest.raises(UserError, match=r"model\.chat_template=FILE"):
        encode_prompt(tiny_tokenizer(), QUESTION)


def test_template_that_rewrites_the_prompt_is_refused() -> None:
    template = CHATML.replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")
    tokenizer = tiny_tokenizer(chat_template=template)
    with pytest.raises(UserError, match=r"no border.*model\.chat_template"):
        encode_completion(tokenizer, QUESTION, ANSWER)


def test_template_errors_keep_the_data_to_themselves() -> None:
    plain = tiny_tokenizer(chat_template="{{ raise_exception('roles must alternate') }}")
    quoting = tiny_tokenizer(chat_template="{{ raise_exception('bad: ' + messages[0].content) }}")
    with pytest.raises(UserError, match="roles must alternate"):
        prompt_text(plain, QUESTION)
    with pytest.raises(UserError) as caught:
        prompt_text(quoting, QUESTION)
    assert "why?" not in str(caught.value)
    assert "user" in str(caught.value)


def test_mixed_and_wrong_kinds_are_refused() -> None:
    tokenizer = tiny_tokenizer(chat_template=CHATML)
    with pytest.raises(UserError, match="prompt is text and the completion is messages"):
        encode_completion(tokenizer, "why?", ANSWER)
    wrong: list[Any] = [None, 5, [], ["why?"], [{"role": "user"}], [{"role": "user", "content": None}]]
    for value in wrong:
        with pytest.raises(UserError, match="It must be text, or a list"):
            encode_prompt(tokenizer, value)


def test_tokenizer_that_always_sets_eos_still_gives_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some set it whatever `add_special_tokens` says."""
    tokenizer = tiny_tokenizer()
    monkeypatch.setattr(type(tokenizer), "__call__", lambda *a, **k: {"input_ids": [7, 8, EOS]})
    assert encode_completion(tokenizer, "the sky", " is") == [7, 8, EOS]
    assert encode_prompt(tokenizer, "the sky") == [7, 8]


def test_tokenizer_without_eos_is_refused() -> None:
    with pytest.raises(UserError, match="no EOS token"):
        encode_completion(tiny_tokenizer(eos=None), "the sky", " is")


def test_fit_truncates_on_the_left() -> None:
    fitted = fit_prompts([[1, 2, 3], [4], [5, 6]], max_length=2, long_prompts="truncate")
    assert (fitted.prompt_ids, fitted.kept, fitted.num_long) == ([[2, 3], [4], [5, 6]], [0, 1, 2], 1)


def test_fit_drops_and_says_which_are_kept() -> None:
    fitted = fit_prompts([[1, 2, 3], [4], [5, 6]], max_length=2, long_prompts="drop")
    assert (fitted.prompt_ids, fitted.kept, fitted.num_long) == ([[4], [5, 6]], [1, 2], 1)


def test_fit_refuses_with_count_longest_and_remedy() -> None:
    with pytest.raises(UserError, match=r"^2 of 3 .* longest has 7.*ppo\.max_prompt_length=7 or data\.long_prompts=tr"):
        fit_prompts([[1] * 7, [2], [3] * 4], max_length=3, long_prompts="refuse")
    assert fit_prompts([[2], [3]], max_length=1, long_prompts="refuse").num_long == 0


def test_fit_refuses_what_leaves_nothing_or_means_nothing() -> None:
    with pytest.raises(UserError, match="leaves none"):
        fit_prompts([[1, 2]], max_length=1, long_prompts="drop")
    with pytest.raises(UserError, match="truncate, refuse or drop"):
        fit_prompts([[1]], max_length=1, long_prompts="cut")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="max_prompt_length"):
        fit_prompts([[1]], max_length=0, long_prompts="truncate")


@pytest.mark.parametrize(
    ("one", "other", "prompt"),
    [
        ("\n\nHuman: hi\n\nAssistant: Yes, a", "\n\nHuman: hi\n\nAssistant: Yes, b", "\n\nHuman: hi\n\nAssistant:"),
        ("H\n\nAssistant: a\n\nHuman: b\n\nAssistant: c", "H\n\nAssistant: a\n\nHuman: b\n\nAssistant:", None),
        ("The sky is green", "The sky is grey", "The sky is"),
        ("The sky is", "The sky is blue", "The sky is"),
        ("Say:\n\nyes", "Say:\n\nno", "Say:"),
        ("The skyline", "The sky", "The"),
        ("one", "other", ""),
    ],
)
def test_implicit_prompt_of_text(one: str, other: str, prompt: str | None) -> None:
    expected = "H\n\nAssistant: a\n\nHuman: b\n\nAssistant:" if prompt is None else prompt
    assert one[: implicit_prompt_length(one, other)] == expected
    assert implicit_prompt_length(other, one) == len(expected)


def test_prompt_key_ignores_key_order_and_arrow_padding() -> None:
    padded: Any = [{"content": "why?", "name": None, "role": "user"}]
    assert prompt_key(padded) == prompt_key(QUESTION)
    assert prompt_key("why?") != prompt_key(QUESTION)
