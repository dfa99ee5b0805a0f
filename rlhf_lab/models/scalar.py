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
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.errors import UserError
from rlhf_lab.models.adapters import AdapterScalar
from rlhf_lab.models.language import disable_dropout, make_room, not_loadable, use_fused_gelu

SHIFT_KEY = "score_shift"  # config field, only where the last layer norm has no bias to hold the shift


def load_scalar_model(name_or_path: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedModel:
    """Load a model with one label in fp32, dropout off. A causal language model gets a fresh head N(0, 1/sqrt(d+1)).

    The head's distribution is Stiennon et al. 2020 (arXiv 2009.01325); draw it under a seed.
    """
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            name_or_path, num_labels=1, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise UserError(not_loadable("reward model", str(name_or_path))) from error
    if any("score" in key for key in report["missing_keys"]):
        width = model.score.weight.shape[1]
        nn.init.normal_(model.score.weight, std=1.0 / math.sqrt(width + 1))
    if tokenizer is not None:
        model.config.pad_token_id = tokenizer.pad_token_id
        make_room(model, len(tokenizer))
    use_fused_gelu(model)
    disable_dropout(model)
    return model


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
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = len(sequences[rows[-1]])
        padded = [[*sequences[row], *[pad] * (width - len(sequences[row]))] for row in rows]
        ids = torch.tensor(padded, device=device)
        scores[rows] = model(input_ids=ids, use_cache=False).logits[:, 0].float()
    return scores + getattr(model.config, SHIFT_KEY, 0.0)


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
