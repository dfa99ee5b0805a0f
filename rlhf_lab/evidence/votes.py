"""Votes on pairs of which one side is written by one policy and the other by another, as win rates.

Only votes on the answers that the run's policies give today count: a run begun from another one brings that run's
votes along, and a policy trained anew writes other answers.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_lab.config import Experiment
from rlhf_lab.data.prompts import prompt_key
from rlhf_lab.evaluation.answers import Asked, Written, pair_key, said
from rlhf_lab.evaluation.significance import sign_test
from rlhf_lab.evaluation.win_rates import Judgements, win_rate, with_equal_answers
from rlhf_lab.rating.outcomes import COUNTED, DECISIVE, KINDS, Vote
from rlhf_lab.rating.pairs import Pair, shown_text
from rlhf_lab.rating.store import Store, votes_path


@dataclass(frozen=True)
class Votes:
    """Everything that was voted on in a run, read at one moment."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    votes: list[Vote] = field(default_factory=list)

    def writers(self, asked: Asked) -> list[tuple[str, str]]:
        """Every two policies that pairs set against each other on prompts of the evaluation."""
        keys = set(asked.keys)
        pairs = [pair for pair in self.pairs.values() if prompt_key(pair.prompt) in keys]
        return sorted({(min(pair.writers), max(pair.writers)) for pair in pairs if pair.writers})


def votes_of(experiment: Experiment) -> Votes:
    """The run's votes; none where nobody rated. Raises UserError for a database that can not be opened."""
    path = votes_path(experiment.run_folder)
    if not path.is_file():
        return Votes()
    store = Store(path)
    try:
        return Votes(store.pairs(), store.votes())
    finally:
        store.close()


def rates_by_votes(
    found: Votes,
    asked: Asked,
    ours: tuple[str, Written],
    theirs: tuple[str, Written],
    *,
    equal_fraction: float,
    num_resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """One entry for people, for simulated raters and for imported votes, where they voted on these two policies.

    Skipped and flagged pairs are no judgements, and neither are gold questions and repeated pairs. People rate pairs
    that differ; `over_all_prompts` counts the prompts with equal answers as ties, as scores do.
    """
    answers, keys = _answers(asked, ours, theirs), set(asked.keys)
    judged = {kind: Judgements() for kind in KINDS}
    left_out: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for vote in found.votes:
        pair = found.pairs[vote.pair]
        if vote.purpose != "main" or not pair.writers or set(pair.writers) != {ours[0], theirs[0]}:
            continue
        if why := _why_not_counted(vote, pair, keys, answers):
            left_out[vote.kind][why] += 1
        else:
            judged[vote.kind].add(*_judgement(vote, pair, ours[0]))
    settings = {"num_resamples": num_resamples, "seed": seed}
    return [
        _entry(kind, those, left_out[kind], equal_fraction, settings)
        for kind, those in judged.items()
        if those.wins or left_out[kind]
    ]


def position_of_votes(votes: Sequence[Vote]) -> dict[str, Any]:
    """How often each kind of rater chose the left side, of the decided votes of which the side is known.

    Sides are drawn for each rater and pair, so the better answer stands on the left half of the time.
    """
    found: dict[str, Any] = {}
    for kind in KINDS:
        sides = [vote.outcome for vote in votes if vote.kind == kind != "imported" and vote.outcome in DECISIVE]
        if sides:
            left = sides.count("left")
            p_value = sign_test(left, len(sides) - left)
            found[kind] = {"left": left, "num_votes": len(sides), "p_value": p_value}
    return found


def _why_not_counted(
    vote: Vote, pair: Pair, prompts: Collection[str], answers: Mapping[str, dict[str, str]]
) -> str | None:
    """None for a vote that counts."""
    if prompt_key(pair.prompt) not in prompts:
        return "on prompts that these policies are not evaluated on"
    if answers.get(pair_key(pair.prompt, (shown_text(pair.first), shown_text(pair.second)))) != _texts(pair):
        return "on answers that these policies do not give"
    return None if vote.outcome in COUNTED else f"{vote.outcome}: no judgement"


def _entry(
    kind: str, judged: Judgements, left_out: Counter[str], equal_fraction: float, settings: dict[str, int]
) -> dict[str, Any]:
    entry = {"judge": f"votes: {kind}", "kind": "votes", "raters": kind, "left_out": dict(left_out)}
    if not judged.wins:
        return {**entry, "num_judgements": 0}
    found = win_rate(judged, **settings)
    return {**entry, **found, "over_all_prompts": with_equal_answers(found["win_rate"], equal_fraction)}


def _judgement(vote: Vote, pair: Pair, ours: str) -> tuple[float, str, float]:
    assert pair.writers is not None
    by_writer = _texts(pair)
    (theirs,) = set(pair.writers) - {ours}
    longer = float(len(by_writer[ours]) - len(by_writer[theirs]))
    if vote.preferred is None:
        return 0.5, prompt_key(pair.prompt), longer
    writer = pair.writers[0] if vote.preferred == "first" else pair.writers[1]
    return float(writer == ours), prompt_key(pair.prompt), longer


def _texts(pair: Pair) -> dict[str, str]:
    """Writer -> what it wrote."""
    writers = pair.writers or ("", "")
    return {writers[0]: shown_text(pair.first).strip(), writers[1]: shown_text(pair.second).strip()}


def _answers(asked: Asked, ours: tuple[str, Written], theirs: tuple[str, Written]) -> dict[str, dict[str, str]]:
    """What both policies answer, to be found by a pair's texts."""
    found = {}
    for prompt, a, b in zip(asked.prompts, ours[1].texts, theirs[1].texts, strict=True):
        texts = shown_text(said(prompt, a)).strip(), shown_text(said(prompt, b)).strip()
        found[pair_key(prompt, texts)] = {ours[0]: texts[0], theirs[0]: texts[1]}
    return found
