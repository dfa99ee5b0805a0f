"""Step 2, the reward model: config -> comparisons -> `trl.RewardTrainer` -> normalised scores -> `reward/`.

Bradley-Terry on pairs (with a margin where the data has the column), started from the SFT model, its scores normalised
to mean 0 and standard deviation 1 on samples of the SFT policy. Every text of a batch is read once. Held-out accuracy
and calibration are the business of `evaluation/reward_model.py`.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import RewardConfig, RewardTrainer

from rlhf_lab.config import PPOConfig, RewardSection
from rlhf_lab.data.comparisons import ComparisonCollator, PromptSampler
from rlhf_lab.data.prompts import Prompt, encode_completion, encode_prompt, prompt_key
from rlhf_lab.generation.sample import draw_uniforms, sample_completions
from rlhf_lab.models.language import stop_token_ids
from rlhf_lab.models.scalar import normalize_scores, sequence_scores
from rlhf_lab.stages.sft import remove_checkpoints
from rlhf_lab.training.trainers import FiniteLoss, MetricsFile, last_checkpoint, shared_arguments

REFERENCE_STREAM = 3  # of uniform numbers; 1 and 2 are the comparisons'


def encode_pairs(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """`chosen_ids`, `rejected_ids` (prompt, completion, EOS), `prompt_key`, `length`, and `margin` where there is one.

    A pair that is too long loses the start of its prompt, never its EOS, at which the score is read.
    """

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        prompt = encode_prompt(tokenizer, row["prompt"])
        sides = {
            f"{side}_ids": (prompt + encode_completion(tokenizer, row["prompt"], row[side]))[-max_length:]
            for side in ("chosen", "rejected")
        }
        kept = {"margin": float(row["margin"])} if row.get("margin") is not None else {}
        length = max(map(len, sides.values()))
        return {**sides, **kept, "prompt_key": prompt_key(row["prompt"]), "length": length}

    return rows.map(encode, remove_columns=rows.column_names)


class ComparisonTrainer(FiniteLoss, RewardTrainer):
    """TRL's trainer, reading each text of a batch once (see `data/comparisons.py`)."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        rows = self.train_dataset if train_dataset is None else train_dataset
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return PromptSampler(rows["prompt_key"], rows["length"], batch_size=batch_size, seed=self.args.seed)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["chosen_ids", "rejected_ids", "margin", "prompt_key", "length"]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        batch = dict(inputs)
        text_of_side: Tensor = batch.pop("text_of_side")

        def scores_of_sides(**texts: Any) -> Any:
            texts.pop("margin", None)  # is the loss's, not the model's
            outputs = model(**texts)
            outputs.logits = outputs.logits[text_of_side]
            return outputs

        return super().compute_loss(scores_of_sides, batch, return_outputs, num_items_in_batch)


def fit_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    heldout: Dataset,
    *,
    reference_samples: Sequence[Sequence[int]],
    section: RewardSection,
    folder: Path,
    seed: int,
    report_to: list[str],
) -> dict[str, float]:
    """Train `model` (one label) on encoded pairs, resuming where it was; save it to `folder` in plain form.

    `reference_samples` are prompt + completion ids of the SFT policy; their scores get mean 0 and standard deviation 1,
    before training and after (Ziegler et al. 2019, section 2.1). Returns the final held-out metrics.
    """
    normalize_on(model, reference_samples)
    arguments = shared_arguments(section, folder, seed=seed, has_heldout=True, report_to=report_to)
    trainer = ComparisonTrainer(
        model=model,
        args=RewardConfig(**arguments, center_rewards_coefficient=section.center_rewards_coefficient or None),
        data_collator=ComparisonCollator(tokenizer.pad_token_id),
        train_dataset=train,
        eval_dataset=heldout,
        processing_class=tokenizer,
        callbacks=[MetricsFile(folder, "reward")],
    )
    trainer.remove_callback(PrinterCallback)  # MetricsFile prints plainer lines
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    metrics = trainer.evaluate()
    trained = trainer.accelerator.unwrap_model(trainer.model)
    normalize_on(trained, reference_samples)
    if trainer.is_world_process_zero():
        trained.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        remove_checkpoints(folder)
    trainer.accelerator.wait_for_everyone()
    return {key: float(value) for key, value in metrics.items() if key in ("eval_loss", "eval_accuracy")}


def normalize_on(model: PreTrainedModel, samples: Sequence[Sequence[int]]) -> None:
    """Give `model` mean 0 and standard deviation 1 on these texts (token ids)."""
    scores = sequence_scores(model.eval(), samples)
    normalize_scores(model, float(scores.mean()), float(scores.std(correction=0)))


def reference_samples(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    num_samples: int,
    ppo: PPOConfig,
    seed: int,
) -> list[list[int]]:
    """Prompt + completion ids, sampled from the SFT policy as PPO will sample them, for the normalisation of scores."""
    chosen = random.Random(f"reference samples {seed}").choices(prompts, k=num_samples)
    prompt_ids = [encode_prompt(tokenizer, prompt)[-ppo.max_prompt_length :] for prompt in chosen]
    completions = sample_completions(
        policy,
        prompt_ids,
        draw_uniforms(num_samples, ppo.max_completion_length, seed=seed, stream=REFERENCE_STREAM),
        temperature=ppo.temperature,
        stop_token_ids=stop_token_ids(policy, tokenizer, ppo.stop_tokens),
        pad_token_id=tokenizer.pad_token_id,
    )
    return [prompt + completion for prompt, completion in zip(prompt_ids, completions.rows(), strict=True)]
