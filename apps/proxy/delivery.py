"""The client's side of a call: what goes to its connection, in pieces that it takes."""

from __future__ import annotations

import asyncio
from typing import Final

from apps.proxy.call import Call
from apps.proxy.http import Headers, answer_headers
from apps.proxy.protocol import Connection
from apps.proxy.sse import rest_of_event

# How long a client may take nothing before it gets the end of its answer.
LAST_FRAME_SECONDS: Final = 60.0
# How much of a stream goes to the connection at a time, and where some of it still waits there.
_PIECE_BYTES: Final = 16 << 10
_SMALL_PIECE_BYTES: Final = 4 << 10
_EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"
_JSON: Final = b"application/json; charset=utf-8"


class Delivery:
    """Sends one answer to the client."""

    def __init__(self, call: Call, connection: Connection, extra: Headers) -> None:
        self._call = call
        self._connection = connection
        self._extra = extra
        self._rest = b""  # of an event of which the client has a part

    def start(self, is_stream: bool, length: int | None = None) -> None:
        """Begin the answer: a stream, or a body of `length` bytes."""
        is_events = is_stream and not self._call.plan.request.is_array
        kind = _EVENT_STREAM if is_events else _JSON
        self._connection.begin(
            answer_headers(self._call.request_text, kind, self._extra),
            length=None if is_stream else length,
        )

    def is_behind(self) -> bool:
        """Return whether so much waits for the client that nothing more is sent to it."""
        return self._connection.is_write_paused

    def has_room_for(self, data: bytes) -> bool:
        """Return whether the client takes a piece of a stream at once: `send_now` may follow."""
        return len(data) <= _PIECE_BYTES and not self._connection.is_write_paused

    def send_now(self, data: bytes) -> None:
        """Send a piece of a stream that there is room for."""
        self._connection.write(data)

    async def send(self, data: bytes, idle_seconds: float) -> None:
        """Send a piece of a stream, as the client takes it: so long may it take nothing."""
        call, connection = self._call, self._connection
        # In pieces: however slow the client is, no more than one of them is added to what waits.
        size = _SMALL_PIECE_BYTES if connection.has_unsent else _PIECE_BYTES
        for start in range(0, len(data), size):
            if connection.is_write_paused:
                call.is_sending = True
                call.deadline = call.gateway.monotonic() + idle_seconds
                # Where the call ends here, what tells its end must not come inside an event.
                self._rest = rest_of_event(data, start)
                await connection.drain()
                self._rest = b""
                call.is_sending = False
            connection.write(data if len(data) <= size else data[start : start + size])

    async def end(self, data: bytes) -> None:
        """Send the last piece and complete the answer."""
        if await self._has_room():
            self._connection.end(data)

    async def break_off(self, event: bytes) -> None:
        """Send an error inside the stream and cut the connection."""
        if await self._has_room():
            self._connection.write(self._rest + event)
            self._connection.abort()

    def drop(self) -> None:
        """Close at once: a client that stalls still holds the connection."""
        self._connection.drop()

    async def _has_room(self) -> bool:
        """Wait until the client takes the last bytes; one that takes nothing is dropped.

        The charge is settled by now.
        """
        if not self._connection.is_write_paused:
            return True
        try:
            async with asyncio.timeout(LAST_FRAME_SECONDS):
                await self._connection.drain()
        except TimeoutError:
            self._connection.drop()
            return False
        return True
