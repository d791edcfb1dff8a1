"""A provider made of bytes: it keeps what came over the wire, and says what a test wants."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson

from tests.support.processes import wait_until

_STOP_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Heard:
    """A request as it arrived."""

    head: bytes  # up to the empty line, without it
    body: bytes

    @property
    def lines(self) -> list[str]:
        """The lines of the head."""
        return self.head.decode("latin-1").split("\r\n")

    @property
    def names(self) -> list[str]:
        """The names of the headers, as they were sent, in their order."""
        return [line.partition(":")[0] for line in self.lines[1:]]

    @property
    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        found: dict[str, Any] = orjson.loads(self.body)
        return found

    @property
    def prompt(self) -> str:
        """The content of the first message."""
        return str(self.json["messages"][0]["content"])


# What is said to a request: bytes, in pieces with a pause of a moment between them. An empty list
# closes the connection; None says nothing and keeps it open.
Say = Callable[[Heard], Iterable[bytes] | None]


def completion(text: str, usage: dict[str, Any] | None = None) -> bytes:
    """Return the body of a whole answer."""
    return orjson.dumps(
        {
            "id": "chatcmpl-raw",
            "object": "chat.completion",
            "created": 1,
            "model": "raw",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": usage or {"prompt_tokens": 10, "completion_tokens": 16, "total_tokens": 26},
        }
    )


def chunk(text: str, finish: str | None = None) -> bytes:
    """Return one event of a stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    event = {
        "id": "chatcmpl-raw",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "raw",
        "choices": [choice],
    }
    return b"data: %b\n\n" % orjson.dumps(event)


def usage_chunk() -> bytes:
    """Return the event that tells the usage."""
    usage = {"prompt_tokens": 10, "completion_tokens": 16, "total_tokens": 26}
    event = {
        "id": "chatcmpl-raw",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "raw",
        "choices": [],
        "usage": usage,
    }
    return b"data: %b\n\n" % orjson.dumps(event)


def respond(
    body: bytes,
    *headers: str,
    status: str = "200 OK",
    kind: str = "application/json",
) -> bytes:
    """Return a whole HTTP answer."""
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class RawUpstream:
    """Serves on loopback, on an event loop in a thread of its own. Use it as a context manager."""

    def __init__(
        self,
        say: Say,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        pause_seconds: float = 0.02,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.say = say
        self._context = context
        self._pause_seconds = pause_seconds
        self.heard: list[Heard] = []
        self.connections = 0  # over which a request may come: behind the handshake, if any
        self._host = host
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def base_url(self) -> str:
        """What a provider's row holds."""
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://{self._host}:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_STOP_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)
        self._loop.close()

    def wait_for(self, count: int) -> list[Heard]:
        """Return what was heard when it is that many requests."""
        wait_until(
            lambda: len(self.heard) >= count, timeout_seconds=5, what=f"{count} requests upstream"
        )
        return self.heard

    async def _start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, self._host, self.port, limit=64 << 20, ssl=self._context
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while True:  # until the other side closes
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
                lengths = [
                    line.partition(b":")[2]
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ]
                body = await reader.readexactly(int(lengths[0]) if lengths else 0)
                heard = Heard(head, body)
                self.heard.append(heard)
                said = self.say(heard)
                if said is None:
                    await reader.read()
                    return
                for piece in said:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(self._pause_seconds)
                if not said:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The gateway has closed; what it said is in `heard`.
        finally:
            self._open.discard(writer)
            writer.close()
