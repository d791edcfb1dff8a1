"""The HTTP/1.1 connection of a gateway.

Uvicorn's, with bounds on heads and on what is pipelined, and a way to break a stream off.

A failed stream must not end like a finished one: `Connection.abort` closes without the last
chunk, and no stream announces `connection: close`, after which some clients take a cut for the end.

Offers of another protocol (`Upgrade`) are passed over, as RFC 9110 allows (section 7.8): clients in
Java make one with every request.

Over 400 lines because it is one connection, from the first byte of a head to that of an answer.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from apps.core.errors import GatewayError, openai_headers
from apps.core.ids import new_uuid7
from apps.proxy.dialects.answer_conversion import error_body, error_status
from apps.proxy.dialects.parsed_request import DialectName
from apps.proxy.operations import dialect_of

HEAD_BYTES_MAX: Final = 64 << 10
# Of a body in chunks: what may come after one piece of it and before the next, or before its end.
FRAME_BYTES_MAX: Final = 64 << 10
URL_BYTES_MAX: Final = 8 << 10
HEADERS_MAX: Final = 100
HEAD_SECONDS: Final = 20.0
# Of a body that was answered before all of it had come: what is read and thrown away, so that its
# sender sees the answer and not a reset, before the connection is closed.
LATE_BODY_BYTES_MAX: Final = 32 << 20
LATE_BODY_SECONDS: Final = 30.0
# How many requests may wait for the answer to one before them; each is kept whole in memory.
PIPELINED_MAX: Final = 32
# What may wait for a slow client; above it the provider is no longer read.
WRITE_BUFFER_BYTES: Final = 8 << 10
# What a process needs beside its clients and their providers: listeners, databases, Redis, files;
# and clients for which there is no room.
KEPT_DESCRIPTORS: Final = 96
# How many of those are heard, and then told so, at a time; others are told so unheard.
SURPLUS_MAX: Final = 32

_OK: Final = b"HTTP/1.1 200 OK\r\n"
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"
_VERSIONS: Final = ("1.1", "1.0")
_REASONS: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    414: b"URI Too Long",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


def clients_max() -> int:
    """Return for how many clients the process has descriptors: each needs one for its provider."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (most - KEPT_DESCRIPTORS) // 2)


class DrainableState(ServerState):
    """What all connections of a server share, and whether it is about to end."""

    def __init__(self) -> None:
        super().__init__()
        self.is_draining = False
        self.surplus = 0  # connections for which there was no room


