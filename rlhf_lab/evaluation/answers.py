"""What the policies of a run answer to its held-out prompts: sampled once, kept, and read by every judge.

All policies answer the same prompts with the same random numbers, so that differences are the policies'. The answers of
`sft`, `ppo` or `ppo/checkpoint-64` are in `evaluation/answers/<name>.json` with what they were made from; whatever of
that changes, the weights among it, they are sampled anew. People rate these very answers (`rlhf-lab rate --between`).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.config import EvaluationSection
from rlhf_lab.data.prompts import Completion, Prompt, canonical_json, encode_prompt, prompt_key
from rlhf_lab.errors import UserError
from rlhf_lab.generation.sample import draw_uniforms, sample_completions
from rlhf_lab.generation.stops import stops_of
from rlhf_lab.models.language import load_causal_lm, load_tokenizer
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.training.records import read_json, write_text

STREAM = 4  # of uniform numbers; the stages use others
BLOCKS, BLOCK = 64, 1024  # of a weights file, evenly spaced: any training changes some, and reading them takes no time
STAGES = ("base", "sft", "ppo")  # later ones last
CHECKPOINT = re.compile(r"ppo/checkpoint-\d+")


@dataclass(frozen=True)
class Asked:
    """N prompts in the order in which they are asked, with the data set's other columns."""

    prompts: list[Prompt]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        return [prompt_key(prompt) for prompt in self.prompts]


@dataclass(frozen=True)
class Written:
    """N completions of one policy."""

    completion_ids: list[list[int]]  # without padding, the stop token included
    texts: list[str]  # without special tokens
    stopped: list[bool]  # True where they end in a stop token


def pick(prompts: Sequence[Prompt], columns: Mapping[str, Sequence[Any]], *, number: int, seed: int) -> Asked:
    """`number` prompts in a random order, or all of them where there are fewer."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(prompts), generator=generator).tolist()[:number]
    return Asked(
        [prompts[row] for row in rows], {name: [column[row] for row in rows] for name, column in columns.items()}
    )


def prompt_ids_of(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], ppo: PPOConfig) -> list[list[int]]:
    """Token ids of prompts as PPO reads them: of a long one the end."""
    return [encode_prompt(tokenizer, prompt)[-ppo.max_prompt_length :] for prompt in prompts]


def write_answers(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[Sequence[int]],
    *,
    ppo: PPOConfig,
    settings: EvaluationSection,
    seed: int,
) -> Written:
    """Sample one completion of every prompt."""
    completions = sample_completions(
        policy,
        prompt_ids,
        draw_uniforms(len(prompt_ids), ppo.max_completion_length, seed=seed, stream=STREAM),
        temperature=settings.temperature,
        stops=stops_of(policy, tokenizer, ppo.stop_tokens),
        pad_token_id=tokenizer.pad_token_id,
        batch_size=settings.batch_size,
    )
    rows = completions.rows()
    return Written(rows, list(tokenizer.batch_decode(rows, skip_special_tokens=True)), completions.stopped.tolist())


def answers_of(
    run_folder: Path, name: str, asked: Asked, *, ppo: PPOConfig, settings: EvaluationSection, seed: int
) -> Written:
    """The answers of the run's policy `name`, from disk or sampled now. Raises UserError where there is none."""
    path = run_folder / "evaluation" / "answers" / f"{name}.json"
    made_from = {
        "seed": seed,
        "temperature": settings.temperature,
        "sampling": {key: getattr(ppo, key) for key in ("max_prompt_length", "max_completion_length", "stop_tokens")},
        "prompts": hashlib.sha256("\n".join(asked.keys).encode()).hexdigest(),
        "weights": fingerprint_of_weights(policy_folder(run_folder, name)),
    }
    kept = read_json(path) if path.is_file() else {}
    if kept.get("made_from") == made_from:
        return Written(**{key: [row[key] for row in kept["answers"]] for key in Written.__dataclass_fields__})
    tokenizer = load_tokenizer(str(run_folder / "sft"))
    policy = load_causal_lm(str(policy_folder(run_folder, name)), tokenizer).eval()
    prompt_ids = prompt_ids_of(tokenizer, asked.prompts, ppo)
    found = write_answers(policy, tokenizer, prompt_ids, ppo=ppo, settings=settings, seed=seed)
    columns = zip(asked.prompts, found.completion_ids, found.texts, found.stopped, strict=True)
    names = ("prompt", *Written.__dataclass_fields__)
    kept = {"made_from": made_from, "answers": [dict(zip(names, row, strict=True)) for row in columns]}
    write_text(path, json.dumps(kept, ensure_ascii=False) + "\n")  # on one line: token ids would take one line each
    return found


def policy_folder(run_folder: Path, name: str) -> Path:
    """The folder of a policy of the run. Raises UserError for a name that leads to none."""
    folder = run_folder / name
    if is_policy_name(name) and (any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))):
        return folder
    there = [stage for stage in STAGES if (run_folder / stage / "config.json").is_file()]
    there += sorted(f"ppo/{path.name}" for path in (run_folder / "ppo").glob("checkpoint-*"))
    raise UserError(f"{run_folder} has no policy {name!r}; it has {', '.join(there) or 'none yet: type rlhf-lab sft'}")


def is_policy_name(name: str) -> bool:
    """Whether a run can have a policy of this name; its reward model and critic are none."""
    return name in STAGES or CHECKPOINT.fullmatch(name) is not None


def order_of(name: str) -> tuple[int, float]:
    """Where a policy stands on the road from base to PPO: the later one is held against the earlier one."""
    stage, _, rest = name.partition("/")
    number = rest.removeprefix("checkpoint-")
    return STAGES.index(stage) if stage in STAGES else len(STAGES), float(number) if number.isdigit() else float("inf")


def fingerprint_of_weights(folder: Path) -> str:
    """A hash of the sizes and of some blocks of the weight files in `folder`."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for number in range(BLOCKS):
                file.seek(max(0, size - BLOCK) * number // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()


def said(prompt: Prompt, text: str) -> Completion:
    """A completion in its prompt's form: text after text, an assistant's message after messages."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def same_text(one: str, other: str) -> bool:
    """Whether two answers read the same: white space around them does not count."""
    return one.strip() == other.strip()


def pair_key(prompt: Prompt, texts: tuple[str, str]) -> str:
    """Identity of a prompt with two answers, whichever comes first; to find the answers that a vote was on."""
    return canonical_json([prompt_key(prompt), *sorted(text.strip() for text in texts)])
