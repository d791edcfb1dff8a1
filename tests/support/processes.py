"""Small things that every started server needs: a free port, and waiting until it answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


class NotReady(Exception):
    """A server did not answer in time."""


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    is_ready: Callable[[], bool],
    *,
    timeout_seconds: float,
    what: str,
    pause_seconds: float = 0.01,
) -> None:
    """Return as soon as `is_ready` does; raise NotReady when the time is up."""
    deadline = time.monotonic() + timeout_seconds
    while not is_ready():
        if time.monotonic() > deadline:
            raise NotReady(f"{what} was not ready within {timeout_seconds} s")
        time.sleep(pause_seconds)


def accepts_connections(port: int) -> bool:
    """Return whether somebody listens on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
