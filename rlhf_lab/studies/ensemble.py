"""An ensemble of reward models: the run's own and others from other seeds, and where they disagree.

Members see the same comparisons in another order, with another head to begin with, and are normalised on the same
samples. They stay in `evaluation/ensemble/`, so that PPO's next version can be measured without training them again.

    rlhf-lab evaluate RUN --ensemble 3              writes evaluation/ensemble.json
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf_lab.config import Experiment
from rlhf_lab.errors import UserError
from rlhf_lab.evaluation.answers import Written, prompt_ids_of
from rlhf_lab.evaluation.disagreement import disagreement
from rlhf_lab.evidence import judges as evidence
from rlhf_lab.models.language import load_tokenizer
from rlhf_lab.models.scalar import load_scalar_model, sequence_scores
from rlhf_lab.stages.token_cache import forget_tokens
from rlhf_lab.studies.reward_again import data_of_run, in_short, kept_entries, rests_on, trained_and_judged
from rlhf_lab.training.records import read_json, write_json
from rlhf_lab.training.run import process_state
from rlhf_lab.training.trainers import remove_checkpoints

SEED_STEP = 7919  # between members, so that a run with the next seed shares none of them


def measure_ensemble(experiment: Experiment, *, num_members: int) -> None:
    """Train the members that are missing, then measure their spread on the answers of SFT and PPO."""
    check_members(num_members)
    path = experiment.run_folder / "evaluation" / "ensemble.json"
    data = data_of_run(experiment)
    basis = rests_on(experiment, data)
    others = [one for one in kept_entries(path, "members", basis) if one["seed"] != experiment.seed]
    for number in range(1, num_members):
        seed = experiment.seed + number * SEED_STEP
        if any(one["seed"] == seed for one in others):
            continue
        evidence.say(f"ensemble  reward model {number + 1} of {num_members}, seed {seed}")
        started = time.perf_counter()
        found = trained_and_judged(experiment, data, _folder(experiment, seed), seed=seed)
        others.append({"seed": seed, "seconds": round(time.perf_counter() - started, 1), **found})
        _write(path, {"rests_on": basis, "members": others})
        if process_state().is_main_process:
            remove_checkpoints(_folder(experiment, seed))  # of no use now that the member is on record
            forget_tokens(_folder(experiment, seed))
    if process_state().is_main_process:
        own = in_short(read_json(experiment.run_folder / "evaluation" / "reward_model.json"))
        members = [{"seed": experiment.seed, "seconds": None, **own}, *others]
        used = [one["seed"] for one in members][:num_members]
        _write(path, {"rests_on": basis, "members": members, "used": used, **_measured(experiment, used)})
    process_state().wait_for_everyone()


def check_members(number: int) -> None:
    if number < 2:
        raise UserError(f"--ensemble {number}: members disagree when there are two or more; type --ensemble 3")


def _measured(experiment: Experiment, seeds: list[int]) -> dict[str, Any]:
    asked = evidence.asked_of(experiment)
    prompt_ids = prompt_ids_of(load_tokenizer(str(experiment.run_folder / "sft")), asked.prompts, experiment.ppo)
    answers = [evidence.answers_of_run(experiment, name, asked) for name in ("sft", "ppo")]
    sft, ppo = (_scores(experiment, seeds, prompt_ids, written) for written in answers)
    settings = experiment.evaluation
    return disagreement(sft, ppo, asked.keys, num_resamples=settings.num_bootstrap, seed=experiment.seed)


def _scores(experiment: Experiment, seeds: list[int], prompt_ids: list[list[int]], written: Written) -> Tensor:
    """(M, N) of each member's scores."""
    whole = [[*prompt, *answer] for prompt, answer in zip(prompt_ids, written.completion_ids, strict=True)]
    return torch.stack([sequence_scores(load_scalar_model(_folder(experiment, seed)).eval(), whole) for seed in seeds])


def _folder(experiment: Experiment, seed: int) -> Path:
    if seed == experiment.seed:
        return experiment.run_folder / "reward"
    return experiment.run_folder / "evaluation" / "ensemble" / f"seed-{seed}"


def _write(path: Path, found: dict[str, Any]) -> None:
    if process_state().is_main_process:
        write_json(path, found)
