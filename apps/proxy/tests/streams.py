"""Golden streams of several providers, as they go over the wire, for the tests of this package."""

import json
from typing import Any, Final

# OpenAI with include_usage: `usage` is null until a last event without choices.
OPENAI: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],'
    b'"usage":null}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}],"usage":null}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{"content":" w\xc3\xb6rld"},"finish_reason":null}],'
    b'"usage":null}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o",'
    b'"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,'
    b'"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
    b"data: [DONE]\n\n"
)

# A Python server: spaces after colons, CRLF, comments, an `event` line.
PYTHON_SERVER: Final = (
    b": keep-alive\r\n\r\n"
    b'event: message\r\ndata: {"id": "cmpl-2", "model": "llama", "choices": [{"index": 0, '
    b'"delta": {"content": "One"}, "finish_reason": null}], "usage": null}\r\n\r\n'
    b": keep-alive\r\n\r\n"
    b'data: {"id": "cmpl-2", "model": "llama", "choices": [{"index": 0, "delta": {"content": '
    b'" two"}, "finish_reason": "length"}], "usage": {"prompt_tokens": 5, "completion_tokens": 2,'
    b' "total_tokens": 7}}\r\n\r\n'
    b"data: [DONE]\r\n\r\n"
)

# Old-style CR, data over several lines, no space after the colon, no [DONE].
CARRIAGE_RETURNS: Final = (
    b'data:{"id":"3","choices":[{"delta":{"content":"A"},\rdata:"finish_reason":null}]}\r\r'
    b'id: 7\rdata: {"id":"3","choices":[{"delta":{},"finish_reason":"stop"}]}\r\r'
)

ALL: Final = {
    "openai": OPENAI,
    "python_server": PYTHON_SERVER,
    "carriage_returns": CARRIAGE_RETURNS,
}


def event(**members: Any) -> bytes:
    """Return an event that holds this object."""
    return b"data: " + json.dumps(members, separators=(",", ":")).encode() + b"\n\n"


def delta(**members: Any) -> bytes:
    """Return an event of a chat with this delta."""
    return event(
        id="c-1", model="m-1", choices=[{"index": 0, "delta": members, "finish_reason": None}]
    )
