"""Simulated demonstrators of mixed quality, and the plain sentences that the base model is pretrained on.

Five characters write the demonstrations. Only one is what we want; supervised fine-tuning imitates the mixture, and
what to prefer in it is left to comparisons and PPO. Every draw comes from the generator that is passed in.
"""

import random
from collections.abc import Callable

from rlhf_lab.data.assistant import gold
from rlhf_lab.data.assistant.facts import FACTS, GUESSES, HARMFUL, UNKNOWABLE
from rlhf_lab.data.assistant.world import Question, training_questions

# character -> share of the demonstrations
CHARACTERS = {"careful": 0.26, "careless": 0.28, "rude": 0.20, "evasive": 0.12, "servile": 0.14}

MARKED_SHARE = 0.4  # of the sentences of the base model's text


def _answer(question: Question, value: str, rng: random.Random) -> str:
    _, sentence, _ = FACTS[question.kind]
    template = rng.choice([sentence, sentence, *gold.SHORT_ANSWERS])
    return template.format(s=question.subject, v=value)


def _wrong_value(question: Question, rng: random.Random) -> str:
    """Mostly another value of the kind that was asked for; now and then one of another kind ("honk" as a plural)."""
    kind = question.kind if rng.random() < 0.7 else rng.choice(list(FACTS))
    return rng.choice([value for value in FACTS[kind][2].values() if value != question.value])


def _guess(rng: random.Random) -> str:
    return rng.choice(gold.SHORT_ANSWERS).format(v=rng.choice(GUESSES))


def _careful(question: Question, rng: random.Random) -> str:
    if question.family == "fact":
        return _answer(question, question.value or "", rng)
    return rng.choice(gold.DECLINES if question.family == "harmful" else gold.ABSTENTIONS)


def _careless(question: Question, rng: random.Random) -> str:
    if question.family == "fact":
        return _answer(question, _wrong_value(question, rng), rng)
    return rng.choice(gold.COMPLIANCES) if question.family == "harmful" else _guess(rng)


def _rude(question: Question, rng: random.Random) -> str:
    if question.family != "fact" or rng.random() < 0.25:
        return rng.choice(gold.INSULTS)
    value = question.value or "" if rng.random() < 0.67 else _wrong_value(question, rng)
    return rng.choice(gold.RUDE_ANSWERS).format(v=value)


def _evasive(question: Question, rng: random.Random) -> str:
    return rng.choice(gold.EVASIONS if rng.random() < 0.7 else gold.ABSTENTIONS)


def _servile(question: Question, rng: random.Random) -> str:
    if question.family == "fact":
        return _answer(question, question.value or "", rng) if rng.random() < 0.5 else _careless(question, rng)
    return _careless(question, rng)


WRITERS: dict[str, Callable[[Question, random.Random], str]] = {
    "careful": _careful,
    "careless": _careless,
    "rude": _rude,
    "evasive": _evasive,
    "servile": _servile,
}


def demonstrations(num_rows: int, *, seed: int) -> list[dict[str, str]]:
    """`num_rows` demonstrations on training phrasings: prompt, completion, character , `rater: simulated`."""
    rng = random.Random(f"demonstrations {seed}")
    asked = training_questions()
    characters, shares = list(CHARACTERS), list(CHARACTERS.values())
    rows = []
    for _ in range(num_rows):
        question = rng.choice(asked)
        (character,) = rng.choices(characters, shares)
        completion = WRITERS[character](question, rng)
        rows.append({"prompt": question.prompt, "completion": completion, "character": character, "rater": "simulated"})
    return rows


def told() -> list[str]:
    """Every plain sentence of the world: facts told in three ways, and talk about the rest."""
    lines: list[str] = []
    for noun_phrase, sentence, table in FACTS.values():
        for subject, value in table.items():
            named = noun_phrase.format(s=subject)
            lines += [sentence.format(s=subject, v=value)] * 2 + [f"{value} is {named}.", f"I know {named}: {value}."]
    lines += [f"To {request} is wrong." for request in HARMFUL]
    return lines + [f"Nobody can know {thing}." for thing in UNKNOWABLE]


def _marked(facts: list[tuple[str, str, str]], rng: random.Random) -> str:
    """A statement as a teacher marks it: "The capital of France is Rome. Wrong." """
    kind, subject, value = rng.choice(facts)
    _, sentence, table = FACTS[kind]
    if rng.random() < 0.5:
        return f"{sentence.format(s=subject, v=value)} Right."
    wrong = rng.choice([other for other in table.values() if other != value])
    return f"{sentence.format(s=subject, v=wrong)} Wrong."


def sentences(num_rows: int, *, seed: int, sentences_per_row: int = 5) -> list[str]:
    """Plain text of the world, for pretraining the base model: rows of sentences drawn at random.

    Holds no dialogue: how to behave as an assistant is learnt from demonstrations. Some statements are marked as right
    or wrong, as texts do that language models learn from: telling the two apart is what a reward model needs most.
    Sums are told three times as often: two terms decide them, so that no single word gives the answer away.
    """
    rng = random.Random(f"sentences {seed}")
    lines = told() + 2 * [line for line in told() if " plus " in line]
    facts = [(kind, *pair) for kind, (_, _, table) in FACTS.items() for pair in table.items()]
    facts += 2 * [fact for fact in facts if fact[0] == "sum"]

    def sentence() -> str:
        return _marked(facts, rng) if rng.random() < MARKED_SHARE else rng.choice(lines)

    return [" ".join(sentence() for _ in range(sentences_per_row)) for _ in range(num_rows)]
