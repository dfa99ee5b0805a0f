"""The run's reward model trained again with one thing changed: on fewer comparisons, or from another seed.

What the learning curve and the ensemble share: the very rows that the run's reward model was trained on, and knowing
whether something that was trained before still belongs to them.
"""

from pathlib import Path
from typing import Any

from rlhf_lab.config import Experiment
from rlhf_lab.errors import UserError
from rlhf_lab.pipeline import comparisons_of, judged_reward_model, train_reward_model
from rlhf_lab.rate_votes import with_used_votes
from rlhf_lab.stages.experiment_data import StageData
from rlhf_lab.training.records import is_finished, read_json
from rlhf_lab.training.run import process_state

KEPT = ("accuracy", "gold_accuracy")  # of what held-out comparisons say; the calibration's error beside them


def data_of_run(experiment: Experiment) -> StageData:
    """The rows of the run's reward model. Raises UserError where it is not trained."""
    folder = experiment.run_folder
    if not is_finished(folder, "reward"):
        raise UserError(f"the reward model of {folder} is not trained yet; type rlhf-lab reward first")
    return with_used_votes(experiment, comparisons_of(experiment))


def rests_on(experiment: Experiment, data: StageData) -> dict[str, Any]:
    """What decides a training besides what is changed on purpose."""
    return {
        "comparisons": data.facts["sha256"],
        "heldout": data.facts["heldout_sha256"],
        "seed": experiment.seed,
        "reward": experiment.reward.model_dump(),
    }


def kept_entries(path: Path, key: str, basis: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured before, unless it rests on other data or settings."""
    kept = read_json(path) if path.is_file() else {}
    return list(kept[key]) if kept.get("rests_on") == basis else []


def trained_and_judged(experiment: Experiment, data: StageData, folder: Path, *, seed: int) -> dict[str, Any]:
    """Train, and measure on the run's own held-out pairs; a training that was cut short is taken up again."""
    untracked = experiment.model_copy(
        update={"tracking": experiment.tracking.model_copy(update={"report_to": []})}  # the run's curves are its own
    )
    _, _, heldout = train_reward_model(untracked, data, folder, seed=seed)
    found = judged_reward_model(experiment, folder, data, heldout) if process_state().is_main_process else {}
    return in_short(found)


def in_short(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of reward_model.json that curves and tables show."""
    error = (found.get("calibration") or {}).get("expected_error")
    return {**{key: found.get(key) for key in KEPT}, "calibration_error": error}
