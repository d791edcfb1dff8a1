"""Reads streams of Anthropic's Messages API: complete events in, deltas out.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming. Blocks follow each other.
Events of a new type may be added at any time and are passed over; a block or a piece of one that
has no equal elsewhere is not, since a part of the answer would be lost.
"""

from collections.abc import Callable
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.proxy.dialects.anthropic_answer import read_stop
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
from apps.proxy.dialects.openai_chunks import error_code, is_error, load_chunk
from apps.proxy.dialects.tool_arguments import NO_ARGUMENTS, arguments_text
from apps.proxy.sse import event_data, split_events


class _Unreadable(Exception):
    """The upstream sent what this dialect does not know, or what has no equal elsewhere."""


class AnthropicStreamReader:
    """Follows one stream. After `Done` or `Failure` it gives nothing any more."""

    __slots__ = ("_has_arguments", "_is_over", "_kind", "_usage")

    def __init__(self) -> None:
        self._kind: str | None = None  # of the block that is open
        self._has_arguments = False
        self._usage: dict[str, Any] = {}
        self._is_over = False

    def read(self, block: bytes) -> list[Delta]:
        """Return what a block of complete events says."""
        deltas: list[Delta] = []
        for event in split_events(block):
            if self._is_over:
                break
            data = event_data(event)
            if not data.strip():
                continue  # a comment, to keep the connection open
            document = load_chunk(data)
            if document is None or is_error(event, document):
                self._fail(document or {}, deltas)
                continue
            take = _EVENTS.get(str(document.get("type")))
            try:
                if take is not None:
                    take(self, document, deltas)
            except _Unreadable:
                self._fail(document, deltas)
        return deltas

    def _fail(self, document: dict[str, Any], deltas: list[Delta]) -> None:
        self._is_over = True
        deltas.append(Failure(GatewayError("E60"), error_code(document)))

    def _start(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        message = _object(event, "message")
        usage = message.get("usage")
        if isinstance(usage, dict):
            self._usage = merge_usage(self._usage, usage)
        known = parse_anthropic_usage(self._usage)
        deltas.append(Start(_word(message, "id"), _word(message, "model"), known))

    def _start_block(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        if self._kind is not None:
            raise _Unreadable
        block = _object(event, "content_block")
        kind = block.get("type")
        if kind == "tool_use":
            deltas.append(ToolStart(_word(block, "id"), _word(block, "name")))
            given = block.get("input")
            # Some servers tell it whole at once.
            self._has_arguments = bool(given) and isinstance(given, dict)
            if isinstance(given, dict) and given:
                deltas.append(ArgumentsPiece(arguments_text(given)))
        elif kind == "text":
            deltas += [TextPiece(block["text"])] if block.get("text") else []
        elif kind == "thinking":
            deltas += [ThinkingPiece(block["thinking"])] if block.get("thinking") else []
        elif kind == "redacted_thinking":
            deltas.append(RedactedThinking(_word(block, "data")))
        else:
            raise _Unreadable
        self._kind = kind

    def _continue_block(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        delta = _object(event, "delta")
        kind = delta.get("type")
        if kind == "text_delta" and self._kind == "text":
            deltas.append(TextPiece(_word(delta, "text")))
        elif kind == "input_json_delta" and self._kind == "tool_use":
            text = _word(delta, "partial_json")
            self._has_arguments = self._has_arguments or bool(text)
            deltas += [ArgumentsPiece(text)] if text else []
        elif kind == "thinking_delta" and self._kind == "thinking":
            deltas.append(ThinkingPiece(_word(delta, "thinking")))
        elif kind == "signature_delta" and self._kind == "thinking":
            deltas.append(ThinkingPiece(signature=_word(delta, "signature")))
        else:
            raise _Unreadable

    def _end_block(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        if self._kind == "tool_use" and not self._has_arguments:
            deltas.append(ArgumentsPiece(NO_ARGUMENTS))
        self._kind = None
        deltas.append(PartEnd())

    def _change(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        usage = event.get("usage")
        if isinstance(usage, dict):
            self._usage = merge_usage(self._usage, usage)
            known = parse_anthropic_usage(self._usage)
            deltas += [UsageReport(known)] if known is not None else []
        delta = _object(event, "delta")
        if delta.get("stop_reason") is not None:
            sequence = delta.get("stop_sequence")
            deltas.append(
                Stop(
                    read_stop(delta["stop_reason"]),
                    sequence if isinstance(sequence, str) else None,
                )
            )

    def _end(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        self._is_over = True
        deltas.append(Done())


_EVENTS: Final[dict[str, Callable[[AnthropicStreamReader, dict[str, Any], list[Delta]], None]]] = {
    "message_start": AnthropicStreamReader._start,
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
