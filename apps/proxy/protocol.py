"""The HTTP/1.1 connection of a gateway.

Uvicorn's, with bounds on heads and a way to break a stream off.

A failed stream must not end like a finished one: `Connection.abort` closes without the last
chunk, and `Connection.keep_alive` keeps uvicorn from announcing `connection: close` on an event
stream, after which some clients take a cut for the end.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from apps.core.errors import GatewayError, openai_body, openai_headers
from apps.core.ids import new_uuid7

HEAD_BYTES_MAX: Final = 64 << 10
URL_BYTES_MAX: Final = 8 << 10
HEADERS_MAX: Final = 100
HEAD_SECONDS: Final = 20.0
# How long a connection may be idle once the server is about to end.
LAST_IDLE_SECONDS: Final = 1
# What may wait for a slow client; above it the provider is no longer read.
WRITE_BUFFER_BYTES: Final = 16 << 10

_VERSIONS: Final = ("1.1", "1.0")
_REASONS: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    414: b"URI Too Long",
    431: b"Request Header Fields Too Large",
}


class DrainableState(ServerState):
    """What all connections of a server share, and whether it is about to end."""

    def __init__(self) -> None:
        super().__init__()
        self.is_draining = False


class Connection:
    """What the data plane may do to the connection that a request came on."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def keep_alive(self) -> None:
        """Have the answer not announce that the connection will be closed."""
        self._cycle.keep_alive = True

    def abort(self) -> None:
        """Close after what has been written, without the end of the chunked body."""
        self._cycle.disconnected = True
        self._cycle.transport.close()

    def drop(self) -> None:
        """Close at once, and forget what the client has not taken."""
        self._cycle.disconnected = True
        self._cycle.transport.abort()

    @property
    def has_started(self) -> bool:
        """Whether the head of the answer has been sent."""
        return self._cycle.response_started

    @property
    def is_lost(self) -> bool:
        """Whether the client is gone."""
        return self._cycle.disconnected


class GatewayProtocol(HttpToolsProtocol):
    """Reads requests with bounded heads and hands each its Connection in `scope["extensions"]`."""

    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # None before the first request

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._is_in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for a head."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before the head is complete, and parse."""
        if self._is_in_head:
            if self._head_bytes == 0 and self._head_timer is None:
                self._start_head_timer()
            self._head_bytes += len(data)
        super().data_received(data)
        if (
            self._is_in_head
            and self._head_bytes > HEAD_BYTES_MAX
            and not self.transport.is_closing()
        ):
            too_long = len(getattr(self, "url", b"")) > URL_BYTES_MAX
            self._refuse(GatewayError("E17", status=414 if too_long else 431))

    def on_message_begin(self) -> None:
        """Start a new head."""
        super().on_message_begin()
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        """Check the bounds of the head before the request is handed over."""
        self._stop_head_timer()
        if self.transport.is_closing():
            return
        if len(self.url) > URL_BYTES_MAX:
            self._refuse(GatewayError("E17", status=414))
        elif len(self.headers) > HEADERS_MAX or self._is_head_too_large():
            self._refuse(GatewayError("E17", status=431))
        elif not self.url.startswith(b"/"):
            # Only origin-form: no proxy requests, no asterisk.
            self._refuse(GatewayError("E11", message="The request target is not a path."))
        elif self.parser.get_http_version() not in _VERSIONS:
            self._refuse(GatewayError("E11", message="The request is not HTTP/1.1."))
        else:
            self._is_in_head = False
            self._head_bytes = 0
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the body; the next bytes belong to a new head."""
        self._is_in_head = True
        if self.cycle is not None:
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, unless its head was refused."""
        if self.cycle is not None and not self.transport.is_closing():
            super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in the shape of every other error, and close."""
        if not self.transport.is_closing():
            self._refuse(GatewayError("E11", message="The request is not valid HTTP/1.1."))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if getattr(self.server_state, "is_draining", False):
            # An event stream does not announce it (see Connection): it ends, then its connection.
            cycle.keep_alive = False
            self.timeout_keep_alive = LAST_IDLE_SECONDS
        cycle.scope["extensions"] = {"gateway.connection": Connection(cycle)}  # type: ignore[dict-item]  # our own extension
        super()._start_asgi_task(cycle, app)

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._head_bytes:
            self._refuse(
                GatewayError("E18", message="The head of the request did not arrive in time.")
            )
        elif self.cycle is None:
            self.transport.close()  # Connected and never said a word.

    def _is_head_too_large(self) -> bool:
        """Return whether a head that came at once, perhaps with its body, exceeds the bound."""
        if self._head_bytes <= HEAD_BYTES_MAX:
            return False
        return sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES_MAX

    @property
    def _may_answer(self) -> bool:
        """Whether what is written now would be taken for the answer to what was just refused."""
        cycle = self.cycle
        if self.pipeline:
            return False
        if self._is_in_head:
            return cycle is None or cycle.response_complete
        return cycle is not None and not cycle.response_started

    def _refuse(self, error: GatewayError) -> None:
        if not self._may_answer:
            # The client waits for another answer, or has had this one: it gets no second one.
            self.transport.close()
            return
        body = openai_body(error)
        head = [b"HTTP/1.1 %d %s\r\n" % (error.status, _REASONS.get(error.status, b"Error"))]
        headers = [h for h in openai_headers(error, str(new_uuid7())) if h[0] != b"connection"]
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        head += [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join(head) + b"\r\n" + body)
        self.transport.close()
