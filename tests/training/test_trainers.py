"""What the stages on TRL's trainers share: how a batch is cut among processes and micro-batches."""

import pytest

from rlhf_lab.errors import UserError
from rlhf_lab.training import trainers
from rlhf_lab.training.trainers import micro_batches


class Processes:
    def __init__(self, num_processes: int) -> None:
        self.num_processes = num_processes


@pytest.mark.parametrize(
    ("num_processes", "batch_size", "micro_batch_size", "expected"),
    [(1, 32, 32, (32, 1)), (1, 32, 8, (8, 4)), (2, 32, 32, (16, 1)), (4, 32, 4, (4, 2)), (4, 32, 100, (8, 1))],
)
def test_a_batch_is_cut_among_processes_into_micro_batches_of_at_most_the_size_given(
    monkeypatch: pytest.MonkeyPatch,
    num_processes: int,
    batch_size: int,
    micro_batch_size: int,
    expected: tuple[int, int],
) -> None:
    monkeypatch.setattr(trainers, "process_state", lambda: Processes(num_processes))
    rows, steps = micro_batches(batch_size, micro_batch_size)
    assert (rows, steps) == expected
    assert rows * steps * num_processes == batch_size


@pytest.mark.parametrize(
    ("num_processes", "batch_size", "micro_batch_size", "advice"),
    [(3, 32, 32, "batch_size=30"), (4, 2, 1, "batch_size=4"), (2, 24, 8, "micro_batch_size=4")],
)
def test_sizes_that_do_not_divide_say_what_to_type_and_it_works(
    monkeypatch: pytest.MonkeyPatch, num_processes: int, batch_size: int, micro_batch_size: int, advice: str
) -> None:
    monkeypatch.setattr(trainers, "process_state", lambda: Processes(num_processes))
    with pytest.raises(UserError, match=f"type {advice}"):
        micro_batches(batch_size, micro_batch_size)
    key, value = advice.split("=")
    micro_batches(**{"batch_size": batch_size, "micro_batch_size": micro_batch_size, key: int(value)})
