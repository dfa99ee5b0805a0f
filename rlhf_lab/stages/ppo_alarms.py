"""Alarms of a PPO run: signs that the policy found what pays instead of what is wanted.

Each compares the last updates with the first ones, when the policy was still the SFT model. One that rings is logged as
`alarm/<name>` 1 for as long as it holds, said once, and kept in run.json; training goes on, since only a person can
tell a hack from a taste. The limits are constants, not settings: one that is tuned until it is silent warns of nothing.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# What "at first" and "now" mean: the first rollout is SFT's own and the next ones are near it; one alone is noise, and
# so are a few episodes, a tenth of which more or less end by themselves.
FIRST_UPDATES, FIRST_EPISODES = 2, 100
WINDOW_UPDATES, WINDOW_EPISODES = 10, 200

# Rewards that pay for length alone make answers half as long again and more (Singhal et al. 2023, arXiv 2310.03716);
# a policy that answers in less than half of SFT's words has stopped answering.
LONGER, SHORTER = 1.5, 0.5
# Share of repeated 3-grams. Sentences repeat next to none; a tenth more than SFT is a loop in many completions.
REPEATS_MORE = 0.1
# Nats per token. Healthy published runs stay below 0.45 (6 to 10 nats in 24 tokens, Ziegler et al. 2019); those that
# went wrong are above 0.7 (17.5 nats in 24 tokens with GPT-2 XL; 50 to 85 in 53 tokens, Huang et al. 2024).
KL_PER_TOKEN = 0.6
FEWER_ENDS = 0.2  # of completions that end by themselves; the rest are cut off at max_completion_length
ENTROPY_LEFT = 0.1  # of the entropy at first: almost every prompt has one answer left. Learning halves it, or thirds it
# Standard errors of the difference between two evaluations. The best of several evaluations is too good by one or two.
SURE = 3.0

LIMITS = {  # in words, for whoever reads the run
    "length": f"length below {SHORTER} or above {LONGER} of what it was at first",
    "repetition": f"repeated 3-grams {REPEATS_MORE} above what they were at first",
    "kl": f"KL above {KL_PER_TOKEN} nats a token",
    "eos": f"completions that end by themselves {FEWER_ENDS} fewer than at first",
    "entropy": f"entropy below {ENTROPY_LEFT} of what it was at first",
    "gold": f"gold score {SURE:.0f} standard errors below its best, reward no lower than then",
    "heldout": f"held-out score {SURE:.0f} standard errors below its best, reward in training no lower than then",
}
OF_UPDATES = ("length", "repetition", "kl", "eos", "entropy")


@dataclass(frozen=True)
class Picture:
    """Averages over some updates."""

    length: float  # tokens
    repetition: float
    kl: float  # nats, summed over a completion
    eos: float  # fraction of completions that end by themselves
    entropy: float  # nats per token
    score: float

    @classmethod
    def of(cls, rows: list[dict[str, float]]) -> "Picture":
        return cls(**{name: math.fsum(row[name] for row in rows) / len(rows) for name in cls.__dataclass_fields__})


@dataclass
class Alarms:
    """What has been seen, and which alarms rang. All of it is numbers and texts, so that a checkpoint can hold it."""

    num_episodes: int  # of an update
    num_seen: int = 0  # updates
    first: list[dict[str, float]] = field(default_factory=list)
    recent: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, dict[str, float]] = field(default_factory=dict)  # evaluation with the highest gold, held-out score
    rang: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> update and words of the first time
    said: list[str] = field(default_factory=list)  # names that were said

    def after_update(self, update: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """`alarm/...` 0 or 1 from the metrics of one update."""
        row = {
            "length": metrics["completion_length"],
            "repetition": metrics["completion_repetition"],
            "kl": metrics["objective/kl"],
            "eos": metrics["val/num_eos_tokens"] / self.num_episodes,
            "entropy": metrics["policy/entropy_avg"],
            "score": metrics["objective/scores"],
        }
        num_first = max(FIRST_UPDATES, math.ceil(FIRST_EPISODES / self.num_episodes))
        num_recent = max(WINDOW_UPDATES, math.ceil(WINDOW_EPISODES / self.num_episodes))
        self.first = [*self.first, row][:num_first]
        self.recent = [*self.recent, row][-num_recent:]
        self.num_seen += 1
        if self.num_seen <= num_first + num_recent // 2:
            return {f"alarm/{name}": 0.0 for name in OF_UPDATES}
        then, now = Picture.of(self.first), Picture.of(self.recent)
        return {f"alarm/{name}": self._heard(name, update, RULES[name](then, now)) for name in OF_UPDATES}

    def after_evaluation(self, update: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """`alarm/gold` where a gold score is measured, and `alarm/heldout`."""
        found = {}
        if {"eval_gold", "eval_gold_stderr"} <= set(metrics):
            proxy = metrics["eval_scores"]
            fall = self._fall("gold", metrics["eval_gold"], metrics["eval_gold_stderr"], proxy)
            words = fall and (
                f"the gold score fell {fall} while the reward rose: PPO is paid for what is not wanted; an earlier "
                "checkpoint is better, and so may a higher kl_coef be"
            )
            found["alarm/gold"] = self._heard("gold", update, words)
        if self.recent:
            rewards = Picture.of(self.recent).score
            fall = self._fall("heldout", metrics["eval_scores"], metrics["eval_scores_stderr"], rewards)
            words = fall and f"the score of held-out prompts fell {fall} while that of training prompts rose"
            found["alarm/heldout"] = self._heard("heldout", update, words)
        return found

    def take_new(self) -> list[str]:
        """The words of alarms that were not said yet."""
        new = [name for name in self.rang if name not in self.said]
        self.said = [*self.said, *new]
        return [f"{self.rang[name]['words']} (alarm/{name}, update {self.rang[name]['update']})" for name in new]

    def told(self) -> dict[str, dict[str, Any]]:
        """Name -> update and words of the first time; empty where none rang."""
        return {name: dict(heard) for name, heard in self.rang.items()}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """None: a checkpoint of an older version, after which the alarms begin anew."""
        for name in STATE if state else ():
            setattr(self, name, (state or {})[name])

    def _heard(self, name: str, update: int, words: str) -> float:
        if words:
            self.rang.setdefault(name, {"update": update, "words": words})
        return float(bool(words))

    def _fall(self, name: str, value: float, stderr: float, paid: float) -> str:
        """'from 2.1 to 1.8' where `value` is surely below its best while `paid` is no lower than it was then."""
        best = self.best.get(name)
        if best is None or value > best["value"]:
            self.best[name] = {"value": value, "stderr": stderr, "paid": paid}
            return ""
        is_lower = best["value"] - value > SURE * math.hypot(stderr, best["stderr"])
        return f"from {best['value']:.2f} to {value:.2f}" if is_lower and paid >= best["paid"] else ""


STATE = ("num_seen", "first", "recent", "best", "rang", "said")


def _length(then: Picture, now: Picture) -> str:
    if SHORTER * then.length <= now.length <= LONGER * then.length:
        return ""
    verb = "grew" if now.length > then.length else "shrank"
    return f"completions {verb} from {then.length:.1f} to {now.length:.1f} tokens: does the reward pay for length?"


def _repetition(then: Picture, now: Picture) -> str:
    if now.repetition <= then.repetition + REPEATS_MORE:
        return ""
    share = f"{100 * then.repetition:.0f} to {100 * now.repetition:.0f} %"
    return f"completions repeat themselves, {share} of their 3-grams: look at samples/"


def _kl(then: Picture, now: Picture) -> str:
    per_token = now.kl / max(now.length, 1.0)
    if per_token <= KL_PER_TOKEN:
        return ""
    return (
        f"the policy is {per_token:.2f} nats a token away from the reference, further than runs that stay sensible; "
        "raise kl_coef, set target_kl, or lower learning_rate"
    )


def _eos(then: Picture, now: Picture) -> str:
    if now.eos >= then.eos - FEWER_ENDS:
        return ""
    share = f"{100 * now.eos:.0f} % of completions end by themselves, {100 * then.eos:.0f} % did at first"
    return f"{share}: the others are cut off at max_completion_length; missing_eos_penalty makes that cost"


def _entropy(then: Picture, now: Picture) -> str:
    if now.entropy >= ENTROPY_LEFT * then.entropy:
        return ""
    return (
        f"the entropy fell from {then.entropy:.2f} to {now.entropy:.3f} nats a token: the policy hardly tries anything "
        "else; lower learning_rate, raise kl_coef or ent_coef"
    )


RULES: dict[str, Callable[[Picture, Picture], str]] = {
    "length": _length,
    "repetition": _repetition,
    "kl": _kl,
    "eos": _eos,
    "entropy": _entropy,
}
