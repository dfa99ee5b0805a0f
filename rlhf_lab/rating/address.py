"""Where the page is served, and by which names browsers may call it. Loopback unless somebody says otherwise."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from rlhf_lab.errors import UserError

ANY_ADDRESS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Address:
    """Where the page is served. `public_names` are names under which browsers may reach it, besides `host`."""

    host: str = "127.0.0.1"
    port: int = 8642
    open_to_network: bool = False
    public_names: tuple[str, ...] = ()


def check_address(address: Address, raters: Sequence[str]) -> None:
    """Raises UserError where the page would be open to others without anybody having said so."""
    if is_loopback(address.host):
        return
    if not address.open_to_network:
        raise UserError(
            f"--host {address.host} would let other machines in, and nothing is encrypted. If you mean it, type "
            f"--host {address.host} --open-to-network --rater NAME (once for each rater)"
        )
    if not raters:
        raise UserError("--open-to-network needs raters by name, each with a link of their own: type --rater ann")
    if address.host in ANY_ADDRESS and not address.public_names:
        raise UserError(
            f"--host {address.host} listens on every address; say under which name browsers will come: type "
            "--public-name lab.example.org"
        )


def allowed_hosts(address: Address, port: int) -> list[str]:
    """Values of the Host header that are served; the first is printed in the links."""
    if is_loopback(address.host):
        names = [address.host, "127.0.0.1", "localhost", "[::1]"]
    elif address.host in ANY_ADDRESS:
        names = list(address.public_names)
    else:
        names = [*address.public_names, address.host]
    with_port = [name if _has_port(name) else f"{_bracketed(name)}:{port}" for name in names]
    # A proxy in front on port 80 or 443 passes the public name on without a port
    bare = [name for name in address.public_names if not _has_port(name)]
    return list(dict.fromkeys([*with_port, *bare]))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _bracketed(name: str) -> str:
    """IPv6 numbers stand in brackets before a port."""
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name


def _has_port(name: str) -> bool:
    return urlsplit(f"//{_bracketed(name)}").port is not None
