"""What a run's evaluation says about over-optimisation, without any training: best-of-n, and gold against proxy.

    rlhf-lab evaluate               # writes evaluation/best_of_n.json and evaluation/overoptimization.json

Leaves out the measuring itself (`evaluation/best_of_n.py`, `evaluation/overoptimization.py`) and the sweep over KL
weights (`sweep.py`), whose PPO points are taken up where there are any.
"""

import random
import time
from typing import Any

from datasets import Dataset

from rlhf_lab.config import Experiment
from rlhf_lab.evaluation.best_of_n import best_of_n_points, sample_for_best_of_n
from rlhf_lab.evaluation.frontier import Values, measure_policy
from rlhf_lab.evaluation.overoptimization import overoptimization
from rlhf_lab.models.language import load_causal_lm, load_tokenizer
from rlhf_lab.models.scalar import load_scalar_model
from rlhf_lab.stages import experiment_data
from rlhf_lab.training.records import read_json, read_metrics, read_run, write_json
from rlhf_lab.training.run import process_state

SAMPLED_WITH = ("max_prompt_length", "max_completion_length", "stop_tokens")


class Yardstick:
    """What policies are measured with, loaded once: SFT model, reward model, held-out prompts; and training prompts."""

    def __init__(self, experiment: Experiment) -> None:
        folder = experiment.run_folder
        self.experiment = experiment
        self.tokenizer = load_tokenizer(str(folder / "sft"))
        self.sft = load_causal_lm(str(folder / "sft"), self.tokenizer).eval()
        self.reward_model = load_scalar_model(folder / "reward").eval()
        data = experiment_data.fitted_prompt_data(experiment, self.tokenizer)
        self.train: Dataset = data.train
        heldout = list(data.heldout["prompt"])
        number = min(len(heldout), experiment.frontier.num_prompts)
        self.prompts = random.Random(f"frontier {experiment.seed}").sample(heldout, number)

    def measured(self, policy: Any) -> Values:
        """KL, score, gold and length of a policy, one number a prompt."""
        return measure_policy(
            policy,
            self.sft,
            self.reward_model,
            self.tokenizer,
            self.prompts,
            ppo=self.experiment.ppo,
            frontier=self.experiment.frontier,
            evaluation=self.experiment.evaluation,
            is_embedded=self.experiment.is_embedded,
            seed=self.experiment.seed,
        )


def settings_of_measuring(experiment: Experiment) -> dict[str, Any]:
    """What every measurement rests on: change one of these, and old numbers and new ones do not compare."""
    stages = read_run(experiment.run_folder).get("stages", {})
    return {
        "seed": experiment.seed,
        "num_prompts": experiment.frontier.num_prompts,
        "evaluation.temperature": experiment.evaluation.temperature,
        **{f"ppo.{key}": getattr(experiment.ppo, key) for key in SAMPLED_WITH},
        **{f"{stage} finished": stages.get(stage, {}).get("finished") for stage in ("sft", "reward")},
    }


def best_of_n(experiment: Experiment, yardstick: Yardstick | None = None) -> dict[str, Any]:
    """`evaluation/best_of_n.json`, measured where it is missing or rests on other settings."""
    path = experiment.run_folder / "evaluation" / "best_of_n.json"
    section = experiment.frontier
    numbers = sorted({1, *section.best_of})  # best of 1 is the SFT model itself, the baseline of all gains
    settings = settings_of_measuring(experiment) | {"best_of": numbers, "best_of_samples": section.best_of_samples}
    if path.exists() and (found := read_json(path))["settings"] == settings:
        return dict(found)
    yardstick = yardstick or Yardstick(experiment)
    number = len(yardstick.prompts)
    print(f"best-of-n  {section.best_of_samples} completions for each of {number} held-out prompts", flush=True)
    started = time.perf_counter()
    samples = sample_for_best_of_n(
        yardstick.sft,
        yardstick.reward_model,
        yardstick.tokenizer,
        yardstick.prompts,
        ppo=experiment.ppo,
        frontier=section,
        evaluation=experiment.evaluation,
        is_embedded=experiment.is_embedded,
        seed=experiment.seed,
    )
    found = {
        "settings": settings,
        "mean_distinct": sum(len(one.counts) for one in samples) / number,
        "points": best_of_n_points(samples, numbers),
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_json(path, found)
    print(f"best-of-n  finished after {found['seconds']} s", flush=True)
    return found


def write_overoptimization(experiment: Experiment, yardstick: Yardstick | None = None) -> None:
    """`evaluation/overoptimization.json`: gold against proxy along PPO, best-of-n and the sweep, if there was one.

    Without a gold score, best-of-n would cost many samples and show little: it is left to the sweep, which brings its
    yardstick.
    """
    if not process_state().is_main_process:
        return
    folder = experiment.run_folder
    swept = folder / "evaluation" / "frontier.json"
    is_measured = experiment.is_embedded or yardstick is not None
    found = overoptimization(
        read_metrics(folder / "ppo"),
        best_of_n(experiment, yardstick)["points"] if is_measured else [],
        read_json(swept)["points"] if swept.exists() else [],
    )
    write_json(folder / "evaluation" / "overoptimization.json", found)


def add_overoptimization(experiment: Experiment) -> None:
    """`write_overoptimization` where the file is missing, as in a run that an older version evaluated."""
    if not (experiment.run_folder / "evaluation" / "overoptimization.json").exists():
        write_overoptimization(experiment)
