"""Simulated raters at the same desk: they are given pairs, sides and repeats as people are, and their votes say so.

They know the embedded world's gold score through noise (`data/assistant/raters.py`), so they rate its prompts only. Two
of them beside a person show what agreement to expect of the pairs.
"""

import random
from dataclasses import replace

from rlhf_lab.data.assistant.gold import gold_of_prompt
from rlhf_lab.errors import UserError
from rlhf_lab.rating.outcomes import Outcome, Strength
from rlhf_lab.rating.pairs import shown_text
from rlhf_lab.rating.store import Shown, Store

CLEARLY = 0.5  # how far apart two looks have to be to be called clear, in units of the gold score
TIE = 0.05


def simulate(store: Store, *, num_raters: int, noise: float, seed: int) -> int:
    """Let raters `simulated-1` … vote until nothing is left for them; returns the number of new votes."""
    store.plan = replace(store.plan, raters_per_pair=num_raters + store.plan.raters_per_pair)
    added = 0
    for number in range(1, num_raters + 1):
        rater = store.rater(f"simulated-{number}", "simulated")
        rng = random.Random(f"simulated rater {number} {seed}")
        while shown := store.next(rater):
            outcome, strength = _judged(shown, noise, rng)
            added += store.vote(rater, shown.id, turn=shown.turn, outcome=outcome, strength=strength)
    return added


def _judged(shown: Shown, noise: float, rng: random.Random) -> tuple[Outcome, Strength | None]:
    """One look at each side, each with its own Gaussian error."""
    try:
        left, right = (
            gold_of_prompt(shown_text(shown.prompt), shown_text(side)).total + rng.gauss(0.0, noise)
            for side in (shown.left, shown.right)
        )
    except KeyError:
        raise UserError(
            "simulated raters know the embedded world only, and a pair has another prompt; leave --simulate out "
            "and let people rate"
        ) from None
    if abs(left - right) < TIE:
        return "tie", None
    return "left" if left > right else "right", "clearly" if abs(left - right) > CLEARLY else "slightly"
