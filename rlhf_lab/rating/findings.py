"""What the votes say about the raters: agreement with intervals, each rater's habits, warnings where votes look random.

Agreement is over main pairs. Gold questions and repeated pairs are measured apart: the first are easy on purpose, the
second compare a rater with himself.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rlhf_lab.data.prompts import Completion
from rlhf_lab.rating.agreement import (
    Array,
    Interval,
    agreement_interval,
    alpha_interval,
    binomial_test,
    chance_of_at_least,
    count_values,
    kappa_interval,
)
from rlhf_lab.rating.outcomes import COUNTED, DECISIVE, KINDS, OUTCOMES, Vote
from rlhf_lab.rating.pairs import Pair, shown_text
from rlhf_lab.rating.store import Store, median

VERDICTS = ("first", "tie", "second", "both_bad")
# From clearly the first to clearly the second, for the ordinal alpha; both bad has no place on that line.
GRADES = (("first", "clearly"), ("first", "slightly"), ("tie", None), ("second", "slightly"), ("second", "clearly"))
NUM_RESAMPLES = 2000
MAX_KAPPAS = 45  # of ten raters all with all; more would fill the page without saying more

GROUPS = {"human": "people", "simulated": "simulated raters", "imported": "imported votes"}
FEW_PAIRS = 10  # below this many, agreement is not held against anybody
LOW_ALPHA = 0.2
FAST_SECONDS = 1.5
UNLIKELY = 0.01
# A rater who is right three times in four must not be told that chance does as well: 5 of 8 is warned about, 6 is not.
MIN_CHECKS = 6
LIKELY = 0.25


@dataclass(frozen=True)
class Rate:
    """`part` of `whole`, with the two-sided p-value of the binomial test against one half."""

    part: int
    whole: int

    @property
    def value(self) -> float | None:
        return self.part / self.whole if self.whole else None

    @property
    def p_value(self) -> float:
        return binomial_test(self.part, self.whole)


@dataclass(frozen=True)
class RaterFindings:
    """The habits of one rater."""

    name: str
    kind: str
    outcomes: Mapping[str, int]
    left: Rate  # of decisive votes
    longer: Rate  # of decisive votes on texts of different length
    gold: Rate  # of answers to gold questions
    consistent: Rate  # of repeated pairs, with sides swapped
    median_seconds: float | None


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of two raters."""

    raters: tuple[str, str]
    num_pairs: int
    interval: Interval


@dataclass(frozen=True)
class Findings:
    """Everything that the agreement page and `--report` show."""

    num_pairs: int
    num_votes: Mapping[str, int]  # kind of rater -> votes on main pairs that count
    num_shared: int  # pairs with two votes or more
    agreement: Interval
    alpha: Interval
    graded_alpha: Interval
    kappas: tuple[Kappa, ...]
    raters: tuple[RaterFindings, ...]
    flagged: int
    warnings: tuple[str, ...]


