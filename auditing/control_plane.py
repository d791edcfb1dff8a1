"""Serves the control plane beside the data plane without starving it.

The pages and the REST API share the process, the machine and the database with running calls. So
they get a bounded number of threads, a pool of connections of their own and short statements; the
ledger and the loader of the configuration have theirs. A body is read whole, and within a bound,
before it takes a thread, and an answer that is whole gives its thread's connection back before it
is written: a slow client keeps no one else waiting, and one address gets no more than its share.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.signals import request_started
from django.db import connections

from apps.core.client_address import find_client_address
from apps.core.ids import new_uuid7
from apps.core.logs import Origin, origin
from auditing.cross_origin import REST_PREFIX, cross_origin_headers

CALLS_MAX: Final = 16
WAIT_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 5
BODY_BYTES_MAX: Final = 1_048_576
BODY_SECONDS: Final = 20.0
SEND_SECONDS: Final = 30.0
OPEN_MAX: Final = 128
OPEN_PER_ADDRESS_MAX: Final = 8

_CHARSETS: Final = frozenset({b"utf-8", b"utf8", b"us-ascii"})
_CHARSET_PATTERN: Final = re.compile(rb"charset\*?\s*=\s*[\"']?([^\"';\s]*)", re.IGNORECASE)

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
_CHARSET: Final = (415, "charset_unsupported", "Bodies are UTF-8.")
_TOO_SLOW: Final = (408, "body_too_slow", "The body did not arrive in time.")
_ENDING: Final = (503, "service_restarting", "The service is restarting. Try again.")


class ControlPlane:
    """Lets a bounded number of requests into Django; the others wait a moment, then get 503."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        """Wrap Django's ASGI application."""
        self._application = application
        self._places = asyncio.Semaphore(CALLS_MAX)
        self._open = asyncio.Semaphore(OPEN_MAX)
        self._shares = Shares(OPEN_PER_ADDRESS_MAX)
        self._settings: dict[str, Any] | None = None
        request_started.connect(self._use_pool, dispatch_uid="auditing.control_plane")

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send
    ) -> None:
        """Answer one request."""
        request_id = new_uuid7()
        origin.set(Origin(request_id, scope["headers"]))
        send = _with_id(_in_time(send, scope), str(request_id).encode())
        try:
            async with self._shares.one_of(_network_of(scope)), _place(self._open):
                await self._answer(scope, receive, send)
        except _Refused as refused:
            with suppress(_ClientLeft):
                await _refuse(send, refused, scope)
        except _ClientLeft:
            return

    async def _answer(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send
    ) -> None:
        _check_charset(scope)
        first = await self._read_body(receive) if _has_body(scope) else None
        async with _place(self._places) as place:
            talk = _Talk(_replay(first, receive), send)
            try:
                await self._application(scope, talk.receive, _giving_back(talk.send, place))
            except asyncio.CancelledError:
                # The gateway ends and waits no longer: a statement hangs, for example.
                talk.is_over = True
                if talk.has_started:
                    raise _ClientLeft from None
                raise _Refused(*_ENDING) from None

    async def _read_body(self, receive: _Receive) -> _Message:
        """Return the whole body as one message. Raises _Refused and _ClientLeft."""
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


class _Talk:
    """What Django hears and says: nothing any more once it is over, whatever goes on there."""

    def __init__(self, receive: _Receive, send: _Send) -> None:
        self._receive = receive
        self._send = send
        self.has_started = False
        self.is_over = False

    async def receive(self) -> _Message:
        """Return what comes next."""
        message = await self._receive()
        self._go_on()
        return message

    async def send(self, message: _Message) -> None:
        """Say something."""
        self._go_on()
        self.has_started = True
        await self._send(message)

    def _go_on(self) -> None:
        # Tasks that Django leaves behind end so, and nobody asks them how.
        if self.is_over:
            raise asyncio.CancelledError


