"""Streams in Amazon's frames, as server-sent events: bytes in, events out. Without I/O.

A frame has two checksums, headers and a payload; of Bedrock's the payload is `{"bytes": …}` with
an event of the model's own dialect in base64, or says why there is no more. botocore's parser takes
the frames apart and checks their checksums; it is imported with the first provider that needs it.

Sources: https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ResponseStream.html
"""

from __future__ import annotations

import base64
import functools
import struct
from typing import Any, Final

import orjson

from apps.proxy.sse import MAX_EVENT_BYTES, EventTooLarge

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
# An event in base64, with its padding and the headers of its frame.
FRAME_BYTES_MAX: Final = 2 * MAX_EVENT_BYTES
_LENGTH_BYTES: Final = 4
_FRAME_BYTES_MIN: Final = 16
# Amazon's own account of the answer, beside what its maker says.
_METRICS: Final = "amazon-bedrock-invocationMetrics"
# By the name of an exception, without what it ends in.
_STATUSES: Final = {
    "accessDenied": 403,
    "internalServer": 500,
    "modelStreamError": 424,
    "modelTimeout": 408,
    "serviceUnavailable": 503,
    "throttling": 429,
    "validation": 400,
}


class FrameBroken(Exception):
    """What came is no frame, or not the one that was sent."""


class StreamRefused(Exception):
    """The provider ends a stream with an exception of its own, as with an answer of that status.

    `payload` is its body, as it came.
    """

    def __init__(self, status: int, payload: bytes) -> None:
        super().__init__(status)
        self.status: Final = status
        self.payload: Final = payload


@functools.cache
def load_parser() -> tuple[Any, type[Exception]]:
    """Import the parser and what it raises, once in a process; some 20 ms."""
    from botocore.eventstream import EventStreamBuffer, ParserError

    return EventStreamBuffer, ParserError


class FrameReader:
    """Takes frames out of the chunks of one stream. Where it raises, the stream is over.

    Raises FrameBroken, EventTooLarge and StreamRefused; what was complete before is in `events`.
    """

    __slots__ = ("_buffer", "_error", "_pending", "events")

    def __init__(self) -> None:
        parser, self._error = load_parser()
        self._buffer: Any = parser()
        self._pending = bytearray()
        self.events = b""  # complete, and not yet taken

    @property
    def is_inside(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._pending)

    def feed(self, chunk: bytes) -> None:
        """Take in a chunk, and put the events that are complete now into `events`."""
        pending = self._pending
        pending += chunk
        # The length is looked at before anything is kept for it.
        while len(pending) >= _LENGTH_BYTES:
            length = int.from_bytes(pending[:_LENGTH_BYTES], "big")
            if length < _FRAME_BYTES_MIN:
                raise FrameBroken("a frame is too short")
            if length > FRAME_BYTES_MAX:
                raise EventTooLarge(f"A frame exceeds {FRAME_BYTES_MAX} bytes.")
            if len(pending) < length:
                return
            frame = bytes(pending[:length])
            del pending[:length]
            self.events += self._read(frame)

    def _read(self, frame: bytes) -> bytes:
        self._buffer.add_data(frame)
        try:
            message = next(self._buffer)
        except (self._error, StopIteration, ValueError, LookupError, struct.error) as error:
            raise FrameBroken(type(error).__name__) from error
        kind = message.headers.get(":message-type")
        if kind == "event":
            if message.headers.get(":event-type") != "chunk":
                return b""  # Others are for who understands them.
            return _event_of(message.payload)
        name = message.headers.get(":exception-type") or message.headers.get(":error-code")
        raise _refusal(str(name), message.payload)


def _event_of(payload: bytes) -> bytes:
    try:
        document = orjson.loads(base64.b64decode(orjson.loads(payload)["bytes"], validate=True))
        kind = document["type"]
        document.pop(_METRICS, None)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FrameBroken("a chunk holds no event") from error
    if not isinstance(kind, str) or not kind.isidentifier():
        raise FrameBroken("an event has no name")
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(document))


def _refusal(name: str, payload: bytes) -> StreamRefused:
    short = name.removesuffix("Exception")
    status = _STATUSES.get(short[:1].lower() + short[1:], 500)
    return StreamRefused(status, payload)
