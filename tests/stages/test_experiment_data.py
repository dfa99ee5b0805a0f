"""From an experiment to the rows of its stages."""

import json
from pathlib import Path

import pytest

from rlhf_lab.config import load_experiment
from rlhf_lab.errors import UserError
from rlhf_lab.stages.experiment_data import demonstration_data, preference_data, prompt_data


@pytest.mark.parametrize(("column", "expected"), [("simulated", "simulated"), (None, "human")])
def test_who_rated_is_what_the_rows_say(tmp_path: Path, column: str | None, expected: str) -> None:
    """Simulated comparisons do not become human ones because a config for another file says so."""
    said = {} if column is None else {"rater": column}
    rows = [{"prompt": f"question {n}", "chosen": "good", "rejected": "bad", **said} for n in range(20)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment = load_experiment("hh_rlhf", [f"data.preferences={file}", "data.data_dir=null"])
    assert experiment.data.rater == "human"
    assert preference_data(experiment).facts["rater"] == expected


def test_no_stage_trains_on_what_another_holds_out(tmp_path: Path) -> None:
    """Three files that share prompts only in part, as published sets for the three steps do."""
    columns = {"demonstrations": ["completion"], "preferences": ["chosen", "rejected"], "prompts": []}
    overrides = ["data.heldout=0.3", "data.data_dir=null"]
    for number, (kind, answers) in enumerate(columns.items()):
        rows = [
            {"prompt": f"question {n}", **{answer: f"{answer} {n}" for answer in answers}}
            for n in range(40 * number, 40 * number + 120)
        ]
        file = tmp_path / f"{kind}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        overrides.append(f"data.{kind}={file}")
    experiment = load_experiment("hh_rlhf", overrides)
    stages = [make(experiment) for make in (demonstration_data, preference_data, prompt_data)]
    trained = {prompt for stage in stages for prompt in stage.train["prompt"]}
    assert len(trained) > 100
    assert all(len(stage.heldout) > 20 and not trained & set(stage.heldout["prompt"]) for stage in stages)
    with pytest.raises(UserError, match=r"there are 3.*data\.heldout=0\.05"):
        load_experiment("hh_rlhf", [*overrides, "data.heldout=20"])
