"""What PPO starts from: policy, reference, critic, reward sources; and the optimizer that moves policy and critic.

The reference is a frozen copy of a full policy. A policy with adapters needs no second base: fresh adapters are
switched off, trained ones are cloned as the frozen adapter `reference`. Leaves out how the models are used.
"""

import contextlib
import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from rlhf_lab.errors import UserError
from rlhf_lab.generation.stops import Stops, stops_of
from rlhf_lab.models.adapters import REFERENCE, AdapterScalar, add_reference_adapter, check_adapters, using_adapter
from rlhf_lab.models.compiled import compile_trunks
from rlhf_lab.models.language import (
    context_of,
    disable_dropout,
    give_own_pad,
    load_causal_lm,
    load_tokenizer,
    make_room,
    prepare_causal_lm,
)
from rlhf_lab.models.scalar import ValueHead, critic_from, load_scalar_model
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.stages.prompt_source import PromptSource
from rlhf_lab.stages.rollout import ActorCritic, Asked
from rlhf_lab.stages.scoring import RewardSource
from rlhf_lab.training.run import Run
from rlhf_lab.training.tensorflow_adam import TensorFlowAdam

OLD_ARGUMENTS = {  # of TRL's PPOTrainer, 0.7 to 1.12
    "config": "pass args=PPOConfig(...)",
    "tokenizer": "pass processing_class",
    "policy": "pass model",
    "policy_model": "pass model",
    "reward_model": "pass reward_funcs",
    "dataset": "pass train_dataset",
    "data_collator": "prompts are encoded once, from the column 'prompt'; ids of your own go to generate() and step()",
    "optimizer": "AdamW is built from PPOConfig (learning_rate, adam_eps, adam_form)",
    "optimizers": "AdamW is built from PPOConfig (learning_rate, adam_eps, adam_form, lr_scheduler_type)",
    "lr_scheduler": "type lr_scheduler_type and warmup_steps in PPOConfig",
    "num_shared_layers": "type share_value_trunk=True in PPOConfig for a shared trunk",
}


@dataclass
class Models:
    """The models of one PPO run, on their device."""

    policy: Any  # PreTrainedModel or PeftModel, trained
    critic: Any  # PreTrainedModel, AdapterScalar or ValueHead, trained
    frozen: PreTrainedModel | None  # None: the policy with its adapters off, or with its adapter `reference`
    reward_sources: list[RewardSource]

    @contextlib.contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """The frozen model that the KL is measured against."""
        if self.frozen is not None:
            yield self.frozen
            return
        is_named = REFERENCE in self.policy.peft_config
        with using_adapter(self.policy, REFERENCE) if is_named else self.policy.disable_adapter():
            yield self.policy

    def policy_parameters(self) -> list[nn.Parameter]:
        """What the policy loss alone moves: the policy without the critic's adapter, where they share a base."""
        others = set(self.critic.adapter_parameters()) if isinstance(self.critic, AdapterScalar) else set()
        return [parameter for parameter in self.policy.parameters() if parameter not in others]


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
    if isinstance(peft_config, dict):
        raise UserError("peft_config is a dict; pass LoraConfig(**peft_config)")
    tokenizer = tokenizer or load_tokenizer(_name(model), needs_eos=args.stop_tokens is None)
    give_own_pad(tokenizer)
    policy = _causal(model, tokenizer)
    frozen = _reference(ref_model, policy, tokenizer, has_fresh_adapters=peft_config is not None)
    if peft_config is not None:
        policy = get_peft_model(policy, peft_config)
        check_adapters(policy, is_fresh=True)
        disable_dropout(policy)  # that of the adapters
    _refuse_frozen(policy)
    if getattr(policy, "is_loaded_in_4bit", False) and accelerator.device.type == "cpu":
        raise UserError(
            "the policy is loaded in 4 bits, and bitsandbytes passes no gradient through those on a CPU: nothing would "
            "be learnt. Load it with BitsAndBytesConfig(load_in_8bit=True), or use a GPU"
        )
    sources: list[RewardSource] = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
    sources = [
        load_scalar_model(source, fresh_head=False) if isinstance(source, str | Path) else source for source in sources
    ]
    fitting = [source for source in sources if isinstance(source, PreTrainedModel) and _reads(source, tokenizer)]
    for source in fitting:
        make_room(source, len(tokenizer))  # for the pad token that we may have added: the policy can say it
    if args.share_value_trunk:
        critic: Any = _head(value_model, policy)
    else:
        critic = _critic(value_model, sources, fitting, _name(policy), tokenizer)
    if args.gradient_checkpointing:
        _switch_checkpointing_on(policy, critic)
    for every in filter(None, (policy, critic, frozen)):
        _put(every, accelerator.device)
    # Models in training mode can draw noise that `disable_dropout` does not know; recomputed activations and quantised
    # weights want that mode all the same.
    for trained in (policy, critic):
        trained.train(args.gradient_checkpointing or _is_quantized(policy))
    if args.torch_compile:
        _compile(policy, critic, frozen)
    return tokenizer, Models(policy, critic, frozen, sources)


