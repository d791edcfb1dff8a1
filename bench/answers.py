"""What the upstream of the benchmark says, in each dialect: whole answers, and streams of events.

Each as its vendor words it, with as many pieces of content and the same usage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

PROMPT_TOKENS: Final = 23
ANSWER_TOKENS: Final = 40
_MODEL: Final = "bench"
_CREATED: Final = 1_700_000_000
_TEXT: Final = "Hello there. " * 18


class Script(NamedTuple):
    """What is said in one dialect. Events are complete, with the empty line behind each."""

    answer: bytes
    start: tuple[bytes, ...]
    content: Callable[[str, int], bytes]  # a piece of text, and its number
    end: Callable[[int, bool], tuple[bytes, ...]]  # of so many pieces; whether usage is told


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _event(document: Mapping[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + _json(document) + b"\n\n"


# ---- OpenAI's Chat Completions

_CHAT_HEAD: Final = {"id": "chatcmpl-bench", "created": _CREATED, "model": _MODEL}


def _chat_usage(output: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": output,
        "total_tokens": PROMPT_TOKENS + output,
    }


def _chunk(told: Mapping[str, Any]) -> bytes:
    return _event({**_CHAT_HEAD, "object": "chat.completion.chunk", **told})


def _chat_choice(delta: Mapping[str, Any], reason: str | None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _chat_end(pieces: int, has_usage: bool) -> tuple[bytes, ...]:
    finish = _chunk(_chat_choice({}, "stop"))
    usage = [_chunk({"choices": [], "usage": _chat_usage(pieces)})] if has_usage else []
    return (finish, *usage, b"data: [DONE]\n\n")


_CHAT: Final = Script(
    answer=_json(
        {
            **_CHAT_HEAD,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": _TEXT},
                    "finish_reason": "stop",
                }
            ],
            "usage": _chat_usage(ANSWER_TOKENS),
        }
    ),
    start=(),
    content=lambda text, number: _chunk(_chat_choice({"content": text}, None)),
    end=_chat_end,
)


# ---- Anthropic's Messages


def _named(kind: str, told: Mapping[str, Any]) -> bytes:
    return _event({"type": kind, **told}, kind)


def _message(content: list[dict[str, Any]], reason: str | None, output: int) -> dict[str, Any]:
    return {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": _MODEL,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": PROMPT_TOKENS,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": output,
        },
    }


def _message_end(pieces: int, has_usage: bool) -> tuple[bytes, ...]:
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    return (
        _named("content_block_stop", {"index": 0}),
        _named("message_delta", {"delta": delta, "usage": {"output_tokens": pieces}}),
        _named("message_stop", {}),
    )


_MESSAGES: Final = Script(
    answer=_json(_message([{"type": "text", "text": _TEXT}], "end_turn", ANSWER_TOKENS)),
    start=(
        _named("message_start", {"message": _message([], None, 1)}),
        _named(
            "content_block_start",
            {"index": 0, "content_block": {"type": "text", "text": ""}},
        ),
        _named("ping", {}),
    ),
    content=lambda text, number: _named(
        "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": text}}
    ),
    end=_message_end,
)


# ---- Google's generateContent


def _response(text: str, output: int, reason: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {
        "content": {"parts": [{"text": text}], "role": "model"},
        "index": 0,
    }
    if reason is not None:
        candidate["finishReason"] = reason
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": PROMPT_TOKENS,
            "candidatesTokenCount": output,
            "totalTokenCount": PROMPT_TOKENS + output,
        },
        "modelVersion": _MODEL,
        "responseId": "gemini-bench",
    }


_GENERATE: Final = Script(
    answer=_json(_response(_TEXT, ANSWER_TOKENS, "STOP")),
    start=(),
    content=lambda text, number: _event(_response(text, number + 1)),
    end=lambda pieces, has_usage: (_event(_response("", pieces, "STOP")),),
)


# ---- OpenAI's Responses

_ITEM: Final = {"item_id": "msg_bench", "output_index": 0}
_PLACE: Final = {**_ITEM, "content_index": 0}
# How many events come before the first piece of content.
_BEFORE: Final = 4


def _output(text: str, status: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part] if text else [],
    }


def _answered(text: str, output: int, status: str = "completed") -> dict[str, Any]:
    is_whole = status == "completed"
    return {
        "id": "resp_bench",
        "object": "response",
        "created_at": _CREATED,
        "model": _MODEL,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "output": [_output(text, status)] if is_whole else [],
        "usage": {
            "input_tokens": PROMPT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": PROMPT_TOKENS + output,
        }
        if is_whole
        else None,
    }


def _numbered(kind: str, number: int, told: Mapping[str, Any]) -> bytes:
    name = f"response.{kind}"
    return _event({"type": name, "sequence_number": number, **told}, name)


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _responses_end(pieces: int, has_usage: bool) -> tuple[bytes, ...]:
    text, number = " token" * pieces, _BEFORE + pieces
    item = {"output_index": 0, "item": _output(text, "completed")}
    return (
        _numbered("output_text.done", number, {**_PLACE, "text": text, "logprobs": []}),
        _numbered("content_part.done", number + 1, {**_PLACE, "part": _part(text)}),
        _numbered("output_item.done", number + 2, item),
        _numbered("completed", number + 3, {"response": _answered(text, pieces)}),
    )


_RESPONSES: Final = Script(
    answer=_json(_answered(_TEXT, ANSWER_TOKENS)),
    start=(
        _numbered("created", 0, {"response": _answered("", 0, "in_progress")}),
        _numbered("in_progress", 1, {"response": _answered("", 0, "in_progress")}),
        _numbered("output_item.added", 2, {"output_index": 0, "item": _output("", "in_progress")}),
        _numbered("content_part.added", 3, {**_PLACE, "part": _part("")}),
    ),
    content=lambda text, number: _numbered(
        "output_text.delta", _BEFORE + number, {**_PLACE, "delta": text, "logprobs": []}
    ),
    end=_responses_end,
)

SCRIPTS: Final[dict[str, Script]] = {
    "anthropic": _MESSAGES,
    "gemini": _GENERATE,
    "openai": _CHAT,
    "openai-responses": _RESPONSES,
}


def stream_of(script: Script, pieces: int, *, has_usage: bool) -> list[bytes]:
    """Return the events of a whole stream."""
    content = (script.content(" token", number) for number in range(pieces))
    return [*script.start, *content, *script.end(pieces, has_usage)]
