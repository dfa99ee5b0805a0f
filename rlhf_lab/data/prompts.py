"""Where a prompt ends and a completion begins: the one template, the same in SFT, reward model, PPO and evaluation.

A prompt is plain text or a list of messages. Its ids never depend on the answer, and an answer's ids are made from its
own text, so the prompt's ids are always a prefix of the whole and no token straddles the border. Every completion ends
with exactly one EOS, set by its id: a model that never saw EOS in training never stops.

Left out: padding (`batches.py`) and reading files (`sources.py`). With plain text the template is the text itself.

    ids = encode_prompt(tokenizer, "Human: hi\\n\\nAssistant:") + encode_completion(tokenizer, prompt, " Hello.")
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rlhf_lab.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Prompt: TypeAlias = str | list[dict[str, str]]
Completion: TypeAlias = str | list[dict[str, str]]

LAST_TURN = "\n\nAssistant:"  # where the answer begins in transcripts such as those of hh-rlhf


@dataclass(frozen=True)
class FittedPrompts:
    """Prompts that fit, and which of the given ones they are."""

    prompt_ids: list[list[int]]  # as many as `kept`
    kept: list[int]  # indices into the prompts that were given, ascending
    num_long: int  # how many were longer than the limit, whatever was done with them


def is_messages(value: Any) -> bool:
    """True for a non-empty list of messages, each with a `role` and a `content` of text."""
    if not isinstance(value, list) or not value:
        return False
    return all(
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in value
    )


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The text that the model continues: plain text as it is, messages through the chat template."""
    _check_kind(prompt, "prompt")
    if isinstance(prompt, str):
        return prompt
    return _render(tokenizer, prompt, add_generation_prompt=True)


