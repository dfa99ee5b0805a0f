"""`rlhf-lab evaluate` beyond the stage: what is measured again at every call, and what is trained when asked for.

Win rates are measured again each time, since votes and judges come in after a run is finished.
"""

from rlhf_lab.config import Experiment
from rlhf_lab.errors import UserError
from rlhf_lab.evaluation.answers import policy_folder
from rlhf_lab.evidence.gold_against_proxy import add_overoptimization
from rlhf_lab.evidence.judges import measure_win_rates
from rlhf_lab.evidence.named_rewards import check_names
from rlhf_lab.pipeline import do, encoded_comparisons, judged_reward_model, quiet_libraries
from rlhf_lab.studies.ensemble import check_members, measure_ensemble
from rlhf_lab.studies.learning_curve import measure_learning_curve
from rlhf_lab.studies.reward_again import data_of_run
from rlhf_lab.training.records import read_json, write_json
from rlhf_lab.training.run import process_state


def evaluate(
    experiment: Experiment, *, between: tuple[str, str] | None, learning_curve: bool, num_members: int
) -> None:
    """The stage, win rates, and what a run of an older version lacks; the learning curve and the ensemble where asked
    for. Raises UserError for what is not there, before the run's config takes note of it."""
    check_names(experiment.evaluation.reward_funcs)
    for name in between or ():
        policy_folder(experiment.run_folder, name)
    if between and between[0] == between[1]:
        raise UserError(f"--between {between[0]} {between[1]} names one policy twice; type --between sft ppo")
    if num_members:
        check_members(num_members)
    do("evaluation", experiment)
    quiet_libraries()
    if process_state().is_main_process:
        _complete_reward_model(experiment)
        measure_win_rates(experiment, between)
    add_overoptimization(experiment)
    process_state().wait_for_everyone()
    if learning_curve:
        measure_learning_curve(experiment)
    if num_members:
        measure_ensemble(experiment, num_members=num_members)


def _complete_reward_model(experiment: Experiment) -> None:
    """Step 2 of an older version wrote accuracy and calibration only."""
    path = experiment.run_folder / "evaluation" / "reward_model.json"
    if path.is_file() and "length_bias" in read_json(path):
        return
    data = data_of_run(experiment)
    _, heldout = encoded_comparisons(experiment, data)
    write_json(path, judged_reward_model(experiment, experiment.run_folder / "reward", data, heldout))
