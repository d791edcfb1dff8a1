"""What the clients of the benchmark send, and by what an answer to them is known to be whole.

The same question in each dialect, as its own SDK would ask it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

_SYSTEM: Final = "You are a helpful assistant."
_QUESTION: Final = "Say hello to the world in a friendly way please."
_MESSAGES: Final = [
    {"role": "system", "content": _SYSTEM},
    {"role": "user", "content": _QUESTION},
]
_OUTPUT_TOKENS_MAX: Final = 256


class Client(NamedTuple):
    """A client of one dialect."""

    path: Callable[[str, bool], str]  # of a model; whether it is to be a stream
    body: Callable[[str, bool], dict[str, Any]]
    end: bytes  # stands in every stream that is whole
    usage: bytes  # stands in every answer


def _chat(model: str, is_stream: bool) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": model, "messages": _MESSAGES}
    if is_stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return asked


def _message(model: str, is_stream: bool) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": _OUTPUT_TOKENS_MAX,
        "system": _SYSTEM,
        "messages": _MESSAGES[1:],
    }
    return asked | {"stream": True} if is_stream else asked


def _generate(model: str, is_stream: bool) -> dict[str, Any]:
    return {
        "systemInstruction": {"parts": [{"text": _SYSTEM}]},
        "contents": [{"role": "user", "parts": [{"text": _QUESTION}]}],
    }


def _generate_path(model: str, is_stream: bool) -> str:
    method = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
    return f"/v1beta/models/{model}:{method}"


def _respond(model: str, is_stream: bool) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": model, "instructions": _SYSTEM, "input": _MESSAGES[1:]}
    return asked | {"stream": True} if is_stream else asked


CLIENTS: Final[dict[str, Client]] = {
    "anthropic": Client(
        lambda model, is_stream: "/v1/messages", _message, b'"message_stop"', b'"output_tokens"'
    ),
    "gemini": Client(_generate_path, _generate, b'"finishReason"', b'"totalTokenCount"'),
    "openai": Client(
        lambda model, is_stream: "/v1/chat/completions", _chat, b"[DONE]", b'"total_tokens"'
    ),
    "openai-responses": Client(
        lambda model, is_stream: "/v1/responses",
        _respond,
        b'"response.completed"',
        b'"total_tokens"',
    ),
}
