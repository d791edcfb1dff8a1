"""Reads streams of OpenAI's Responses: complete events in, deltas out.

Source: https://platform.openai.com/docs/api-reference/responses-streaming. Items follow each other.
Events of a new type may be added at any time and are passed over; an item or a part of one that has
no equal elsewhere is not, since a part of the answer would be lost. Servers that imitate OpenAI
leave some events out: what an item holds at its end and was not told before is told then.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

from apps.core.errors import GatewayError
from apps.proxy.dialects.neutral import (
    ArgumentsPiece,
    Delta,
    Done,
    Failure,
    Part,
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
from apps.proxy.dialects.openai_chunks import load_chunk
from apps.proxy.dialects.responses_answer import read_item, stop_reason
from apps.proxy.dialects.responses_input_reader import PARAGRAPH
from apps.proxy.dialects.responses_metering import SEARCH_ITEM, reported_usage
from apps.proxy.dialects.responses_tools import called_name
from apps.proxy.dialects.tool_arguments import NO_ARGUMENTS
from apps.proxy.sse import events_with_data

_Kind = Literal["text", "refusal", "thinking", "tool"]
# Of an item: its position in the output; of a part: its kind and position in its item as well.
_Place = tuple[object, object, object]


class _Unreadable(Exception):
    """The upstream sent what this dialect does not know, or what has no equal elsewhere."""


class ResponsesStreamReader:
    """Follows one stream. After `Done` or `Failure` it gives nothing any more."""

    __slots__ = (
        "_has_parts",
        "_has_refusal",
        "_has_tools",
        "_is_over",
        "_is_said",
        "_is_started",
        "_open",
        "_place",
    )

    def __init__(self) -> None:
        self._open: _Kind | None = None
        self._place: _Place = (None, None, None)  # of the part that is open
        self._is_said = False  # something, in the item that was begun last
        self._has_parts = False  # anything was said at all
        self._has_tools = False
        self._has_refusal = False
        self._is_started = False
        self._is_over = False

    def read(self, block: bytes) -> list[Delta]:
        """Return what a block of complete events says."""
        deltas: list[Delta] = []
        for _, data in events_with_data(block):
            if self._is_over:
                break
            document = load_chunk(data)
            if document is None or document.get("error") is not None:
                self._fail(document or {}, deltas)
                continue
            try:
                self._take(document, deltas)
            except (_Unreadable, GatewayError):
                self._fail(document, deltas)
        return deltas

    def end(self) -> list[Delta]:
        """Return nothing: the last event tells that a stream is complete."""
        return []

    def _take(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        kind = event.get("type")
        take = _EVENTS.get(kind) if isinstance(kind, str) else None
        if take is not None:
            if self._is_started == (kind == _START) and kind not in _FAILURES:
                # Nothing comes before the start, and it comes once.
                raise _Unreadable
            take(self, event, deltas)

    def _fail(self, document: dict[str, Any], deltas: list[Delta]) -> None:
        self._is_over = True
        deltas.append(Failure(GatewayError("E60")))

    def _start(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._is_started = True
        response = _object(event, "response")
        deltas.append(Start(_word(response.get("id")), _word(response.get("model"))))

    def _start_item(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        item = _object(event, "item")
        kind = item.get("type")
        if kind not in _ITEMS:
            raise _Unreadable
        self._close(deltas)
        self._is_said = False
        if kind == "function_call":
            self._start_call(event, item, deltas)
            self._say_arguments(item.get("arguments"), deltas)

    def _start_call(self, event: dict[str, Any], item: dict[str, Any], deltas: list[Delta]) -> None:
        self._open, self._has_tools, self._has_parts = "tool", True, True
        self._place = (event.get("output_index"), None, None)
        name = called_name(_word(item.get("name")), _word(item.get("namespace")))
        deltas.append(ToolStart(_word(item.get("call_id")), name))

    def _start_part(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        kind = _object(event, "part").get("type")
        if kind not in _CONTENTS:
            raise _Unreadable
        if kind != "reasoning_text":
            self._close(deltas)

    def _text(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._say("text", event, event.get("content_index"), deltas)

    def _refuse(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._has_refusal = True
        self._say("refusal", event, event.get("content_index"), deltas)

    def _summarize(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._say("thinking", event, ("summary", event.get("summary_index")), deltas)

    def _think(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._say("thinking", event, ("content", event.get("content_index")), deltas)

    def _say(
        self, kind: _Kind, event: dict[str, Any], position: object, deltas: list[Delta]
    ) -> None:
        text = event.get("delta")
        if type(text) is not str:
            raise _Unreadable
        if not text:
            return
        place = (event.get("output_index"), kind, position)
        if self._open is None or place != self._place:
            is_paragraph = self._open == kind == "thinking" and place[0] == self._place[0]
            if is_paragraph:
                text = PARAGRAPH + text
            else:
                self._close(deltas)
            self._open, self._place = kind, place
        self._is_said = self._has_parts = True
        deltas.append(_PIECES[kind](text))

    def _continue_call(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        if self._open != "tool" or event.get("output_index") != self._place[0]:
            raise _Unreadable
        self._say_arguments(event.get("delta"), deltas)

    def _complete_call(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        if self._open == "tool" and not self._is_said:
            self._say_arguments(event.get("arguments"), deltas)

    def _say_arguments(self, text: object, deltas: list[Delta]) -> None:
        if text is not None and type(text) is not str:
            raise _Unreadable
        if text:
            self._is_said = True
            deltas.append(ArgumentsPiece(text))

    def _end_part(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        # A thought ends with its item: what seals it is still to come.
        if self._open != "thinking":
            self._close(deltas)

    def _end_item(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        item = _object(event, "item")
        parts = read_item(item)
        first = parts[0] if parts else None
        if self._open == "tool" and isinstance(first, ToolUse):
            if not self._is_said:
                self._say_arguments(first.arguments, deltas)
        elif self._is_said and isinstance(first, Thinking):
            if first.signature:
                self._open = "thinking"
                deltas.append(ThinkingPiece(signature=first.signature))
        elif not self._is_said:
            self._close(deltas)
            for part in parts:
                self._say_whole(part, deltas)
        self._close(deltas)
        self._is_said = False

    def _say_whole(self, part: Part, deltas: list[Delta]) -> None:
        """Tell a part that was not told in pieces."""
        self._has_parts = True
        match part:
            case Text(text) if text:
                deltas += (TextPiece(text), PartEnd())
            case Refusal(text) if text:
                self._has_refusal = True
                deltas += (RefusalPiece(text), PartEnd())
            case Thinking() if part.redacted:
                deltas += (RedactedThinking(part.redacted), PartEnd())
            case Thinking():
                deltas += (ThinkingPiece(part.text, part.signature), PartEnd())
            case ToolUse():
                self._has_tools = True
                deltas += (
                    ToolStart(part.id, part.name),
                    ArgumentsPiece(part.arguments),
                    PartEnd(),
                )

    def _close(self, deltas: list[Delta]) -> None:
        if self._open is None:
            return
        if self._open == "tool" and not self._is_said:
            deltas.append(ArgumentsPiece(NO_ARGUMENTS))
        self._open = None
        deltas.append(PartEnd())

    def _end(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        response = _object(event, "response")
        self._close(deltas)
        if not self._has_parts:
            # Perhaps all is told at once.
            for item in _objects(response, "output"):
                self._end_item({"item": item}, deltas)
        usage = reported_usage(response)
        if usage is not None:
            deltas.append(UsageReport(usage))
        # Some servers tell the status by nothing but the event.
        told = {**response, "status": str(event["type"]).removeprefix(_EVENT_PREFIX)}
        reason = stop_reason(told, has_tools=self._has_tools, has_refusal=self._has_refusal)
        self._is_over = True
        deltas += (Stop(reason), Done())


def _failed(reader: ResponsesStreamReader, event: dict[str, Any], deltas: list[Delta]) -> None:
    raise _Unreadable


_EVENT_PREFIX: Final = "response."
_START: Final = "response.created"
_FAILURES: Final = frozenset({"error", "response.failed", "response.cancelled"})
_ITEMS: Final = frozenset(
    {"custom_tool_call", "function_call", "message", "reasoning", SEARCH_ITEM}
)
_CONTENTS: Final = frozenset({"output_text", "reasoning_text", "refusal"})
_PIECES: Final[dict[_Kind, Callable[[str], Delta]]] = {
    "text": TextPiece,
    "refusal": RefusalPiece,
    "thinking": ThinkingPiece,
}
_Reader = ResponsesStreamReader
_EVENTS: Final[dict[str, Callable[[ResponsesStreamReader, dict[str, Any], list[Delta]], None]]] = {
    _START: _Reader._start,
    "response.output_item.added": _Reader._start_item,
    "response.output_item.done": _Reader._end_item,
    "response.content_part.added": _Reader._start_part,
    "response.content_part.done": _Reader._end_part,
    "response.output_text.delta": _Reader._text,
    "response.refusal.delta": _Reader._refuse,
    "response.reasoning_summary_text.delta": _Reader._summarize,
    "response.reasoning_text.delta": _Reader._think,
    "response.function_call_arguments.delta": _Reader._continue_call,
    "response.function_call_arguments.done": _Reader._complete_call,
    "response.completed": _Reader._end,
    "response.incomplete": _Reader._end,
    **dict.fromkeys(_FAILURES, _failed),
}


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    if not isinstance(value, dict):
        raise _Unreadable
    return value


def _objects(holder: dict[str, Any], name: str) -> list[object]:
    """Return an array, empty where there is none."""
    value = holder.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _Unreadable
    return value


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""
