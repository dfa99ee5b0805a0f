"""Questions, their answers, and what the visitor may know and say of them.

A question has one answer of every model. Asked blind, these stand under letters in an order drawn for it, and neither
names nor numbers leave the server until the visitor asks for them. Votes are taken on blind answers only and end with
that: so every vote in the log is a blind one, and agreement never mixes two kinds. A text whose writer this visitor has
seen by name is not voted on either, wherever it comes again.

Leaves out sampling and measuring (`answers.py`) and HTTP (`app.py`).
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rlhf_lab.chat_models import STAGES, Asked
from rlhf_lab.chat_page.measures import AnswerMeasures, as_json
from rlhf_lab.data.prompts import Completion, prompt_key
from rlhf_lab.rating.guard import RefusedError
from rlhf_lab.rating.outcomes import Outcome, Strength
from rlhf_lab.rating.pairs import Pair, UnusableRowError, make_pair

KEPT = 50  # questions of one visitor; of older ones the page has texts and numbers, and the server nothing
LETTERS = "ABC"


@dataclass(frozen=True)
class Answer:
    """What one model wrote."""

    id: str  # random: says nothing of the model
    stage: str
    text: str
    measures: AnswerMeasures


@dataclass
class Filed:
    """What became of one pair of columns: its presentation in the store, and the vote that stands, if one does."""

    presentation: str
    num_events: int
    outcome: Outcome | None
    strength: Strength | None = None


@dataclass
class Question:
    """One question with its answers, in the order of the columns."""

    id: str
    text: str
    asked: Asked
    after: str | None  # the answer that the conversation went on from
    answers: list[Answer]
    temperature: float
    seed: int
    shown_at: float
    source: str  # of the pairs that are filed
    blind: bool  # asked so
    named: bool  # the visitor knows who wrote what
    filed: dict[tuple[str, str], Filed] = field(default_factory=dict)

    def answer(self, answer_id: str) -> Answer | None:
        return next((one for one in self.answers if one.id == answer_id), None)

    def columns(self) -> Iterator[tuple[Answer, Answer]]:
        """Every two answers, as they stand from left to right."""
        return itertools.combinations(self.answers, 2)

    def completion(self, answer: Answer) -> Completion:
        """The answer in the prompt's form."""
        is_text = isinstance(self.asked.prompt, str)
        return answer.text if is_text else [{"role": "assistant", "content": answer.text}]

    def pair(self, left: Answer, right: Answer) -> Pair:
        """Raises UnusableRowError where there is nothing to compare."""
        return make_pair(
            self.asked.prompt,
            self.completion(left),
            self.completion(right),
            source=self.source,
            writers=(left.stage, right.stage),
        )

    def conversation(self, answer: Answer) -> list[dict[str, str]]:
        """The messages up to and with this answer."""
        assert not isinstance(self.asked.prompt, str), "text has no turns"
        return [*self.asked.prompt, {"role": "assistant", "content": answer.text}]


class Talk:
    """What one visitor asked, newest last, and which texts were seen with their writer's name."""

    def __init__(self) -> None:
        self.questions: OrderedDict[str, Question] = OrderedDict()
        self._seen: set[tuple[str, str]] = set()  # (prompt, text)

    def add(self, question: Question) -> None:
        self.questions[question.id] = question
        if question.named:
            self.show_names(question)
        while len(self.questions) > KEPT:
            self.questions.popitem(last=False)

    def question(self, question_id: str) -> Question:
        """Raises RefusedError for a question that this visitor has not, or no longer."""
        if question_id not in self.questions:
            raise RefusedError(404, "The server has forgotten this question; ask it again.")
        return self.questions[question_id]

    def show_names(self, question: Question) -> None:
        question.named = True
        self._seen |= {self._key(question, answer) for answer in question.answers}

    def pair_of(self, question: Question, left_id: str, right_id: str) -> tuple[Answer, Answer]:
        """The two answers, left before right. Raises RefusedError where they are no two columns of the question."""
        for left, right in question.columns():
            if (left.id, right.id) == (left_id, right_id):
                return left, right
        raise RefusedError(404, "These are no two answers to this question, from left to right.")

    def why_no_vote(self, question: Question, left: Answer, right: Answer) -> str | None:
        """Why there is no vote on these two; None where there can be one."""
        if question.asked.cut:
            return "The models read only the end of this question, so a comparison of their answers would not be fair."
        try:
            question.pair(left, right)
        except UnusableRowError as error:
            return f"There is nothing to compare: {error}."
        if question.named:
            return "Names are shown, and votes are blind. Question Blind on and ask another question."
        if any(self._key(question, answer) in self._seen for answer in (left, right)):
            return "You have seen one of these texts with its writer’s name before, and votes are blind."
        return None

    def _key(self, question: Question, answer: Answer) -> tuple[str, str]:
        return prompt_key(question.asked.prompt), answer.text.strip()


def as_seen(talk: Talk, question: Question) -> dict[str, Any]:
    """All that the page gets of a question; of names and numbers nothing before they may be known."""
    return {
        "id": question.id,
        "question": question.text,
        "note": question.asked.cut,
        "after": question.after,
        "temperature": question.temperature,
        "seed": question.seed,
        "blind": question.blind,
        "named": question.named,
        "answers": [
            _answer_as_seen(answer, letter, named=question.named)
            for letter, answer in zip(LETTERS, question.answers, strict=False)
        ],
        "pairs": [_pair_as_seen(talk, question, left, right) for left, right in question.columns()],
    }


def _answer_as_seen(answer: Answer, letter: str, *, named: bool) -> dict[str, Any]:
    shown = {"id": answer.id, "letter": letter, "text": answer.text.strip()}
    known = {"stage": answer.stage, "name": STAGES[answer.stage], **as_json(answer.measures)}
    return {**shown, **known} if named else shown


def _pair_as_seen(talk: Talk, question: Question, left: Answer, right: Answer) -> dict[str, Any]:
    filed = question.filed.get((left.id, right.id))
    return {
        "left": left.id,
        "right": right.id,
        "turn": filed.num_events if filed else 0,
        "outcome": filed.outcome if filed else None,
        "strength": filed.strength if filed else None,
        "refused": talk.why_no_vote(question, left, right),
    }
