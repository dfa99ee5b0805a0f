"""From an experiment to the rows of its stages."""

import json
from pathlib import Path

import pytest

from rlhf_lab.config import load_experiment
from rlhf_lab.stages.experiment_data import preference_data


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
