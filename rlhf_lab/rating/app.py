"""The rating page: a few routes over the store. What the browser gets of a pair is two texts and a random id.

    GET /enter?token=…   one-time link -> cookie          GET /              the page
    GET /api/next        the pair to show                 POST /api/vote     a vote, answered with the next pair
    POST /api/undo       take the last vote back          GET /agreement     for the owner

Routes are plain functions: FastAPI runs them in threads, and the store takes one at a time.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field

from rlhf_lab.data.prompts import Prompt
from rlhf_lab.errors import UserError
from rlhf_lab.rating.agreement_page import page_values
from rlhf_lab.rating.findings import findings
from rlhf_lab.rating.guard import Guard
from rlhf_lab.rating.guidelines import Block
from rlhf_lab.rating.outcomes import DECISIVE, Outcome, Strength
from rlhf_lab.rating.schema import LockedError
from rlhf_lab.rating.sessions import Sessions, Visitor
from rlhf_lab.rating.store import Store, UnknownPresentationError

HERE = Path(__file__).parent
STATIC = {"style.css": "text/css", "rate.js": "text/javascript", "icon.svg": "image/svg+xml"}


class RefusedError(Exception):
    """The visitor may not do this; answered with `status` and `reason`."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason


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
    pages = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )

    def page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(pages.get_template(name).render(**values), status_code=status)

    def visitor(request: Request) -> Visitor:
        found = sessions.visitor(request.cookies.get(cookie_name))
        if found is None:
            raise RefusedError(401, "This browser is not signed in. Open the link that rlhf-lab rate printed.")
        return found

    def rater(request: Request) -> int:
        found = visitor(request).rater
        if found is None:
            raise RefusedError(403, "This link shows results only. To rate, open a rater's link.")
        return found

    @app.get("/enter")
    def enter(token: str = "") -> Response:
        cookie = sessions.exchange(token)
        if cookie is None:
            raise RefusedError(
                401, "This link is wrong or was used before. Start rlhf-lab rate again: it prints a new one."
            )
        # Not a redirect: a browser that came here from another site would follow it without the strict cookie
        home = "/" if (found := sessions.visitor(cookie)) and found.rater is not None else "/agreement"
        answer = page("enter.html", home=home)
        answer.set_cookie(cookie_name, cookie, httponly=True, samesite="strict", path="/")
        return answer

    @app.get("/")
    def rate(request: Request) -> Response:
        rater(request)
        return page("rate.html", guidelines=guidelines, is_owner=visitor(request).is_owner)

    @app.get("/agreement")
    def agreement(request: Request) -> Response:
        found = visitor(request)
        if not found.is_owner:
            raise RefusedError(403, "Only whoever started rlhf-lab rate sees the agreement page.")
        values = page_values(findings(store))
        return page("agreement.html", can_rate=found.rater is not None, **values)

    @app.get("/api/next")
    def following(request: Request) -> JSONResponse:
        return JSONResponse(state_of(store, rater(request)))

    @app.post("/api/vote")
    def vote(request: Request, body: Annotated[VoteBody, Body()]) -> JSONResponse:
        who = rater(request)
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
        who = rater(request)
        with store.writing():
            undone = store.undo(who, body.presentation, turn=body.turn)
            state = state_of(store, who)
        return JSONResponse({"undone": undone, **state})

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            raise RefusedError(404, "There is no such file.")
        return FileResponse(HERE / "static" / name, media_type=STATIC[name])

    def refused(request: Request, status: int, reason: str) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": reason}, status_code=status)
        return page("message.html", status, reason=reason)

    @app.exception_handler(RefusedError)
    def on_refused(request: Request, error: RefusedError) -> Response:
        return refused(request, error.status, error.reason)

    @app.exception_handler(UnknownPresentationError)
    def on_unknown(request: Request, error: UnknownPresentationError) -> Response:
        return refused(request, 404, str(error))

    @app.exception_handler(LockedError)
    def on_locked(request: Request, error: LockedError) -> Response:
        return refused(request, 503, "The votes are locked by another program, so this was not saved. Press again.")

    @app.exception_handler(UserError)
    def on_broken(request: Request, error: UserError) -> Response:
        print(f"rlhf-lab rate: {error}", file=sys.stderr, flush=True)  # paths are for whoever runs this, not for raters
        return refused(request, 503, "This could not be saved. Tell whoever runs this page; the terminal says why.")

    @app.exception_handler(RequestValidationError)
    def on_invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = ", ".join(sorted({".".join(map(str, one["loc"][1:])) or "body" for one in error.errors()}))
        return refused(request, 422, f"This is no vote: {wrong} is wrong.")

    return Guard(app, allowed_hosts=allowed_hosts)


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
