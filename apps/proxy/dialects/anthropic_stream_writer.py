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


class AnthropicStreamWriter:
    """Writes one stream."""

    __slots__ = ("_index", "_is_open", "_request_id", "_stop", "_usage")

    def __init__(self, *, request_id: str) -> None:
        """`request_id` is told with an error."""
        self._request_id = request_id
        self._index = 0
        self._is_open = False
        self._stop = Stop("end")
        self._usage = Usage()

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """Return the events that tell these deltas."""
        return b"".join(self._write(delta) for delta in deltas)

    def _write(self, delta: Delta) -> bytes:
        if isinstance(delta, TextPiece | RefusalPiece):
            return self._open(_TEXT) + self._piece({"type": "text_delta", "text": delta.text})
        if isinstance(delta, ArgumentsPiece):
            return self._piece({"type": "input_json_delta", "partial_json": delta.text})
        if isinstance(delta, ThinkingPiece):
            return self._think(delta)
        if isinstance(delta, PartEnd):
            return self._close()
        if isinstance(delta, ToolStart):
            block = {"type": "tool_use", "id": delta.id, "name": delta.name, "input": {}}
            return self._open(block)
        if isinstance(delta, Start):
            return self._start(delta)
        if isinstance(delta, RedactedThinking):
            return self._open({"type": "redacted_thinking", "data": delta.data})
        if isinstance(delta, UsageReport):
            self._usage = delta.usage
            return b""
        if isinstance(delta, Stop):
            self._stop = delta
            return b""
        if isinstance(delta, Done):
            return self._done()
        return anthropic_in_band_event(delta.error, self._request_id)

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
            written += self._piece({"type": "thinking_delta", "thinking": delta.text})
        if delta.signature:
            written += self._piece({"type": "signature_delta", "signature": delta.signature})
        return written

    def _open(self, block: dict[str, Any]) -> bytes:
        """Return the beginning of a block, nothing where it has begun."""
        if self._is_open:
            return b""
        self._is_open = True
        return _event("content_block_start", {"index": self._index, "content_block": block})

    def _piece(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})

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
