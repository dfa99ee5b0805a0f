"""What holds for every test: offline, quiet, few threads, no network.

The environment is set here, before any test imports torch or transformers, and child processes inherit it.
"""

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

# Our test models are tiny: more than four threads only wait for each other. Set through the environment, because
# importing torch here would cost seconds to tests that need none. Under pytest-xdist the workers share the cores.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
THREADS = str(max(1, min(4, CORES // WORKERS)))
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = THREADS  # the process that started the workers has set it, for itself alone
else:
    os.environ.setdefault("OMP_NUM_THREADS", THREADS)


class NetworkInTestError(RuntimeError):
    """A test tried to leave this machine. Not an OSError, so that no library takes it for a connection to retry."""


def is_loopback(address: Any) -> bool:
    """True for Unix sockets (a path) and for host names and numbers that stay on this machine."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Rule: tests run offline. Connections to this machine itself are allowed, all others raise."""

    def refuse(address: Any) -> None:
        if not is_loopback(address):
            raise NetworkInTestError(
                f"a test tried to connect to {address!r}; rule of tests/conftest.py: tests run offline and may connect "
                "to this machine only. Use a model built in the test, a file in tmp_path, or 127.0.0.1."
            )

    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded_connect(self: socket.socket, address: Any) -> None:
        refuse(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        refuse(address)
        return connect_ex(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        yield