def check_contexts(models: Models, args: PPOConfig, prompts: Sequence[PromptSource | None]) -> None:
    """Raise UserError where a prompt of a data set and its completion are longer than one of the models can read."""
    longest = max((len(ids) for source in prompts if source is not None for ids in source.ids), default=0)
    readers = {"the policy": models.policy, "the critic": models.critic, "ref_model": models.frozen}
    for name, model in readers.items():
        context = context_of(model) if hasattr(model, "config") else None
        if longest and context is not None and longest + args.max_completion_length > context:
            raise UserError(
                f"the longest prompt has {longest} tokens and a completion up to {args.max_completion_length}, but "
                f"{name} reads {context}; lower max_prompt_length or max_completion_length: their sum may be {context}"
            )


def refuse_old_arguments(given: dict[str, Any]) -> None:
    """Raise UserError for arguments that `PPOTrainer` does not take, with today's name for those of TRL's PPO."""
    for name in given:
        if name in OLD_ARGUMENTS:
            raise UserError(f"PPOTrainer has no argument {name!r}: {OLD_ARGUMENTS[name]}")
        raise TypeError(f"PPOTrainer.__init__() got an unexpected keyword argument {name!r}")


def check_arguments(args: Any, datasets: dict[str, Any]) -> None:
    """Raise UserError for arguments of a type that many take for the right one."""
    if args is not None and not isinstance(args, PPOConfig):
        raise UserError(f"args is a {type(args).__name__}; pass args=PPOConfig(...), with a dict: PPOConfig(**args)")
    for name, rows in datasets.items():
        if rows is not None and not isinstance(rows, Dataset):
            raise UserError(
                f"{name} is a {type(rows).__name__}; needed: a datasets.Dataset. Type Dataset.from_list(rows), with a "
                "column 'prompt'; of a DatasetDict or a stream take one split, loaded"
            )
    if args is not None and args.eval_steps and datasets.get("eval_dataset") is None:
        raise UserError(f"eval_steps={args.eval_steps} needs prompts; pass eval_dataset=, or type eval_steps=0")


def agree_on(args: PPOConfig, run: Run) -> None:
    """Raise UserError on every process where they were started with different settings."""
    mine = json.dumps(args.model_dump(exclude={"micro_batch_size"}), sort_keys=True)
    everyones = run.gather_objects(mine)
    if different := [rank for rank, settings in enumerate(everyones) if settings != everyones[0]]:
        first, other = json.loads(everyones[0]), json.loads(everyones[different[0]])
        keys = [f"{key} is {first[key]!r} on process 0 and {other[key]!r} on {different[0]}" for key in first]
        keys = [text for key, text in zip(first, keys, strict=True) if first[key] != other[key]]
        raise UserError(f"the processes have different settings: {'; '.join(keys)}. Give all of them the same command")