def findings(
    store: Store, *, only: Callable[[Pair], bool] | None = None, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Findings:
    """Measure all votes that stand, or those on some pairs only."""
    pairs = {name: pair for name, pair in store.pairs().items() if only is None or only(pair)}
    votes = [vote for vote in store.votes() if vote.pair in pairs]
    main = [vote for vote in votes if vote.purpose == "main" and vote.outcome in COUNTED]
    verdicts = _verdict_counts(main)
    graded = [vote for vote in main if (vote.verdict, vote.strength) in GRADES]
    grades = _counts(graded, lambda vote: GRADES.index((vote.verdict or "", vote.strength)), len(GRADES))
    raters = tuple(_rater(name, theirs, pairs) for name, theirs in _by_rater(votes).items())
    return Findings(
        num_pairs=sum(pair.gold is None for pair in pairs.values()),
        num_votes={kind: n for kind in KINDS if (n := sum(vote.kind == kind for vote in main))},
        num_shared=int((verdicts.sum(1) > 1).sum()),
        agreement=agreement_interval(verdicts, num_resamples=num_resamples, seed=seed),
        alpha=alpha_interval(verdicts, "nominal", num_resamples=num_resamples, seed=seed),
        graded_alpha=alpha_interval(grades, "ordinal", num_resamples=num_resamples, seed=seed),
        kappas=_kappas(main, num_resamples=num_resamples, seed=seed),
        raters=raters,
        flagged=len({vote.pair for vote in votes if vote.outcome == "flag"}),
        warnings=(*_warnings_of_groups(main, num_resamples, seed), *itertools.chain(*map(_warnings_of_one, raters))),
    )


def _verdict_counts(votes: Sequence[Vote]) -> Array:
    return _counts(votes, lambda vote: VERDICTS.index(vote.verdict or ""), len(VERDICTS))


def _counts(votes: Sequence[Vote], value: Callable[[Vote], int], num_values: int) -> Array:
    units: dict[str, list[int]] = defaultdict(list)
    for vote in votes:
        units[vote.pair].append(value(vote))
    return count_values(list(units.values()), num_values)


def _by_rater(votes: Sequence[Vote]) -> dict[str, list[Vote]]:
    found: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        found[vote.rater].append(vote)
    return dict(sorted(found.items(), key=lambda item: (KINDS.index(item[1][0].kind), item[0])))


def _rater(name: str, votes: list[Vote], pairs: Mapping[str, Pair]) -> RaterFindings:
    decisive = [vote for vote in votes if vote.outcome in DECISIVE and vote.purpose != "gold"]
    sized = [vote for vote in decisive if _longer(pairs[vote.pair]) is not None]
    gold = [vote for vote in votes if vote.purpose == "gold" and vote.outcome in COUNTED]
    before = {vote.pair: vote.verdict for vote in votes if vote.purpose == "main"}
    again = [vote for vote in votes if vote.purpose == "repeat" and vote.verdict and before.get(vote.pair)]
    was_seen = [vote for vote in decisive if vote.kind != "imported"]  # nobody knows on which side those stood
    return RaterFindings(
        name=name,
        kind=votes[0].kind,
        outcomes={o: n for o in OUTCOMES if (n := Counter(vote.outcome for vote in votes)[o])},
        left=Rate(sum(vote.outcome == "left" for vote in was_seen), len(was_seen)),
        longer=Rate(sum(vote.preferred == _longer(pairs[vote.pair]) for vote in sized), len(sized)),
        gold=Rate(sum(vote.preferred == pairs[vote.pair].gold for vote in gold), len(gold)),
        consistent=Rate(sum(vote.verdict == before[vote.pair] for vote in again), len(again)),
        median_seconds=median([vote.seconds for vote in votes if vote.seconds is not None]),
    )


def _longer(pair: Pair) -> str | None:
    first, second = _length(pair.first), _length(pair.second)
    return None if first == second else "first" if first > second else "second"


def _length(completion: Completion) -> int:
    return len(shown_text(completion).strip())


def _kappas(votes: Sequence[Vote], *, num_resamples: int, seed: int) -> tuple[Kappa, ...]:
    verdicts: dict[str, dict[str, int]] = defaultdict(dict)
    for vote in votes:
        verdicts[vote.rater][vote.pair] = VERDICTS.index(vote.verdict or "")
    shared = {
        names: common
        for names in itertools.combinations(sorted(verdicts), 2)
        if (common := sorted(verdicts[names[0]].keys() & verdicts[names[1]].keys()))
    }
    most = sorted(shared, key=lambda names: (-len(shared[names]), names))[:MAX_KAPPAS]
    found = []
    for names in most:
        first, second = ([verdicts[name][pair] for pair in shared[names]] for name in names)
        interval = kappa_interval(first, second, len(VERDICTS), num_resamples=num_resamples, seed=seed)
        found.append(Kappa(names, len(first), interval))
    return tuple(found)


def _warnings_of_groups(votes: Sequence[Vote], num_resamples: int, seed: int) -> list[str]:
    """Each kind of rater alone, so that steady simulated raters do not hide people who guess; then all together."""
    groups = [(name, [vote for vote in votes if vote.kind == kind]) for kind, name in GROUPS.items()]
    there = [(name, theirs) for name, theirs in groups if theirs]
    everybody = [(" and ".join(name for name, _ in there), list(votes))] if len(there) > 1 else []
    found = []
    for name, theirs in [*there, *everybody]:
        counts = _verdict_counts(theirs)
        alpha = alpha_interval(counts, "nominal", num_resamples=num_resamples, seed=seed)
        found += _warnings_of_group(name, alpha, int((counts.sum(1) > 1).sum()))
    return found


def _warnings_of_group(name: str, alpha: Interval, num_shared: int) -> list[str]:
    if num_shared < FEW_PAIRS or not math.isfinite(alpha.value):
        return []
    interval = f"alpha {alpha.value:.2f} [{alpha.low:.2f}, {alpha.high:.2f}] on {num_shared} pairs"
    if alpha.low <= 0:
        return [f"{name} agree no more than by chance ({interval}): a reward model would learn noise"]
    if alpha.value < LOW_ALPHA:
        return [f"{name} hardly agree ({interval}): look at the guidelines and at the pairs before training"]
    return []


def _warnings_of_one(rater: RaterFindings) -> list[str]:
    found = []
    gold, again, left, seconds = rater.gold, rater.consistent, rater.left, rater.median_seconds
    if gold.whole >= MIN_CHECKS and chance_of_at_least(gold.part, gold.whole) > LIKELY:
        found.append(f"answered {gold.part} of {gold.whole} gold questions as known, which chance does too")
    if again.whole >= MIN_CHECKS and chance_of_at_least(again.part, again.whole) > LIKELY:
        found.append(f"said the same of {again.part} of {again.whole} repeated pairs, which chance does too")
    if left.p_value < UNLIKELY:
        found.append(f"chose the left side in {left.part} of {left.whole} votes (p = {left.p_value:.2g})")
    if seconds is not None and seconds < FAST_SECONDS and rater.kind == "human":
        found.append(f"takes {seconds:.1f} s a pair, less than reading takes")
    return [f"{rater.name} {what}" for what in found]
