"""What PPO starts from: policy, reference, critic, reward sources; and the optimizer that moves policy and critic.

One frozen reference: a copy for a full policy or one with trained adapters; for fresh adapters the policy itself with
adapters switched off, which costs no memory.
"""

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from rlhf_lab.config import PPOConfig
from rlhf_lab.errors import UserError
from rlhf_lab.models.language import (
    disable_dropout,
    give_own_pad,
    load_causal_lm,
    load_tokenizer,
    make_room,
    prepare_causal_lm,
)
from rlhf_lab.models.scalar import critic_from, load_scalar_model
from rlhf_lab.stages.rollout import ActorCritic
from rlhf_lab.stages.scoring import RewardSource


@dataclass
class Models:
    """The models of one PPO run, on their device."""

    policy: Any  # PreTrainedModel or PeftModel, trained
    critic: PreTrainedModel  # trained
    frozen: PreTrainedModel | None  # None: the policy with its adapters off
    reward_sources: list[RewardSource]

    @contextlib.contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """The frozen model that the KL is measured against."""
        if self.frozen is not None:
            yield self.frozen
            return
        with self.policy.disable_adapter():
            yield self.policy


def load_models(
    model: str | Path | PreTrainedModel,
    reward_funcs: RewardSource | Sequence[RewardSource],
    tokenizer: PreTrainedTokenizerBase | None,
    value_model: str | Path | PreTrainedModel | None,
    ref_model: str | Path | PreTrainedModel | None,
    peft_config: Any,
    args: PPOConfig,
    accelerator: Accelerator,
) -> tuple[PreTrainedTokenizerBase, Models]:
    """Load and prepare tokenizer, policy, reference and critic. Raises UserError for what can not work."""
    if peft_config is not None and isinstance(model, PeftModel):
        raise UserError("model is a PEFT model already and peft_config is given too; give one of the two")
    tokenizer = tokenizer or load_tokenizer(_name(model))
    give_own_pad(tokenizer)
    policy = _causal(model, tokenizer)
    frozen = _reference(ref_model, policy, tokenizer, has_fresh_adapters=peft_config is not None)
    if peft_config is not None:
        policy = get_peft_model(policy, peft_config)
    sources: list[RewardSource] = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
    sources = [load_scalar_model(source) if isinstance(source, str | Path) else source for source in sources]
    critic = _critic(value_model, sources, _name(model), tokenizer)
    if args.gradient_checkpointing:
        for trained in (policy, critic):
            trained.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            trained.enable_input_require_grads()
    for every in filter(None, (policy, critic, frozen)):
        every.to(accelerator.device)
    return tokenizer, Models(policy.train(), critic.train(), frozen, sources)


def _name(model: str | Path | PreTrainedModel) -> str:
    return str(model) if isinstance(model, str | Path) else str(model.config.name_or_path)


def _causal(model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
    if isinstance(model, str | Path):
        return load_causal_lm(str(model), tokenizer)
    return prepare_causal_lm(model, tokenizer)


def _reference(
    given: str | Path | PreTrainedModel | None,
    policy: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    has_fresh_adapters: bool,
) -> PreTrainedModel | None:
    """A frozen model, or None where switching fresh adapters off gives the reference."""
    if given is None and has_fresh_adapters:
        return None
    # An adapter that was trained before is part of the reference: a copy keeps it, switching it off would not.
    is_policy = given is None or given is policy
    reference = copy.deepcopy(policy) if is_policy else _causal(given, tokenizer)
    return reference.eval().requires_grad_(False)


def _critic(
    given: str | Path | PreTrainedModel | None,
    sources: Sequence[RewardSource],
    policy_name: str,
    tokenizer: PreTrainedTokenizerBase,
) -> PreTrainedModel:
    """The given critic, else a copy of the first reward model that reads the policy's ids, else a fresh head."""
    if isinstance(given, str | Path):
        return load_scalar_model(given, tokenizer)
    if given is not None:
        return _given_critic(given, sources, tokenizer)
    fitting = [s for s in sources if isinstance(s, PreTrainedModel) and s.config.vocab_size >= len(tokenizer)]
    if fitting:
        return critic_from(fitting[0])
    if not policy_name:
        raise UserError("the critic has nothing to start from; pass value_model=, a model with num_labels=1")
    return load_scalar_model(policy_name, tokenizer)


def _given_critic(
    given: PreTrainedModel, sources: Sequence[RewardSource], tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    if not hasattr(given, "score") or getattr(getattr(given, "config", None), "num_labels", 0) != 1:
        labels = getattr(getattr(given, "config", None), "num_labels", "no")
        raise UserError(
            f"value_model is a {type(given).__name__} with {labels} labels; needed: a sequence classification model "
            "with one label, loaded with AutoModelForSequenceClassification.from_pretrained(..., num_labels=1)"
        )
    # A reward model stays as it is while the critic is trained.
    critic = critic_from(given) if any(given is source for source in sources) else given
    make_room(critic, len(tokenizer))
    disable_dropout(critic)
    return critic


class Optimization:
    """One optimizer and schedule over policy and critic, and the steps they take."""

    def __init__(self, models: Models, args: PPOConfig, accelerator: Accelerator) -> None:
        self.args = args
        self.accelerator = accelerator
        self.models = models
        module = ActorCritic(models.policy, models.critic)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        plain = torch.optim.AdamW(trained, lr=args.learning_rate, eps=args.adam_eps, weight_decay=0.0, fused=True)
        self.actor_critic, self.optimizer = accelerator.prepare(module, plain)
        # Not prepared: accelerate would step it once a process, we step it once an update.
        self.scheduler = get_scheduler(
            args.lr_scheduler_type, plain, num_warmup_steps=args.warmup_steps, num_training_steps=args.num_updates
        )

    def accumulate(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Gradients of micro-batches add up; processes exchange them with the last one only."""
        return contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.actor_critic)

    def step(self, *, skip: bool, critic_only: bool) -> float:
        """Clip, step, clear; returns the gradient norm before clipping. `critic_only` leaves the policy
        untouched; a norm that is not finite leaves everything untouched."""
        if critic_only:
            for parameter in self.models.policy.parameters():
                parameter.grad = None  # not zero: Adam would still count a step
        norm = float(self.accelerator.clip_grad_norm_(self.actor_critic.parameters(), self.args.max_grad_norm))
        if not skip and math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm
