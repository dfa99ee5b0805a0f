"""TRL's own RLOO and DPO trainers on the SFT model, reward model and comparisons of a run: what PPO is compared with.

They are TRL's as they come, and get what PPO gets. RLOO: PPO's prompts, batch sizes, passes, schedule and reward
(score, scaled and clipped, less the penalty for a missing end), read where our reward models are read, at the end
token, which TRL's own path over decoded text would cut off. Its `beta` is the KL weight, for it subtracts beta times
the summed log ratio from the score exactly as PPO does. DPO: comparisons that the reward model was trained on. Its loss
takes a `beta` on the scale of Bradley-Terry's log odds, and a reward model's scores are normalised, so beta is the KL
weight times `preference_scale`, the log odds of a preference per unit of score difference, over `ppo.score_scale`: the
optimum under a KL penalty is then the same (Rafailov et al. 2023, arXiv 2305.18290, section 4), clipping of scores
apart.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import DPOConfig, DPOTrainer, RLOOConfig, RLOOTrainer

from rlhf_lab.config import EMBEDDED, Experiment, FrontierSection
from rlhf_lab.data.batches import pad_right
from rlhf_lab.data.prompts import encode_completion, encode_prompt, prompt_key
from rlhf_lab.errors import UserError
from rlhf_lab.generation.sample import mask_completions
from rlhf_lab.generation.stops import stops_of
from rlhf_lab.models.language import load_causal_lm
from rlhf_lab.models.scalar import sequence_scores
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.rate_votes import USED
from rlhf_lab.stages import experiment_data
from rlhf_lab.stages.judging import judge
from rlhf_lab.stages.prompt_source import PromptBatch
from rlhf_lab.stages.scoring import make_scorers
from rlhf_lab.training.precision import in_bf16
from rlhf_lab.training.records import read_jsonl
from rlhf_lab.training.trainers import MetricsFile

Reward = Callable[..., list[float]]


def train_rloo(
    run_folder: Path,
    prompts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    kl_coef: float,
    seed: int,
    ppo: PPOConfig,
    frontier: FrontierSection,
    folder: Path,
) -> PreTrainedModel:
    """The policy after `frontier.total_episodes` episodes of TRL's RLOO on `prompts`."""
    micro = math.gcd(ppo.micro_batch_size, ppo.minibatch_size)
    steps_per_rollout = ppo.rollout_batch_size // ppo.minibatch_size * ppo.num_ppo_epochs
    arguments = RLOOConfig(
        **_shared(folder, seed, ppo),
        learning_rate=frontier.rloo_learning_rate or ppo.learning_rate,
        lr_scheduler_type=ppo.lr_scheduler_type,
        warmup_steps=ppo.warmup_steps * steps_per_rollout,
        max_steps=frontier.total_episodes // ppo.rollout_batch_size * steps_per_rollout,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=ppo.minibatch_size // micro,
        generation_batch_size=ppo.rollout_batch_size,
        num_iterations=ppo.num_ppo_epochs,
        num_generations=frontier.rloo_num_generations,
        max_completion_length=ppo.max_completion_length,
        temperature=ppo.temperature,
        beta=kl_coef,
        epsilon=ppo.clip_range,
        disable_dropout=True,
    )
    policy = load_causal_lm(str(run_folder / "sft"), tokenizer)
    trainer = RLOOTrainer(
        model=policy,
        reward_funcs=[reward_of_ppo(run_folder, policy, tokenizer, ppo, arguments.device)],
        args=arguments,
        train_dataset=that_fit(prompts, tokenizer, ppo.max_prompt_length).select_columns(["prompt"]),
        processing_class=tokenizer,
        callbacks=[MetricsFile(folder, "rloo")],
    )
    return _trained(trainer)


def reward_of_ppo(
    run_folder: Path,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ppo: PPOConfig,
    device: torch.device,
) -> Reward:
    """The run's reward model as a reward function of TRL: the number that PPO would give the same tokens."""
    scorers = make_scorers(str(run_folder / "reward"), (), tokenizer, device)
    stops = stops_of(policy, tokenizer, ppo.stop_tokens)

    def reward(prompts: Sequence[Any], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        batch = PromptBatch.of(prompts, tokenizer, ppo)
        completions = mask_completions(pad_right(completion_ids, tokenizer.pad_token_id), stops)
        scores = judge(batch, completions, scorers, tokenizer, ppo, None).totals
        shaped = torch.tensor(scores) * ppo.score_scale
        if ppo.score_clip is not None:
            shaped = shaped.clamp(-ppo.score_clip, ppo.score_clip)
        return [float(x) for x in shaped - ppo.missing_eos_penalty * ~completions.stopped]

    return reward


def train_dpo(
    run_folder: Path,
    pairs: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    beta: float,
    seed: int,
    max_length: int,
    ppo: PPOConfig,
    frontier: FrontierSection,
    folder: Path,
) -> PreTrainedModel:
    """The policy after TRL's DPO on `frontier.dpo_num_pairs` of `pairs`, drawn by `seed`."""
    number = min(frontier.dpo_num_pairs, len(pairs))
    chosen = pairs.shuffle(seed=seed).select(range(number)).select_columns(["prompt", "chosen", "rejected"])
    arguments = DPOConfig(
        **_shared(folder, seed, ppo),
        learning_rate=frontier.dpo_learning_rate,
        lr_scheduler_type=ppo.lr_scheduler_type,
        num_train_epochs=frontier.dpo_num_epochs,
        per_device_train_batch_size=min(frontier.dpo_micro_batch_size, number),
        gradient_accumulation_steps=frontier.dpo_batch_size // frontier.dpo_micro_batch_size,
        max_length=max_length,
        beta=beta,
        disable_dropout=True,
    )
    trainer = DPOTrainer(
        model=load_causal_lm(str(run_folder / "sft"), tokenizer),
        args=arguments,
        train_dataset=chosen,
        processing_class=tokenizer,
        callbacks=[MetricsFile(folder, "dpo")],
    )
    return _trained(trainer)


def comparisons_of(experiment: Experiment) -> tuple[Dataset, Dataset]:
    """(train, held-out) comparisons, those that the reward model was trained on: votes of `rlhf-lab rate` included."""
    if experiment.data.preferences != EMBEDDED:
        data = experiment_data.preference_data(experiment)
    else:
        data = experiment_data.comparison_data(read_jsonl(experiment.run_folder / "comparisons.jsonl"))
    columns = ["prompt", "chosen", "rejected"]
    train, heldout = data.train.select_columns(columns), data.heldout.select_columns(columns)
    if experiment.reward.votes == "ignore" or not (votes := read_jsonl(experiment.run_folder / USED)):
        return train, heldout
    held = {prompt_key(prompt) for prompt in heldout["prompt"]}
    plain = [{key: row[key] for key in columns} for row in votes if prompt_key(row["prompt"]) not in held]
    before = [] if experiment.reward.votes == "only" else train.to_list()
    return Dataset.from_list(before + plain), heldout


def scale_of(
    reward_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Dataset, *, max_length: int
) -> float:
    """`preference_scale` of the reward model on held-out comparisons."""
    scores = {}
    for side in ("chosen", "rejected"):
        texts = [
            encode_prompt(tokenizer, row["prompt"]) + encode_completion(tokenizer, row["prompt"], row[side])
            for row in pairs.to_list()
        ]
        scores[side] = sequence_scores(reward_model, [text[-max_length:] for text in texts])
    return preference_scale(scores["chosen"], scores["rejected"])


def preference_scale(chosen: torch.Tensor, rejected: torch.Tensor) -> float:
    """The t that makes sigmoid(t (chosen - rejected)) the likeliest probability of what raters preferred, for scores
    (N,) of N pairs: the slope of a logistic regression without intercept, by bisection, at most 100.

    Raises UserError where the scores prefer the rejected side on the whole: no positive t fits.
    """
    difference = (chosen - rejected).double()

    def slope(t: float) -> float:
        return float((difference * torch.sigmoid(-t * difference)).mean())

    if slope(0.0) <= 0:
        raise UserError(
            f"the reward model scores rejected answers {-float(difference.mean()):.3f} above chosen ones: no beta of "
            "DPO belongs to a KL weight; train it on more comparisons, or leave dpo out of frontier.methods"
        )
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2


def _shared(folder: Path, seed: int, ppo: PPOConfig) -> dict[str, Any]:
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(folder),
        "seed": seed,
        "max_grad_norm": ppo.max_grad_norm,
        "adam_epsilon": ppo.adam_eps,
        "weight_decay": 0.0,
        # auto is for passes of ours: through transformers' modules a CPU takes longer in bf16
        "bf16": in_bf16(ppo.bf16) if on_gpu else ppo.bf16 is True,
        "activation_checkpointing": ppo.gradient_checkpointing,  # the old name's new one
        "logging_steps": 10,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "disable_tqdm": True,
    }


def that_fit(prompts: Dataset, tokenizer: PreTrainedTokenizerBase, max_prompt_length: int) -> Dataset:
    """TRL does not cut prompts; PPO would read the end of longer ones."""
    lengths = [len(encode_prompt(tokenizer, prompt)) for prompt in prompts["prompt"]]
    return prompts.select([row for row, length in enumerate(lengths) if length <= max_prompt_length])


def _trained(trainer: Any) -> PreTrainedModel:
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
    return model
