"""How much the reward model gains from more comparisons: trained on a sixteenth of them, an eighth, and so on to all.

Each time from the run's SFT model, with the run's own settings, judged on the run's held-out pairs. Prompts are taken
whole, and a larger part holds the smaller ones. The last point is the run's reward model itself.

    rlhf-lab evaluate RUN --learning-curve          writes evaluation/learning_curve.json, a point at a time
"""

import shutil
import time
from dataclasses import replace
from typing import Any

from rlhf_lab.config import Experiment
from rlhf_lab.data.prompts import prompt_key
from rlhf_lab.data.splits import limit_rows
from rlhf_lab.errors import UserError
from rlhf_lab.stages.experiment_data import StageData
from rlhf_lab.studies.reward_again import data_of_run, in_short, kept_entries, rests_on, trained_and_judged
from rlhf_lab.training.records import read_json, write_json
from rlhf_lab.training.run import process_state

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
FEWEST = 16  # pairs; a point on fewer says nothing


def measure_learning_curve(experiment: Experiment) -> None:
    """Train what is missing of the curve. A point that is written is not trained again. Raises UserError where there
    are too few comparisons."""
    folder = experiment.run_folder / "evaluation"
    data = data_of_run(experiment)
    basis = rests_on(experiment, data)
    points = kept_entries(folder / "learning_curve.json", "points", basis)
    sizes = [size for fraction in FRACTIONS if (size := round(fraction * len(data.train))) >= FEWEST]
    if not sizes:
        raise UserError(
            f"{len(data.train)} comparisons are too few for a learning curve: half of them are fewer than {FEWEST}"
        )
    done = {point["num_pairs"] for point in points}
    for number, size in enumerate(sizes, 1):
        if size in done:
            continue
        _say(f"learning curve  {number} of {len(sizes)}: reward model on {size} of {len(data.train)} pairs")
        points.append(_point(experiment, data, size))
        points.sort(key=lambda point: point["num_pairs"])
        _write(experiment, basis, points)
    _write(experiment, basis, [*(p for p in points if p["num_pairs"] < len(data.train)), _last_point(experiment, data)])


def _point(experiment: Experiment, data: StageData, size: int) -> dict[str, Any]:
    part = limit_rows(data.train, size, experiment.seed)
    folder = experiment.run_folder / "evaluation" / "learning_curve" / f"{size}_pairs"
    started = time.perf_counter()
    found = trained_and_judged(experiment, replace(data, train=part), folder, seed=experiment.seed)
    seconds = round(time.perf_counter() - started, 1)
    process_state().wait_for_everyone()
    if process_state().is_main_process:
        shutil.rmtree(folder)  # the figures are what was wanted; a curve of large models would fill the disk
    return {"num_pairs": size, "num_prompts": _num_prompts(part), "seconds": seconds, **found}


def _last_point(experiment: Experiment, data: StageData) -> dict[str, Any]:
    """The run's own reward model, which saw all."""
    found = read_json(experiment.run_folder / "evaluation" / "reward_model.json")
    sizes = {"num_pairs": len(data.train), "num_prompts": _num_prompts(data.train)}
    return {**sizes, "seconds": None, **in_short(found)}


def _num_prompts(rows: Any) -> int:
    return len({prompt_key(prompt) for prompt in rows["prompt"]})


def _write(experiment: Experiment, basis: dict[str, Any], points: list[dict[str, Any]]) -> None:
    if process_state().is_main_process:
        path = experiment.run_folder / "evaluation" / "learning_curve.json"
        write_json(path, {"rests_on": basis, "points": points})


def _say(line: str) -> None:
    if process_state().is_main_process:
        print(line, flush=True)
