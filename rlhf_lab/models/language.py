"""Tokenizers and causal language models: loading, and making ready for PPO.

For us pad is never EOS: a tokenizer without a pad token of its own gets one, and the embeddings follow. Dropout is off
wherever log-probs are compared. Nothing here trains.
"""

import contextlib
import difflib
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Tokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from rlhf_lab.errors import UserError

PAD_TOKEN = "<|pad|>"
MOST_NEW_TOKENS = 128  # special tokens of a chat format, say; more than that is another vocabulary


def load_tokenizer(
    name_or_path: str, *, chat_template: str | None = None, needs_eos: bool = True
) -> PreTrainedTokenizerBase:
    """Load a tokenizer and see to it that it has an EOS token and a pad token that is not EOS.

    `chat_template` is the path of a jinja file. Raises UserError for an unknown id or folder, or a missing EOS token
    where one is needed.
    """
    try:
        # A folder with nothing but a byte-level BPE does not say what it is, and AutoTokenizer gives up on it.
        loader = GPT2Tokenizer if _is_bare_bpe(Path(name_or_path)) else AutoTokenizer
        tokenizer = loader.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise UserError(not_loadable("tokenizer", name_or_path)) from error
    if needs_eos and tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer {name_or_path!r} has no EOS token, so completions could not end; "
            "set eos_token in its tokenizer_config.json"
        )
    give_own_pad(tokenizer)
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template)
    return tokenizer


def read_template(path: str) -> str:
    """A jinja chat template. Raises UserError where there is no such file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"model.chat_template={path} can not be read ({type(error).__name__}); give the path of a jinja file, or "
            "leave it out for the tokenizer's own"
        ) from None


def give_own_pad(tokenizer: PreTrainedTokenizerBase) -> None:
    """Add a pad token where there is none or where it is EOS."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})


def load_causal_lm(
    name_or_path: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    config: dict[str, Any] | None = None,
    init: str = "pretrained",
) -> PreTrainedModel:
    """Load a causal language model in fp32, wide enough for `tokenizer`, its dropout off.

    `init="random"` builds the architecture of `name_or_path` (a configuration's model type such as `gpt2` will do)
    without weights; draw under a seed. Raises UserError for an unknown id or folder.
    """
    if init == "random":
        model = random_causal_lm(name_or_path, tokenizer, config or {})
    else:
        model = _pretrained(name_or_path, config or {})
    return prepare_causal_lm(model, tokenizer)


def _pretrained(name_or_path: str, config: dict[str, Any]) -> PreTrainedModel:
    if config:
        try:
            known = AutoConfig.from_pretrained(name_or_path)
        except (OSError, ValueError) as error:
            raise UserError(not_loadable("model", name_or_path)) from error
        _refuse_unknown_fields(known, config)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            name_or_path, dtype=torch.float32, output_loading_info=True, **config
        )
    except (OSError, ValueError) as error:
        raise UserError(not_loadable("model", name_or_path)) from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{name_or_path!r} lacks {len(missing)} weights of a {type(model).__name__}, such as {missing[0]}; "
            "they would be random. Give the folder of a causal language model, or model.init=random"
        )
    return model


def random_causal_lm(model_type: str, tokenizer: PreTrainedTokenizerBase, config: dict[str, Any]) -> PreTrainedModel:
    """A causal language model with random weights and the tokenizer's vocabulary."""
    base: dict[str, Any] = {"model_type": model_type}
    if model_type not in CONFIG_MAPPING_NAMES or Path(model_type).is_dir():  # a plain type needs neither hub nor folder
        with contextlib.suppress(OSError, ValueError):
            base = AutoConfig.from_pretrained(model_type).to_dict()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    fields = {**base, **ids, "vocab_size": len(tokenizer), **config}
    try:
        made = AutoConfig.for_model(**fields)
    except ValueError as error:
        raise UserError(not_loadable("model", model_type)) from error
    _refuse_unknown_fields(type(made)(), config)
    return AutoModelForCausalLM.from_config(made, dtype=torch.float32)


def _refuse_unknown_fields(known: PreTrainedConfig, given: dict[str, Any]) -> None:
    """transformers keeps whatever it is given: a misspelt `n_layers` would leave the model at its default depth."""
    fields = {*known.to_dict(), *known.attribute_map}
    for field in set(given) - fields:
        close = difflib.get_close_matches(field, fields, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(fields))}"
        raise UserError(f"model.config has {field!r}, which is no field of a {type(known).__name__}; {hint}")


