"""Serve the rating page: bind, print one link per rater, run uvicorn without a word of tokens in any log.

Loopback by default. Anywhere else only with `open_to_network`, with raters named, and with the names in the Host header
known beforehand; nothing is encrypted here, so put a TLS proxy in front or stay on a network that you trust.
"""

import socket
from collections.abc import Sequence
from typing import Any

import uvicorn

from rlhf_lab.errors import UserError
from rlhf_lab.rating.address import Address, allowed_hosts, check_address, is_loopback
from rlhf_lab.rating.app import create_app
from rlhf_lab.rating.guidelines import Block
from rlhf_lab.rating.sessions import Sessions
from rlhf_lab.rating.store import Store


def serve(store: Store, raters: Sequence[str], address: Address, guidelines: list[Block]) -> None:
    """Serve until Ctrl-C; every vote is on disk when the page says so."""
    check_address(address, raters)
    names = raters or ["rater"]
    listener = bind(address)
    port = listener.getsockname()[1]
    sessions = Sessions(store)
    hosts = allowed_hosts(address, port)
    app = create_app(store, sessions, allowed_hosts=hosts, cookie_name=f"rlhf_lab_rate_{port}", guidelines=guidelines)
    # On one's own machine and alone, whoever rates also owns the results
    is_alone = len(names) == 1 and is_loopback(address.host)
    links = [(name, sessions.invite(store.rater(name), is_owner=is_alone)) for name in names]
    if not is_alone:
        links.append(("results, for you", sessions.invite(None, is_owner=True)))
    print(f"votes go to {store.path}")
    for name, token in links:
        print(f"  {name}: http://{hosts[0]}/enter?token={token}")
    print("Each link works once, in the browser that opens it first. Ctrl-C ends; a later start goes on.", flush=True)
    run_on(listener, app)


def run_on(listener: socket.socket, app: Any) -> None:
    """Serve until Ctrl-C, then close the socket."""
    try:
        server_of(app).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn has ended in good order and raises the signal once more
    finally:
        listener.close()


def server_of(app: Any) -> Any:
    """uvicorn as it is run here."""
    config = uvicorn.Config(
        app,
        access_log=False,  # its lines hold the address with the token
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        lifespan="off",
        ws="none",
    )
    return uvicorn.Server(config)


def bind(address: Address) -> socket.socket:
    """A listening socket. Raises UserError where the port is taken."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host.strip("[]"), address.port))
        listener.listen(1024)  # before the links are printed: whoever is quick waits, and is not refused
    except OSError as error:
        listener.close()
        raise UserError(
            f"can not listen on {address.host}, port {address.port} ({error.strerror}); type --port 0 for any free port"
        ) from None
    return listener
