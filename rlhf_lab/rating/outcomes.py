"""What a rater can say about two completions, and what each answer is worth later.

Left and right are places on the page; first and second are the pair's own order. Only `swapped` of a presentation leads
from one to the other, so nothing but the database knows which completion stood where.
"""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["left", "right", "tie", "both_bad", "skip", "flag"]
Strength = Literal["slightly", "clearly"]
Preferred = Literal["first", "second"]
Kind = Literal["human", "simulated", "imported"]

OUTCOMES: tuple[Outcome, ...] = ("left", "right", "tie", "both_bad", "skip", "flag")
STRENGTHS: tuple[Strength, ...] = ("slightly", "clearly")
KINDS: tuple[Kind, ...] = ("human", "simulated", "imported")
DECISIVE: tuple[Outcome, ...] = ("left", "right")
# Skip and flag say nothing about which completion is better: the pair still waits for a vote.
COUNTED: tuple[Outcome, ...] = ("left", "right", "tie", "both_bad")
EQUAL: tuple[Outcome, ...] = ("tie", "both_bad")

# "Slightly better" and "significantly better" in the smaller of Llama 2's two scales of margins (arXiv 2307.09288,
# section 3.2.2 and table 27). A vote without a grade asks for no margin.
MARGINS: dict[Strength | None, float] = {None: 0.0, "slightly": 1 / 3, "clearly": 1.0}


@dataclass(frozen=True)
class Vote:
    """One vote that stands (not undone), with what is needed to count it."""

    pair: str
    rater: str
    kind: Kind
    purpose: str  # main, gold, repeat
    swapped: bool  # True: the pair's second completion stood on the left
    outcome: Outcome
    strength: Strength | None
    seconds: float | None  # None where nobody measured it: imported votes
    at: float

    @property
    def preferred(self) -> Preferred | None:
        """Which of the pair's own completions was preferred; None for tie, both bad, skip, flag."""
        if self.outcome not in DECISIVE:
            return None
        return "second" if (self.outcome == "left") is self.swapped else "first"

    @property
    def verdict(self) -> str | None:
        """first, second, tie or both_bad: what two raters can agree on. None for skip and flag."""
        return self.preferred or (self.outcome if self.outcome in EQUAL else None)

    @property
    def signed_margin(self) -> float:
        """Margin towards the pair's first completion; 0 for a tie and for a vote without a grade."""
        sign = {"first": 1.0, "second": -1.0}.get(self.preferred or "", 0.0)
        return sign * MARGINS[self.strength]


def strength_of_margin(margin: float | None) -> Strength | None:
    """The grade that a margin stands for, for votes from elsewhere. No margin, or none above 0, is no grade."""
    if margin is None or margin <= 0:
        return None
    return "clearly" if margin >= (MARGINS["slightly"] + MARGINS["clearly"]) / 2 else "slightly"
