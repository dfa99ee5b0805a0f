"""One frozen base, LoRA adapters for policy, reference, reward model and critic: four models in the memory of one.

An adapter is switched by naming it in PEFT's layers, without PEFT's `set_adapter`, which would also decide which
adapters are trained. Leaves out gradient checkpointing: what is computed again in the backward pass would be computed
under whichever adapter is on by then.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from rlhf_lab.errors import UserError
from rlhf_lab.models.language import disable_dropout, load_causal_lm

POLICY, REFERENCE, REWARD, CRITIC = "default", "reference", "reward", "critic"
WEIGHTS, HEAD = "adapter_model.safetensors", "score_head.safetensors"
PREFIX = "base_model.model."  # of the names in an adapter's file


@contextlib.contextmanager
def using_adapter(model: nn.Module, name: str) -> Iterator[None]:
    """Inside, the layers of `model` add the adapter `name`; which adapters are trained stays as it is."""
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    before = [layer._active_adapter for layer in layers]
    try:
        for layer in layers:
            layer._active_adapter = [name]
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer._active_adapter = active


def active_adapter(model: PeftModel) -> str:
    """The one adapter that is on. Raises UserError where there are several."""
    active = model.active_adapters
    if len(active) != 1:
        raise UserError(f"the policy has the adapters {active} switched on; call set_adapter with one of them")
    return str(active[0])


def check_adapters(policy: PeftModel, *, is_fresh: bool) -> None:
    """Raise UserError for adapters beside which no reference can be had: the KL would be measured to something that
    moves, or to the policy itself. `is_fresh`: untrained, so the reference is the policy with them switched off."""
    active = active_adapter(policy)
    config = policy.peft_config[active]
    what = f"the adapter {active!r} ({config.peft_type.value})"
    if active == REFERENCE:
        raise UserError(
            f"{what} is the policy's own, and {REFERENCE!r} is the name of the one that the KL is measured to; load it "
            "under another adapter_name"
        )
    if config.is_prompt_learning:
        raise UserError(f"{what} learns a prompt, which can not be switched off inside a pass; use a LoraConfig")
    if getattr(config, "bias", "none") not in ("none", False):
        raise UserError(f"{what} trains biases of the base, which move the reference too; type bias='none'")
    if any(layer.merged for layer in policy.modules() if isinstance(layer, BaseTunerLayer)):
        raise UserError(f"{what} is merged into its base, which can not be undone in one pass; call unmerge_adapter()")
    wrapped = [module for module in policy.modules() if isinstance(module, AuxiliaryTrainingWrapper)]
    if wrapped and not is_fresh:
        raise UserError(
            f"{what} trains whole modules (modules_to_save or trainable_token_indices), of which the reference has no "
            "frozen copy; merge it into its base and pass peft_config= for a fresh one"
        )


def add_reference_adapter(policy: PeftModel) -> None:
    """Clone the active adapter, frozen, as the adapter `reference`, unless there is one of that name already."""
    if REFERENCE in policy.peft_config:
        return
    active = active_adapter(policy)
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    policy.add_adapter(REFERENCE, copy.deepcopy(policy.peft_config[active]))
    set_peft_model_state_dict(policy, adapter_weights(policy, active), adapter_name=REFERENCE)
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(name in trained)
    disable_dropout(policy)


def adapter_weights(policy: PeftModel, name: str) -> dict[str, Tensor]:
    """The weights of an adapter alone. PEFT would add whole embeddings, shared ones twice, where a pad token was added
    to the vocabulary; nobody trains its row."""
    weights: dict[str, Tensor] = get_peft_model_state_dict(policy, adapter_name=name, save_embedding_layers=False)
    return weights


class AdapterScalar(nn.Module):
    """A reward model or critic that is one adapter of a shared base and a head of its own.

    It answers where a sequence classification model with one label would: `config`, `score`, `forward`.
    """

    def __init__(self, base: PeftModel, adapter: str, score: Tensor, *, pad_token_id: int, shift: float) -> None:
        super().__init__()
        self._base = (base,)  # in a tuple, so that its parameters are not counted as ours
        self.adapter = adapter
        self.score = nn.Linear(score.shape[1], 1, bias=False)
        self.score.weight.data.copy_(score)
        self.config = copy.deepcopy(base.config)
        self.config.num_labels, self.config.pad_token_id, self.config.score_shift = 1, pad_token_id, shift
        self.config.name_or_path = adapter

    @property
    def base(self) -> PeftModel:
        return self._base[0]

    def hidden_states(self, ids: Tensor) -> Tensor:
        """(B, L) ids to (B, L, D) under this adapter."""
        plain = self.base.get_base_model()
        with using_adapter(self.base, self.adapter):
            states: Tensor = getattr(plain, plain.base_model_prefix)(input_ids=ids, use_cache=False).last_hidden_state
        return states

    def token_values(self, ids: Tensor) -> Tensor:
        """(B, L) ids to (B, L) values."""
        values: Tensor = self.score(self.hidden_states(ids)).squeeze(-1).float() + self.config.score_shift
        return values

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SequenceClassifierOutputWithPast:
        """Scores before the shift, read at the last token that is not padding, as transformers reads them."""
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        last = (columns * (input_ids != self.config.pad_token_id)).argmax(1)
        hidden = self.hidden_states(input_ids)[torch.arange(len(input_ids), device=input_ids.device), last]
        return SequenceClassifierOutputWithPast(logits=self.score(hidden))

    def adapter_parameters(self) -> Iterator[nn.Parameter]:
        """The adapter's weights inside the base."""
        return (parameter for name, parameter in self.base.named_parameters() if f".{self.adapter}." in name)

    def save_pretrained(self, folder: Path) -> None:
        """The adapter in PEFT's form, and its head beside it."""
        weights = adapter_weights(self.base, self.adapter)
        save_adapter(folder, weights, self.base.peft_config[self.adapter], self.score.weight, self.config.score_shift)

    def load(self, folder: Path) -> None:
        """What `save_pretrained` wrote."""
        set_peft_model_state_dict(self.base, load_file(folder / WEIGHTS), adapter_name=self.adapter)
        head = load_file(folder / HEAD)
        self.score.weight.data.copy_(head["weight"])
        self.config.score_shift = float(head["shift"])


