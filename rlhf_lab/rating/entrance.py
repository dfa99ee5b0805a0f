"""The entrance of a page: a one-time link becomes a cookie that says who asks, and every refusal is put into words.

The rating page and the chat page are different rooms behind it. Leaves out what is checked before any route
(`guard.py`) and what a session is (`sessions.py`).
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rlhf_lab.errors import UserError
from rlhf_lab.rating.guard import RefusedError
from rlhf_lab.rating.schema import LockedError
from rlhf_lab.rating.sessions import Sessions, Visitor
from rlhf_lab.rating.store import UnknownPresentationError

HERE = Path(__file__).parent
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Entrance:
    """Who may come in, and the pages, files and refusals that do not depend on the room behind.

    `command` is what the user typed to start the page. `static` maps the names of files that are served to their place;
    `templates` are folders, of which the first that has a page gives it.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        command: str,
        cookie_name: str,
        templates: Sequence[Path],
        static: Mapping[str, Path],
    ) -> None:
        self.sessions = sessions
        self.command = command
        self.cookie_name = cookie_name
        self.static = static
        self._pages = Environment(
            loader=FileSystemLoader(templates), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )

    def page(self, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._pages.get_template(name).render(**values), status_code=status)

    def visitor(self, request: Request) -> Visitor:
        found = self.sessions.visitor(request.cookies.get(self.cookie_name))
        if found is None:
            raise RefusedError(401, f"This browser is not signed in. Open the link that {self.command} printed.")
        return found

    def rater(self, request: Request) -> int:
        found = self.visitor(request).rater
        if found is None:
            raise RefusedError(403, "This link shows results only. To rate, open a rater's link.")
        return found

    def enter(self, token: str, home: Callable[[Visitor], str]) -> Response:
        """A page that leads to the visitor's `home`, with the cookie."""
        cookie = self.sessions.exchange(token)
        visitor = self.sessions.visitor(cookie)
        if cookie is None or visitor is None:
            raise RefusedError(
                401, f"This link is wrong or was used before. Start {self.command} again: it prints a new one."
            )
        # Not a redirect: a browser that came here from another site would follow it without the strict cookie
        answer = self.page("enter.html", home=home(visitor))
        answer.set_cookie(self.cookie_name, cookie, httponly=True, samesite="strict", path="/")
        return answer

    def refused(self, request: Request, status: int, reason: str) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": reason}, status_code=status)
        return self.page("message.html", status, reason=reason)

    def open_on(self, app: FastAPI, *, home: Callable[[Visitor], str], invalid: str, broken: str) -> None:
        """Add the routes and the refusals. `invalid` begins the answer to a body of the wrong form; `broken` is all
        that a visitor is told of an error whose details are for whoever runs this."""

        @app.get("/enter")
        def enter(token: str = "") -> Response:
            return self.enter(token, home)

        @app.get("/static/{name}")
        def static(name: str) -> Response:
            if name not in self.static:
                raise RefusedError(404, "There is no such file.")
            return FileResponse(self.static[name], media_type=MEDIA_TYPES[self.static[name].suffix])

        @app.exception_handler(RefusedError)
        def on_refused(request: Request, error: RefusedError) -> Response:
            return self.refused(request, error.status, error.reason)

        @app.exception_handler(UnknownPresentationError)
        def on_unknown(request: Request, error: UnknownPresentationError) -> Response:
            return self.refused(request, 404, str(error))

        @app.exception_handler(LockedError)
        def on_locked(request: Request, error: LockedError) -> Response:
            told = "The votes are locked by another program, so this was not saved. Press again."
            return self.refused(request, 503, told)

        @app.exception_handler(UserError)
        def on_broken(request: Request, error: UserError) -> Response:
            print(f"{self.command}: {error}", file=sys.stderr, flush=True)  # paths are not for visitors
            return self.refused(request, 503, broken)

        @app.exception_handler(RequestValidationError)
        def on_invalid(request: Request, error: RequestValidationError) -> Response:
            wrong = ", ".join(sorted({".".join(map(str, one["loc"][1:])) or "body" for one in error.errors()}))
            return self.refused(request, 422, f"{invalid}: {wrong} is wrong.")
