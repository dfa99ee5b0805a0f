"""Step 1, supervised fine-tuning: config -> demonstrations -> `trl.SFTTrainer` -> held-out loss -> `sft/`.

Loss on completions only, EOS learned, batches of like length, optional LoRA that is merged before saving. The base
model of the embedded default is pretrained by the same trainer (`stages/base.py`). Leaves out what TRL does well.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from transformers.pytorch_utils import Conv1D
from trl import SFTConfig, SFTTrainer

from rlhf_lab.config import SFTSection
from rlhf_lab.data.lengths import Encoded, LongPrompts, fit_rows
from rlhf_lab.data.prompts import encode_completion, encode_prompt
from rlhf_lab.models import lean_gpt2
from rlhf_lab.models.products import through
from rlhf_lab.training.checkpoint import saving
from rlhf_lab.training.trainers import CarefulTrainer, MetricsFile, last_checkpoint, shared_arguments

ADAPTER = "adapter"  # folder of the adapter that a shared base wants, beside the merged model


class LanguageModelTrainer(CarefulTrainer, SFTTrainer):
    """TRL's trainer, careful about losses, gradients and disks; small GPT-2s on a CPU train by the lean forward."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        # TRL puts a forward that applies the head in chunks in the place of the model's own.
        if not (model.training and lean_gpt2.fits(model, replaced_forward=True)):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = F.pad(inputs["labels"][:, 1:], (0, 1), value=-100)  # what the next token should be
        asked = labels != -100
        with self.accelerator.autocast():
            states = lean_gpt2.states_at(model.transformer, inputs["input_ids"], asked)
            loss = F.cross_entropy(through(model.lm_head, states), labels[asked], reduction="sum")
        return loss / (asked.sum() if num_items_in_batch is None else num_items_in_batch)


def encode_demonstrations(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    long_prompts: LongPrompts = "truncate",
    context: int | None = None,
) -> Encoded:
    """`input_ids` and `labels` (-100 on the prompt); of a prompt that is too long the start is cut, or as told."""
    given = rows.to_list()  # rows of Arrow one by one would take longer than their tokens
    prompts = [encode_prompt(tokenizer, row["prompt"]) for row in given]
    answers = [encode_completion(tokenizer, row["prompt"], row["completion"]) for row in given]
    fit = fit_rows(
        [len(ids) for ids in prompts],
        [len(ids) for ids in answers],
        max_length=max_length,
        long_prompts=long_prompts,
        key="sft.max_length",
        context=context,
    )
    encoded = []
    for row in fit.kept:
        prompt, answer = prompts[row], answers[row]
        prompt = prompt[max(0, len(prompt) + len(answer) - max_length) :]
        encoded.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return Encoded(Dataset.from_list(encoded), fit)


def fit_language_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    heldout: Dataset | None,
    *,
    section: SFTSection,
    folder: Path,
    seed: int,
    report_to: list[str],
    stage: str = "sft",
    keeps_adapter: bool = False,
) -> dict[str, float]:
    """Train `model` on encoded rows, resuming from the last checkpoint in `folder`; save it there in plain form.

    `keeps_adapter` saves a LoRA adapter to `folder/adapter` as well, before it is merged. Returns the final held-out
    metrics. Raises UserError at the first loss that is not finite.
    """
    arguments = shared_arguments(section, folder, seed=seed, has_heldout=heldout is not None, report_to=report_to)
    trainer = LanguageModelTrainer(
        model=model,
        args=SFTConfig(**arguments, train_sampling_strategy="group_by_length"),
        train_dataset=train,
        eval_dataset=heldout,
        processing_class=tokenizer,
        peft_config=_lora(section, model),
        callbacks=[MetricsFile(folder, stage)],
    )
    trainer.train_dataset = trainer.train_dataset.to_list()  # picking rows from Arrow took a twentieth of every step
    trainer.remove_callback(PrinterCallback)  # MetricsFile prints plainer lines
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    metrics = trainer.evaluate() if heldout is not None else {}
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model)
        with saving(folder):
            if keeps_adapter:
                trained.save_pretrained(folder / ADAPTER)
            plain = trained.merge_and_unload() if section.lora_r else trained
            plain.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    trainer.accelerator.wait_for_everyone()
    return {key: float(value) for key, value in metrics.items() if key in ("eval_loss", "eval_mean_token_accuracy")}


def _lora(section: SFTSection, model: PreTrainedModel) -> LoraConfig | None:
    if not section.lora_r:
        return None
    return LoraConfig(
        r=section.lora_r,
        lora_alpha=section.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's transposed weights
    )
