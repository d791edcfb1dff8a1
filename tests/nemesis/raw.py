"""Clients on a bare socket: they leave where they like, or read as slowly as they like."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Final

import orjson

from tests.nemesis.calling import Order
from tests.nemesis.menu import PACED_TOKENS
from tests.nemesis.seen import Seen
from tests.nemesis.surfaces import Follower

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_ANSWER_SECONDS_MAX: Final = 60.0
_LINE_END: Final = b"\r\n"

# The four points at which clients leave.
POINTS: Final = ("before headers", "after the first word", "after the last word", "before usage")


@dataclass(frozen=True, slots=True)
class Habit:
    """How a client behaves: where it leaves, if it does, and how; how fast it reads."""

    leaves: str = ""  # one of POINTS
    resets: bool = False  # RST instead of FIN
    read_bytes: int = 64 << 10  # at a time
    pause_seconds: float = 0.0


class Unchunker:
    """Takes the framing of a chunked body off, whatever pieces it comes in."""

    def __init__(self) -> None:
        self._waiting = b""
        self._left = 0  # of the chunk, with the end of its line
        self.is_complete = False

    def feed(self, data: bytes) -> bytes:
        """Return what these bytes bring of the body."""
        self._waiting += data
        body = b""
        while self._waiting and not self.is_complete:
            if self._left:
                piece = self._waiting[: self._left]
                self._waiting = self._waiting[len(piece) :]
                body += piece[: max(0, self._left - len(_LINE_END))]
                self._left -= len(piece)
                continue
            size, end, rest = self._waiting.partition(_LINE_END)
            if not end:
                break
            self._waiting = rest
            length = int(size, 16)
            self.is_complete = not length
            self._left = length + len(_LINE_END) if length else 0
        return body


class RawCall:
    """One call on a connection of its own."""

    def __init__(self, seen: Seen, habit: Habit, order: Order) -> None:
        self._seen = seen
        self._habit = habit
        self._order = order
        self._followed = Follower(order.surface)
        self._framing = Unchunker()

    async def run(self, port: int, *, patience: float) -> None:
        """Call. `patience` is how many seconds pass before a client leaves before the head."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS_MAX):
                reader, writer = await self._connect(port)
                try:
                    writer.write(_render(port, self._order))
                    await self._read(reader, patience)
                finally:
                    if self._habit.resets:
                        channel: socket.socket = writer.get_extra_info("socket")
                        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    writer.transport.abort() if self._habit.resets else writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # Cut off: what had come until then is what was seen.

    async def _connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        channel = socket.socket()
        channel.setblocking(False)
        if self._habit.pause_seconds:
            # So that what is not read waits at the gateway, and not in our kernel.
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(channel, ("127.0.0.1", port))
            return await asyncio.open_connection(sock=channel, limit=64 << 10)
        except BaseException:
            channel.close()
            raise

    async def _read(self, reader: asyncio.StreamReader, patience: float) -> None:
        seen, habit = self._seen, self._habit
        if habit.leaves == "before headers":
            await asyncio.sleep(patience)
            seen.has_left = True
            return
        head = await reader.readuntil(b"\r\n\r\n")
        status, headers = _parse_head(head)
        seen.note_head(status, headers)
        if status != 200:
            seen.note_refusal(await reader.readexactly(int(headers.get("content-length", "0"))))
            seen.is_clean = True
            return
        while not self._is_over():
            data = await reader.read(habit.read_bytes)
            if not data:
                break
            self._followed.feed(self._framing.feed(data))
            if habit.pause_seconds:
                await asyncio.sleep(habit.pause_seconds)
        if not seen.has_left:
            seen.is_clean = self._framing.is_complete
            seen.note_stream(self._followed)

    def _is_over(self) -> bool:
        """Return whether the answer is complete, or the point is reached at which to leave."""
        leaves, followed = self._habit.leaves, self._followed
        words = followed.words - self._order.surface.words_before
        self._seen.has_left = (
            (leaves == "after the first word" and words >= 1)
            or (leaves == "after the last word" and words >= PACED_TOKENS)
            or (leaves == "before usage" and followed.has_finish)
        )
        return self._seen.has_left or self._framing.is_complete


def _render(port: int, order: Order) -> bytes:
    surface = order.surface
    asked = surface.body(order.model, is_stream=order.is_stream)
    if surface.dialect == "openai" and order.is_stream:
        asked["stream_options"] = {"include_usage": True}
    content = orjson.dumps(asked)
    lines = [f"POST {surface.path(order.model, is_stream=order.is_stream)} HTTP/1.1"]
    lines.append(f"host: 127.0.0.1:{port}")
    lines += [f"{name}: {value}" for name, value in surface.headers(order.payer.key).items()]
    lines.append(f"content-length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}
