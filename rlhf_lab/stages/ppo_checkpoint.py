"""What a PPO checkpoint holds, written and read: models in plain form, and all that an exact resume needs.

Leaves out when to save and how a save survives a kill (training/checkpoint.py).
"""

import copy
import hashlib
import pickle
import random
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf_lab.errors import UserError
from rlhf_lab.models.adapters import WEIGHTS, AdapterScalar, active_adapter, adapter_weights
from rlhf_lab.models.language import PAD_TOKEN
from rlhf_lab.models.scalar import ValueHead, with_trunk_of
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.training.model_card import write_model_card

if TYPE_CHECKING:
    from rlhf_lab.stages.ppo import PPOTrainer

# What may differ between a checkpoint and the run that continues it: where things go, not what is computed.
FREE_TO_CHANGE = {
    "output_dir",
    "micro_batch_size",
    "generation_engine",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "report_to",
    "run_name",
    "push_to_hub",
    "hub_model_id",
}


# Fields of a model's configuration that say where it comes from, not what it computes.
VOLATILE = ("_name_or_path", "transformers_version", "dtype", "architectures", "use_cache", "pad_token_id")


def write(trainer: "PPOTrainer", folder: Path, randomness: list[dict[str, Any]]) -> None:
    """Everything into `folder`; `randomness` holds `random_state()` of every process."""
    write_models(trainer, folder)
    state = trainer.life.state
    torch.save(
        {
            "update_number": trainer.update_number,
            "num_generated": trainer.num_generated,
            "kl_coef": trainer.kl_coef,
            "best": (state.best_metric, state.best_global_step),
            "alarms": trainer.life.alarms.state_dict(),
            "optimizer": trainer.optimization.optimizer.state_dict(),
            "scheduler": trainer.optimization.scheduler.state_dict(),
            "random": randomness,
            "args": trainer.args.model_dump(),
            "origin": trainer.life.origin,
            "torch": version("torch"),
        },
        folder / "trainer.pt",
    )


def write_models(trainer: "PPOTrainer", folder: Path) -> None:
    """Policy and tokenizer in `folder`, the critic in `folder/value_model`, a model card."""
    models = trainer.models
    _save_policy(models.policy, folder)
    _tokenizer_beside(models.policy, trainer.tokenizer).save_pretrained(folder)
    critic = with_trunk_of(models.policy, models.critic) if isinstance(models.critic, ValueHead) else models.critic
    critic.save_pretrained(folder / "value_model")
    trainer.tokenizer.save_pretrained(folder / "value_model")
    name = str(models.policy.config.name_or_path)
    write_model_card(folder, stage="ppo", base_model=name, settings=trainer.args.model_dump())


def load(trainer: "PPOTrainer", checkpoint: Path) -> None:
    """Put `trainer` into the state in which `write` found its own. Raises UserError for another model or config."""
    try:
        saved = torch.load(checkpoint / "trainer.pt", map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{checkpoint}/trainer.pt is cut short or no file of ours ({type(error).__name__}); continue from an "
            f"earlier one, such as resume_from_checkpoint={checkpoint.parent}/checkpoint-N, or delete this folder"
        ) from None
    _refuse_other_settings(saved["args"], trainer.args, checkpoint)
    refuse_other_origin(saved.get("origin", {}), trainer.life.origin, checkpoint)
    try:
        _load_policy(trainer.models.policy, checkpoint)
        _load_critic(trainer.models.critic, checkpoint / "value_model")
        trainer.optimization.optimizer.load_state_dict(saved["optimizer"])
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"{checkpoint} does not fit the model {type(trainer.models.policy).__name__} of this run: "
            f"{_gist(error)}. Give the model that the checkpoint was made with, or another output_dir"
        ) from error
    trainer.optimization.scheduler.load_state_dict(saved["scheduler"])
    trainer.kl_coef = saved["kl_coef"]
    trainer.num_generated = saved["num_generated"]
    trainer.update_number = trainer.life.state.global_step = saved["update_number"]
    trainer.life.state.best_metric, trainer.life.state.best_global_step = saved["best"]
    trainer.life.alarms.load_state_dict(saved.get("alarms"))
    if len(saved["random"]) == trainer.run.num_processes:
        _set_random_state(saved["random"][trainer.run.rank])


def origin(trainer: "PPOTrainer") -> dict[str, Any]:
    """What a run rests on besides its settings; a run that rests on something else does not continue this one."""
    models, prompts = trainer.models, trainer.train_prompts
    policy = models.policy
    config = {key: value for key, value in policy.config.to_diff_dict().items() if key not in VOLATILE}
    adapter = policy.peft_config[active_adapter(policy)].to_dict() if isinstance(policy, PeftModel) else {}
    chosen = {key: adapter.get(key) for key in ("peft_type", "r", "lora_alpha", "target_modules", "use_rslora")}
    frozen = models.frozen or policy
    return {
        "model": fingerprint(str(sorted(config.items()))),
        "adapter": {key: sorted(value) if isinstance(value, set) else str(value) for key, value in chosen.items()},
        "reference": fingerprint(*sampled_weights(frozen, only_frozen=models.frozen is None)),
        "prompts": None if prompts is None else fingerprint(str(prompts.ids)),
        "reward functions": [scorer.name for scorer in trainer.scorers],
    }


