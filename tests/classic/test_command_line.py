"""What can not be is told before anything is trained: seeds, budgets and paths, in every lesson."""

from pathlib import Path

import pytest

from classic import dqn_command, policy_gradient_command, ppo_command, q_learning_command, real_world_command

LESSONS = {
    "q_learning": q_learning_command.main,
    "dqn": dqn_command.main,
    "policy_gradient": policy_gradient_command.main,
    "ppo": ppo_command.main,
    "real_world": real_world_command.main,
}


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seed", "-1"], "got -1; it must be 0 or a whole number above it"),
        (["--seeds", "inf"], "got inf; it must be a whole number above 0"),
        (["--json", "FOLDER"], "is a folder; it must be the name of a file to write"),
        (["--out", "FILE"], "is a file; it must be a folder to write into"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_trained(
    lesson: str, words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    places = {"FOLDER": str(tmp_path), "FILE": str(tmp_path / "file")}
    with pytest.raises(SystemExit) as ended:
        LESSONS[lesson]([places.get(word, word) for word in words])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