def checked_stops(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: PPOConfig) -> Stops:
    """What ends a completion. Raises UserError where nothing could, unless `stop_tokens` is []."""
    found = stops_of(policy, tokenizer, args.stop_tokens)
    if not found and args.stop_tokens is None:
        raise UserError(
            "tokenizer and generation config have no EOS token, so completions could not end; set eos_token of the "
            "tokenizer, or type stop_tokens: [] for completions of a fixed length"
        )
    return found


def _refuse_frozen(policy: nn.Module) -> None:
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        raise UserError(
            f"the policy {type(policy).__name__} has no weights that are trained; load its adapter with "
            "PeftModel.from_pretrained(..., is_trainable=True), or pass peft_config"
        )


def _is_quantized(model: Any) -> bool:
    return bool(getattr(model, "is_quantized", False))


def _put(model: Any, device: torch.device) -> None:
    if not _is_quantized(model):  # bitsandbytes places its weights itself
        model.to(device)


def _compile(policy: Any, critic: Any, frozen: Any) -> None:
    if isinstance(critic, AdapterScalar):
        raise UserError(
            "torch_compile would compile the shared base anew for every change of adapters; type torch_compile=false, "
            "or model.share_base=false"
        )
    compile_trunks(model for model in (policy, critic, frozen) if isinstance(model, PreTrainedModel | PeftModel))


def _switch_checkpointing_on(policy: Any, critic: Any) -> None:
    if isinstance(critic, AdapterScalar):
        raise UserError(
            "gradient_checkpointing computes the forward pass again, by then under another adapter of the shared base; "
            "type gradient_checkpointing=false, or model.share_base=false"
        )
    for trained in (policy, critic):
        if isinstance(trained, ValueHead):
            continue
        trained.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        trained.enable_input_require_grads()


def _head(value_model: Any, policy: Any) -> ValueHead:
    if value_model is not None:
        raise UserError("share_value_trunk=true makes the critic a head on the policy; leave value_model out")
    return ValueHead(policy.get_output_embeddings().weight.shape[1])


def _name(model: str | Path | PreTrainedModel) -> str:
    return str(model) if isinstance(model, str | Path) else str(model.config.name_or_path)


