"""Whole answers of Anthropic's Messages API, from and into the neutral form.

Source: https://platform.claude.com/docs/en/api/messages and, for the reasons why an answer ends,
https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.anthropic_usage import anthropic_usage, parse_anthropic_usage
from apps.proxy.dialects.neutral import (
    Answer,
    Part,
    Refusal,
    StopReason,
    Text,
    Thinking,
    ToolUse,
)
from apps.proxy.dialects.tool_arguments import arguments_object, arguments_text
from apps.proxy.dialects.web_search import ANTHROPIC_NAME

_STOPS: Final[dict[str, StopReason]] = {
    "end_turn": "end",
    "max_tokens": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "pause_turn": "pause",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_length",
}
SEARCH_RESULT: Final = "web_search_tool_result"
_STOP_REASONS: Final[dict[StopReason, str]] = {stop: name for name, stop in _STOPS.items()}


def read_stop(value: object) -> StopReason:
    """Return why an answer ended; a word that nobody knows is a usual end."""
    return _STOPS.get(value, "end") if isinstance(value, str) else "end"


def stop_name(stop: StopReason) -> str:
    """Return why an answer ended in this dialect's words."""
    return _STOP_REASONS[stop]


def read_answer(document: Mapping[str, Any]) -> Answer:
    """Return what a message says; raises E49 if it is none, or says what has no equal."""
    blocks = document.get("content")
    if document.get("type") != "message" or not isinstance(blocks, list):
        raise GatewayError("E49")
    usage = document.get("usage")
    sequence = document.get("stop_sequence")
    return Answer(
        id=_word(document, "id"),
        model=_word(document, "model"),
        parts=tuple(_read_block(block) for block in blocks if not is_search(block)),
        stop=read_stop(document.get("stop_reason")),
        usage=(parse_anthropic_usage(usage) if isinstance(usage, Mapping) else None) or Usage(),
        stop_sequence=sequence if isinstance(sequence, str) else None,
    )


def is_search(block: object) -> bool:
    """Return whether a block is a search that Anthropic made, or what it found.

    Neither has an equal elsewhere, and what the model says of it is text.
    """
    if not isinstance(block, Mapping):
        return False
    kind = block.get("type")
    return kind == SEARCH_RESULT or (
        kind == "server_tool_use" and block.get("name") == ANTHROPIC_NAME
    )


def _read_block(block: object) -> Part:
    if not isinstance(block, dict):
        raise GatewayError("E49")
    kind = block.get("type")
    if kind == "text":
        return Text(_word(block, "text"))
    if kind == "thinking":
        return Thinking(_word(block, "thinking"), _word(block, "signature"))
    if kind == "redacted_thinking":
        return Thinking(redacted=_word(block, "data"))
    if kind == "tool_use" and isinstance(block.get("input"), dict):
        arguments = arguments_text(block["input"])
        return ToolUse(_word(block, "id"), _word(block, "name"), arguments)
    # Such as the work of another tool that Anthropic runs, which no client can have asked for.
    raise GatewayError("E49")


def _word(block: Mapping[str, Any], name: str) -> str:
    """Return a text that has to be there."""
    value = block.get(name)
    if not isinstance(value, str):
        raise GatewayError("E49")
    return value


def write_answer(answer: Answer) -> dict[str, Any]:
    """Return a message."""
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [_block(part) for part in answer.parts],
        "stop_reason": stop_name(answer.stop),
        "stop_sequence": answer.stop_sequence,
        "usage": anthropic_usage(answer.usage),
    }


def _block(part: Part) -> dict[str, Any]:
    if isinstance(part, Text | Refusal):
        return {"type": "text", "text": part.text}
    if isinstance(part, Thinking):
        if part.redacted:
            return {"type": "redacted_thinking", "data": part.redacted}
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    if isinstance(part, ToolUse):
        called = arguments_object(part.arguments)
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": called}
    raise ValueError(f"A model does not answer with {type(part).__name__}.")