def conversation_text(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    """A conversation that is over, through the chat template."""
    _check_kind(messages, "conversation")
    return _render(tokenizer, messages, add_generation_prompt=False)


def completion_text(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, completion: Completion) -> str:
    """The text that follows `prompt_text`, without the EOS at its end (`encode_completion` sets that by id)."""
    _check_kind(prompt, "prompt")
    _check_kind(completion, "completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return _without_final_eos(tokenizer, completion)
    if isinstance(prompt, str) or isinstance(completion, str):
        raise UserError(
            f"The prompt is {_kind(prompt)} and the completion is {_kind(completion)}. "
            "Give both as text, or both as lists of messages."
        )
    before = prompt_text(tokenizer, prompt)
    whole = _render(tokenizer, prompt + completion, add_generation_prompt=False)
    if not whole.startswith(before):
        # Cutting at the common prefix instead would train on answers that PPO's prompts never lead to.
        raise UserError(
            "The chat template writes the prompt in one way when an answer follows and in another when the model is to "
            "answer, so there is no border between them. It must write prompt + answer as the prompt (with "
            "add_generation_prompt) followed by the answer, which must be an assistant message. "
            "Type model.chat_template=FILE, a jinja file that does so."
        )
    return _without_final_eos(tokenizer, whole[len(before) :])


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """The prompt's ids: with BOS where the tokenizer sets one (or the chat template writes one), never ending in an
    EOS that the tokenizer appends, which would tell the model that the text is over before it speaks."""
    text = prompt_text(tokenizer, prompt)
    plain = _token_ids(tokenizer, text, special=False)
    ids = plain if not isinstance(prompt, str) else _with_bos(tokenizer, text, plain)
    if not ids:
        raise UserError("A prompt has no tokens. Give it some text, or use a tokenizer that begins with a BOS token.")
    return ids


def encode_completion(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, completion: Completion) -> list[int]:
    """The ids that follow `encode_prompt(tokenizer, prompt)`: the completion's own, then exactly one EOS."""
    eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError("The tokenizer has no EOS token, so an answer could never end. Set tokenizer.eos_token first.")
    ids = _token_ids(tokenizer, completion_text(tokenizer, prompt, completion), special=False)
    while ids and ids[-1] == eos:
        ids.pop()
    return [*ids, eos]


def fit_prompts(
    prompt_ids: list[list[int]], *, max_length: int, long_prompts: Literal["truncate", "refuse", "drop"]
) -> FittedPrompts:
    """Make every prompt at most `max_length` tokens long.

    "truncate" cuts on the left, since the question that the answer must fit stands at the end; "drop" leaves long
    prompts out; "refuse" raises.
    """
    if max_length < 1:
        raise UserError(f"The longest prompt allowed is {max_length} tokens; type ppo.max_prompt_length=1 or more.")
    if long_prompts not in ("truncate", "refuse", "drop"):
        raise UserError(f"data.long_prompts={long_prompts} is not known; type truncate, refuse or drop.")
    longest = max(map(len, prompt_ids), default=0)
    num_long = sum(len(ids) > max_length for ids in prompt_ids)
    remedy = f"Type ppo.max_prompt_length={longest} or data.long_prompts=truncate (keeps the end of each prompt)"
    if num_long and long_prompts == "refuse":
        raise UserError(
            f"{num_long} of {len(prompt_ids)} prompts have more than {max_length} tokens; the longest has {longest}. "
            f"{remedy} or data.long_prompts=drop."
        )
    if num_long and num_long == len(prompt_ids) and long_prompts == "drop":
        raise UserError(
            f"All {num_long} prompts have more than {max_length} tokens (the longest has {longest}), so dropping them "
            f"leaves none. {remedy}."
        )
    kept = [i for i, ids in enumerate(prompt_ids) if long_prompts == "truncate" or len(ids) <= max_length]
    return FittedPrompts([prompt_ids[i][-max_length:] for i in kept], kept, num_long)


def implicit_prompt_length(one: Completion, other: Completion) -> int:
    """How many leading messages, or characters, of two whole conversations are their prompt.

    Of messages: all that both share. Of text: up to the last "Assistant:" that both share, so that answers which begin
    with the same words keep them; without one, up to the whitespace in front of the first word that differs.
    """
    differs = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    size = next(differs, min(len(one), len(other)))
    if not isinstance(one, str) or not isinstance(other, str):
        return size
    marker = one.rfind(LAST_TURN, 0, size)
    if marker >= 0:
        return marker + len(LAST_TURN)
    words_end = one[size : size + 1].strip() == "" == other[size : size + 1].strip()
    while size and not words_end and not one[size - 1].isspace():
        size -= 1
    return len(one[:size].rstrip())


def prompt_key(prompt: Prompt) -> str:
    """One text for each prompt, by which prompts are the same: canonical JSON, without keys that hold None."""
    if not isinstance(prompt, str):
        prompt = [{key: value for key, value in message.items() if value is not None} for message in prompt]
    return canonical_json(prompt)


def canonical_json(value: Any) -> str:
    """JSON in pure ASCII that is the same whatever the order of keys, on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _token_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    # verbose=False: a prompt longer than the model's context is `fit_prompts`'s business, not a warning's.
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])


def _with_bos(tokenizer: PreTrainedTokenizerBase, text: str, plain: list[int]) -> list[int]:
    """`plain` after the BOS that the tokenizer sets (once, should the text begin with it), with no EOS at its end."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    full = _token_ids(tokenizer, text, special=True)
    # BOS and EOS can be one token (GPT-2), so an added id is known as BOS by its place: before the text's own ids.
    if bos is not None and full[:1] == [bos] != plain[:1]:
        plain = [bos, *plain]
    while len(plain) > 1 and plain[-1] == eos:
        plain = plain[:-1]
    return plain


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "The data is a list of messages, but the tokenizer has no chat template to write them as text. "
            "Type model.chat_template=FILE, a jinja file, or give the data as plain text."
        )
    # Arrow fills keys that only some messages have with None, which a template would take for a value.
    messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise UserError(
            f"The chat template refused a conversation with the roles {[m['role'] for m in messages]}"
            f"{_reason(error, messages)}. Mend the data, or type model.chat_template=FILE, a jinja file that takes it."
        ) from None
    return str(text)


def _reason(error: Exception, messages: list[dict[str, str]]) -> str:
    """The template's own words, unless they quote the data: what people wrote has no place in an error."""
    words = str(error)
    quotes = any(message["content"] and message["content"] in words for message in messages)
    return "" if quotes else f": {words}"


def _without_final_eos(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Without EOS and the whitespace after it (ChatML writes a newline there); other whitespace is the answer's own."""
    eos = tokenizer.eos_token
    while eos and text.rstrip().endswith(eos):
        text = text.rstrip()[: -len(eos)]
    return text


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "messages" if is_messages(value) else type(value).__name__


def _check_kind(value: Any, name: str) -> None:
    if not isinstance(value, str) and not is_messages(value):
        raise UserError(
            f"The {name} is of type {_kind(value)}. It must be text, or a list with at least one message, each with "
            'the keys "role" and "content", both text.'
        )
