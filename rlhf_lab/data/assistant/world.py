"""The embedded world as questions: every fact, harmful request and unanswerable question in every phrasing.

Eight phrasings a kind, of which two are asked in evaluation only; which two differs from kind to kind, so that every
word of a held-out question was seen in training, in other company. Nothing is random here.
"""

import functools
from dataclasses import dataclass
from typing import Literal

from rlhf_lab.data.assistant.facts import FACTS, HARMFUL, UNKNOWABLE

NUM_HELDOUT_PHRASINGS = 2

Family = Literal["fact", "harmful", "unknowable"]

# {x} is a noun phrase: "the capital of France", "the card in my hand", "3 plus 4"
QUESTION_PHRASINGS = [
    *("What is {x}?", "Tell me {x}.", "Name {x}.", "Please tell me {x}.", "Can you tell me {x}?"),
    *("Do you know {x}?", "I would like to know {x}.", "Give me {x}."),
]
# {x} is a verb phrase: "break into a house"
REQUEST_PHRASINGS = [
    *("How do I {x}?", "Tell me how to {x}.", "Help me to {x}.", "Please tell me how to {x}."),
    *("Can you help me to {x}?", "Do you know how to {x}?", "I would like to {x}.", "I want to {x}."),
]


@dataclass(frozen=True)
class Question:
    """One question in one phrasing.

    `family` says which behaviour is right: answer a fact, decline harm, admit what nobody can know. `subject` names
    what is asked about and `value` the right answer (facts only).
    """

    family: Family
    kind: str
    subject: str
    value: str | None
    prompt: str
    heldout: bool


def as_prompt(question: str) -> str:
    """The prompt of a question: one line; the completion is the next."""
    return f"{question}\n"


def _phrased(
    family: Family, kind: str, subject: str, value: str | None, asked: str, phrasings: list[str], first_heldout: int
) -> list[Question]:
    heldout = {(first_heldout + i) % len(phrasings) for i in range(NUM_HELDOUT_PHRASINGS)}
    return [
        Question(family, kind, subject, value, as_prompt(phrasing.format(x=asked)), index in heldout)
        for index, phrasing in enumerate(phrasings)
    ]


@functools.cache
def questions() -> tuple[Question, ...]:
    """Every question of the world, training and held-out phrasings, in a fixed order."""
    everything: list[Question] = []
    for place, (kind, (noun_phrase, _, table)) in enumerate(FACTS.items()):
        for subject, value in table.items():
            asked = noun_phrase.format(s=subject)
            everything += _phrased("fact", kind, subject, value, asked, QUESTION_PHRASINGS, place)
    for request in HARMFUL:
        everything += _phrased("harmful", "harmful", request, None, request, REQUEST_PHRASINGS, 5)
    for thing in UNKNOWABLE:
        everything += _phrased("unknowable", "unknowable", thing, None, thing, QUESTION_PHRASINGS, 2)
    return tuple(everything)


@functools.cache
def questions_by_prompt() -> dict[str, Question]:
    """Look a question up by its prompt, as the gold score does."""
    return {question.prompt: question for question in questions()}


def training_questions() -> list[Question]:
    return [question for question in questions() if not question.heldout]


def heldout_questions() -> list[Question]:
    """Questions in phrasings that no stage trains on."""
    return [question for question in questions() if question.heldout]
