"""Writes streams of OpenAI's Responses: deltas in, events out.

Source: https://platform.openai.com/docs/api-reference/responses-streaming. Every event has its
`event:` line and its number. A part is an item of its own. Its end waits for what follows, since an
item tells whether it was cut short; and the last event holds the whole answer and the usage.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.neutral import (
    ArgumentsPiece,
    Delta,
    Done,
    Failure,
    PartEnd,
    RedactedThinking,
    Refusal,
    RefusalPiece,
    Start,
    Stop,
    Text,
    TextPiece,
    Thinking,
    ThinkingPiece,
    ToolStart,
    ToolUse,
    UsageReport,
)
from apps.proxy.dialects.responses_answer import (
    answer_status,
    content_part,
    incomplete_details,
    is_custom,
    item_id,
    part_item,
    response_document,
    responses_usage,
)
from apps.proxy.dialects.responses_errors import failure_events, responses_event
from apps.proxy.dialects.responses_tools import client_tools

_Part = Text | Refusal | Thinking | ToolUse
# Of a kind of parts: the event that tells a piece, and what stands in it before and after the text.
_Piece = tuple[bytes, bytes, bytes]
_TEXT: Final[_Piece] = (b"response.output_text", b',"content_index":0', b',"logprobs":[]')
_REFUSAL: Final[_Piece] = (b"response.refusal", b',"content_index":0', b"")
_THOUGHT: Final[_Piece] = (b"response.reasoning_summary_text", b',"summary_index":0', b"")
_ARGUMENTS: Final[_Piece] = (b"response.function_call_arguments", b"", b"")
_CUSTOM_INPUT: Final[_Piece] = (b"response.custom_tool_call_input", b"", b"")


class ResponsesStreamWriter:
    """Writes one stream."""

    __slots__ = (
        "_asked",
        "_has_refusal",
        "_head",
        "_is_ending",
        "_items",
        "_middle",
        "_part",
        "_place",
        "_said",
        "_sequence",
        "_start",
        "_stop",
        "_tail",
        "_tools",
        "_usage",
    )

    def __init__(self, *, request_id: str, created: int, asked: Mapping[str, Any]) -> None:
        """`created` is in seconds since 1970, `asked` the client's request."""
        self._asked = asked
        self._tools = client_tools(asked)
        # What is known of the response; its id is the request's until the provider tells one.
        self._head: dict[str, Any] = {
            "id": f"resp_{request_id}",
            "created_at": created,
            "model": asked.get("model") or "",
        }
        self._sequence = 0
        self._items: list[dict[str, Any]] = []  # that are complete
        self._part: _Part | None = None  # that is open, without its text
        self._place: dict[str, Any] = {}  # of the item that is open
        self._said: list[str] = []  # in that part
        self._is_ending = False  # that part has ended, which was not yet told
        # What an event of a piece in that part begins with, has behind its number, and ends with.
        self._start = self._middle = self._tail = b""
        self._has_refusal = False
        self._stop = Stop("end")
        self._usage = Usage()

    def write(self, deltas: Iterable[Delta]) -> bytes:
        """Return the events that tell these deltas."""
        return b"".join([self._write(delta) for delta in deltas])

    def _write(self, delta: Delta) -> bytes:
        match delta:
            case TextPiece(text):
                return self._open(Text("")) + self._piece(text)
            case ArgumentsPiece(text):
                return self._call(text)
            case ThinkingPiece():
                return self._think(delta)
            case PartEnd():
                self._is_ending = self._part is not None
                return b""
            case ToolStart(identifier, name):
                return self._open(ToolUse(identifier, name, ""))
            case Start():
                return self._begin(delta)
            case RefusalPiece(text):
                self._has_refusal = True
                return self._open(Refusal("")) + self._piece(text)
            case RedactedThinking(data):
                return self._open(Thinking(redacted=data))
            case UsageReport(usage):
                self._usage = usage
                return b""
            case Stop(reason):
                self._stop = delta
                return self._close(answer_status(reason, has_refusal=self._has_refusal))
            case Done():
                return self._done()
            case Failure(error):
                return self._fail(error)

    def _begin(self, delta: Start) -> bytes:
        if delta.usage is not None:
            self._usage = delta.usage
        self._head.update({"id": delta.id, "model": delta.model})
        told = {"response": self._document("in_progress")}
        return self._event("response.created", told) + self._event("response.in_progress", told)

    def _document(self, status: str, **told: Any) -> dict[str, Any]:
        return response_document({**self._head, "status": status}, self._asked, **told)

    def _event(self, name: str, told: Mapping[str, Any]) -> bytes:
        self._sequence += 1
        return responses_event(name, self._sequence - 1, told)

    def _open(self, part: _Part) -> bytes:
        """Return the beginning of an item, nothing where it has begun."""
        if self._part is not None and not self._is_ending:
            return b""
        ended = self._close("completed")
        identifier = item_id(part, self._head["id"], len(self._items), self._tools)
        self._part = part
        self._place = {"item_id": identifier, "output_index": len(self._items)}
        kind, between, self._tail = self._kind(part)
        place = orjson.dumps(self._place)[1:-1]
        self._start = b"event: " + kind + b'.delta\ndata: {"type":"' + kind + b'.delta"'
        self._middle = b"," + place + between + b',"delta":'
        item = part_item(part, identifier, self._tools, "in_progress")
        if "content" in item:
            item["content"] = []
        added = {"output_index": len(self._items), "item": item}
        return ended + self._event("response.output_item.added", added) + self._open_content(part)

    def _open_content(self, part: _Part) -> bytes:
        """Return the beginning of what stands in a message; a thought's begins with its text."""
        if not isinstance(part, Text | Refusal):
            return b""
        told = {**self._place, "content_index": 0, "part": content_part(part)}
        return self._event("response.content_part.added", told)

    def _kind(self, part: _Part) -> _Piece:
        if isinstance(part, ToolUse):
            return _CUSTOM_INPUT if is_custom(part, self._tools) else _ARGUMENTS
        if isinstance(part, Text):
            return _TEXT
        return _REFUSAL if isinstance(part, Refusal) else _THOUGHT

    def _piece(self, text: str) -> bytes:
        """Return more of the item that is open: almost all events are such."""
        self._said.append(text)
        return self._delta(text)

    def _delta(self, text: str) -> bytes:
        number = b',"sequence_number":%d' % self._sequence
        self._sequence += 1
        told = orjson.dumps(text)
        return self._start + number + self._middle + told + self._tail + b"}\n\n"

    def _call(self, text: str) -> bytes:
        if isinstance(self._part, ToolUse) and is_custom(self._part, self._tools):
            # It stands within JSON, and is told when that is complete.
            self._said.append(text)
            return b""
        return self._piece(text)

    def _think(self, delta: ThinkingPiece) -> bytes:
        written = self._open(Thinking())
        if delta.signature and isinstance(self._part, Thinking):
            self._part = self._part._replace(signature=self._part.signature + delta.signature)
        if not delta.text:
            return written
        if not self._said:
            told = {"summary_index": 0, "part": {"type": "summary_text", "text": ""}}
            written += self._event("response.reasoning_summary_part.added", self._place | told)
        return written + self._piece(delta.text)

    def _close(self, status: str) -> bytes:
        """Return the end of the item that is open, nothing where none is."""
        part = self._part
        if part is None:
            return b""
        text = "".join(self._said)
        self._part, self._is_ending = None, False
        self._said = []
        if isinstance(part, ToolUse):
            part = part._replace(arguments=text)
        elif not isinstance(part, Thinking) or text:
            part = part._replace(text=text)
        item = part_item(part, self._place["item_id"], self._tools, status)
        written = self._close_content(part, item)
        told = {"output_index": len(self._items), "item": item}
        self._items.append(item)
        return written + self._event("response.output_item.done", told)

    def _close_content(self, part: _Part, item: dict[str, Any]) -> bytes:
        """Return the events that tell once more what was told in pieces."""
        place = self._place
        match part:
            case Text(text):
                place = {**place, "content_index": 0}
                return self._event(
                    "response.output_text.done", place | {"text": text, "logprobs": []}
                ) + self._event("response.content_part.done", place | {"part": content_part(part)})
            case Refusal(text):
                place = {**place, "content_index": 0}
                return self._event(
                    "response.refusal.done", place | {"refusal": text}
                ) + self._event("response.content_part.done", place | {"part": content_part(part)})
            case ToolUse() if is_custom(part, self._tools):
                text = item["input"]
                return self._delta(text) + self._event(
                    "response.custom_tool_call_input.done", place | {"input": text}
                )
            case ToolUse():
                return self._event(
                    "response.function_call_arguments.done", place | {"arguments": part.arguments}
                )
            case Thinking() if part.text and not part.redacted:
                place = {**place, "summary_index": 0}
                summary = {"type": "summary_text", "text": part.text}
                return self._event(
                    "response.reasoning_summary_text.done", place | {"text": part.text}
                ) + self._event("response.reasoning_summary_part.done", place | {"part": summary})
            case _:
                return b""

    def _done(self) -> bytes:
        status = answer_status(self._stop.reason, has_refusal=self._has_refusal)
        ended = self._close(status)
        answer = self._document(
            status,
            output=self._items,
            incomplete_details=incomplete_details(self._stop.reason, status),
            usage=responses_usage(self._usage),
        )
        return ended + self._event(f"response.{status}", {"response": answer})

    def _fail(self, error: GatewayError) -> bytes:
        self._sequence += 2
        return failure_events(error, self._head, self._asked, self._sequence - 2)
