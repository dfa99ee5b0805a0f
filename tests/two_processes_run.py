"""One small PPO run, for one process or several: `accelerate launch tests/two_processes_run.py FOLDER KIND`.

test_two_processes.py compares the folders. KIND is "full", "adapters" or "nothing" (all scores None).
"""

import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig

from rlhf_lab import PPOTrainer
from rlhf_lab.data.lengths import Encoded
from rlhf_lab.stages.sft import encode_demonstrations
from rlhf_lab.stages.token_cache import encoded_once
from rlhf_lab.training.run import process_state
from tests.tiny_ppo import PROMPTS, all_weights, share_of_a, tiny_tokenizer, tiny_trainer

SETTINGS: dict[str, Any] = {
    "total_episodes": 24,
    "rollout_batch_size": 8,
    "minibatch_size": 4,
    "micro_batch_size": 1,
    "adam_eps": 1e-2,
    "max_grad_norm": 0.5,
    "target_kl": 0.5,
    "kl_horizon": 50,
    "missing_eos_penalty": 0.5,
    "whiten_rewards": True,
    "critic_warmup_updates": 1,
    "ent_coef": 0.01,
    "eval_steps": 3,
    "save_steps": 3,
    "stop_tokens": ["</s>", "c", "e", "f"],  # so that rows differ in length
}
KINDS = ("full", "adapters", "nothing")


def half_silent(prompts: list[str], completion_ids: list[list[int]], **kwargs: Any) -> list[float | None]:
    """No opinion on some prompts, so that one process may have no score at all."""
    return [None if len(p) > 2 else s for p, s in zip(prompts, share_of_a(completion_ids), strict=True)]


def run(folder: Path, kind: str) -> PPOTrainer:
    arguments: dict[str, Any] = {"eval_dataset": Dataset.from_dict({"prompt": PROMPTS[:3]})}
    if kind == "adapters":
        arguments["peft_config"] = LoraConfig(
            r=2, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True
        )
    reward = (lambda completions, **k: [None] * len(completions)) if kind == "nothing" else half_silent
    trainer = tiny_trainer(folder, reward=reward, arguments=arguments, **SETTINGS)
    trainer.train()
    trainer.save_model()
    torch.save(all_weights(trainer), folder / f"weights-{trainer.run.rank}-of-{trainer.run.num_processes}.pt")
    assert trainer.evaluate()["eval_length"] > 0, "the trainer is of use after training"
    return trainer


def noisy(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """Draws from torch's global generator, which is another one on every process."""
    return [float(torch.rand(())) for _ in completion_ids]


def run_resumed(folder: Path) -> None:
    """Four updates at once, and two after a resume, on processes that draw numbers of their own."""
    for name, resume in (("straight", None), ("resumed", folder / "straight" / "checkpoint-2")):
        trainer = tiny_trainer(folder / name, reward=noisy, save_steps=2, save_total_limit=None, micro_batch_size=2)
        torch.manual_seed(100 + trainer.run.rank)
        trainer.train(resume_from_checkpoint=resume)
        torch.save(all_weights(trainer), folder / name / f"weights-{trainer.run.rank}.pt")


def tokenise_once(folder: Path) -> None:
    """Both processes ask for the same tokens; which of them made some is in the names of files."""
    rows, tokenizer = Dataset.from_dict({"prompt": ["ab", "a"], "completion": ["c", "d"]}), tiny_tokenizer()

    def encode(*given: Any, **settings: Any) -> Encoded:
        (folder / f"tokenised-by-{process_state().process_index}").touch()
        return encode_demonstrations(*given, **settings)

    found = encoded_once(folder, encode, rows, tokenizer, max_length=16)
    torch.save(found.rows.to_list(), folder / f"tokens-{process_state().process_index}.pt")


if __name__ == "__main__":
    for each in KINDS:
        run(Path(sys.argv[1]) / each, each)
    run_resumed(Path(sys.argv[1]) / "noisy")
    tokenise_once(Path(sys.argv[1]))
