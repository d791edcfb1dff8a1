"""Writes streams of Anthropic's Messages API: deltas in, events out.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming. Every event has its
`event:` line. Why the answer ended and the usage are one event here, which waits for the end:
other dialects tell them apart, and at first nothing of the usage.
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from apps.core.usage import Usage
from apps.proxy.dialects.anthropic_answer import stop_name
from apps.proxy.dialects.anthropic_errors import anthropic_in_band_event
from apps.proxy.dialects.anthropic_usage import anthropic_usage
from apps.proxy.dialects.neutral import (
    ArgumentsPiece,
    Delta,
    Done,
    Failure,
    PartEnd,
    RedactedThinking,
    RefusalPiece,
    Start,
    Stop,
    TextPiece,
    ThinkingPiece,
    ToolStart,
    UsageReport,
)

_TEXT: Final = {"type": "text", "text": ""}
_THINKING: Final = {"type": "thinking", "thinking": "", "signature": ""}
# The beginning of an event that tells a piece, up to the number of its block, and what follows it.
_DELTA: Final = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":'
_TEXT_DELTA: Final = b',"delta":{"type":"text_delta","text":'
_ARGUMENTS_DELTA: Final = b',"delta":{"type":"input_json_delta","partial_json":'
_THINKING_DELTA: Final = b',"delta":{"type":"thinking_delta","thinking":'
_SIGNATURE_DELTA: Final = b',"delta":{"type":"signature_delta","signature":'


class AnthropicStreamWriter:
    """Writes one stream."""

    __slots__ = ("_head", "_index", "_is_open", "_request_id", "_stop", "_usage")

    def __init__(self, *, request_id: str) -> None:
        """`request_id` is told with an error."""
        self._request_id = request_id
        self._index = 0
        self._head = b""  # of the pieces of the block that is open
        self._is_open = False
        self._stop = Stop("end")
        self._usage = Usage()

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """Return the events that tell these deltas."""
        return b"".join([self._write(delta) for delta in deltas])

    def _write(self, delta: Delta) -> bytes:
        match delta:
            case TextPiece(text) | RefusalPiece(text):
                return self._open(_TEXT) + self._piece(_TEXT_DELTA, text)
            case ArgumentsPiece(text):
                return self._piece(_ARGUMENTS_DELTA, text)
            case ThinkingPiece():
                return self._think(delta)
            case PartEnd():
                return self._close()
            case ToolStart(identifier, name):
                block = {"type": "tool_use", "id": identifier, "name": name, "input": {}}
                return self._open(block)
            case Start():
                return self._start(delta)
            case RedactedThinking(data):
                return self._open({"type": "redacted_thinking", "data": data})
            case UsageReport(usage):
                self._usage = usage
                return b""
            case Stop():
                self._stop = delta
                return b""
            case Done():
                return self._done()
            case Failure(error):
                return anthropic_in_band_event(error, self._request_id)

    def _start(self, delta: Start) -> bytes:
        if delta.usage is not None:
            self._usage = delta.usage
        message: dict[str, Any] = {
            "id": delta.id,
            "type": "message",
            "role": "assistant",
            "model": delta.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": anthropic_usage(self._usage),
        }
        return _event("message_start", {"message": message})

    def _think(self, delta: ThinkingPiece) -> bytes:
        written = self._open(_THINKING)
        if delta.text:
            written += self._piece(_THINKING_DELTA, delta.text)
        if delta.signature:
            written += self._piece(_SIGNATURE_DELTA, delta.signature)
        return written

    def _open(self, block: dict[str, Any]) -> bytes:
        """Return the beginning of a block, nothing where it has begun."""
        if self._is_open:
            return b""
        self._is_open = True
        self._head = _DELTA + b"%d" % self._index
        return _event("content_block_start", {"index": self._index, "content_block": block})

    def _piece(self, kind: bytes, text: str) -> bytes:
        """Return more of the block that is open: almost all events are such."""
        return self._head + kind + orjson.dumps(text) + b"}}\n\n"

    def _close(self) -> bytes:
        if not self._is_open:
            # A part that said nothing.
            return b""
        self._is_open = False
        self._index += 1
        return _event("content_block_stop", {"index": self._index - 1})

    def _done(self) -> bytes:
        delta = {
            "stop_reason": stop_name(self._stop.reason),
            "stop_sequence": self._stop.sequence,
        }
        told = {"delta": delta, "usage": anthropic_usage(self._usage)}
        return _event("message_delta", told) + _event("message_stop", {})


def _event(name: str, told: dict[str, Any]) -> bytes:
    data = orjson.dumps({"type": name, **told})
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
