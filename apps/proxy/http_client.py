"""HTTP/1.1 as a client: connections that carry one request after the other, over httptools' parser.

Bytes go from the socket to whoever reads the answer with no more than that parser in between; a
general client took as long for a call as all the rest of the gateway (docs/decisions/0012).

Bounds: HEAD_BYTES_MAX of a head, and of what comes behind it that is no part of a body; READ_BYTES
at a time from a socket, which is paused while as many wait for the reader (BEHIND_READ_BYTES and
BEHIND_BYTES while that one waits for its own client), KEEPALIVE_SECONDS for an idle connection,
FINISH_SECONDS for the end of an answer that nobody waits for. How long an answer may take is up to
the caller, who cancels.

Over 400 lines because it is one connection, from its pool to its parser's callbacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import httptools

HEAD_BYTES_MAX: Final = 64 << 10
READ_BYTES: Final = 16 << 10
# What is read while the reader waits for a slow client only takes memory.
BEHIND_READ_BYTES: Final = 4 << 10
BEHIND_BYTES: Final = 8 << 10
KEEPALIVE_SECONDS: Final = 30.0
FINISH_SECONDS: Final = 1.0

Target = tuple[str, str, int]  # scheme, host, port
# Takes a piece of a body and returns True, or declines it, with nothing done, and returns False.
Take = Callable[[bytes], bool]


class ConnectFailed(Exception):
    """No connection could be made."""


class ConnectionClosed(Exception):
    """The other side closed the connection before its answer was complete."""


class ConnectionStale(ConnectionClosed):
    """It was closed before anything of an answer came, and had been idle before."""


class BadAnswer(Exception):
    """What came is not an answer in HTTP/1.1."""


class Answer:
    """An answer whose head has arrived. Whoever has it ends with `release` or `close`."""

    __slots__ = (
        "_connection",
        "error",
        "headers",
        "is_behind",
        "is_complete",
        "sent_secret",
        "status",
        "waiting",
    )

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.waiting: list[bytes] = []  # pieces of the body that nobody has read
        self.status = 0
        self.headers: dict[bytes, bytes] = {}  # by lower-case name; the first of several
        self.is_complete = False
        self.error: Exception | None = None
        self.is_behind: Callable[[], bool] | None = None  # whether the reader waits for its client
        self.sent_secret = ""  # what was sent of a secret, where that is not the key itself

    def header(self, name: bytes) -> str:
        """Return a header by its lower-case name, "" where there is none."""
        return self.headers.get(name, b"").decode("latin-1")

    def text_headers(self) -> dict[str, str]:
        """Return all headers as text, by lower-case name."""
        return {
            name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers.items()
        }

    def conceal(self, text: str) -> str:
        """Return a text of the provider's without what it was sent of a secret beside the key."""
        return text.replace(self.sent_secret, "[redacted]") if self.sent_secret else text

    async def read(self, take: Take | None = None) -> bytes:
        """Return what has arrived of the body, as soon as there is any; b"" at its end.

        While nothing waits, what arrives is offered to `take` first, and returned from here only
        where that declines: whoever reads need not be woken for each piece.

        Raises ConnectionClosed, BadAnswer and what `take` raises, when all that came before has
        been read.
        """
        while not self.waiting:  # what arrives need not hold anything of the body
            if self.is_complete:
                return b""
            if self.error is not None:
                raise self.error
            await self._connection.wait(take)
        pieces, self.waiting = self.waiting, []
        self._connection.resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def release(self) -> None:
        """Keep the connection where the answer is complete and read, else close it."""
        if self.is_complete:
            self._connection.put_back()
        else:
            self.close()

    def finish(self) -> None:
        """Like `release`, but give an answer that has said all a moment for its formal end."""
        if self.is_complete:
            self._connection.put_back()
        else:
            self._connection.finish()

    def close(self) -> None:
        """Close the connection: the other side stops."""
        self._connection.abort()

    @property
    def is_read(self) -> bool:
        """Whether all of the body has been read."""
        return self.is_complete and not self.waiting

    @property
    def has_length(self) -> bool:
        """Whether the head tells where the body ends; else the connection's end does."""
        return b"content-length" in self.headers or b"transfer-encoding" in self.headers


