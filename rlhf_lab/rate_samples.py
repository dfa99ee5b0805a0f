"""Pairs for raters: sampled from the run's SFT model by the code that samples for simulated raters, or answers of two
policies of the run.

Pairs of the SFT model are on training prompts, so that their votes may train a reward model. In the embedded world some
become gold questions, of which nobody should doubt the answer: their gold scores lie far apart. Pairs of two policies
are the answers to held-out prompts that every other judge of `rlhf-lab evaluate` judges too.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf_lab.config import Experiment
from rlhf_lab.data.assistant.gold import gold_of_prompt
from rlhf_lab.data.prompts import Completion, Prompt
from rlhf_lab.errors import UserError
from rlhf_lab.evaluation.answers import same_text
from rlhf_lab.evidence import judges as evidence
from rlhf_lab.models.language import load_causal_lm, load_tokenizer
from rlhf_lab.rating.pairs import Pair, UnusableRowError, make_pair
from rlhf_lab.stages import experiment_data
from rlhf_lab.stages.comparisons import sample_texts
from rlhf_lab.training.run_folder import commit

SAMPLES = 4  # of each prompt; often two of them are equal
FIRST_STREAM = 1_000_000  # of uniform numbers, far from those of comparisons, reward model and PPO
CLEAR_GAP = 2.0  # of gold scores: one answer is right, and the other wrong, or rude beside it
ROUNDS = 8


def sampled_pairs(experiment: Experiment, *, num_pairs: int, gold_rate: float, num_known: int) -> list[Pair]:
    """`num_pairs` new pairs and, in the embedded world, gold questions for `gold_rate` of them.

    `num_known` pairs were drawn before: it moves the random numbers on. Raises UserError where the model says the same
    again and again, so that there are no pairs.
    """
    folder = experiment.run_folder / "sft"
    tokenizer = load_tokenizer(str(folder))
    policy = load_causal_lm(str(folder), tokenizer).eval()
    prompts = experiment_data.prompt_data(experiment).train["prompt"]
    num_gold = round(num_pairs * gold_rate + 0.49) if experiment.is_embedded else 0
    source = f"sft of {experiment.name}, commit {commit()}"
    pairs: dict[str, Pair] = {}
    gold: dict[str, Pair] = {}
    for number in range(ROUNDS):
        stream = FIRST_STREAM + num_known * ROUNDS + number
        rng = random.Random(f"pairs to rate {experiment.seed} {stream}")
        asked = [prompts[i] for i in _cycled(len(prompts), num_pairs + 4 * num_gold, rng)]
        texts = sample_texts(
            policy,
            tokenizer,
            asked,
            samples_per_prompt=SAMPLES,
            seed=experiment.seed,
            stream=stream,
            max_tokens=experiment.ppo.max_completion_length,
            max_prompt_tokens=experiment.ppo.max_prompt_length,
        )
        _sort_in(asked, texts, source, pairs=pairs, gold=gold, num_gold=num_gold)
        if len(pairs) >= num_pairs:
            break
    if not pairs:
        raise UserError(f"the model in {folder} writes the same answer to every prompt, so there is nothing to compare")
    kept = list(pairs.values())[:num_pairs]
    return [*kept, *(pair for key, pair in gold.items() if key not in {one.id for one in kept})]


@dataclass(frozen=True)
class PairsBetween:
    """Pairs of two policies, and how many prompts it took to find them."""

    pairs: list[Pair]  # those that were not known
    num_pairs: int  # known ones included
    num_asked: int
    num_equal: int  # prompts to which both answer the same
    num_empty: int  # prompts to which one of them says nothing, which nobody can compare


def pairs_between(
    experiment: Experiment, writers: tuple[str, str], *, num_pairs: int, known: Mapping[str, Pair]
) -> PairsBetween:
    """The first `num_pairs` held-out prompts to which both answer differently, or as many as there are.

    Raises UserError for a policy that the run does not have, and where there is no pair.
    """
    if writers[0] == writers[1]:
        raise UserError(f"--between {writers[0]} {writers[1]} names one policy twice; type --between sft ppo")
    asked = evidence.asked_of(experiment)
    answers = [evidence.answers_of_run(experiment, name, asked) for name in writers]
    source = f"{writers[0]} and {writers[1]} of {experiment.name}, commit {commit()}"
    rows = zip(asked.prompts, answers[0].texts, answers[1].texts, strict=True)
    new: list[Pair] = []
    num_found = num_asked = num_equal = num_empty = 0
    for prompt, *texts in rows:
        if num_found == num_pairs:
            break
        num_asked += 1
        is_equal = same_text(*texts)
        pair = _pair_between(prompt, texts, source, writers)
        num_equal += is_equal
        num_empty += pair is None and not is_equal
        if pair and (pair.id not in known or _has_writers(known[pair.id], writers)):
            num_found += 1  # a pair that two others wrote as well keeps their names, and another prompt is taken
            new += [] if pair.id in known else [pair]
    if not num_found:
        raise UserError(
            f"of {num_asked} held-out prompts, {writers[0]} and {writers[1]} give the same answer to {num_equal}, and "
            f"one of them an empty one to {num_empty}: there is nothing to compare"
        )
    return PairsBetween(new, num_found, num_asked, num_equal, num_empty)


def _has_writers(pair: Pair, writers: tuple[str, str]) -> bool:
    return pair.writers is not None and set(pair.writers) == set(writers)


def _pair_between(prompt: Prompt, texts: Sequence[str], source: str, writers: tuple[str, str]) -> Pair | None:
    try:
        one, other = (_as_completion(prompt, text) for text in texts)
        return make_pair(prompt, one, other, source=source, writers=writers)
    except UnusableRowError:
        return None


def _sort_in(
    prompts: Sequence[Prompt],
    texts: Sequence[Sequence[str]],
    source: str,
    *,
    pairs: dict[str, Pair],
    gold: dict[str, Pair],
    num_gold: int,
) -> None:
    """Of each prompt's answers one pair at most: a gold question while these are wanted, else one to be rated."""
    for prompt, written in zip(prompts, texts, strict=True):
        answers = [_as_completion(prompt, text) for text in written]
        clear = _clear_pair(prompt, answers, source) if len(gold) < num_gold else None
        if clear:
            gold[clear.id] = clear
        elif pair := _first_pair(prompt, answers, source):
            pairs.setdefault(pair.id, pair)


def _cycled(size: int, number: int, rng: random.Random) -> list[int]:
    """`number` indices, each as often as any other, give or take one."""
    taken: list[int] = []
    while len(taken) < number:
        taken += rng.sample(range(size), size)
    return taken[:number]


def _as_completion(prompt: Prompt, text: str) -> Completion:
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def _first_pair(prompt: Prompt, answers: Sequence[Completion], source: str) -> Pair | None:
    for one, other in itertools.combinations(answers, 2):
        try:
            return make_pair(prompt, one, other, source=source)
        except UnusableRowError:
            continue
    return None


def _clear_pair(prompt: Prompt, answers: Sequence[Completion], source: str) -> Pair | None:
    """The best against the worst answer, if anybody should see the difference."""
    scored = [(gold_of_prompt(str(prompt), str(answer)).total, answer) for answer in answers]
    best, worst = max(scored, key=lambda one: one[0]), min(scored, key=lambda one: one[0])
    if best[0] - worst[0] < CLEAR_GAP:
        return None
    try:
        return make_pair(prompt, best[1], worst[1], source=source, preferred=best[1])
    except UnusableRowError:
        return None
