"""The chat page: a few routes over the run's models and its store of votes. The entrance is the rating page's.

    GET /            the page                             GET /api/questions   what was asked, after a refresh
    POST /api/ask    a question, answered by all models   POST /api/names      who wrote what, and the numbers
    POST /api/vote   a comparison of two answers          POST /api/undo       take it back

Routes are plain functions: FastAPI runs them in threads. The models have a lock and a queue of their own
(`answers.py`), so that votes and files never wait for a model.
"""

import random
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from rlhf_lab.chat_models import EXAMPLES, STAGES
from rlhf_lab.chat_page.answers import Models
from rlhf_lab.chat_page.filing import file_vote, take_back
from rlhf_lab.chat_page.questions import Answer, Question, Talk, as_seen
from rlhf_lab.rating import entrance as shared
from rlhf_lab.rating.entrance import Entrance
from rlhf_lab.rating.guard import Guard, RefusedError
from rlhf_lab.rating.outcomes import Strength
from rlhf_lab.rating.pairs import CHAT
from rlhf_lab.rating.sessions import Sessions
from rlhf_lab.rating.store import Store

COMMAND = "rlhf-lab chat --web"
HERE = Path(__file__).parent
STATIC = {
    **{name: HERE / "static" / name for name in ("chat.css", "chat.js", "tokens.js")},
    **{name: shared.HERE / "static" / name for name in ("style.css", "icon.svg")},
}
LONGEST = 20_000  # characters of a question; the models read far less, and say so
MAX_BODY = 8 * LONGEST  # bytes; a character takes up to six in JSON
LARGEST_SEED = 2**31 - 1

Id = Annotated[str, Field(max_length=64)]


class Strict(BaseModel):
    """A body that holds nothing else."""

    model_config = ConfigDict(extra="forbid")


class AskBody(Strict):
    """A question. Without a seed one is drawn."""

    question: str
    blind: bool
    temperature: Annotated[float, Field(ge=0.01, le=10, allow_inf_nan=False)]
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = None
    after: Id | None = None


class NamesBody(Strict):
    """Which question's names to show."""

    id: Id


class PairBody(Strict):
    """Two answers to a question; `turn` is the number of events on this pair that the page knows of."""

    id: Id
    left: Id
    right: Id
    turn: Annotated[int, Field(ge=0, le=1_000_000)]


class VoteBody(PairBody):
    """What the visitor says of them."""

    outcome: Literal["left", "right", "tie", "both_bad"]
    strength: Strength | None = None
    seconds: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] | None = None


def create_app(
    models: Models, store: Store, sessions: Sessions, *, temperature: float, allowed_hosts: list[str], cookie_name: str
) -> Any:
    """The ASGI application, behind its guard."""
    app = FastAPI(title="rlhf_lab chat", docs_url=None, redoc_url=None, openapi_url=None)
    entrance = Entrance(
        sessions,
        command=COMMAND,
        cookie_name=cookie_name,
        templates=[HERE / "templates", shared.HERE / "templates"],
        static=STATIC,
    )
    entrance.open_on(
        app,
        home=lambda visitor: "/",
        invalid="This can not be taken",
        broken="This did not work; the terminal of whoever runs this page says why.",
    )
    talks: dict[int, Talk] = defaultdict(Talk)
    changing = threading.RLock()  # held while a talk is read or changed, never while a model runs
    run = models.models

    @app.get("/")
    def chat(request: Request) -> Response:
        rater = entrance.rater(request)
        return entrance.page(
            "chat.html",
            run=run.folder.name,
            rater=store.rater_name(rater),
            examples=EXAMPLES if run.experiment.is_embedded else (),
            has_turns=run.has_turns,
            temperature=temperature,
            largest_seed=LARGEST_SEED,
            longest=LONGEST,
            missing={STAGES.get(name, name): why for name, why in (run.missing | models.judges.missing).items()},
        )

    @app.get("/api/questions")
    def questions(request: Request) -> JSONResponse:
        with changing:
            talk = talks[entrance.rater(request)]
            return JSONResponse({"questions": [as_seen(talk, question) for question in talk.questions.values()]})

    @app.post("/api/ask")
    def ask(request: Request, body: Annotated[AskBody, Body()]) -> JSONResponse:
        talk = talks[entrance.rater(request)]
        with changing:
            before = _conversation(talk, body.after, has_turns=run.has_turns)
        question = _answered(models, body, before, store.clock)
        with changing:
            talk.add(question)
            return JSONResponse(as_seen(talk, question))

    @app.post("/api/names")
    def names(request: Request, body: Annotated[NamesBody, Body()]) -> JSONResponse:
        with changing:
            talk = talks[entrance.rater(request)]
            talk.show_names(talk.question(body.id))
            # Other questions may hold the same texts, on which there is no vote from now on
            return JSONResponse({"questions": [as_seen(talk, question) for question in talk.questions.values()]})

    @app.post("/api/vote")
    def vote(request: Request, body: Annotated[VoteBody, Body()]) -> JSONResponse:
        rater = entrance.rater(request)
        with changing:
            talk = talks[rater]
            question = talk.question(body.id)
            counted = file_vote(store, rater, talk, question, **body.model_dump(exclude={"id"}))
            return JSONResponse({"counted": counted, "question": as_seen(talk, question)})

    @app.post("/api/undo")
    def undo(request: Request, body: Annotated[PairBody, Body()]) -> JSONResponse:
        rater = entrance.rater(request)
        with changing:
            talk = talks[rater]
            question = talk.question(body.id)
            undone = take_back(store, rater, question, **body.model_dump(exclude={"id"}))
            return JSONResponse({"undone": undone, "question": as_seen(talk, question)})

    return Guard(app, allowed_hosts=allowed_hosts, command=COMMAND, max_body=MAX_BODY)


def _answered(models: Models, body: AskBody, before: list[dict[str, str]], clock: Callable[[], float]) -> Question:
    """The question with every model's answer, in an order that tells nothing where names are hidden."""
    run = models.models
    asked = run.ask(_checked(body.question), before)
    seed = secrets.randbelow(LARGEST_SEED) if body.seed is None else body.seed
    written = models.answers(asked, temperature=body.temperature, seed=seed)
    answers = [Answer(secrets.token_urlsafe(9), one.stage, one.text, one.measures) for one in written]
    if body.blind:
        random.SystemRandom().shuffle(answers)
    return Question(
        id=secrets.token_urlsafe(9),
        text=body.question.strip(),
        asked=asked,
        after=body.after,
        answers=answers,
        temperature=body.temperature,
        seed=seed,
        shown_at=clock(),
        source=f"{CHAT}{run.folder.name}",
        blind=body.blind,
        named=not body.blind,
    )


def _checked(question: str) -> str:
    """The question without the space around it. Raises RefusedError for an empty or far too long one, and for half a
    character, which no tokenizer reads."""
    text = question.strip()
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RefusedError(422, "The question holds half a character (a lone surrogate); type it again.")
    if not text:
        raise RefusedError(422, "Type a question first.")
    if len(text) > LONGEST:
        raise RefusedError(413, f"A question has at most {LONGEST} characters; this one has {len(text)}.")
    return text


def _conversation(talk: Talk, after: str | None, *, has_turns: bool) -> list[dict[str, str]]:
    """The messages that a question follows."""
    if after is None:
        return []
    if not has_turns:
        raise RefusedError(422, "These models answer single questions; they have no chat template for more.")
    for question in talk.questions.values():
        if answer := question.answer(after):
            return question.conversation(answer)
    raise RefusedError(404, "The server has forgotten that answer; begin a new conversation.")