class ClientConnection(asyncio.BufferedProtocol):
    """One connection, with at most one request under way."""

    def __init__(self, pool: Pool, target: Target) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._take: Take | None = None  # while the waiter waits for a piece of a body
        self._frame_bytes = 0  # of a head, or since then, or since the last piece of a body
        self._unread_bytes = 0
        self._has_head = False
        self._is_informational = False
        self._is_paused = False
        self._is_spoiled = False  # carries no further request
        self._finishing: asyncio.TimerHandle | None = None
        self.target: Final = target
        self.idle_since = 0.0

    # ---- for the caller

    async def send(self, data: bytes) -> Answer:
        """Send a request and return the answer when its head has arrived.

        Raises ConnectionClosed and BadAnswer. However it fails, the connection is closed.
        """
        answer = self._answer = Answer(self)
        self._has_head = False
        self._frame_bytes = 0
        try:
            self._transport.write(data)
            while not self._has_head and answer.error is None:
                await self.wait()
            if answer.error is not None and not self._has_head:
                raise answer.error
        except BaseException:
            self.abort()
            raise
        return answer

    async def wait(self, take: Take | None = None) -> None:
        """Return when something has arrived that `take` declined, or the connection has ended."""
        self._waiter = self._loop.create_future()
        self._take = take
        try:
            await self._waiter
        finally:
            self._waiter = self._take = None

    def resume(self) -> None:
        """Read on from the socket: nothing waits any more."""
        self._unread_bytes = 0
        if self._is_paused:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def put_back(self) -> None:
        """Give the connection to the next request, if it can carry one."""
        self._answer = None
        is_usable = (
            not self._is_spoiled
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        )
        if is_usable:
            self.resume()
            self._pool.put(self)
        else:
            self.abort()

    def finish(self) -> None:
        """Wait a moment for the end of the answer, then close."""
        self.resume()
        self._finishing = self._loop.call_later(FINISH_SECONDS, self.abort)

    def abort(self) -> None:
        """Close at once."""
        if self._finishing is not None:
            self._finishing.cancel()
            self._finishing = None
        self._answer = None
        self._transport.abort()

    @property
    def is_closing(self) -> bool:
        """Whether it is of no use any more."""
        return self._transport.is_closing()

    # ---- from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one in all but its class

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to: one place for all, since what is read is parsed at once."""
        return self._pool.small_buffer if self._is_behind() else self._pool.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what has been read."""
        if self._answer is None or self._answer.is_complete:
            # Nobody asked: what is said between two answers must not become the next one.
            self._is_spoiled = True
            self._transport.abort()
            return
        answer = self._answer
        if self._frame_bytes >= HEAD_BYTES_MAX:
            answer.error = BadAnswer("the head or its trailers are too long")
            self._is_spoiled = True
            self._wake()
            return
        self._frame_bytes += nbytes
        try:
            self._parser.feed_data(self._pool.buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._is_spoiled = True
            if not answer.is_complete:
                answer.error = BadAnswer(type(error).__name__)
        if answer.waiting:
            self._frame_bytes = 0
            if self._is_taken(answer):
                return
            self._unread_bytes += nbytes
            unread_max = BEHIND_BYTES if self._is_behind() else READ_BYTES
            if self._unread_bytes >= unread_max and not self._is_paused:
                self._is_paused = True
                self._transport.pause_reading()
        if self._finishing is not None and (answer.is_complete or answer.error is not None):
            self._finishing.cancel()
            self._finishing = None
            answer.release()
        self._wake()

    def _is_taken(self, answer: Answer) -> bool:
        """Offer what has arrived to who may take it, and return whether that is all there is."""
        waiter, pieces = self._waiter, answer.waiting
        # A reader that has been woken has its turn first: what it reads came before this.
        if self._take is None or waiter is None or waiter.done():
            return False
        try:
            if not self._take(pieces[0] if len(pieces) == 1 else b"".join(pieces)):
                return False
        except Exception as error:  # noqa: BLE001 (whatever it is, the reader raises it)
            answer.error = error
        pieces.clear()
        return not answer.is_complete and answer.error is None

    def eof_received(self) -> None:
        """Let the transport close: nothing is sent to who says no more."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._pool.forget(self)
        answer = self._answer
        if answer is not None and not answer.is_complete and answer.error is None:
            if self._has_head and exc is None and not answer.has_length:
                answer.is_complete = True
            else:
                is_silent = not (self._has_head or self._frame_bytes)
                is_stale = is_silent and self.idle_since > 0
                answer.error = ConnectionStale() if is_stale else ConnectionClosed()
        self._is_spoiled = True
        self._wake()

    def _is_behind(self) -> bool:
        """Return whether the reader waits for its own client, and not for what comes here."""
        answer = self._answer
        if self._waiter is not None or answer is None or answer.is_behind is None:
            return False
        return answer.is_behind()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ---- from the parser

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self._answer is None or self._has_head:
            raise BadAnswer("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers come too late to matter."""
        if self._answer is not None and not self._has_head:
            self._answer.headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        """Show the answer, unless it only says that one will come."""
        answer = self._answer
        if answer is None:
            return
        status = self._parser.get_status_code()
        self._is_informational = 100 <= status < 200
        if self._is_informational:
            answer.headers.clear()
            return
        answer.status = status
        self._has_head = True
        self._frame_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Keep a piece for the reader. For some streams this is called for every event."""
        answer = self._answer
        if answer is not None and self._finishing is None:
            answer.waiting.append(body)

    def on_message_complete(self) -> None:
        """End the answer."""
        if self._answer is None or self._is_informational:
            return
        self._answer.is_complete = True
        if not self._parser.should_keep_alive():
            self._is_spoiled = True


class Pool:
    """The connections that wait for a request, by where they lead; the youngest is taken first."""

    def __init__(
        self, connect: Callable[[Target, Callable[[], ClientConnection]], Awaitable[None]]
    ) -> None:
        """`connect` makes a connection with the protocol that it is given."""
        self._connect = connect
        self._idle: dict[Target, list[ClientConnection]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.buffer: Final = memoryview(bytearray(READ_BYTES))
        self.small_buffer: Final = self.buffer[:BEHIND_READ_BYTES]

    def find(self, target: Target) -> ClientConnection | None:
        """Take an idle connection, if there is one."""
        idle = self._idle.get(target)
        while idle:
            connection = idle.pop()
            if not connection.is_closing:
                return connection
        return None

    def drop(self, target: Target) -> None:
        """Close what is idle: one like it was closed by the other side without a word."""
        for connection in self._idle.pop(target, ()):
            connection.abort()

    async def make(self, target: Target) -> ClientConnection:
        """Return a new connection. Raises what `connect` raises."""
        made = ClientConnection(self, target)
        await self._connect(target, lambda: made)
        return made

    def put(self, connection: ClientConnection) -> None:
        """Keep a connection for the next request."""
        connection.idle_since = self._loop.time()
        self._idle.setdefault(connection.target, []).append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEEPALIVE_SECONDS / 2, self._close_old)

    def forget(self, connection: ClientConnection) -> None:
        """Drop a connection that has been lost while it was idle."""
        idle = self._idle.get(connection.target)
        if idle and connection in idle:
            idle.remove(connection)

    def close(self) -> None:
        """Close what is idle."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in [one for idle in self._idle.values() for one in idle]:
            connection.abort()
        self._idle.clear()

    def _close_old(self) -> None:
        before = self._loop.time() - KEEPALIVE_SECONDS
        for target, idle in list(self._idle.items()):
            # They stand in the order in which they became idle.
            while idle and idle[0].idle_since <= before:
                idle.pop(0).abort()
            if not idle:
                del self._idle[target]
        self._sweep = (
            self._loop.call_later(KEEPALIVE_SECONDS / 2, self._close_old) if self._idle else None
        )