def refuse_other_origin(saved: dict[str, Any], now: dict[str, Any], checkpoint: Path) -> None:
    """Raise UserError where a checkpoint was made from other models, prompts or reward functions than this run has."""
    if other := [key for key in saved if key in now and saved[key] != now[key]]:
        raise UserError(
            f"{checkpoint} was made with another {' and '.join(other)}, so going on would not continue that run (its "
            "KL is measured to the model that it started from). Give what it was made with (model= is the model before "
            "PPO, not the checkpoint); to train the checkpoint further as a new run, pass it as model= without "
            "resume_from_checkpoint, in another output_dir"
        )


def sampled_weights(model: torch.nn.Module, *, only_frozen: bool) -> Iterator[str]:
    """Names and 64 evenly spaced numbers of every weight: any training changes some, and reading them takes no time."""
    for name, weight in model.named_parameters():
        if not (only_frozen and weight.requires_grad):
            flat = weight.detach().flatten()
            number = min(64, len(flat))
            # Whole numbers: in float32 the last place of GPT-2's embeddings would lie behind their end.
            places = torch.arange(number, device=flat.device) * (len(flat) - 1) // max(1, number - 1)
            yield f"{name} {tuple(weight.shape)} {flat[places].float().tolist()}"


def fingerprint(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def random_state() -> dict[str, Any]:
    """Of the generators that reward functions may draw from; our own numbers come from the seed and the update."""
    legacy: Any = numpy.random.get_state()
    name, keys, position, has_gauss, cached = legacy
    numbers = (name, torch.from_numpy(keys.astype("int64")), position, has_gauss, cached)
    state = {"python": random.getstate(), "numpy": numbers, "torch": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    numpy.random.set_state((name, keys.numpy().astype("uint32"), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _save_policy(policy: Any, folder: Path) -> None:
    if not isinstance(policy, PeftModel):
        policy.save_pretrained(folder)
        return
    # Not policy.save_pretrained: it would hide an adapter that is not named "default" in a subfolder
    adapter = active_adapter(policy)
    weights = adapter_weights(policy, adapter)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, folder / WEIGHTS)
    policy.peft_config[adapter].save_pretrained(str(folder))


def _tokenizer_beside(policy: Any, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer that fits what is loaded from disk: the base beside adapters lacks the pad that we added."""
    if not isinstance(policy, PeftModel) or tokenizer.pad_token != PAD_TOKEN:
        return tokenizer
    plain = copy.deepcopy(tokenizer)
    plain.pad_token = None
    return plain


def _load_policy(policy: Any, checkpoint: Path) -> None:
    has_adapter = (checkpoint / WEIGHTS).is_file()
    if has_adapter != isinstance(policy, PeftModel):
        there, here = ("an adapter", "whole weights") if has_adapter else ("whole weights", "an adapter")
        raise ValueError(f"it holds {there}, and this run trains {here}")
    if isinstance(policy, PeftModel):
        found = set_peft_model_state_dict(
            policy, load_peft_weights(str(checkpoint)), adapter_name=active_adapter(policy)
        )
        missing = [name for name in found.missing_keys if f".{active_adapter(policy)}." in name]
        if missing or found.unexpected_keys:
            raise ValueError(f"its adapter has no {[*missing, *found.unexpected_keys][0]}")
        return
    saved = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    policy.load_state_dict(saved.state_dict())


def _gist(error: Exception) -> str:
    """The first two lines of an error that say something."""
    return " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])


def _load_critic(critic: Any, folder: Path) -> None:
    if isinstance(critic, AdapterScalar):
        critic.load(folder)
        return
    saved: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    if isinstance(critic, ValueHead):
        critic.score.load_state_dict(saved.score.state_dict())
    else:
        critic.load_state_dict(saved.state_dict())


def _refuse_other_settings(saved: dict[str, Any], args: PPOConfig, checkpoint: Path) -> None:
    now = args.model_dump()
    other = [key for key in now if key not in FREE_TO_CHANGE and saved.get(key) != now[key]]
    if other:
        differences = ", ".join(f"{key} was {saved.get(key)!r} and is {now[key]!r}" for key in other)
        raise UserError(
            f"{checkpoint} was made with other settings: {differences}. Continue with the old ones, or start a new run "
            "in another output_dir (with the command line: name=another_name)"
        )
