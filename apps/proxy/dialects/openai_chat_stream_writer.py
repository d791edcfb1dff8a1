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
    UsageReport,
)
from apps.proxy.dialects.openai_chat_answer import finish_reason, thinking_block
from apps.proxy.dialects.openai_usage import openai_usage

_DONE: Final = b"data: [DONE]\n\n"


class OpenAIStreamWriter:
    """Writes one stream."""

    __slots__ = (
        "_blocks",
        "_calls",
        "_common",
        "_created",
        "_end",
        "_has_refusal",
        "_has_usage",
        "_head",
        "_thought",
        "_usage",
    )

    def __init__(self, *, created: int, include_usage: bool) -> None:
        """`created` is in seconds since 1970; `include_usage`: the client asked for usage."""
        self._created = created
        self._has_usage = include_usage
        self._has_refusal = False
        self._usage = Usage()
        self._blocks = 0
        self._calls = 0
        self._thought: list[str] = []
        # All events but the last begin and end alike.
        self._common = b""
        self._head = b""
        self._end = b""

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """Return the events that tell these deltas."""
        return b"".join([self._write(delta) for delta in deltas])

    def _write(self, delta: Delta) -> bytes:
        match delta:
            case TextPiece(text):
                return self._chunk(b'{"content":' + orjson.dumps(text) + b"}")
            case ArgumentsPiece(text):
                return self._call({"function": {"arguments": text}})
            case ThinkingPiece():
                return self._think(delta)
            case PartEnd():
                self._thought.clear()
                return b""
            case ToolStart(identifier, name):
                self._calls += 1
                function = {"name": name, "arguments": ""}
                return self._call({"id": identifier, "type": "function", "function": function})
            case Start():
                return self._start(delta)
            case RefusalPiece(text):
                self._has_refusal = True
                return self._chunk(orjson.dumps({"refusal": text}))
            case RedactedThinking(data):
                return self._thinking_block(Thinking(redacted=data))
            case UsageReport(usage):
                self._usage = usage
                return b""
            case Stop(reason):
                told = finish_reason(reason, has_refusal=self._has_refusal)
                return self._chunk(b"{}", orjson.dumps(told))
            case Done():
                return self._done()
            case Failure(error):
                return in_band_event(error)

    def _start(self, delta: Start) -> bytes:
        if delta.usage is not None:
            self._usage = delta.usage
        common = {
            "id": delta.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": delta.model,
        }
        self._common = b"data: " + orjson.dumps(common)[:-1]
        self._head = self._common + b',"choices":[{"index":0,"delta":'
        self._end = b'}],"usage":null}\n\n' if self._has_usage else b"}]}\n\n"
        return self._chunk(b'{"role":"assistant","content":""}')

    def _think(self, delta: ThinkingPiece) -> bytes:
        written = b""
        if delta.text:
            self._thought.append(delta.text)
            written = self._chunk(orjson.dumps({"reasoning_content": delta.text}))
        if delta.signature:
            written += self._thinking_block(Thinking("".join(self._thought), delta.signature))
        return written

    def _thinking_block(self, thought: Thinking) -> bytes:
        # OpenAI's SDKs refuse to accumulate an array whose entries do not tell their position.
        block = {"index": self._blocks, **thinking_block(thought)}
        self._blocks += 1
        return self._chunk(orjson.dumps({"thinking_blocks": [block]}))

    def _call(self, told: dict[str, Any]) -> bytes:
        return self._chunk(orjson.dumps({"tool_calls": [{"index": self._calls - 1, **told}]}))

    def _chunk(self, delta: bytes, reason: bytes = b"null") -> bytes:
        """Return the event of a delta and a reason to end, both in JSON."""
        return self._head + delta + b',"logprobs":null,"finish_reason":' + reason + self._end

    def _done(self) -> bytes:
        if not self._has_usage:
            return _DONE
        usage = orjson.dumps(openai_usage(self._usage))
        return self._common + b',"choices":[],"usage":' + usage + b"}\n\n" + _DONE
