"""Reads streams of Anthropic's Messages API: complete events in, deltas out.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming. Blocks follow each other.
Events of a new type may be added at any time and are passed over; a block or a piece of one that
has no equal elsewhere is not, since a part of the answer would be lost.
"""

from collections.abc import Callable
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.anthropic_answer import is_search, read_stop
from apps.proxy.dialects.anthropic_usage import merge_usage, parse_anthropic_usage
from apps.proxy.dialects.neutral import (
    ArgumentsPiece,
    Delta,
    Done,
    Failure,
    PartEnd,
    RedactedThinking,
    Start,
    Stop,
    TextPiece,
    ThinkingPiece,
    ToolStart,
    UsageReport,
)
from apps.proxy.dialects.openai_chunks import load_chunk
from apps.proxy.dialects.tool_arguments import NO_ARGUMENTS, arguments_text
from apps.proxy.sse import events_with_data


class _Unreadable(Exception):
    """The upstream sent what this dialect does not know, or what has no equal elsewhere."""


class AnthropicStreamReader:
    """Follows one stream. After `Done` or `Failure` it gives nothing any more."""

    __slots__ = ("_is_over", "_is_said", "_is_started", "_is_stopped", "_kind", "_usage")

    def __init__(self) -> None:
        self._kind: str | None = None  # of the block that is open
        self._is_said = False  # something, in that block
        self._usage: dict[str, Any] = {}
        self._is_started = False
        self._is_stopped = False
        self._is_over = False

    def read(self, block: bytes) -> list[Delta]:
        """Return what a block of complete events says."""
        deltas: list[Delta] = []
        for _, data in events_with_data(block):
            if self._is_over:
                break
            document = load_chunk(data)
            if document is None or document.get("type") == "error" or "error" in document:
                self._fail(document or {}, deltas)
                continue
            try:
                self._take(document, deltas)
            except _Unreadable:
                self._fail(document, deltas)
        return deltas

    def end(self) -> list[Delta]:
        """Return nothing: the last event tells that a stream is complete."""
        return []

    def _take(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        kind = event.get("type")
        take = _EVENTS.get(kind) if isinstance(kind, str) else None
        if take is not None:
            if self._is_started == (kind == _START):
                # Nothing comes before the start, and it comes once.
                raise _Unreadable
            take(self, event, deltas)

    def _fail(self, document: dict[str, Any], deltas: list[Delta]) -> None:
        self._is_over = True
        deltas.append(Failure(GatewayError("E60")))

    def _start(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._is_started = True
        message = _object(event, "message")
        deltas.append(
            Start(_word(message, "id"), _word(message, "model"), self._known_usage(message))
        )

    def _known_usage(self, holder: dict[str, Any]) -> Usage | None:
        """Return the usage so far, None where this tells nothing new."""
        usage = holder.get("usage")
        if not isinstance(usage, dict):
            return None
        self._usage = merge_usage(self._usage, usage)
        return parse_anthropic_usage(self._usage)

    def _start_block(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        if self._kind is not None:
            raise _Unreadable
        block = _object(event, "content_block")
        kind = block.get("type")
        self._is_said = False
        if kind == "tool_use":
            deltas.append(ToolStart(_word(block, "id"), _word(block, "name")))
            given = block.get("input")
            if isinstance(given, dict) and given:
                # Some servers tell it whole at once.
                self._say(ArgumentsPiece(arguments_text(given)), deltas)
        elif kind == "text":
            self._say(TextPiece(_word(block, "text")), deltas)
        elif kind == "thinking":
            self._say(ThinkingPiece(_word(block, "thinking")), deltas)
        elif kind == "redacted_thinking":
            self._say(RedactedThinking(_word(block, "data")), deltas)
        elif is_search(block):
            kind = _SEARCH
        else:
            raise _Unreadable
        self._kind = kind

    def _continue_block(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        delta = _object(event, "delta")
        kind = delta.get("type")
        if self._kind == _SEARCH or (kind == _CITATION and self._kind == "text"):
            return  # What is searched for, and where something was found.
        expected, member, piece = _PIECES.get(kind, _NO_PIECE) if type(kind) is str else _NO_PIECE
        text = delta.get(member)
        if expected != self._kind or type(text) is not str:
            raise _Unreadable
        if text:
            self._is_said = True
            deltas.append(piece(text))

    def _say(
        self,
        piece: TextPiece | ThinkingPiece | RedactedThinking | ArgumentsPiece,
        deltas: list[Delta],
    ) -> None:
        """Give a piece, unless it is empty: blocks begin with such."""
        if any(piece):
            self._is_said = True
            deltas.append(piece)

    def _end_block(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        if self._kind is None:
            raise _Unreadable
        if self._kind == "tool_use" and not self._is_said:
            self._say(ArgumentsPiece(NO_ARGUMENTS), deltas)
        self._kind = None
        if self._is_said:
            deltas.append(PartEnd())

    def _change(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        usage = self._known_usage(event)
        if usage is not None:
            deltas.append(UsageReport(usage))
        delta = _object(event, "delta")
        reason, sequence = delta.get("stop_reason"), delta.get("stop_sequence")
        if reason is not None and not self._is_stopped:
            self._is_stopped = True
            deltas.append(Stop(read_stop(reason), sequence if isinstance(sequence, str) else None))

    def _end(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        if self._kind is not None or not self._is_stopped:
            raise _Unreadable
        self._is_over = True
        deltas.append(Done())


_START: Final = "message_start"
_CITATION: Final = "citations_delta"
# The kind of a block that is passed over.
_SEARCH: Final = "search"
# Of a piece: the kind of block it belongs to, where its text is, and what it becomes.
_Piece = tuple[str, str, Callable[[str], Delta]]
_NO_PIECE: Final[_Piece] = ("none", "", TextPiece)
_PIECES: Final[dict[str, _Piece]] = {
    "text_delta": ("text", "text", TextPiece),
    "input_json_delta": ("tool_use", "partial_json", ArgumentsPiece),
    "thinking_delta": ("thinking", "thinking", ThinkingPiece),
    "signature_delta": ("thinking", "signature", lambda text: ThinkingPiece(signature=text)),
}
_EVENTS: Final[dict[str, Callable[[AnthropicStreamReader, dict[str, Any], list[Delta]], None]]] = {
    _START: AnthropicStreamReader._start,
    "content_block_start": AnthropicStreamReader._start_block,
    "content_block_delta": AnthropicStreamReader._continue_block,
    "content_block_stop": AnthropicStreamReader._end_block,
    "message_delta": AnthropicStreamReader._change,
    "message_stop": AnthropicStreamReader._end,
}


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    if not isinstance(value, dict):
        raise _Unreadable
    return value


def _word(holder: dict[str, Any], name: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise _Unreadable
    return value
