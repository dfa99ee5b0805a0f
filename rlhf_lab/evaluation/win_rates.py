"""Win rates of one policy against another, whoever judges: the rate with its interval, at equal length, and its tests.

A judge gives scores (the higher wins, equal ones tie) or votes. Writes nothing; whose votes and which judges are the
business of `rlhf_lab/evidence/judges.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_lab.evaluation.bootstrap import bootstrap_ratio
from rlhf_lab.evaluation.length_control import length_controlled
from rlhf_lab.evaluation.significance import HALF_WIDTHS, mcnemar, prompts_needed, sign_test

MOST_LENGTH_RESAMPLES = 500  # a fit each; their interval's ends move in the third decimal beyond


@dataclass
class Judgements:
    """One entry for each judgement: who won, on which prompt, and by how much ours is longer."""

    wins: list[float] = field(default_factory=list)  # 1 ours, 0 theirs, a half for a tie
    prompts: list[str] = field(default_factory=list)  # key of the prompt; judgements on one prompt hang together
    longer: list[float] = field(default_factory=list)  # characters of ours less theirs

    def add(self, win: float, prompt: str, longer: float) -> None:
        self.wins.append(win)
        self.prompts.append(prompt)
        self.longer.append(longer)


def judged_by_scores(
    ours: Sequence[float | None],
    theirs: Sequence[float | None],
    prompts: Sequence[str],
    longer: Sequence[float],
    same: Sequence[bool],
) -> Judgements:
    """Who has the higher score on each prompt; prompts on which a score is None are left out.

    Where `same`, both answers read the same: a tie, though a model's scores of them can differ in the last digit.
    """
    found = Judgements()
    for a, b, prompt, difference, tied in zip(ours, theirs, prompts, longer, same, strict=True):
        if a is not None and b is not None:
            found.add(0.5 if tied or a == b else float(a > b), prompt, difference)
    return found


def win_rate(judgements: Judgements, *, num_resamples: int, seed: int) -> dict[str, Any]:
    """Everything that win_rates.json says of one judge. Raises ValueError for no judgement."""
    wins, prompts = judgements.wins, judgements.prompts
    if not wins:
        raise ValueError("no judgements; need at least one")
    by_prompt = verdicts_of_prompts(judgements)
    won, lost = (sum(verdict == sign for verdict in by_prompt.values()) for sign in (1, -1))
    return {
        "num_judgements": len(wins),
        "num_prompts": len(by_prompt),
        "wins": sum(win == 1.0 for win in wins),
        "losses": sum(win == 0.0 for win in wins),
        "ties": sum(win == 0.5 for win in wins),
        "win_rate": bootstrap_ratio(wins, prompts, num_resamples=num_resamples, seed=seed),
        "length_controlled": length_controlled(
            wins, judgements.longer, prompts, num_resamples=min(num_resamples, MOST_LENGTH_RESAMPLES), seed=seed
        ),
        "sign_test": {"won": won, "lost": lost, "p_value": sign_test(won, lost)},
        "prompts_needed": [
            {"half_width": width, "num_prompts": prompts_needed(wins, prompts, width)} for width in HALF_WIDTHS
        ],
    }


def verdicts_of_prompts(judgements: Judgements) -> dict[str, int]:
    """1, -1 or 0 for each prompt: who won most of its judgements. Votes on one pair are no independent trials."""
    balance: dict[str, float] = {}
    for win, prompt in zip(judgements.wins, judgements.prompts, strict=True):
        balance[prompt] = balance.get(prompt, 0.0) + win - 0.5
    return {prompt: (lead > 0) - (lead < 0) for prompt, lead in balance.items()}


def with_equal_answers(rate: Mapping[str, float], equal_fraction: float) -> dict[str, float]:
    """The rate over all prompts, of one measured where the answers differ: an equal answer is half a win for both.

    The share of equal answers counts as known, so the interval is that of the judgements alone.
    """
    return {key: 0.5 * equal_fraction + (1 - equal_fraction) * rate[key] for key in ("mean", "low", "high")}


def right_or_wrong(
    ours: Mapping[str, Sequence[float | None]], theirs: Mapping[str, Sequence[float | None]]
) -> dict[str, Any]:
    """McNemar's test for every measure that both policies were given, each 0 or 1 a prompt (None: does not apply)."""
    found = {}
    for name in ours:
        counted = mcnemar(ours[name], theirs[name])
        found[name] = {
            "num_prompts": counted.num_prompts,
            "only_ours": counted.only_ours,
            "only_theirs": counted.only_theirs,
            "p_value": counted.p_value,
        }
    return found