def prepare_causal_lm(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Make `model` fit for RL with `tokenizer`: embeddings wide enough, pad set, dropout off, fast activation."""
    if model.config.is_encoder_decoder:
        raise UserError(
            f"{type(model).__name__} is an encoder-decoder model; PPO here needs a causal language model such as gpt2"
        )
    if getattr(model.config, "vision_config", None) is not None:
        raise UserError(f"{type(model).__name__} reads images; PPO here needs a text-only causal language model")
    if getattr(model, "_is_stateful", False):
        raise UserError(
            f"{type(model).__name__} is recurrent: its state can not be kept for some rows of a batch and dropped for "
            "others, as sampling does here; PPO needs a model with attention such as gpt2"
        )
    make_room(model, len(tokenizer))
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    use_fused_gelu(model)
    disable_dropout(model)
    return model


def make_room(model: PreTrainedModel, num_tokens: int) -> None:
    """Widen the embeddings where the tokenizer has grown, by a pad token for example.

    New rows are the mean of the old ones: then a new token's logit is the mean logit and its probability at most 1 / V.
    With the usual random rows its logit is near 0, and GPT-2, whose logits lie near -100, would say nothing else.
    """
    num_before = model.get_input_embeddings().weight.shape[0]
    if num_tokens <= num_before:
        return
    if num_tokens - num_before > MOST_NEW_TOKENS:
        raise UserError(
            f"the tokenizer knows {num_tokens} tokens and {type(model).__name__} {num_before}: it is another model's. "
            "Give the model's own tokenizer"
        )
    model.resize_token_embeddings(num_tokens, mean_resizing=False)
    for layer in filter(None, (model.get_input_embeddings(), model.get_output_embeddings())):
        for old in filter(lambda x: x is not None, (layer.weight, getattr(layer, "bias", None))):
            old.data[num_before:] = old.data[:num_before].mean(0)


def context_of(model: PreTrainedModel) -> int | None:
    """How many tokens the model can read at once; None where its configuration sets no bound."""
    found = getattr(model.config, "max_position_embeddings", None)
    return int(found) if found else None


def check_length(model: PreTrainedModel, max_length: int, key: str) -> None:
    """Raise UserError where `max_length`, set by the option `key`, is more than `model` can read."""
    context = context_of(model)
    if context is not None and max_length > context:
        raise UserError(f"{key}={max_length}, and the model's context holds {context} tokens; type {key}={context}")


def use_fused_gelu(model: nn.Module) -> None:
    """Swap GPT-2's `gelu_new` for torch's fused tanh approximation: the same function, 1.4 times as fast on CPU."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child).__name__ == "NewGELUActivation":
                setattr(module, name, nn.GELU(approximate="tanh"))


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0: with dropout, two passes over one text give two log-probs.

    Some models keep it as a number (`dropout`, `hidden_dropout`, `resid_pdrop`) instead of a module. Those that read it
    from their configuration in each pass are helped by evaluation mode alone.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ("dropout" in name or "pdrop" in name):
                setattr(module, name, 0.0)


def _is_bare_bpe(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {"vocab.json", "merges.txt"} <= names and not {"config.json", "tokenizer_config.json"} & names


def token_id(tokenizer: PreTrainedTokenizerBase, token: int | str) -> int:
    """The id of a token given as id or text. Raises UserError for a text that is not one token."""
    if isinstance(token, int):
        return known_id(tokenizer, token)
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) == 1 and tokenizer.decode(ids).strip() != token.strip():  # the unknown token stands for it
        raise UserError(f"token {token!r} is not in this tokenizer's vocabulary; give one that is, or its id")
    if len(ids) != 1:
        raise UserError(f"token {token!r} is {len(ids)} tokens of this tokenizer; it has to be one")
    return ids[0]


def known_id(tokenizer: PreTrainedTokenizerBase, token: int) -> int:
    """`token` itself. Raises UserError where the tokenizer has no such id."""
    if not 0 <= token < len(tokenizer):
        raise UserError(f"token {token} is no id of this tokenizer, which knows 0 to {len(tokenizer) - 1}")
    return token


def not_loadable(what: str, name_or_path: str) -> str:
    """What to tell somebody whose id or folder could not be loaded."""
    return (
        f"no {what} {name_or_path!r}: it is neither a folder here nor reachable on the hub; give a folder, connect to "
        "the network, or use the embedded default, which needs neither (`rlhf-lab run`, configs/assistant.yaml)"
    )
