"""Two processes (CPU, gloo on loopback) do what one does: the same metrics, weights and files."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_lab.errors import UserError
from rlhf_lab.training.checkpoint import checkpoints
from rlhf_lab.training.run import rows_of_rank
from tests.tiny_ppo import largest_difference, largest_metric_difference, metrics_of
from tests.two_processes_run import KINDS, run

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by two processes: one launch for all tests here, since starting takes longest."""
    folder = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu_2proc.yaml"]
    launch += ["--main_process_port", str(free_port())]
    done = subprocess.run(
        [*launch, "tests/two_processes_run.py", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "full" / "weights-1-of-2.pt").is_file(), "there was one process only"
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_b26_b32_b33_two_processes_give_the_metrics_and_weights_of_one(two: Path, tmp_path: Path, kind: str) -> None:
    """Advantages and rewards are whitened, the KL weight adapts: a mean over one process alone would show."""
    run(tmp_path, kind)
    one, both = metrics_of(tmp_path), metrics_of(two / kind)
    assert [line["step"] for line in one] == [0, 1, 2, 3, 3]
    assert largest_metric_difference(one, both) < 1e-5
    alone = torch.load(tmp_path / "weights-0-of-1.pt", weights_only=True)
    ranks = [torch.load(two / kind / f"weights-{rank}-of-2.pt", weights_only=True) for rank in range(2)]
    assert largest_difference(ranks[0], ranks[1]) == 0
    assert largest_difference(alone, ranks[0]) < 1e-5


def test_b15_b16_what_two_processes_save_loads_with_plain_transformers(two: Path) -> None:
    folder = two / "full"
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-3"]
    trained = torch.load(folder / "weights-0-of-2.pt", weights_only=True)
    for saved in (folder, folder / "checkpoint-3"):
        policy, report = AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
        assert not any(report.values()), report
        for name, weight in policy.named_parameters():
            assert torch.equal(weight, trained[name])
        critic, report = AutoModelForSequenceClassification.from_pretrained(
            saved / "value_model", output_loading_info=True
        )
        assert not any(report.values()), report
        for name, weight in critic.named_parameters():
            assert torch.equal(weight, trained[f"critic.{name}"])


def test_one_process_tokenises_and_the_other_reads(two: Path) -> None:
    assert [path.name for path in two.glob("tokenised-by-*")] == ["tokenised-by-0"]
    made, read = (torch.load(two / f"tokens-{rank}.pt", weights_only=True) for rank in range(2))
    assert made == read
    assert len(made) == 2


def test_b13_the_random_numbers_of_every_rank_are_resumed(two: Path) -> None:
    """Rewards are drawn from each process's own generator; after a resume they are the ones that come next."""
    straight, resumed = metrics_of(two / "noisy" / "straight"), metrics_of(two / "noisy" / "resumed")
    assert resumed == straight[2:]
    for rank in range(2):
        one, other = (
            torch.load(two / "noisy" / name / f"weights-{rank}.pt", weights_only=True)
            for name in ("straight", "resumed")
        )
        assert largest_difference(one, other) == 0


def test_two_processes_write_each_sample_once(two: Path) -> None:
    lines = (two / "full" / "samples" / "update-000003.jsonl").read_text().splitlines()
    assert len(lines) == 3


def test_batches_that_do_not_divide_over_the_processes_are_refused() -> None:
    with pytest.raises(UserError, match="a batch of 6 rows does not divide over 4 processes"):
        rows_of_rank(6, rank=0, num_processes=4)
    assert [list(rows_of_rank(6, rank=rank, num_processes=2)) for rank in range(2)] == [[0, 1, 2], [3, 4, 5]]
