"""A run of the embedded world as the stages leave it, but of models that nobody trained. No test lives here.

SFT and PPO are two random models of bytes, so both write nonsense, and different nonsense.
"""

from pathlib import Path

import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from rlhf_lab.config import Experiment, load_experiment
from rlhf_lab.data.assistant.world import Question, heldout_questions, training_questions
from rlhf_lab.training.records import record_stage, write_json, write_jsonl
from rlhf_lab.training.run_folder import open_run_folder
from tests.byte_tokenizer import byte_tokenizer

EOS, PAD, VOCAB = 0, 1, 258
SIZES = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 96, "vocab_size": VOCAB, "initializer_range": 0.3}
IDS = {"eos_token_id": EOS, "bos_token_id": EOS, "pad_token_id": PAD}
SETTINGS = [
    "ppo.max_prompt_length=60",
    "ppo.max_completion_length=8",
    "reward.max_length=96",
    "reward.batch_size=16",
    "reward.micro_batch_size=16",
    "reward.num_epochs=1",
    "reward.num_normalization_samples=16",
    "reward.save_steps=1",
    "evaluation.num_prompts=30",
    "evaluation.num_bootstrap=60",
]


def save_policy(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    GPT2LMHeadModel(GPT2Config(**SIZES, **IDS)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def comparison(question: Question, split: str) -> dict[str, str]:
    answers = {"chosen": f"It is {question.value}.", "rejected": "What a stupid question."}
    return {"prompt": question.prompt, **answers, "split": split, "rater": "simulated"}


def made_run(runs: Path, name: str = "made", *more: str) -> Experiment:
    """A finished run in `runs/name`, ready for everything that `rlhf-lab evaluate` does."""
    experiment = load_experiment(None, [f"runs_dir={runs}", f"name={name}", *SETTINGS, *more])
    folder = open_run_folder(experiment)
    for stage, seed in (("sft", 0), ("ppo", 1), ("ppo/checkpoint-1", 2)):
        save_policy(folder / stage, seed)
    torch.manual_seed(3)
    GPT2ForSequenceClassification(GPT2Config(**SIZES, **IDS, num_labels=1)).save_pretrained(folder / "reward")
    byte_tokenizer().save_pretrained(folder / "reward")
    facts = [question for question in training_questions() if question.family == "fact"][:64]
    held = [question for question in heldout_questions() if question.family == "fact"][:12]
    rows = [comparison(question, "train") for question in facts] + [
        comparison(question, "heldout") for question in held
    ]
    write_jsonl(folder / "comparisons.jsonl", rows)
    write_json(folder / "evaluation" / "reward_model.json", {"accuracy": {"mean": 0.5, "low": 0.4, "high": 0.6}})
    write_json(folder / "evaluation" / "policy.json", EVALUATED)
    for stage in ("base", "sft", "comparisons", "reward", "ppo", "evaluation"):
        record_stage(folder, stage, {"seconds": 1.0, "finished": "2030-01-02T10:11:12+00:00", "data": {}})
    return experiment


HALF = {"mean": 0.5, "low": 0.4, "high": 0.6}
EVALUATED = {
    "num_prompts": 30,
    "policies": {"sft": {"score": HALF}, "ppo": {"score": HALF}},
    "win_rate": {"gold": HALF},
    "samples": [],
}
