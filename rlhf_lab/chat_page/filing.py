"""A comparison on its way into the run's store of votes, and back: each counted once, however often it is sent."""

from rlhf_lab.chat_page.questions import Filed, Question, Talk
from rlhf_lab.rating.chat_votes import ComparedBeforeError, file_comparison
from rlhf_lab.rating.guard import RefusedError
from rlhf_lab.rating.outcomes import DECISIVE, Outcome, Strength
from rlhf_lab.rating.store import Store


def file_vote(
    store: Store,
    rater: int,
    talk: Talk,
    question: Question,
    *,
    left: str,
    right: str,
    turn: int,
    outcome: Outcome,
    strength: Strength | None,
    seconds: float | None,
) -> bool:
    """Add the vote; False where it is there already. On disk when this returns.

    Raises RefusedError where there is no vote on these two answers, with the reason.
    """
    one, other = talk.pair_of(question, left, right)
    filed = question.filed.get((left, right))
    if filed and turn < filed.num_events:
        return False
    if filed and filed.outcome is not None:
        raise RefusedError(409, "These two have a vote already; take it back to vote anew.")
    if reason := talk.why_no_vote(question, one, other):
        raise RefusedError(409, reason)
    pair = question.pair(one, other)
    strength = strength if outcome in DECISIVE else None
    try:
        last = file_comparison(
            store,
            rater,
            pair,
            swapped=pair.first != question.completion(one),
            outcome=outcome,
            strength=strength,
            seconds=seconds,
            shown_at=question.shown_at,
        )
    except ComparedBeforeError as error:
        raise RefusedError(409, str(error)) from None
    question.filed[left, right] = Filed(last.id, last.turn + 1, outcome, strength)
    return True


def take_back(store: Store, rater: int, question: Question, *, left: str, right: str, turn: int) -> bool:
    """Take the vote on these two answers back by another event; False where it is taken back already."""
    filed = question.filed.get((left, right))
    if filed is None:
        raise RefusedError(404, "There is no vote on these two answers to take back.")
    if turn != filed.num_events:
        return False  # an older press that arrives late must not take back a newer vote
    undone = store.undo(rater, filed.presentation, turn=filed.num_events - 1, then="lapsed")
    question.filed[left, right] = Filed(filed.presentation, filed.num_events + undone, None)
    return undone