class Connection:
    """What the data plane may do to the connection that a request came on.

    Answers of calls are written here and not sent as ASGI messages: head and first bytes go out in
    one system call, and nothing is looked at twice. Header values must be our own.
    """

    __slots__ = ("_cycle", "_head", "_is_chunked", "_protocol")

    def __init__(self, protocol: GatewayProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._head = b""
        self._is_chunked = False

    # ---- the request

    @property
    def is_surplus(self) -> bool:
        """Whether there was no room for this client: calls are refused, and it is closed."""
        return self._protocol.is_surplus

    def take_body(self) -> bytes | None:
        """Return the request's body if all of it has arrived, else None and take nothing."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        return body

    def on_lost(self, callback: Callable[[], None] | None) -> None:
        """Have a function called when the client leaves; at once where it has left."""
        self._protocol.on_lost = callback
        if callback is None:
            return
        if self._cycle.disconnected:
            callback()
        # Who does not read does not see the end either.
        self._protocol.flow.resume_reading()

    # ---- the answer

    def begin(self, headers: Iterable[tuple[bytes, bytes]], *, length: int | None = None) -> None:
        """Begin a 200; the head goes out with the first `write`. `length` None: in chunks.

        An event stream does not announce that its connection will close, or some clients take a
        cut for the end.
        """
        cycle = self._cycle
        cycle.response_started = True
        parts = [_OK]
        for name, value in (*cycle.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if length is None:
            self._is_chunked = True
            parts.append(_CHUNKED)
        else:
            parts.append(b"content-length: %d\r\n" % length)
            if not cycle.keep_alive:
                parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self._head = b"".join(parts)

    def write(self, data: bytes) -> None:
        """Write a piece of the body, however much waits already: see `is_write_paused`."""
        if self._cycle.disconnected or not data:
            return  # An empty chunk would end the answer.
        if self._is_chunked:
            data = b"%b%x\r\n%b\r\n" % (self._head, len(data), data)
        elif self._head:
            data = self._head + data
        self._head = b""
        self._cycle.transport.write(data)

    def end(self, data: bytes) -> None:
        """Write the last piece of the body and complete the answer."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        self.write(data)
        if self._head or self._is_chunked:
            cycle.transport.write(self._head + (b"0\r\n\r\n" if self._is_chunked else b""))
            self._head = b""
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    @property
    def is_write_paused(self) -> bool:
        """Whether more waits for the client than WRITE_BUFFER_BYTES."""
        return bool(self._cycle.flow.write_paused) and not self._cycle.disconnected

    @property
    def has_unsent(self) -> bool:
        """Whether anything at all waits for the client."""
        return bool(self._cycle.transport.get_write_buffer_size())

    async def drain(self) -> None:
        """Return when the client has taken most of what waits, or has left."""
        await self._cycle.flow.drain()

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
        """Whether the answer has begun."""
        return self._cycle.response_started


class GatewayProtocol(HttpToolsProtocol):
    """Reads requests with bounded heads and hands each its Connection in `scope["extensions"]`."""

    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # None before the first request
    server_state: DrainableState

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._frame_bytes = 0  # since the last piece of a body: sizes of chunks, trailers
        self._is_in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self.is_surplus = False
        self.on_lost: Callable[[], None] | None = None  # of the call that is being answered
        self._answered: RequestResponseCycle | None = None  # what is being answered, or was last
        self._late_bytes = 0
        self._late_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for a head, where there is room for one more."""
        state = self.server_state
        self.is_surplus = len(self.connections) - state.surplus >= clients_max()
        state.surplus += self.is_surplus
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        if state.surplus > SURPLUS_MAX and self.is_surplus:
            self._refuse(GatewayError("E37"))
        else:
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, and tell the call that is being answered."""
        self.server_state.surplus -= self.is_surplus
        self._stop_head_timer()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._stop_late_timer()
        super().connection_lost(exc)
        answered = self._answered
        if answered is not None and not answered.response_complete:
            # Uvicorn tells the last that was read, which may wait behind this one.
            answered.disconnected = True
            answered.message_event.set()
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def data_received(self, data: bytes) -> None:
        """Count what comes before the head is complete, and what is no part of a body; parse."""
        if self._is_in_head:
            self._head_bytes += len(data)
        else:
            self._frame_bytes += len(data)
        self._parse(data)
        if self._frame_bytes > FRAME_BYTES_MAX and not self.transport.is_closing():
            self._refuse(GatewayError("E17", status=431))
        if self._is_in_head and self._head_bytes and not self.transport.is_closing():
            if self._head_timer is None:
                self._start_head_timer()
            if self._head_bytes > HEAD_BYTES_MAX:
                too_long = len(getattr(self, "url", b"")) > URL_BYTES_MAX
                self._refuse(GatewayError("E17", status=414 if too_long else 431))

    def _parse(self, data: bytes) -> None:
        """Parse, in place of uvicorn's own `data_received`: that drops what is behind an offer.

        The parser takes a body behind an offer for the other protocol already: the head is parsed
        once more without the offer, and then what came behind it.
        """
        while data and not self.transport.is_closing():  # each turn takes one offer away
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as offer:
                data = self._head_without_offer() + data[offer.args[0] :]
            except HttpParserError:
                self.send_400_response("")
                return

    def _head_without_offer(self) -> bytes:
        first = (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [b"%b: %b\r\n" % one for one in self.headers if one[0] != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (*first, b"".join(headers))

    def on_message_begin(self) -> None:
        """Start a new head."""
        super().on_message_begin()
        self._is_in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers come too late to matter."""
        if self._is_in_head:
            super().on_header(name, value)

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
        elif self.parser.should_upgrade():
            # The head comes once more from `_parse`, without its offer; CONNECT is nothing else.
            if self.parser.get_method() == b"CONNECT":
                self._refuse(GatewayError("E11", message="The gateway is no proxy."))
        else:
            self._is_in_head = False
            self._head_bytes = 0
            super().on_headers_complete()
            if self.on_lost is not None:
                # Who does not read does not see the client leave. Of a long body no more is read.
                self.flow.resume_reading()
            if len(self.pipeline) > PIPELINED_MAX:
                self.transport.close()  # What else has been read is not looked at.

    def on_message_complete(self) -> None:
        """End the body; the next bytes belong to a new head."""
        self._is_in_head = True
        self._frame_bytes = 0
        self._stop_late_timer()
        if self.cycle is not None:
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, unless its head was refused or it has been answered already."""
        self._frame_bytes = 0
        cycle = self.cycle
        if cycle is None or self.transport.is_closing():
            return
        if cycle.response_complete:
            self._late_bytes += len(body)
            if self._late_bytes > LATE_BODY_BYTES_MAX:
                self.transport.close()
            return
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Go on, and do not wait for ever for the rest of a body that has been answered.

        Uvicorn's own sets a timer for each answer; here one looks after all that come in its time.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()
            if self._idle_timer is None:
                self._start_idle_timer(self.timeout_keep_alive)
        cycle = self.cycle
        is_unfinished = not self._is_in_head and cycle is not None and cycle.response_complete
        if is_unfinished and self._late_timer is None and not self.transport.is_closing():
            self._late_bytes = 0
            self._late_timer = self.loop.call_later(LATE_BODY_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in the shape of every other error, and close."""
        if not self.transport.is_closing():
            self._refuse(GatewayError("E11", message="The request is not valid HTTP/1.1."))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.server_state.is_draining or self.is_surplus:
            # An event stream does not announce it (see Connection): it ends, then its connection.
            cycle.keep_alive = False
        self._answered = cycle
        cycle.scope["extensions"] = {"gateway.connection": Connection(self, cycle)}  # type: ignore[dict-item]  # our own extension
        super()._start_asgi_task(cycle, app)

    def _start_idle_timer(self, seconds: float) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = self.loop.call_later(seconds, self._on_idle_timeout)

    def _on_idle_timeout(self) -> None:
        """Close where nothing has been asked since the last answer; else wait for what is left."""
        self._idle_timer = None
        cycle = self.cycle
        if cycle is None or not cycle.response_complete or self._head_bytes:
            return  # The next answer sets the timer again.
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._start_idle_timer(left)
        else:
            self.transport.close()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_late_timer(self) -> None:
        if self._late_timer is not None:
            self._late_timer.cancel()
            self._late_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if self.pipeline or (
            self._is_in_head and cycle is not None and not cycle.response_complete
        ):
            # It is the answer that takes so long: until then the head may not even be read.
            self._start_head_timer()
            return
        if self._head_bytes:
            self._refuse(
                GatewayError("E18", message="The head of the request did not arrive in time.")
            )
        elif cycle is None:
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

    @property
    def _dialect(self) -> DialectName:
        """The dialect of the last head, by as much of it as has come; OpenAI's where none has."""
        target: bytes = getattr(self, "url", b"")[:URL_BYTES_MAX].partition(b"?")[0]
        return dialect_of(unquote(target.decode("latin-1")), self.headers or ())

    def _refuse(self, error: GatewayError) -> None:
        if not self._may_answer:
            # The client waits for another answer, or has had this one: it gets no second one.
            self.transport.close()
            return
        dialect, request_id = self._dialect, str(new_uuid7())
        body, status = error_body(dialect, error, request_id), error_status(dialect, error)
        head = [b"HTTP/1.1 %d %s\r\n" % (status, _REASONS.get(status, b"Error"))]
        headers = [h for h in openai_headers(error, request_id) if h[0] != b"connection"]
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        head += [b"%s: %s\r\n" % header for header in headers]
        is_head = self.parser.get_method() == b"HEAD"
        self.transport.write(b"".join(head) + b"\r\n" + (b"" if is_head else body))
        self.transport.close()
