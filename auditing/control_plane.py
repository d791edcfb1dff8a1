"""Serves the control plane beside the data plane without starving it.

The pages and the REST API share the process, the machine and the database with running calls. So
they get a bounded number of threads, a pool of connections of their own and short statements; the
ledger and the loader of the configuration have theirs. A body is read whole, and within a bound,
before it takes a thread: a slow client keeps no one else waiting.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from django.core.signals import request_started
from django.db import connections

CALLS_MAX: Final = 16
WAIT_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 5
BODIES_MAX: Final = 64
BODY_BYTES_MAX: Final = 1_048_576
BODY_SECONDS: Final = 20.0

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class _Refused(Exception):
    """A request that does not get into Django: its status, code and text."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        super().__init__(detail)


class _ClientLeft(Exception):
    """Nobody waits for an answer any more."""


_BUSY: Final = (503, "busy", "Too much is asked for at once.")
_TOO_LARGE: Final = (413, "body_too_large", f"A body has at most {BODY_BYTES_MAX} bytes.")
_TOO_SLOW: Final = (408, "body_too_slow", "The body did not arrive in time.")


class ControlPlane:
    """Lets a bounded number of requests into Django; the others wait a moment, then get 503."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        """Wrap Django's ASGI application."""
        self._application = application
        self._places = asyncio.Semaphore(CALLS_MAX)
        self._bodies = asyncio.Semaphore(BODIES_MAX)
        self._settings: dict[str, Any] | None = None
        request_started.connect(self._use_pool, dispatch_uid="auditing.control_plane")

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send
    ) -> None:
        """Answer one request."""
        try:
            first = await self._read_body(receive) if _has_body(scope) else None
            await _take(self._places)
        except _Refused as refused:
            await _refuse(send, refused)
            return
        except _ClientLeft:
            return
        try:
            await self._application(scope, _replay(first, receive), send)
        finally:
            self._places.release()

    async def _read_body(self, receive: _Receive) -> _Message:
        """Return the whole body as one message. Raises _Refused and _ClientLeft."""
        await _take(self._bodies)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = bytearray()
                while True:  # Ends with the body, its bound, or the time.
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientLeft
                    body += message.get("body", b"")
                    if len(body) > BODY_BYTES_MAX:
                        raise _Refused(*_TOO_LARGE)
                    if not message.get("more_body"):
                        return {"type": "http.request", "body": bytes(body), "more_body": False}
        except TimeoutError:
            raise _Refused(*_TOO_SLOW) from None
        finally:
            self._bodies.release()

    def _use_pool(self, **_: Any) -> None:
        """Let this request's thread take its connection from the pool.

        Runs in the thread that will answer the request, so that other threads of the process keep
        connections of their own.
        """
        wrapper = connections["default"]
        if wrapper.vendor != "postgresql" or wrapper.connection is not None:
            return
        if self._settings is None:
            self._settings = _pooled(wrapper.settings_dict)
        wrapper.settings_dict = self._settings


def _pooled(settings: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(settings)
    options = found["OPTIONS"]
    # The last of two values of one option counts.
    options["options"] += f" -c statement_timeout={STATEMENT_SECONDS}s"
    options["pool"] = {"min_size": 1, "max_size": CALLS_MAX, "timeout": WAIT_SECONDS}
    found["CONN_HEALTH_CHECKS"] = True
    return found


async def _take(places: asyncio.Semaphore) -> None:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await places.acquire()
    except TimeoutError:
        raise _Refused(*_BUSY) from None


def _has_body(scope: MutableMapping[str, Any]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def _replay(first: _Message | None, receive: _Receive) -> _Receive:
    """Return a `receive` that gives the body that was read already, then what comes."""
    waiting = [] if first is None else [first]

    async def replay() -> _Message:
        return waiting.pop() if waiting else await receive()

    return replay


async def _refuse(send: _Send, refused: _Refused) -> None:
    body = json.dumps({"detail": refused.detail, "code": refused.code}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        # What is left of a body must not be taken for the next request.
        (b"connection", b"close"),
    ]
    if refused.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
