"""A rollout in chunks: while one is sampled, the one before is scored, in a thread and on a GPU a stream of its own.

Saves time where a reward function waits, for a server say, or where a GPU is not filled by either. Two things that
compute on the same CPU gain nothing. Leaves out the reference's and the critic's passes.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context

import torch
import torch.nn.functional as F
from torch import Tensor

from rlhf_lab.errors import UserError
from rlhf_lab.generation.sample import Completions
from rlhf_lab.models.adapters import AdapterScalar
from rlhf_lab.stages.scoring import RewardModel, Scorer, Scores


def sampled_and_scored(
    num_rows: int,
    num_chunks: int,
    sample: Callable[[slice], Completions],
    score: Callable[[slice, Completions], Scores],
    device: torch.device,
) -> tuple[Completions, Scores]:
    """`sample` rows chunk by chunk, and have each chunk scored while the next is sampled; all rows in their order.

    With several chunks `score` runs in another thread, with this one's context variables and gradient mode. What it
    raises is raised here, before one more chunk is sampled; chunks that wait for their scores are let go then, as they
    are on Ctrl-C.
    """
    if num_chunks == 1:
        rows = slice(0, num_rows)
        completions = sample(rows)
        return completions, score(rows, completions)
    size = -(-num_rows // num_chunks)
    chunks = [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    with_gradients = torch.is_grad_enabled()
    drawn: list[Completions] = []
    pending: list[Future[Scores]] = []

    def scored(rows: slice, completions: Completions, sampled: torch.cuda.Event | None) -> Scores:
        with _on(stream, sampled), torch.set_grad_enabled(with_gradients):
            return score(rows, completions)

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scores")
    try:
        for rows in chunks:
            _raise_what_is_known(pending)
            drawn.append(sample(rows))
            sampled = torch.cuda.current_stream(device).record_event() if stream else None
            pending.append(thread.submit(copy_context().run, scored, rows, drawn[-1], sampled))
        scores = [judged.result() for judged in pending]
    finally:
        thread.shutdown(wait=False, cancel_futures=True)
    return _joined(drawn), Scores.joined(scores)


def _raise_what_is_known(pending: Sequence[Future[Scores]]) -> None:
    for judged in (judged for judged in pending if judged.done()):
        judged.result()


@contextmanager
def _on(stream: torch.cuda.Stream | None, sampled: torch.cuda.Event | None) -> Iterator[None]:
    """Within it, this thread's kernels go to `stream`, after those that sampled. Scores are read on the host, which
    waits for them."""
    if stream is None or sampled is None:
        yield
        return
    stream.wait_event(sampled)
    with torch.cuda.stream(stream):
        yield


def _joined(chunks: Sequence[Completions]) -> Completions:
    """All rows, as wide as the widest chunk: an own `complete()` may cut each to its longest completion."""
    width = max(chunk.ids.shape[1] for chunk in chunks)
    said = [chunk.log_probs for chunk in chunks if chunk.log_probs is not None]
    return Completions(
        ids=_stacked([chunk.ids for chunk in chunks], width),
        mask=_stacked([chunk.mask for chunk in chunks], width),
        stopped=torch.cat([chunk.stopped for chunk in chunks]),
        log_probs=_stacked(said, width) if len(said) == len(chunks) else None,
    )


def _stacked(tables: Sequence[Tensor], width: int) -> Tensor:
    """Tables (B, T) below each other, filled up with zeros on the right: what `mask` leaves out is read by nobody."""
    return torch.cat([F.pad(table, (0, width - table.shape[1])) for table in tables])


def check_overlap(num_chunks: int, scorers: Sequence[Scorer]) -> None:
    """Raise UserError where a reward model can not score while the policy samples: adapters of one base."""
    shared = [s.name for s in scorers if isinstance(s, RewardModel) and isinstance(s.model, AdapterScalar)]
    if num_chunks > 1 and shared:
        raise UserError(
            f"overlap_chunks={num_chunks} needs a reward model with layers of its own, and {shared[0]!r} is an adapter "
            "on the policy's base; type overlap_chunks=1, or give another reward model"
        )
