"""The rating page: a few routes over the store. What the browser gets of a pair is two texts and a random id.

    GET /enter?token=…   one-time link -> cookie          GET /              the page
    GET /api/next        the pair to show                 POST /api/vote     a vote, answered with the next pair
    POST /api/undo       take the last vote back          GET /agreement     for the owner

Routes are plain functions: FastAPI runs them in threads, and the store takes one at a time.
"""

from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from rlhf_lab.data.prompts import Prompt
from rlhf_lab.rating.agreement_page import page_values
from rlhf_lab.rating.entrance import HERE, Entrance
from rlhf_lab.rating.findings import findings
from rlhf_lab.rating.guard import Guard, RefusedError
from rlhf_lab.rating.guidelines import Block
from rlhf_lab.rating.outcomes import DECISIVE, Outcome, Strength
from rlhf_lab.rating.sessions import Sessions
from rlhf_lab.rating.store import Store

COMMAND = "rlhf-lab rate"
STATIC = {name: HERE / "static" / name for name in ("style.css", "rate.js", "icon.svg")}


class VoteBody(BaseModel):
    """What the page sends for a vote."""

    model_config = ConfigDict(extra="forbid")

    presentation: Annotated[str, Field(max_length=64)]
    turn: Annotated[int, Field(ge=0, le=1_000_000)]
    outcome: Outcome
    strength: Strength | None = None
    seconds: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] | None = None


class UndoBody(BaseModel):
    """Which vote the page saw last."""

    model_config = ConfigDict(extra="forbid")

    presentation: Annotated[str, Field(max_length=64)]
    turn: Annotated[int, Field(ge=0, le=1_000_000)]


def create_app(
    store: Store, sessions: Sessions, *, allowed_hosts: list[str], cookie_name: str, guidelines: list[Block]
) -> Any:
    """The ASGI application, behind its guard."""
    app = FastAPI(title="rlhf_lab rate", docs_url=None, redoc_url=None, openapi_url=None)
    entrance = Entrance(
        sessions, command=COMMAND, cookie_name=cookie_name, templates=[HERE / "templates"], static=STATIC
    )
    entrance.open_on(
        app,
        home=lambda visitor: "/" if visitor.rater is not None else "/agreement",
        invalid="This is no vote",
        broken="This could not be saved. Tell whoever runs this page; the terminal says why.",
    )

    @app.get("/")
    def rate(request: Request) -> Response:
        entrance.rater(request)
        return entrance.page("rate.html", guidelines=guidelines, is_owner=entrance.visitor(request).is_owner)

    @app.get("/agreement")
    def agreement(request: Request) -> Response:
        found = entrance.visitor(request)
        if not found.is_owner:
            raise RefusedError(403, "Only whoever started rlhf-lab rate sees the agreement page.")
        values = page_values(findings(store))
        return entrance.page("agreement.html", can_rate=found.rater is not None, **values)

    @app.get("/api/next")
    def following(request: Request) -> JSONResponse:
        return JSONResponse(state_of(store, entrance.rater(request)))

    @app.post("/api/vote")
    def vote(request: Request, body: Annotated[VoteBody, Body()]) -> JSONResponse:
        who = entrance.rater(request)
        with store.writing():
            counted = store.vote(
                who,
                body.presentation,
                turn=body.turn,
                outcome=body.outcome,
                strength=body.strength if body.outcome in DECISIVE else None,
                seconds=body.seconds,
            )
            state = state_of(store, who)
        return JSONResponse({"counted": counted, **state})

    @app.post("/api/undo")
    def undo(request: Request, body: Annotated[UndoBody, Body()]) -> JSONResponse:
        who = entrance.rater(request)
        with store.writing():
            undone = store.undo(who, body.presentation, turn=body.turn)
            state = state_of(store, who)
        return JSONResponse({"undone": undone, **state})

    return Guard(app, allowed_hosts=allowed_hosts, command=COMMAND)


def state_of(store: Store, rater: int) -> dict[str, Any]:
    """All that the page shows: the pair, the progress, and what an undo would take back."""
    shown = store.next(rater)
    progress = store.progress(rater)
    last = store.last_vote(rater)
    return {
        "pair": None
        if shown is None
        else {
            "presentation": shown.id,
            "turn": shown.turn,
            "prompt": blocks(shown.prompt),
            "left": blocks(shown.left),
            "right": blocks(shown.right),
        },
        "progress": {
            "done": progress.num_done,
            "left": progress.num_left,
            "seconds_left": progress.seconds_left,
        },
        "last": None
        if last is None
        else {"presentation": last.id, "turn": last.turn, "outcome": last.outcome, "strength": last.strength},
    }


def blocks(text: Prompt) -> list[dict[str, str | None]]:
    """A text, or the messages of a conversation, each with its role."""
    if isinstance(text, str):
        return [{"role": None, "text": text.strip()}]
    alone = len(text) == 1
    return [{"role": None if alone else one["role"], "text": one["content"].strip()} for one in text]
