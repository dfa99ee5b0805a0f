"""Reward model and critic: a backbone and one number per token.

Both are plain `AutoModelForSequenceClassification` models with one label, so that everybody can load them. Scores are
read by the model's own forward, at the last token that is not padding; the critic reads every position.
"""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf_lab.errors import UserError
from rlhf_lab.models import lean_gpt2
from rlhf_lab.models.adapters import AdapterScalar
from rlhf_lab.models.completions import deciding_columns, take_completion
from rlhf_lab.models.language import context_of, disable_dropout, make_room, not_loadable, use_fused_gelu
from rlhf_lab.models.lean_gpt2 import Cells
from rlhf_lab.models.products import in_fp32

SHIFT_KEY = "score_shift"  # config field, only where the last layer norm has no bias to hold the shift


def load_scalar_model(
    name_or_path: str | Path, tokenizer: PreTrainedTokenizerBase | None = None, *, fresh_head: bool = True
) -> PreTrainedModel:
    """Load a model with one label in fp32, dropout off. A causal language model gets a fresh head N(0, 1/sqrt(d+1)).

    The head's distribution is Stiennon et al. 2020 (arXiv 2009.01325); draw it under a seed. Raises UserError for an
    unknown id or folder, more than one label, another kind of head, and, without `fresh_head`, a model that has none.
    """
    _refuse_other_labels(name_or_path)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            name_or_path, num_labels=1, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise UserError(not_loadable("reward model", str(name_or_path))) from error
    if not hasattr(model, "score"):
        raise UserError(
            f"{name_or_path} is a {type(model).__name__}, whose head is not a linear layer `score` on the last token; "
            "needed: a reward model made of a causal language model, such as rlhf-lab reward and TRL write"
        )
    if any("score" in key for key in report["missing_keys"]):
        if not fresh_head:
            raise UserError(
                f"{name_or_path} has no score head, so its scores would be random: it is a language model. Give the "
                "folder of a reward model (rlhf-lab reward writes one)"
            )
        width = model.score.weight.shape[1]
        nn.init.normal_(model.score.weight, std=1.0 / math.sqrt(width + 1))
    if tokenizer is not None:
        model.config.pad_token_id = tokenizer.pad_token_id
        make_room(model, len(tokenizer))
    use_fused_gelu(model)
    disable_dropout(model)
    return model


def _refuse_other_labels(name_or_path: str | Path) -> None:
    try:
        config = AutoConfig.from_pretrained(name_or_path)
    except (OSError, ValueError):
        return  # the caller finds that out again, and says so
    is_classifier = any("SequenceClassification" in name for name in config.architectures or ())
    if is_classifier and config.num_labels != 1:
        raise UserError(
            f"{name_or_path} has {config.num_labels} labels; needed: one, the score. Train it with num_labels=1"
        )


def critic_from(model: PreTrainedModel) -> PreTrainedModel:
    """A critic that starts as a copy of a reward model (Stiennon et al. 2020, appendix B.1; N+ details, PPO)."""
    critic = copy.deepcopy(model).requires_grad_(True)
    disable_dropout(critic)
    return critic


class ValueHead(nn.Module):
    """A critic that is one linear layer on the policy's last hidden states: (..., D) to (...).

    It starts at zero (Ziegler et al. 2019), so that it does not pull on the trunk before it has learnt anything.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        values: Tensor = self.score(hidden).squeeze(-1).float()
        return values


def with_trunk_of(policy: Any, head: ValueHead) -> PreTrainedModel:
    """A scalar model of its own with a copy of the policy's trunk below `head`, for saving."""
    plain = copy.deepcopy(policy).merge_and_unload() if hasattr(policy, "merge_and_unload") else policy
    config = copy.deepcopy(plain.config)
    config.num_labels = 1
    model = AutoModelForSequenceClassification.from_config(config)
    getattr(model, model.base_model_prefix).load_state_dict(getattr(plain, plain.base_model_prefix).state_dict())
    model.score.load_state_dict(head.score.state_dict())
    return model


def token_values(model: Any, ids: Tensor) -> Tensor:
    """One number at every token: (B, L) ids with padding on the right to (B, L) values."""
    if isinstance(model, AdapterScalar):
        return model.token_values(ids)
    backbone = getattr(model, model.base_model_prefix)
    hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
    return model.score(hidden).squeeze(-1).float() + getattr(model.config, SHIFT_KEY, 0.0)