@dataclass(frozen=True)
class SharedBase:
    """Policy, reference, reward model and critic on one base."""

    policy: PeftModel  # its adapter is on and trained; the frozen adapter `reference` beside it
    reward_model: AdapterScalar
    critic: AdapterScalar  # starts as a copy of the reward model

    @classmethod
    def load(
        cls, base: str | Path, tokenizer: PreTrainedTokenizerBase, *, policy: Path, reward_model: Path
    ) -> "SharedBase":
        """Load the base once and four adapters: two from the folder `policy`, two from the folder `reward_model`."""
        model = load_causal_lm(str(base), tokenizer)
        shared = PeftModel.from_pretrained(model, str(policy), adapter_name=POLICY, is_trainable=True)
        shared.load_adapter(str(policy), adapter_name=REFERENCE)
        shared.load_adapter(str(reward_model), adapter_name=REWARD)
        shared.load_adapter(str(reward_model), adapter_name=CRITIC)
        for name, parameter in shared.named_parameters():
            parameter.requires_grad_(f".{POLICY}." in name or f".{CRITIC}." in name)
        disable_dropout(shared)
        head = load_file(reward_model / HEAD)
        scalars = [
            AdapterScalar(
                shared, adapter, head["weight"], pad_token_id=tokenizer.pad_token_id, shift=float(head["shift"])
            )
            for adapter in (REWARD, CRITIC)
        ]
        return cls(shared, *scalars)

    def memory(self) -> str:
        """Parameters and megabytes of the one base with its adapters, and of four full models instead."""
        parameters = list(self.policy.named_parameters())
        adapters = sum(p.numel() for name, p in parameters if "lora_" in name) + 2 * self.critic.score.weight.numel()
        base = sum(p.numel() for name, p in parameters if "lora_" not in name)
        size = parameters[0][1].element_size() / 1e6
        return (
            f"one base of {base:,} parameters and four adapters of {adapters // 4:,} each: "
            f"{(base + adapters) * size:,.1f} MB of weights; four full models: {4 * base * size:,.1f} MB"
        )


def give_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Put the adapter in `folder` into a plain scalar model, to be trained with its head on a base that is frozen."""
    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = False
    inject_adapter_in_model(config, model, POLICY)
    weights = {name.removeprefix(PREFIX): weight for name, weight in load_file(folder / WEIGHTS).items()}
    set_peft_model_state_dict(model, weights, adapter_name=POLICY)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith("score."))
    disable_dropout(model)


def load_adapted_scalar(model: Any, folder: Path) -> PreTrainedModel:
    """Put the adapter and the head that `AdapterScalar.save_pretrained` wrote to `folder` on a plain scalar model, for
    reading."""
    give_adapter(model, folder)
    head = load_file(folder / HEAD)
    with torch.no_grad():
        model.score.weight.copy_(head["weight"])
    model.config.score_shift = float(head["shift"])
    adapted: PreTrainedModel = model.requires_grad_(False)
    return adapted


def has_adapter(model: nn.Module) -> bool:
    """Whether `give_adapter` was here."""
    return any(isinstance(module, BaseTunerLayer) for module in model.modules())


def take_adapter(model: Any, folder: Path) -> PreTrainedModel:
    """Save adapter and head of a model from `give_adapter` to `folder`; returns the model with the adapter merged."""
    config = model.peft_config[POLICY]
    weights = {PREFIX + n: w for n, w in get_peft_model_state_dict(model, adapter_name=POLICY).items() if "lora_" in n}
    save_adapter(folder, weights, config, model.score.weight, getattr(model.config, "score_shift", 0.0))
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False
    plain: PreTrainedModel = model.requires_grad_(True)
    return plain


def save_adapter(folder: Path, weights: dict[str, Tensor], config: LoraConfig, score: Tensor, shift: float) -> None:
    """PEFT's two files, and the head with its shift."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {
        name if name.startswith(PREFIX) else PREFIX + name: w.detach().cpu().contiguous() for name, w in weights.items()
    }
    save_file(named, folder / WEIGHTS)
    saved = copy.deepcopy(config)
    saved.inference_mode = True
    saved.save_pretrained(str(folder))
    save_file({"weight": score.detach().cpu().contiguous(), "shift": torch.tensor(float(shift))}, folder / HEAD)
