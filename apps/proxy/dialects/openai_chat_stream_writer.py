"""Writes streams of OpenAI's Chat Completions: deltas in, events out.

Source: https://platform.openai.com/docs/api-reference/chat-streaming. Thoughts come as
`reasoning_content`; one that can be given back comes once more, whole and with its signature, as
`thinking_blocks` (https://docs.litellm.ai/docs/reasoning_content).
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from apps.core.errors import in_band_event
from apps.core.usage import Usage
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
    Thinking,
    ThinkingPiece,
    ToolStart,
    UsageReport,
)
from apps.proxy.dialects.openai_chat_answer import finish_reason, thinking_block
from apps.proxy.dialects.openai_usage import openai_usage

_DONE: Final = b"data: [DONE]\n\n"


class OpenAIStreamWriter:
    """Writes one stream."""

    __slots__ = ("_calls", "_created", "_end", "_has_usage", "_head", "_thought", "_usage")

    def __init__(self, *, created: int, include_usage: bool) -> None:
        """`created` is in seconds since 1970; `include_usage`: the client asked for usage."""
        self._created = created
        self._has_usage = include_usage
        self._usage = Usage()
        self._calls = 0
        self._thought: list[str] = []
        self._head = b""
        self._end = b""

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """Return the events that tell these deltas."""
        return b"".join(self._write(delta) for delta in deltas)

    def _write(self, delta: Delta) -> bytes:
        if isinstance(delta, TextPiece):
            return self._chunk({"content": delta.text})
        if isinstance(delta, ArgumentsPiece):
            return self._call({"function": {"arguments": delta.text}})
        if isinstance(delta, ThinkingPiece):
            return self._think(delta)
        if isinstance(delta, PartEnd):
            self._thought.clear()
            return b""
        if isinstance(delta, ToolStart):
            self._calls += 1
            function = {"name": delta.name, "arguments": ""}
            return self._call({"id": delta.id, "type": "function", "function": function})
        if isinstance(delta, Start):
            return self._start(delta)
        if isinstance(delta, RefusalPiece):
            return self._chunk({"refusal": delta.text})
        if isinstance(delta, RedactedThinking):
            block = thinking_block(Thinking(redacted=delta.data))
            return self._chunk({"thinking_blocks": [block]})
        if isinstance(delta, UsageReport):
            self._usage = delta.usage
            return b""
        if isinstance(delta, Stop):
            return self._chunk({}, finish_reason(delta.reason))
        if isinstance(delta, Done):
            return self._done()
        return in_band_event(delta.error)

    def _start(self, delta: Start) -> bytes:
        if delta.usage is not None:
            self._usage = delta.usage
        common = {
            "id": delta.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": delta.model,
        }
        # All events but the last begin and end alike.
        self._head = b"data: " + orjson.dumps(common)[:-1]
        self._end = b',"usage":null}\n\n' if self._has_usage else b"}\n\n"
        return self._chunk({"role": "assistant", "content": ""})

    def _think(self, delta: ThinkingPiece) -> bytes:
        written = b""
        if delta.text:
            self._thought.append(delta.text)
            written = self._chunk({"reasoning_content": delta.text})
        if delta.signature:
            block = thinking_block(Thinking("".join(self._thought), delta.signature))
            written += self._chunk({"thinking_blocks": [block]})
        return written

    def _call(self, told: dict[str, Any]) -> bytes:
        return self._chunk({"tool_calls": [{"index": self._calls - 1, **told}]})

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._head + b',"choices":[' + orjson.dumps(choice) + b"]" + self._end

    def _done(self) -> bytes:
        if not self._has_usage:
            return _DONE
        usage = orjson.dumps(openai_usage(self._usage))
        return self._head + b',"choices":[],"usage":' + usage + b"}\n\n" + _DONE