def completion_values(model: Any, ids: Tensor, prompt_lengths: Tensor, mask: Tensor) -> Tensor:
    """(B, T) values of the states before each completion token; arguments as in `completion_log_probs`."""
    if isinstance(model, GPT2ForSequenceClassification) and lean_gpt2.fits(model):
        states = lean_gpt2.states_at(model.transformer, ids, deciding_columns(ids, prompt_lengths, mask))
        with in_fp32():
            values = model.score(states) + getattr(model.config, SHIFT_KEY, 0.0)
        return Cells.of(mask).spread(values)[..., 0]
    # What stands in the last column no value depends on: its state comes after the last token.
    values = token_values(model, ids[:, : max(ids.shape[1] - 1, 1)])
    return take_completion(values, prompt_lengths - 1, mask.shape[1])


@torch.no_grad()
def sequence_scores(model: PreTrainedModel, sequences: Sequence[Sequence[int]], *, batch_size: int = 128) -> Tensor:
    """Scores (N,) of token sequences by the model's own forward, in batches of like length, in the given order.

    The read-out is the model's: the last token that is not `config.pad_token_id`. So a reward model whose pad is EOS is
    read before EOS here, in TRL's `RewardTrainer` and in a plain call alike.
    """
    pad = model.config.pad_token_id
    device = model.score.weight.device
    scores = torch.empty(len(sequences), device=device)
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    longest, context = max(map(len, sequences), default=0), context_of(model)
    if context is not None and longest > context:
        raise UserError(
            f"a text to score has {longest} tokens, and the reward model reads {context}; lower ppo.max_prompt_length "
            "or ppo.max_completion_length, or take a reward model that reads more"
        )
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = len(sequences[rows[-1]])
        padded = [[*sequences[row], *[pad] * (width - len(sequences[row]))] for row in rows]
        ids = torch.tensor(padded, device=device)
        scores[rows] = _scores(model, ids).float()
    return scores + getattr(model.config, SHIFT_KEY, 0.0)


def _scores(model: Any, ids: Tensor) -> Tensor:
    """(B,) scores of ids (B, L) that are padded on the right."""
    if not isinstance(model, GPT2ForSequenceClassification) or not lean_gpt2.fits(model):
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
        return logits[:, 0]
    columns = torch.arange(ids.shape[1])
    ends = ((ids != model.config.pad_token_id) * columns).argmax(1)  # as transformers finds them
    states = lean_gpt2.states_at(model.transformer, ids, columns == ends[:, None])
    with in_fp32():
        scores: Tensor = model.score(states)
    return scores[:, 0]


@torch.no_grad()
def normalize_scores(model: PreTrainedModel, mean: float, std: float) -> None:
    """Change the weights so that every score s becomes (s - mean) / std (Ziegler et al. 2019, section 2.1).

    The gain goes into the head. The shift goes into the bias of the last layer norm, along the head's own direction:
    head . (bias + c head / |head|^2) adds exactly c. Where there is no such bias, or it
    is frozen, it goes into `config.score_shift`.
    """
    if not (std > 0 and math.isfinite(std) and math.isfinite(mean)):
        raise UserError(
            f"scores have mean {mean} and standard deviation {std}; the reward model did not learn anything"
        )
    model.score.weight.div_(std)
    _shift_scores(model, -mean / std - getattr(model.config, SHIFT_KEY, 0.0) * (1 - 1 / std))


@torch.no_grad()
def shift_into_weights(model: PreTrainedModel) -> None:
    """Move `config.score_shift` into the weights where they can hold it, so that plain transformers knows it."""
    shift = getattr(model.config, SHIFT_KEY, 0.0)
    if shift and _trained_bias(model) is not None:
        setattr(model.config, SHIFT_KEY, 0.0)
        _shift_scores(model, shift)


def _shift_scores(model: PreTrainedModel, by: float) -> None:
    head, bias = model.score.weight, _trained_bias(model)
    if bias is None:
        setattr(model.config, SHIFT_KEY, getattr(model.config, SHIFT_KEY, 0.0) + by)
    else:
        bias.add_(head[0] * (by / head[0].square().sum()))


def _trained_bias(model: PreTrainedModel) -> Tensor | None:
    """The bias of the last layer norm; None where there is none or where it is frozen, as others share it then."""
    bias = getattr(_last_norm(getattr(model, model.base_model_prefix)), "bias", None)
    return bias if bias is not None and bias.requires_grad else None


def _last_norm(backbone: nn.Module) -> nn.Module | None:
    """The norm whose output the head reads: a child of the backbone such as `ln_f`, `final_layer_norm` or `norm`."""
    norms = [child for name, child in backbone.named_children() if "norm" in name or name.startswith("ln_f")]
    return norms[-1] if norms else None
