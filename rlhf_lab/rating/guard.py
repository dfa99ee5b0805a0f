"""What stands before every request: the host it names, where it comes from, its length; and what every answer says.

- Host: a page elsewhere can point its own name at 127.0.0.1 (DNS rebinding) and would then be "the same site" as ours.
  Only names that we print are served.
- Origin: every request that changes something must come from our own page.
- Content-Security-Policy: scripts, styles and requests from here only, so a text that became HTML could do nothing.
"""

import json
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

MAX_BODY = 16_384  # bytes; a vote takes 200
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class RefusedError(Exception):
    """The visitor may not do this; answered with `status` and `reason`."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason


class Guard:
    """ASGI middleware. `allowed_hosts` are the values of the Host header that are served, with their port; `command` is
    what prints the links to the page, `max_body` the longest request in bytes."""

    def __init__(self, app: Any, *, allowed_hosts: Collection[str], command: str, max_body: int = MAX_BODY) -> None:
        self.app = app
        self.allowed_hosts = {host.lower() for host in allowed_hosts}
        self.command = command
        self.max_body = max_body

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there is no websocket here
            return

        async def send_with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *ours]}
            await send(message)

        refused = self.refusal(scope)
        if refused:
            await _answer(send_with_headers, *refused)
        else:
            await self.app(scope, receive, send_with_headers)

    def refusal(self, scope: dict[str, Any]) -> tuple[int, str] | None:
        """Status and reason where the request is refused."""
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value.lower() for name, value in headers if name == "host"]
        if len(hosts) != 1 or hosts[0] not in self.allowed_hosts:
            return 403, f"This server does not go by that name. Open the link that {self.command} printed."
        if scope["method"] in ("GET", "HEAD"):
            return None
        origins = [value for name, value in headers if name == "origin"]
        if len(origins) != 1 or not self._is_ours(origins[0]):
            return 403, f"This request does not come from the page of {self.command}."
        lengths = [value for name, value in headers if name == "content-length"]
        if len(lengths) != 1 or not lengths[0].isdigit() or int(lengths[0]) > self.max_body:
            return 413, f"A request has at most {self.max_body} bytes and says how many."
        return None

    def _is_ours(self, origin: str) -> bool:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc.lower() in self.allowed_hosts


async def _answer(send: Any, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
