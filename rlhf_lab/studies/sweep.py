"""The sweep: PPO, TRL's RLOO and DPO at several KL weights and seeds, beside best-of-n, measured and summarised.

    rlhf-lab evaluate --frontier [CONFIG] [frontier.num_seeds=1 ...]

Every training starts from the run's SFT model and ends with `frontier/<method>/<weight>-seed<k>/results.json`: what has
one is done, so a killed sweep continues where it was, and a training that was cut short starts afresh. A result
remembers the settings that it rests on; other settings are refused, never mixed. The summary is
`evaluation/frontier.json`. Leaves out measuring (`evaluation/frontier.py`) and TRL's trainers (`sweep_trl.py`).
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from rlhf_lab.config import Experiment
from rlhf_lab.errors import UserError
from rlhf_lab.evaluation.frontier import Values, summarize
from rlhf_lab.evidence.gold_against_proxy import Yardstick, best_of_n, settings_of_measuring, write_overoptimization
from rlhf_lab.models.language import load_causal_lm
from rlhf_lab.pipeline import quiet_libraries, say
from rlhf_lab.stages.ppo import PPOTrainer
from rlhf_lab.studies import sweep_trl
from rlhf_lab.training.checkpoint import saving
from rlhf_lab.training.records import is_finished, read_json, write_json
from rlhf_lab.training.run import process_state
from rlhf_lab.training.run_folder import FREE_KEYS, open_run_folder

# The settings of `frontier` that a training rests on
RESTS_ON = {
    "ppo": ("total_episodes",),
    "rloo": ("total_episodes", "rloo_num_generations", "rloo_learning_rate"),
    "dpo": ("dpo_num_pairs", "dpo_num_epochs", "dpo_batch_size", "dpo_learning_rate"),
}
# Settings of `ppo` that the sweep sets itself, or that say how a run goes on its way
NOT_IN_SWEEP = {"kl_coef", "target_kl", "kl_horizon", "total_episodes", "eval_steps", "run_name", "generation_engine"}
NOT_IN_SWEEP |= {"push_to_hub", "hub_model_id"}


@dataclass(frozen=True)
class Point:
    """One training of the sweep."""

    method: str
    kl_coef: float
    number: int  # of the seed, from 0
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}/{self.kl_coef!r}-seed{self.number}"  # all digits: no two weights share a folder


def sweep(experiment: Experiment) -> Path:
    """Do what is missing of the sweep and summarise it; returns the path of the summary.

    Raises UserError where the run lacks what a sweep starts from, settings can not work, or finished results rest on
    others.
    """
    folder = _checked_folder(experiment)
    quiet_libraries()
    points = points_of(experiment)
    todo = [point for point in points if finished_result(experiment, point) is None]
    say(f"frontier  {len(points)} trainings, {len(points) - len(todo)} of them done; results in {folder / 'frontier'}")
    yardstick = Yardstick(experiment)
    best = best_of_n(experiment, yardstick)
    spent: list[float] = []
    for left, point in zip(range(len(todo) - 1, -1, -1), todo, strict=True):
        say(f"frontier  {len(points) - left} of {len(points)}  {point.name}  starts")
        result = train_and_measure(experiment, yardstick, point)
        spent.append(result["seconds"])
        minutes = sum(spent) / len(spent) * left / 60
        say(f"frontier  {point.name}  {told(result)}; {left} left, about {minutes:.0f} min")
    path = folder / "evaluation" / "frontier.json"
    results = [finished_result(experiment, point) for point in points]
    write_json(path, summary(experiment, results, best, run=of_run(experiment, yardstick)))
    write_overoptimization(experiment, yardstick)
    say(f"frontier  {path}")
    return path


def points_of(experiment: Experiment) -> list[Point]:
    """All trainings, seed by seed, so that a sweep that is cut short has whole frontiers of its first seeds."""
    section = experiment.frontier
    return [
        Point(method, kl_coef, number, experiment.seed + number)
        for number in range(section.num_seeds)
        for kl_coef in section.kl_coefs
        for method in section.methods
        if method != "best_of_n"
    ]


def finished_result(experiment: Experiment, point: Point) -> dict[str, Any] | None:
    """What a finished training left; None where it is still to be done. Raises UserError for one on other settings."""
    path = _folder(experiment, point) / "results.json"
    if not path.exists():
        return None
    found: dict[str, Any] = read_json(path)
    now, then = _settings(experiment, point), found["settings"]
    if changes := [f"{key} was {then.get(key)!r} and is {now[key]!r}" for key in now if then.get(key) != now[key]]:
        raise UserError(
            f"{path.parent} was trained with other settings: {'; '.join(changes)}. To continue this sweep, give the "
            f"old values; to begin it afresh, delete {experiment.run_folder / 'frontier'}"
        )
    return found


def train_and_measure(experiment: Experiment, yardstick: Yardstick, point: Point) -> dict[str, Any]:
    """Train one point, measure it, and write its results.json last of all."""
    folder = _folder(experiment, point)
    shutil.rmtree(folder, ignore_errors=True)  # what a killed training left
    folder.mkdir(parents=True)
    started = time.perf_counter()
    trained, facts = TRAIN[point.method](experiment, yardstick, point, folder)
    train_seconds = time.perf_counter() - started
    policy = load_causal_lm(str(experiment.run_folder / "sft"), yardstick.tokenizer).eval()
    policy.load_state_dict(trained.state_dict())  # a plain model on the CPU: TRL changes the forward of its own
    values = yardstick.measured(policy)
    result = {
        "method": point.method,
        "kl_coef": point.kl_coef,
        "seed": point.seed,
        **facts,
        "settings": _settings(experiment, point),
        "train_seconds": round(train_seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "values": values,
    }
    with saving(folder):
        if experiment.frontier.keep_models:
            policy.save_pretrained(folder)
            yardstick.tokenizer.save_pretrained(folder)
        write_json(folder / "results.json", result)
    return result


def train_ppo(
    experiment: Experiment, yardstick: Yardstick, point: Point, folder: Path
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Our PPO as the `ppo` section says, at a fixed KL weight."""
    ppo = experiment.ppo
    num_updates = experiment.frontier.total_episodes // ppo.rollout_batch_size
    changed = {
        "output_dir": str(folder),
        "seed": point.seed,
        "kl_coef": point.kl_coef,
        "target_kl": None,
        "total_episodes": experiment.frontier.total_episodes,
        "critic_warmup_updates": min(ppo.critic_warmup_updates, num_updates),
        "logging_steps": max(1, num_updates // 4),
        "eval_steps": 0,
        "save_steps": 0,
        "report_to": [],
        "push_to_hub": False,
        "hub_model_id": None,
    }
    trainer = PPOTrainer(
        model=str(experiment.run_folder / "sft"),
        reward_funcs=str(experiment.run_folder / "reward"),
        args=ppo.model_copy(update=changed),
        train_dataset=yardstick.train,
    )
    trainer.train()
    policy: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.models.policy)
    return policy, {}


