"""Clients on a bare socket: they leave where they like, or read as slowly as they like."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tests.nemesis.menu import PACED_TOKENS
from tests.nemesis.seen import Seen

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_WORD: Final = b'"content":'
_FINISH: Final = b'"finish_reason":"stop"'
_TAIL_BYTES: Final = 4096
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"
_ANSWER_SECONDS_MAX: Final = 60.0

# The four points at which clients leave.
POINTS: Final = ("before headers", "after the first word", "after the last word", "before usage")


@dataclass(frozen=True, slots=True)
class Habit:
    """How a client behaves: where it leaves, if it does, and how; how fast it reads."""

    leaves: str = ""  # one of POINTS
    resets: bool = False  # RST instead of FIN
    read_bytes: int = 64 << 10  # at a time
    pause_seconds: float = 0.0


class RawCall:
    """One streamed call on a connection of its own."""

    def __init__(self, seen: Seen, habit: Habit) -> None:
        self._seen = seen
        self._habit = habit
        self._data = b""
        self._words = 0

    async def run(self, port: int, key: str, body: dict[str, Any], *, patience: float) -> None:
        """Call. `patience` is how many seconds pass before a client leaves before the head."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS_MAX):
                reader, writer = await self._connect(port)
                try:
                    writer.write(_render(port, key, body))
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
            self._words += (self._data[-len(_WORD) + 1 :] + data).count(_WORD)
            self._data = (self._data + data)[-_TAIL_BYTES:]
            if habit.pause_seconds:
                await asyncio.sleep(habit.pause_seconds)
        if not seen.has_left:
            seen.is_clean = self._data.endswith(_LAST_CHUNK)
            seen.note_stream(self._data.removesuffix(_LAST_CHUNK))

    def _is_over(self) -> bool:
        """Return whether the answer is complete, or the point is reached at which to leave."""
        leaves = self._habit.leaves
        self._seen.has_left = (
            (leaves == "after the first word" and self._words >= 2)
            or (leaves == "after the last word" and self._words > PACED_TOKENS)
            or (leaves == "before usage" and _FINISH in self._data)
        )
        return self._seen.has_left or self._data.endswith(_LAST_CHUNK)


def _render(port: int, key: str, body: dict[str, Any]) -> bytes:
    content = orjson.dumps(body)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}