def _causal(model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
    if not isinstance(model, str | Path):
        return prepare_causal_lm(model, tokenizer)
    if not (Path(model) / "adapter_config.json").is_file() or (Path(model) / "config.json").is_file():
        return load_causal_lm(str(model), tokenizer)
    base = load_causal_lm(str(PeftConfig.from_pretrained(str(model)).base_model_name_or_path), tokenizer)
    adapted = PeftModel.from_pretrained(base, str(model), is_trainable=True)
    disable_dropout(adapted)
    return adapted


def _reference(
    given: str | Path | PreTrainedModel | None,
    policy: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    has_fresh_adapters: bool,
) -> PreTrainedModel | None:
    """A frozen model, or None where the policy's adapters give the reference."""
    is_policy = given is None or given is policy
    if _is_quantized(policy) and not (has_fresh_adapters or isinstance(policy, PeftModel)):
        raise UserError("a quantised policy can not be trained itself; pass peft_config=LoraConfig(...)")
    if is_policy and has_fresh_adapters:
        return None
    if isinstance(policy, PeftModel):
        check_adapters(policy, is_fresh=False)
    if is_policy and isinstance(policy, PeftModel):
        add_reference_adapter(policy)  # trained adapters are part of the reference: off would be too little
        return None
    reference = copy.deepcopy(policy) if is_policy else _causal(given, tokenizer)
    known, needed = _vocabulary(reference), _vocabulary(policy)
    if known != needed:
        raise UserError(
            f"ref_model has a vocabulary of {known} tokens, the policy one of {needed}; the KL compares the two token "
            "by token. Leave ref_model out, or give the model that the policy started from"
        )
    return reference.eval().requires_grad_(False)


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _critic(
    given: str | Path | PreTrainedModel | None,
    sources: Sequence[RewardSource],
    fitting: Sequence[PreTrainedModel],
    policy_name: str,
    tokenizer: PreTrainedTokenizerBase,
) -> Any:
    """The given critic, else a copy of the first reward model that reads the policy's ids, else a fresh head."""
    if isinstance(given, str | Path):
        return load_scalar_model(given, tokenizer)
    if given is not None:
        return _given_critic(given, sources, tokenizer)
    if fitting:
        return critic_from(fitting[0])
    if not policy_name:
        raise UserError("the critic has nothing to start from; pass value_model=, a model with num_labels=1")
    return load_scalar_model(policy_name, tokenizer)


def _reads(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the ids of `tokenizer` mean to `model` what they mean to the policy."""
    try:
        return bool(load_tokenizer(_name(model)).get_vocab() == tokenizer.get_vocab())
    except UserError:  # in memory only: its size is all there is to go by, less the pad token that we may have added
        return bool(model.config.vocab_size >= len(tokenizer) - 1)


def _given_critic(given: PreTrainedModel, sources: Sequence[RewardSource], tokenizer: PreTrainedTokenizerBase) -> Any:
    if not hasattr(given, "score") or getattr(getattr(given, "config", None), "num_labels", 0) != 1:
        labels = getattr(getattr(given, "config", None), "num_labels", "no")
        raise UserError(
            f"value_model is a {type(given).__name__} with {labels} labels; needed: a sequence classification model "
            "with one label, loaded with AutoModelForSequenceClassification.from_pretrained(..., num_labels=1)"
        )
    # A reward model stays as it is while the critic is trained.
    critic = critic_from(given) if any(given is source for source in sources) else given
    if isinstance(critic, AdapterScalar):
        return critic
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
        if args.adam_form == "tensorflow":
            plain: torch.optim.Optimizer = TensorFlowAdam(trained, lr=args.learning_rate, eps=args.adam_eps)
        else:
            plain = torch.optim.AdamW(trained, lr=args.learning_rate, eps=args.adam_eps, weight_decay=0.0, fused=True)
        self.plain = plain
        self.begin_update()
        self.actor_critic, self.optimizer = accelerator.prepare(module, plain)
        # Not prepared: accelerate would step it once a process, we step it once an update.
        self.scheduler = get_scheduler(
            args.lr_scheduler_type, plain, num_warmup_steps=args.warmup_steps, num_training_steps=args.num_updates
        )

    @property
    def turns(self) -> tuple[Asked, ...]:
        """Who is asked for gradients, one after the other: both at once where the critic is a head on the policy, and
        in a wrapper (DDP's, say), which waits for the gradients of all its weights."""
        apart = type(self.actor_critic) is ActorCritic and not isinstance(self.models.critic, ValueHead)
        return ("policy", "critic") if apart else (None,)

    def accumulate(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Gradients of micro-batches add up; processes exchange them with the last one only."""
        return contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.actor_critic)

    def begin_update(self) -> None:
        self.is_broken = torch.zeros((), dtype=torch.bool, device=self.accelerator.device)

    def step(self, loss: Tensor, *, skip: Tensor, critic_only: bool) -> Tensor:
        """Clip, step, clear; returns the gradient norm before clipping. `critic_only` leaves the policy untouched.

        No step is taken where `skip` is True, nor from the first loss or norm on that is not finite until the update
        ends. Whether one is taken is decided where the gradients are: the host does not wait to know.
        """
        if critic_only:
            for parameter in self.models.policy_parameters():
                parameter.grad = None  # not zero: Adam would still count a step
        norm = torch.as_tensor(
            self.accelerator.clip_grad_norm_(self.actor_critic.parameters(), self.args.max_grad_norm)
        )
        self.is_broken |= ~(norm.isfinite() & loss.isfinite())
        self._step_unless(skip | self.is_broken)
        self.optimizer.zero_grad()
        return norm

    def _step_unless(self, skip: Tensor) -> None:
        if self.plain.defaults.get("fused"):
            self.plain.found_inf = skip.float()  # type: ignore[attr-defined]  # the way torch's GradScaler says so
            self.optimizer.step()
        elif not bool(skip):
            self.optimizer.step()
