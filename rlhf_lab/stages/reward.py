"""Step 2, the reward model: config -> comparisons -> `trl.RewardTrainer` -> normalised scores -> `reward/`.

Bradley-Terry on pairs (with a margin where the data has the column), started from the SFT model, its scores normalised
to mean 0 and standard deviation 1 on samples of the SFT policy. Every text of a batch is read once. Held-out accuracy
and calibration are the business of `evaluation/reward_model.py`.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from transformers import GPT2ForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from transformers.modeling_outputs import SequenceClassifierOutputWithPast
from trl import RewardConfig, RewardTrainer

from rlhf_lab.config import RewardSection
from rlhf_lab.data.comparisons import ComparisonCollator, PromptSampler
from rlhf_lab.data.lengths import Encoded, LongPrompts, fit_rows
from rlhf_lab.data.prompts import Prompt, canonical_json, encode_completion, encode_prompt, prompt_key
from rlhf_lab.generation.sample import draw_uniforms, sample_completions
from rlhf_lab.generation.stops import stops_of
from rlhf_lab.models import lean_gpt2
from rlhf_lab.models.adapters import has_adapter, take_adapter
from rlhf_lab.models.products import in_fp32
from rlhf_lab.models.scalar import normalize_scores, sequence_scores, shift_into_weights
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.stages.sft import ADAPTER
from rlhf_lab.training.checkpoint import saving
from rlhf_lab.training.trainers import CarefulTrainer, MetricsFile, last_checkpoint, shared_arguments

REFERENCE_STREAM = 3  # of uniform numbers; 1 and 2 are the comparisons'


def encode_pairs(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    long_prompts: LongPrompts = "truncate",
    context: int | None = None,
) -> Encoded:
    """`chosen_ids`, `rejected_ids` (prompt, completion, EOS), `prompt_key`, `prompt_length`, `length`, maybe `margin`.

    Of a prompt that is too long the start is cut, or as told; never EOS, at which the score is read.
    """
    encode = PairEncoder(tokenizer)
    pairs = [encode(row) for row in rows.to_list()]  # rows of Arrow one by one would take longer than their tokens
    fit = fit_rows(
        [len(pair.prompt) for pair in pairs],
        [max(len(pair.chosen), len(pair.rejected)) for pair in pairs],
        max_length=max_length,
        long_prompts=long_prompts,
        key="reward.max_length",
        context=context,
    )
    # Not rows.map: it would pickle and hash the growing table of texts
    return Encoded(Dataset.from_list([pairs[row].within(max_length) for row in fit.kept]), fit)


@dataclass(frozen=True)
class Pair:
    """Token ids of one comparison."""

    prompt_key: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    margin: float | None

    def within(self, max_length: int) -> dict[str, Any]:
        """The row that the collator reads."""
        length = len(self.prompt) + max(len(self.chosen), len(self.rejected))
        sides = {"chosen_ids": self.chosen, "rejected_ids": self.rejected}
        return {
            **{side: (self.prompt + answer)[-max_length:] for side, answer in sides.items()},
            **({} if self.margin is None else {"margin": self.margin}),
            "prompt_key": self.prompt_key,
            "length": min(length, max_length),
            # A text that was cut lost the start of its prompt, each side its own: nothing is shared then.
            "prompt_length": len(self.prompt) if length <= max_length else 0,
        }


class PairEncoder:
    """Rows to `Pair`s. With several answers to a prompt, every text stands in several pairs and is read once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}

    def __call__(self, row: dict[str, Any]) -> Pair:
        key = prompt_key(row["prompt"])
        prompt = self._once(key, lambda: encode_prompt(self.tokenizer, row["prompt"]))
        chosen, rejected = (self._answer(key, row, side) for side in ("chosen", "rejected"))
        margin = row.get("margin")
        return Pair(key, prompt, chosen, rejected, None if margin is None else float(margin))

    def _answer(self, key: str, row: dict[str, Any], side: str) -> list[int]:
        text = key + canonical_json(row[side])
        return self._once(text, lambda: encode_completion(self.tokenizer, row["prompt"], row[side]))

    def _once(self, key: str, encoded: Callable[[], list[int]]) -> list[int]:
        if key not in self.known:
            self.known[key] = encoded()
        return self.known[key]