def _pooled(settings: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(settings)
    options = found["OPTIONS"]
    # The last of two values of one option counts.
    options["options"] += f" -c statement_timeout={STATEMENT_SECONDS}s"
    options["pool"] = {"min_size": 1, "max_size": CALLS_MAX, "timeout": WAIT_SECONDS}
    found["CONN_HEALTH_CHECKS"] = True
    return found


def _with_id(send: _Send, request_id: bytes) -> _Send:
    """Return a `send` that adds the request's id, by which its log lines are found."""

    async def send_with_id(message: _Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
        await send(message)

    return send_with_id


class Shares:
    """Counts what each address has open; who has his share waits for his own to end."""

    def __init__(self, share: int) -> None:
        """Give every address `share` places."""
        self._share = share
        self._places: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @property
    def addresses(self) -> int:
        """Return how many addresses have something open."""
        return len(self._places)

    @asynccontextmanager
    async def one_of(self, address: str) -> AsyncIterator[None]:
        """Take one place of the address for what is inside. Raises _Refused."""
        places, users = self._places.get(address) or (asyncio.Semaphore(self._share), 0)
        self._places[address] = (places, users + 1)
        try:
            async with _place(places):
                yield
        finally:
            places, users = self._places.pop(address)
            if users > 1:
                self._places[address] = (places, users - 1)


class _Place:
    """A place that is given back once, early or at the end."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places: asyncio.Semaphore | None = places

    def give_back(self) -> None:
        if self._places is not None:
            self._places.release()
            self._places = None


@asynccontextmanager
async def _place(places: asyncio.Semaphore) -> AsyncIterator[_Place]:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await places.acquire()
    except TimeoutError:
        raise _Refused(*_BUSY) from None
    place = _Place(places)
    try:
        yield place
    finally:
        place.give_back()


def _in_time(send: _Send, scope: MutableMapping[str, Any]) -> _Send:
    """Return a `send` that leaves a client who does not take what is sent. Raises _ClientLeft."""

    async def send_in_time(message: _Message) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)
        except TimeoutError:
            connection = scope.get("extensions", {}).get("gateway.connection")
            if connection is not None:
                connection.drop()
            raise _ClientLeft from None

    return send_in_time


def _giving_back(send: _Send, place: _Place) -> _Send:
    """Return a `send` that gives place and database connection back before a whole answer goes.

    An answer without a length is still being made while it is sent.
    """

    async def send_and_give_back(message: _Message) -> None:
        if message["type"] == "http.response.start" and any(
            name.lower() == b"content-length" for name, _ in message["headers"]
        ):
            # In the thread that answered: the connection is that thread's.
            await sync_to_async(connections.close_all)()
            place.give_back()
        await send(message)

    return send_and_give_back


def _network_of(scope: MutableMapping[str, Any]) -> str:
    """Return what a client can be told by."""
    forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    peer = (scope.get("client") or ("",))[0]
    return find_client_address(
        peer, b",".join(forwarded).decode("latin-1"), settings.TRUSTED_PROXIES
    )


def _check_charset(scope: MutableMapping[str, Any]) -> None:
    """Refuse codecs that a client chooses: some take minutes for a megabyte. Raises _Refused."""
    for name, value in scope["headers"]:
        if name == b"content-type" and any(
            found.lower() not in _CHARSETS for found in _CHARSET_PATTERN.findall(value)
        ):
            raise _Refused(*_CHARSET)


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


async def _refuse(send: _Send, refused: _Refused, scope: MutableMapping[str, Any]) -> None:
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
    headers += _cross_origin(scope)
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _cross_origin(scope: MutableMapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return what the middleware adds to answers that come from Django."""
    if not scope["path"].startswith(REST_PREFIX):
        return []
    caller = next((value for name, value in scope["headers"] if name == b"origin"), b"")
    allowed = cross_origin_headers(scope["path"], caller.decode("latin-1"))
    return [
        (b"vary", b"Origin"),
        *((name.lower().encode(), value.encode()) for name, value in allowed.items()),
    ]