def train_rloo(
    experiment: Experiment, yardstick: Yardstick, point: Point, folder: Path
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """TRL's RLOO, its `beta` the KL weight itself."""
    policy = sweep_trl.train_rloo(
        experiment.run_folder,
        yardstick.train,
        yardstick.tokenizer,
        kl_coef=point.kl_coef,
        seed=point.seed,
        ppo=experiment.ppo,
        frontier=experiment.frontier,
        folder=folder,
    )
    return policy, {"beta": point.kl_coef}


def train_dpo(
    experiment: Experiment, yardstick: Yardstick, point: Point, folder: Path
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """TRL's DPO, its `beta` the KL weight on the scale of the comparisons' log odds."""
    train, heldout = sweep_trl.comparisons_of(experiment)
    max_length = experiment.reward.max_length
    scale = sweep_trl.scale_of(yardstick.reward_model, yardstick.tokenizer, heldout, max_length=max_length)
    beta = point.kl_coef * scale / experiment.ppo.score_scale
    policy = sweep_trl.train_dpo(
        experiment.run_folder,
        train,
        yardstick.tokenizer,
        beta=beta,
        seed=point.seed,
        max_length=max_length,
        ppo=experiment.ppo,
        frontier=experiment.frontier,
        folder=folder,
    )
    return policy, {"beta": beta, "preference_scale": scale}


TRAIN: dict[str, Callable[..., tuple[PreTrainedModel, dict[str, Any]]]] = {
    "ppo": train_ppo,
    "rloo": train_rloo,
    "dpo": train_dpo,
}


def of_run(experiment: Experiment, yardstick: Yardstick) -> Values | None:
    """The policy that the run itself trained, measured like all others; None before step 3 is finished."""
    if not is_finished(experiment.run_folder, "ppo"):
        return None
    return yardstick.measured(load_causal_lm(str(experiment.run_folder / "ppo"), yardstick.tokenizer).eval())


def summary(experiment: Experiment, results: list[Any], best: dict[str, Any], *, run: Values | None) -> dict[str, Any]:
    """What goes into frontier.json."""
    section = experiment.frontier
    keys = ("method", "kl_coef", "seed", "beta", "seconds", "values")
    points = [{key: result[key] for key in keys if key in result} for result in results]
    if "best_of_n" in section.methods:
        of_best = [point for point in best["points"] if point["n"] in section.best_of]
        points += [{"method": "best_of_n", **point} for point in of_best]
    base = next(point["values"] for point in best["points"] if point["n"] == 1)
    found = summarize(
        points,
        base,
        judge="gold" if experiment.is_embedded else "score",
        num_bootstrap=experiment.evaluation.num_bootstrap,
        seed=experiment.seed,
        run=run,
    )
    return {
        **found,
        "num_prompts": len(base["score"]),
        "samples_per_prompt": section.samples_per_prompt,
        "best_of_samples": section.best_of_samples,
        "temperature": experiment.evaluation.temperature,
        "settings": section.model_dump(),
        "seconds": round(sum(result["seconds"] for result in results) + best["seconds"], 1),
    }


def told(result: dict[str, Any]) -> str:
    """A result in one line."""
    means = {key: sum(values) / len(values) for key, values in result["values"].items()}
    gold = f", gold {means['gold']:.3f}" if "gold" in means else ""
    return f"finished after {result['seconds']:.0f} s: KL {means['kl']:.2f}, score {means['score']:.3f}{gold}"


def _checked_folder(experiment: Experiment) -> Path:
    if process_state().num_processes > 1:
        raise UserError("the sweep runs in one process; type rlhf-lab evaluate --frontier, without accelerate launch")
    run_folder, ppo, section = experiment.run_folder, experiment.ppo, experiment.frontier
    for stage in ("sft", "reward"):
        if not is_finished(run_folder, stage):
            raise UserError(
                f"the sweep starts from the {stage} model, which is not finished in {run_folder}; type rlhf-lab {stage}"
            )
    if section.total_episodes < ppo.rollout_batch_size:
        raise UserError(
            f"frontier.total_episodes={section.total_episodes} is less than one rollout of {ppo.rollout_batch_size}; "
            f"type frontier.total_episodes={ppo.rollout_batch_size} or more"
        )
    if "rloo" in section.methods and ppo.rollout_batch_size % section.rloo_num_generations:
        raise UserError(
            f"frontier.rloo_num_generations={section.rloo_num_generations} does not divide ppo.rollout_batch_size="
            f"{ppo.rollout_batch_size}: RLOO compares completions of one prompt; type frontier.rloo_num_generations=2"
        )
    return open_run_folder(experiment)


def _folder(experiment: Experiment, point: Point) -> Path:
    return experiment.run_folder / "frontier" / point.name


def _settings(experiment: Experiment, point: Point) -> dict[str, Any]:
    """Everything that a point's numbers rest on."""
    section = experiment.frontier
    ppo = {key: value for key, value in experiment.ppo.model_dump().items() if key not in FREE_KEYS | NOT_IN_SWEEP}
    return {
        **settings_of_measuring(experiment),
        "frontier.samples_per_prompt": section.samples_per_prompt,
        **{f"frontier.{key}": getattr(section, key) for key in RESTS_ON[point.method]},
        **{f"ppo.{key}": value for key, value in ppo.items()},
    }