class ComparisonTrainer(CarefulTrainer, RewardTrainer):
    """TRL's trainer on batches of `ComparisonCollator`: its loss, its metrics, but nothing read twice."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows = self.train_dataset if train_dataset is None else train_dataset
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        # What a pair takes in a row: its prompt once, where that is shared
        keys, lengths = zip(
            *(
                (row["prompt_key"], len(row["chosen_ids"]) + len(row["rejected_ids"]) - row["prompt_length"])
                for row in rows
            ),
            strict=True,
        )
        return PromptSampler(keys, lengths, batch_size=batch_size, seed=self.args.seed)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["chosen_ids", "rejected_ids", "margin", "prompt_key", "length", "prompt_length"]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        def scores_of_sides(**batch: Any) -> Any:
            head = self.accelerator.unwrap_model(model).score
            return score_sides(model, head, batch)

        with self.accelerator.autocast():
            return super().compute_loss(scores_of_sides, inputs, return_outputs, num_items_in_batch)


def score_sides(model: Any, head: Any, batch: dict[str, Tensor]) -> Any:
    """The model's output on a batch of `ComparisonCollator`, its logits (2 N, 1) the scores of both sides."""
    rows, columns = batch["text_ends"].T
    if isinstance(model, GPT2ForSequenceClassification) and lean_gpt2.fits(model):
        asked = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
        asked[rows, columns] = True
        states = lean_gpt2.states_at(
            model.transformer, batch["input_ids"], asked, positions=batch["position_ids"], sees=batch.get("sees")
        )
        place = (
            asked.flatten().cumsum(0).view(asked.shape) - 1
        )  # states come row by row, texts in an order of their own
        with in_fp32():
            logits = head(states[place[rows, columns]])[batch["text_of_side"]]
        return SequenceClassifierOutputWithPast(logits=logits)
    outputs = model(
        input_ids=batch["input_ids"],
        attention_mask=batch.get("sees", batch["attention_mask"]),
        position_ids=batch["position_ids"],
        use_cache=False,
        output_hidden_states=True,
    )
    outputs.logits = head(outputs.hidden_states[-1][rows, columns])[batch["text_of_side"]]
    outputs.hidden_states = None
    return outputs


@torch.no_grad()
def can_share_prompts(model: PreTrainedModel) -> bool:
    """Whether answers behind one copy of their prompt get the scores that they get alone: tried out, not assumed.

    True for transformers with masked attention; recurrent models and some attention kernels read on regardless.
    """
    answers = [[5, 6], [7, 8, 9], [6]]
    rows = [
        {"chosen_ids": [1, 2, 3, *a], "rejected_ids": [1, 2, 3, *b], "prompt_length": 3}
        for a, b in itertools.pairwise(answers)
    ]
    try:
        apart, together = (
            score_sides(model.eval(), model.score, ComparisonCollator(0, shares_prompts=shares)(rows)).logits
            for shares in (False, True)
        )
    except (RuntimeError, TypeError, ValueError):
        return False
    return bool(torch.allclose(apart, together, atol=1e-4))


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
    before training and after (Ziegler et al. 2019, section 2.1). A model from `give_adapter` trains its adapter only,
    which is saved to `folder/adapter` beside the merged model. Returns the final held-out metrics.
    """
    normalize_on(model, reference_samples)
    arguments = shared_arguments(section, folder, seed=seed, has_heldout=True, report_to=report_to)
    trainer = ComparisonTrainer(
        model=model,
        args=RewardConfig(**arguments, center_rewards_coefficient=section.center_rewards_coefficient or None),
        data_collator=ComparisonCollator(tokenizer.pad_token_id, shares_prompts=can_share_prompts(model)),
        train_dataset=train,
        eval_dataset=heldout,
        processing_class=tokenizer,
        callbacks=[MetricsFile(folder, "reward")],
    )
    trainer.train_dataset = trainer.train_dataset.to_list()  # picking rows from Arrow took a quarter of every step
    trainer.remove_callback(PrinterCallback)  # MetricsFile prints plainer lines
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    metrics = trainer.evaluate()
    trained = trainer.accelerator.unwrap_model(trainer.model)
    normalize_on(trained, reference_samples)
    if trainer.is_world_process_zero():
        with saving(folder):
            if has_adapter(trained):
                trained = take_adapter(trained, folder / ADAPTER)
                shift_into_weights(trained)
            trained.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
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
        stops=stops_of(policy, tokenizer, ppo.stop_tokens),
        pad_token_id=tokenizer.pad_token_id,
    )
    return [prompt + completion for prompt, completion in zip(prompt_ids, completions.rows(), strict=True)]
