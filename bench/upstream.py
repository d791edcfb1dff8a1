"""The provider of the benchmark: reads a request's head and body, writes an answer made beforehand.

`python -m bench.upstream --port 9000` answers at once; with `--per-second 50` the events of a
stream come one by one, each with the moment at which it was due.

It understands only what the benchmark sends: HTTP/1.1, a body with a content length, connections
that stay open. What it does not understand ends the connection, which fails the measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from typing import Final, cast

import uvloop

EVENTS: Final = 50
PROMPT_TOKENS: Final = 23
ANSWER_TOKENS: Final = 40
REQUEST_BYTES_MAX: Final = 1 << 20
# The moment at which an event was due, in nanoseconds of the monotonic clock that all processes of
# a machine share.
DUE_MARK: Final = b"@%019d@"
_BACKLOG: Final = 4_096
_STAMP: Final = "@DUE@"
_START = {"id": "chatcmpl-bench", "created": 1_700_000_000, "model": "bench"}


def make_answer() -> bytes:
    """Return a JSON answer of half a kilobyte, with its head."""
    message = {"role": "assistant", "content": "Hello there. " * 18}
    body = json.dumps(
        {
            **_START,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _usage(ANSWER_TOKENS),
        }
    ).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def make_content(text: str) -> bytes:
    """Return one event with content, as a chunk of HTTP."""
    return _event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def make_end(events: int, *, has_usage: bool) -> bytes:
    """Return the events after the content: the finish, the usage if it was asked for, `[DONE]`."""
    end = _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if has_usage:
        end += _event({"choices": [], "usage": _usage(events)})
    return end + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _usage(output: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": output,
        "total_tokens": PROMPT_TOKENS + output,
    }


def _event(values: dict[str, object]) -> bytes:
    body = {**_START, "object": "chat.completion.chunk", **values}
    return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


class Answers:
    """What is written, for every kind of request."""

    def __init__(self, events: int, per_second: float) -> None:
        self.events = events
        self.gap_seconds = 1 / per_second if per_second else 0.0
        self.body = make_answer()
        self.ends = [make_end(events, has_usage=has_usage) for has_usage in (False, True)]
        content = make_content(" token") * events
        self.streams = [STREAM_HEAD + content + end for end in self.ends]
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
            length = _content_length(self._buffer[:end].lower())
            if length is None:
                self._transport.close()
                return
            stop = end + 4 + length
            if len(self._buffer) < stop:
                break
            body, self._buffer = self._buffer[end + 4 : stop], self._buffer[stop:]
            self._answer(body)
        if len(self._buffer) > REQUEST_BYTES_MAX and self._transport is not None:
            self._transport.close()

    def _answer(self, body: bytes) -> None:
        assert self._transport is not None
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self._transport.write(self._answers.body)
            return
        has_usage = b'"include_usage":true' in body or b'"include_usage": true' in body
        if not self._answers.gap_seconds:
            self._transport.write(self._answers.streams[has_usage])
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
