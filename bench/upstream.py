"""The provider of the benchmark: reads a request's head and body, writes an answer made beforehand.

`python -m bench.upstream --port 9000` answers at once, in the dialect whose path is asked for; with
`--per-second 50` the events of a chat come one by one, each with the moment at which it was due.

It understands only what the benchmark sends: HTTP/1.1, a body with a content length, connections
that stay open. What it does not understand ends the connection, which fails the measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from typing import Final, cast

import uvloop

from bench.answers import SCRIPTS, Script, stream_of

EVENTS: Final = 50
REQUEST_BYTES_MAX: Final = 1 << 20
# The moment at which an event was due, in nanoseconds of the monotonic clock that all processes of
# a machine share.
DUE_MARK: Final = b"@%019d@"
_BACKLOG: Final = 4_096
_STAMP: Final = "@DUE@"
_OPENAI: Final = SCRIPTS["openai"]
# Of a request's first line: the dialect that is asked for; others are OpenAI's chats.
_PATHS: Final = {
    b"/messages ": "anthropic",
    b"/responses ": "openai-responses",
    b":generateContent": "gemini",
    b":streamGenerateContent": "gemini",
}
# What asks for a stream, and for the usage at its end: in a body, or in the path of Google's.
_STREAM: Final = (b'"stream":true', b'"stream": true')
_GEMINI_STREAM: Final = b":streamGenerateContent"
_USAGE: Final = (b'"include_usage":true', b'"include_usage": true')


def make_answer(script: Script = _OPENAI) -> bytes:
    """Return a JSON answer of half a kilobyte, with its head."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(script.answer) + script.answer


def make_content(text: str) -> bytes:
    """Return one event with content, as a chunk of HTTP."""
    return _chunk(_OPENAI.content(text, 0))


def make_end(events: int, *, has_usage: bool) -> bytes:
    """Return the events after the content: the finish, the usage if it was asked for, `[DONE]`."""
    return b"".join(map(_chunk, _OPENAI.end(events, has_usage))) + b"0\r\n\r\n"


def make_stream(script: Script, events: int, *, has_usage: bool) -> bytes:
    """Return a stream with its head, each event a chunk of HTTP."""
    said = stream_of(script, events, has_usage=has_usage)
    return STREAM_HEAD + b"".join(map(_chunk, said)) + b"0\r\n\r\n"


STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


class Answers:
    """What is written, for every kind of request."""

    def __init__(self, events: int, per_second: float) -> None:
        self.events = events
        self.gap_seconds = 1 / per_second if per_second else 0.0
        self.bodies = {dialect: make_answer(script) for dialect, script in SCRIPTS.items()}
        self.ends = [make_end(events, has_usage=has_usage) for has_usage in (False, True)]
        self.streams = {
            dialect: [make_stream(script, events, has_usage=usage) for usage in (False, True)]
            for dialect, script in SCRIPTS.items()
        }
        # Of the same length as the moment that takes its place, so that the chunk stays right.
        width = len(DUE_MARK % 0)
        before, _, after = make_content(_STAMP.ljust(width, "#")).partition(
            _STAMP.ljust(width, "#").encode()
        )
        self.stamped = before + DUE_MARK + after


class UpstreamProtocol(asyncio.Protocol):
    """One connection."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        # uvloop's transport is one in all but its class.
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let pending events go nowhere."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._buffer += data
        while self._transport is not None:  # each turn takes a request out of a bounded buffer
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                break
            head = self._buffer[:end]
            length = _content_length(head.lower())
            if length is None:
                self._transport.close()
                return
            stop = end + 4 + length
            if len(self._buffer) < stop:
                break
            body, self._buffer = self._buffer[end + 4 : stop], self._buffer[stop:]
            self._answer(head.partition(b"\r\n")[0], body)
        if len(self._buffer) > REQUEST_BYTES_MAX and self._transport is not None:
            self._transport.close()

    def _answer(self, line: bytes, body: bytes) -> None:
        assert self._transport is not None
        dialect = next((name for path, name in _PATHS.items() if path in line), "openai")
        if _GEMINI_STREAM not in line and not any(mark in body for mark in _STREAM):
            self._transport.write(self._answers.bodies[dialect])
            return
        has_usage = any(mark in body for mark in _USAGE)
        if dialect != "openai" or not self._answers.gap_seconds:
            self._transport.write(self._answers.streams[dialect][has_usage])
            return
        self._transport.write(STREAM_HEAD)
        # Streams that began together do not stay in step.
        due = self._loop.time() + random.random() * self._answers.gap_seconds
        self._loop.call_at(due, self._write_due, due, 0, has_usage)

    def _write_due(self, due: float, sent: int, has_usage: bool) -> None:
        if self._transport is None:
            return
        if sent == self._answers.events:
            self._transport.write(self._answers.ends[has_usage])
            return
        self._transport.write(self._answers.stamped % int(due * 1e9))
        due += self._answers.gap_seconds
        self._loop.call_at(due, self._write_due, due, sent + 1, has_usage)


def _content_length(head: bytes) -> int | None:
    """Return the length of the body, None where it cannot be told."""
    start = head.find(b"content-length:")
    if start < 0:
        return None if b"transfer-encoding:" in head else 0
    return int(head[start + 15 :].split(b"\r\n", 1)[0])


async def serve(*, port: int, events: int, per_second: float) -> None:
    """Serve until the process is told to end."""
    answers = Answers(events, per_second)
    loop = asyncio.get_running_loop()
    if abs(loop.time() - time.monotonic()) > 0.1:
        raise RuntimeError("The clock of the event loop is not the monotonic clock.")
    server = await loop.create_server(
        lambda: UpstreamProtocol(answers), "127.0.0.1", port, backlog=_BACKLOG
    )
    await server.serve_forever()


def main() -> None:
    """Serve on a port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--per-second", type=float, default=0.0)
    options = parser.parse_args()
    uvloop.run(serve(port=options.port, events=options.events, per_second=options.per_second))


if __name__ == "__main__":
    main()
