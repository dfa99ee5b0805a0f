"""A language of six words, small enough to list every answer: the world of the RLHF sandbox.

The prompt is always "What is the capital of France?". An answer is up to four words; the full stop ends it. That makes
781 answers and 156 beginnings, so every expectation below is a sum over all answers and nothing has to be sampled.

Two judges score a whole answer. Gold is what we want: right, and short. The proxy is what we can buy: a reward model
that learnt from people who were a little charmed by flattery, so it adds `flaw` for every "lovely" and "!".

Left out: prompts in the plural, words that share meaning, and everything else that makes language hard.

    python -m classic.real_world --env sandbox
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
from torch import Tensor

PROMPT = "What is the capital of France?"
WORDS = ("Paris", "Lyon", "maybe", "lovely", "!", ".")
END = WORDS.index(".")
LONGEST = 4  # words
# How the reference, an imitator of mixed teachers, goes on: before it has named a city, and after.
BEFORE_A_CITY = (4.0, 4.0, 3.0, 1.0, 0.3, 0.5)
AFTER_A_CITY = (0.3, 0.3, 0.3, 0.7, 0.8, 8.0)


@dataclass(frozen=True)
class Answers:
    """All N answers of at most T words, and the C beginnings that a policy can stand in; a policy is (C, V) logits."""

    texts: tuple[str, ...]  # N
    contexts: Tensor  # (N, T) the beginning before each word; 0 on padding
    words: Tensor  # (N, T) the word that was chosen there; 0 on padding
    mask: Tensor  # (N, T) True on words of the answer, the full stop included
    next_contexts: Tensor  # (N, T) the beginning after each word; 0 where the answer is over
    is_last: Tensor  # (N, T) True on the last word of each answer
    ref_logits: Tensor  # (C, V) the reference policy
    gold: Tensor  # (N,) what we want
    num_flatteries: Tensor  # (N,) what fools the reward model

    def word_log_probs(self, logits: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Log-probability in nats of each word of the answers `rows`, (B, T); 0 on padding. `logits` is (C, V)."""
        log_probs = logits.log_softmax(-1)[self.contexts[rows], self.words[rows]]
        return torch.where(self.mask[rows], log_probs, 0)

    def log_probs(self, logits: Tensor) -> Tensor:
        """(N,) log-probability of every whole answer under the policy: the sum over its words."""
        return self.word_log_probs(logits).sum(-1)

    def proxy(self, flaw: float) -> Tensor:
        """(N,) what the reward model says: gold, plus `flaw` for every flattery."""
        return self.gold + flaw * self.num_flatteries


@cache
def all_answers() -> Answers:
    """Every answer, in float64."""
    inner = [word for word in range(len(WORDS)) if word != END]
    beginnings = [start for length in range(LONGEST) for start in product(inner, repeat=length)]
    number = {start: index for index, start in enumerate(beginnings)}
    spoken = [(*start, END) for start in beginnings] + list(product(inner, repeat=LONGEST))
    contexts, words, next_contexts = (torch.zeros(len(spoken), LONGEST, dtype=torch.long) for _ in range(3))
    mask = torch.zeros(len(spoken), LONGEST, dtype=torch.bool)
    for row, answer in enumerate(spoken):
        for place, word in enumerate(answer):
            contexts[row, place], words[row, place], mask[row, place] = number[answer[:place]], word, True
            next_contexts[row, place] = number.get(answer[: place + 1], 0)
    lengths = mask.sum(-1, keepdim=True)
    return Answers(
        texts=tuple(" ".join(WORDS[word] for word in answer) for answer in spoken),
        contexts=contexts,
        words=words,
        mask=mask,
        next_contexts=next_contexts,
        is_last=torch.arange(LONGEST) == lengths - 1,
        ref_logits=torch.tensor([_weights(start) for start in beginnings], dtype=torch.float64).log(),
        gold=torch.tensor([_gold(answer) for answer in spoken], dtype=torch.float64),
        num_flatteries=torch.tensor([_flatteries(answer) for answer in spoken], dtype=torch.float64),
    )


def _weights(start: tuple[int, ...]) -> tuple[float, ...]:
    return AFTER_A_CITY if {"Paris", "Lyon"} & {WORDS[word] for word in start} else BEFORE_A_CITY


def _gold(answer: tuple[int, ...]) -> float:
    """1 for naming Paris, -1 for naming Lyon, and 0.2 less for every word: the best answer is "Paris .", worth 0.8."""
    count = Counter(WORDS[word] for word in answer if word != END)
    return float(count["Paris"] > 0) - float(count["Lyon"] > 0) - 0.2 * count.total()


def _flatteries(answer: tuple[int, ...]) -> float:
    count = Counter(WORDS[word] for word in answer)
    return float(count["lovely"] + count["!"])
