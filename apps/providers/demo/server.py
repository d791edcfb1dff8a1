"""The demo provider as a server: what listens, and what its connections share."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
from collections import deque

from apps.providers.demo.calls import Call, CallLog
from apps.providers.demo.connection import Connection, Shared

BACKLOG = 4096
STOP_SECONDS_MAX = 5.0


class NotLoopback(ValueError):
    """The demo provider was told to listen where others could reach it."""


class DemoProvider:
    """A provider without a model behind it.

    `calls` has one record per call, oldest first; a running call is in it already.
    Raises NotLoopback for a host that others could reach.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        log_path: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        if not _is_loopback(host):
            raise NotLoopback(f"the demo provider listens on loopback only, not on {host}")
        self.host = host
        self.port = port
        self._shared = Shared(
            log=CallLog(log_path), api_key=api_key, id_prefix=secrets.token_hex(7)
        )
        self._server: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """Return what a client of OpenAI's dialect takes as its base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    @property
    def calls(self) -> deque[Call]:
        """Return the records of the calls."""
        return self._shared.log.calls

    def clear_calls(self) -> None:
        """Forget the records, and the counts behind `flaky`."""
        self._shared.log.clear()

    async def start(self) -> None:
        """Listen; `port` is the real one afterwards."""
        loop = asyncio.get_running_loop()
        self._shared.log.open()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self._shared), self.host, self.port, backlog=BACKLOG
            )
        except OSError:
            self._shared.log.close()
            raise
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, reset what is open, close the log file."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._shared.connections):
            connection.abort()
        if self._shared.tasks:
            await asyncio.wait(self._shared.tasks, timeout=STOP_SECONDS_MAX)
        # Let the transports say that they are closed.
        await asyncio.sleep(0)
        await asyncio.wait_for(self._server.wait_closed(), STOP_SECONDS_MAX)
        self._server = None
        self._shared.log.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name may point anywhere.
        return False
