"""Writes streams of Google's generateContent: deltas in, events out.

Each event is a whole response with what is new. A call of a function is told when it is complete.
Why the answer ended and the usage are in the last event. Who does not ask for events (`alt=sse`)
gets the same responses as one JSON array.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.gemini_answer import finish_reason, part_of
from apps.proxy.dialects.gemini_errors import gemini_body
from apps.proxy.dialects.gemini_usage import gemini_usage
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
    Thinking,
    ThinkingPiece,
    ToolStart,
    ToolUse,
    UsageReport,
)

_HEAD: Final = b'{"candidates":[{"content":{"parts":['
_TAIL: Final = b'],"role":"model"},"index":0}],'


class GeminiStreamWriter:
    """Writes one stream."""

    __slots__ = (
        "_arguments",
        "_common",
        "_is_array",
        "_is_begun",
        "_request_id",
        "_stop",
        "_tool",
        "_usage",
    )

    def __init__(self, *, request_id: str, is_array: bool = False) -> None:
        """`request_id` is told with an error."""
        self._request_id = request_id
        self._is_array = is_array
        self._is_begun = False
        self._common = b""  # the end of each response
        self._tool: ToolStart | None = None
        self._arguments: list[str] = []
        self._stop = Stop("end")
        self._usage = Usage()

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """Return the events that tell these deltas."""
        return b"".join([self._write(delta) for delta in deltas])

    def _write(self, delta: Delta) -> bytes:
        match delta:
            case TextPiece(text) | RefusalPiece(text):
                return self._part(b'{"text":' + orjson.dumps(text) + b"}")
            case ArgumentsPiece(text):
                self._arguments.append(text)
                return b""
            case ThinkingPiece(text, signature):
                return self._part(orjson.dumps(part_of(Thinking(text, signature))))
            case PartEnd():
                return self._end_part()
            case ToolStart():
                self._tool = delta
                return b""
            case Start():
                return self._start(delta)
            case RedactedThinking(data):
                return self._part(orjson.dumps(part_of(Thinking(redacted=data))))
            case UsageReport(usage):
                self._usage = usage
                return b""
            case Stop():
                self._stop = delta
                return b""
            case Done():
                return self._done()
            case Failure(error):
                return self._fail(error)

    def _start(self, delta: Start) -> bytes:
        self._usage = delta.usage or self._usage
        common = {"modelVersion": delta.model, "responseId": delta.id}
        self._common = orjson.dumps(common)[1:]
        return b""

    def _end_part(self) -> bytes:
        if self._tool is None:
            return b""
        call = ToolUse(self._tool.id, self._tool.name, "".join(self._arguments))
        self._tool = None
        self._arguments.clear()
        return self._part(orjson.dumps(part_of(call)))

    def _part(self, part: bytes) -> bytes:
        """Return the event of one part: almost all events are such."""
        return self._event(_HEAD + part + _TAIL + self._common)

    def _event(self, response: bytes) -> bytes:
        if not self._is_array:
            return b"data: " + response + b"\n\n"
        before = b",\n" if self._is_begun else b"["
        self._is_begun = True
        return before + response

    def _done(self) -> bytes:
        candidate: dict[str, Any] = {
            # Clients look for a part in every response, as Google's have one.
            "content": {"parts": [{"text": ""}], "role": "model"},
            "finishReason": finish_reason(self._stop.reason),
            "index": 0,
        }
        told = {"candidates": [candidate], "usageMetadata": gemini_usage(self._usage)}
        written = self._event(orjson.dumps(told)[:-1] + b"," + self._common)
        return written + b"\n]" if self._is_array else written

    def _fail(self, error: GatewayError) -> bytes:
        # No bracket follows: the array must not seem complete.
        return self._event(gemini_body(error, self._request_id))
