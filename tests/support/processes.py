"""Small things that every started server needs: a free port, and waiting until it answers."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

_UNTIL_SECONDS = 60.0


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


async def until(is_so: Callable[[], bool]) -> None:
    """Return as soon as `is_so` does, while other tasks run; TimeoutError after a minute."""
    async with asyncio.timeout(_UNTIL_SECONDS):
        while not is_so():  # noqa: ASYNC110  Nobody tells when another process has acted.
            await asyncio.sleep(0.01)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def accepts_connections(port: int) -> bool:
    """Return whether somebody listens on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
