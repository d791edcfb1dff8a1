"""Reads streams of OpenAI's Chat Completions: complete events in, deltas out.

Source: https://platform.openai.com/docs/api-reference/chat-streaming. Only one choice, as in
whole answers. Parts of the neutral form follow each other, while here several calls of tools may
be told in turns: a call waits until the one before it is complete JSON. What waits is bounded by
what a stream may hold.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

from apps.core.errors import GatewayError
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
from apps.proxy.dialects.openai_chat_answer import UNEQUALLED, stop_reason
from apps.proxy.dialects.openai_chunks import find_usage, is_error, load_chunk
from apps.proxy.dialects.openai_usage import parse_usage
from apps.proxy.dialects.tool_arguments import NO_ARGUMENTS, is_complete
from apps.proxy.dialects.tool_call_ids import call_id
from apps.proxy.sse import events_with_data

TOOL_CALLS_MAX: Final = 256

_Kind = Literal["text", "refusal", "thinking", "tool"]
_DONE: Final = b"[DONE]"


class _Call:
    """A call of a tool, as far as it was told."""

    __slots__ = ("arguments", "id", "is_told", "name")

    def __init__(self, identifier: str, name: str) -> None:
        self.id = identifier
        self.name = name
        self.arguments: list[str] = []
        self.is_told = False  # wholly: nothing can follow any more

    @property
    def is_complete(self) -> bool:
        """Whether its arguments are a whole object."""
        return is_complete("".join(self.arguments))


class _Unreadable(Exception):
    """The upstream sent what this dialect does not know, or what has no equal elsewhere."""


class OpenAIStreamReader:
    """Follows one stream. After `Done` or `Failure` it gives nothing any more."""

    __slots__ = (
        "_calls",
        "_current",
        "_has_refusal",
        "_id",
        "_is_over",
        "_is_started",
        "_is_stopped",
        "_open",
        "_places",
    )

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._places: dict[int, _Call] = {}  # the newest call at each position
        self._current: _Call | None = None  # the call that is being told
        self._open: _Kind | None = None
        self._has_refusal = False
        self._id = ""
        self._is_started = False
        self._is_over = False
        self._is_stopped = False

    def read(self, block: bytes) -> list[Delta]:
        """Return what a block of complete events says."""
        deltas: list[Delta] = []
        for event, data in events_with_data(block):
            if self._is_over:
                break
            if data == _DONE and self._is_started:
                self._end(deltas, None)
                deltas.append(Done())
                self._is_over = True
            else:
                self._read_chunk(event, data, deltas)
        return deltas

    def end(self) -> list[Delta]:
        """Return nothing: the last event tells that a stream is complete."""
        return []

    def _read_chunk(self, event: bytes, data: bytes, deltas: list[Delta]) -> None:
        document = load_chunk(data)
        if document is None or is_error(event, document):
            self._fail(document or {}, deltas)
            return
        choices = document.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(first, dict):
            if not self._is_started:
                # Azure sends an event without a name and a choice before.
                self._is_started = True
                self._id = _word(document.get("id"))
                deltas.append(Start(self._id, _word(document.get("model"))))
            try:
                self._read_choice(first, deltas)
            except _Unreadable:
                self._fail(document, deltas)
                return
        reported = find_usage(document)
        usage = None if reported is None else parse_usage(reported)
        if usage is not None:
            deltas.append(UsageReport(usage))

    def _fail(self, document: dict[str, Any], deltas: list[Delta]) -> None:
        self._is_over = True
        deltas.append(Failure(GatewayError("E60")))

    def _read_choice(self, choice: dict[str, Any], deltas: list[Delta]) -> None:
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._read_delta(delta, deltas)
        reason = choice.get("finish_reason")
        if reason == "error":
            raise _Unreadable
        if reason:  # Some servers send "" until then.
            self._end(deltas, reason)

    def _read_delta(self, delta: dict[str, Any], deltas: list[Delta]) -> None:
        if len(delta) == 1 and self._open == "text":
            text = delta.get("content")
            if type(text) is str and text:
                # Almost all events are such; what follows looks for everything else.
                deltas.append(TextPiece(text))
                return
        if any(delta.get(member) for member in UNEQUALLED):
            raise _Unreadable
        # Some servers send it under both names.
        self._say("thinking", delta.get("reasoning_content") or delta.get("reasoning"), deltas)
        for thought in _items(delta.get("thinking_blocks")):
            self._read_signature(thought, deltas)
        content = delta.get("content")
        if isinstance(content, list):
            for part in content:
                self._read_part(part, deltas)
        else:
            self._say("text", content, deltas)
        self._say("refusal", delta.get("refusal"), deltas)
        for call in _items(delta.get("tool_calls")):
            self._read_call(call, deltas)

    def _say(self, kind: _Kind, text: object, deltas: list[Delta]) -> None:
        if text is None or text == "":
            return
        if not isinstance(text, str) or self._is_stopped:
            raise _Unreadable
        self._begin(kind, deltas)
        deltas.append(_PIECES[kind](text))

    def _read_part(self, part: object, deltas: list[Delta]) -> None:
        """Read a typed part of a content (Mistral)."""
        if isinstance(part, dict) and part.get("type") == "text":
            self._say("text", part.get("text"), deltas)
        elif isinstance(part, dict) and part.get("type") == "thinking":
            for thought in _items(part.get("thinking")):
                self._read_part_of_thought(thought, deltas)
        else:
            raise _Unreadable

    def _read_part_of_thought(self, thought: object, deltas: list[Delta]) -> None:
        if not isinstance(thought, dict):
            raise _Unreadable
        self._say("thinking", thought.get("text"), deltas)

    def _read_signature(self, thought: object, deltas: list[Delta]) -> None:
        """Read what makes a thought fit to be given back; its text came before."""
        if not isinstance(thought, dict):
            raise _Unreadable
        signature, data = thought.get("signature"), thought.get("data")
        if isinstance(data, str) and data:
            self._close(deltas)
            deltas += (RedactedThinking(data), PartEnd())
        elif isinstance(signature, str) and signature:
            self._begin("thinking", deltas)
            deltas.append(ThinkingPiece(signature=signature))
            self._close(deltas)

    def _read_call(self, told: object, deltas: list[Delta]) -> None:
        if not isinstance(told, dict) or self._is_stopped:
            raise _Unreadable
        function = told.get("function")
        function = function if isinstance(function, dict) else {}
        text = function.get("arguments") or ""
        index = told.get("index")
        if not isinstance(text, str) or not (index is None or type(index) is int):
            raise _Unreadable
        # Some servers leave the position out, and tell each call whole.
        call = None if index is None else self._places.get(index)
        if call is None or _is_another(call, told, function, text):
            call = self._add_call(_word(told.get("id")), _word(function.get("name")), deltas)
            if index is not None:
                self._places[index] = call
        elif call.is_told:
            if text.strip():
                raise _Unreadable
            return
        if text:
            call.arguments.append(text)
            if call is self._current:
                deltas.append(ArgumentsPiece(text))

    def _add_call(self, identifier: str, name: str, deltas: list[Delta]) -> _Call:
        """Begin to tell a call, or let it wait for the one that is open."""
        if len(self._calls) >= TOOL_CALLS_MAX:
            raise _Unreadable
        call = _Call(identifier or call_id(f"{self._id} {len(self._calls)}"), name)
        is_waiting = self._open == "tool" and not self._is_current_complete()
        if not is_waiting:
            self._close(deltas)
        self._calls.append(call)
        if not is_waiting:
            self._begin_call(call, deltas)
        return call

    def _is_current_complete(self) -> bool:
        return self._current is not None and self._current.is_complete

    def _begin(self, kind: _Kind, deltas: list[Delta]) -> None:
        if self._open != kind:
            self._close(deltas)
            self._open = kind
            self._has_refusal = self._has_refusal or kind == "refusal"

    def _begin_call(self, call: _Call, deltas: list[Delta]) -> None:
        self._open, self._current = "tool", call
        deltas.append(ToolStart(call.id, call.name))

    def _close(self, deltas: list[Delta]) -> None:
        """End the part that is open, and tell all calls that waited."""
        self._end_part(deltas)
        for call in self._calls:
            if not call.is_told:
                self._begin_call(call, deltas)
                deltas += [ArgumentsPiece(text) for text in call.arguments if text]
                self._end_part(deltas)

    def _end_part(self, deltas: list[Delta]) -> None:
        if self._open is None:
            return
        if self._current is not None:
            if not any(self._current.arguments):
                deltas.append(ArgumentsPiece(NO_ARGUMENTS))
            self._current.is_told = True
            self._current = None
        self._open = None
        deltas.append(PartEnd())

    def _end(self, deltas: list[Delta], reason: object) -> None:
        if self._is_stopped:
            return
        self._is_stopped = True
        self._close(deltas)
        found = stop_reason(reason, has_tools=bool(self._calls), has_refusal=self._has_refusal)
        deltas.append(Stop(found))


_PIECES: Final[dict[str, Callable[[str], Delta]]] = {
    "text": TextPiece,
    "refusal": RefusalPiece,
    "thinking": ThinkingPiece,
}


def _is_another(
    call: _Call, told: dict[str, Any], function: dict[str, Any], arguments: str
) -> bool:
    """Return whether what is told at a call's position is another one.

    Some servers give all calls of an answer the same position. Others send a new id with each
    piece of a call: an id alone says nothing. Where there is none, a name says so only with
    arguments that the call before has no room for: it may be told again with each piece.
    """
    identifier, name = _word(told.get("id")), _word(function.get("name"))
    if not name or identifier == call.id:
        return False
    if not any(call.arguments):
        return name != call.name
    return bool(identifier or arguments.strip()) and call.is_complete


def _items(value: object) -> list[object]:
    """Return an array, empty where there is none."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise _Unreadable
    return value


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""
