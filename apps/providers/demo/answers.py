"""Deterministic answers in OpenAI's format: what is said, and how it looks as JSON and as events.

Every rendering carries `ID_MARK` where the call's own id belongs, so that renderings can be kept
and each call costs one `bytes.replace`. Token counts: `output_tokens` includes reasoning, as
OpenAI's does.

Sources: https://platform.openai.com/docs/api-reference/chat/object, …/chat/streaming,
…/completions/object
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import cycle, islice
from typing import Any

import orjson

from apps.providers.demo.wire import LAST_CHUNK, TYPE_EVENTS, TYPE_JSON, render_chunk, render_head

# OpenAI's ids have 29 characters after their prefix. The mark cannot occur in JSON text by chance.
ID_MARK = b"@#" * 14 + b"@"
CREATED = int(time.time())
FINGERPRINT = "fp_demo0000"

_WORDS = (
    " This", " answer", " costs", " nothing", ":", " it", " comes", " from", " a", " café",
    " without", " a", " model", ",", " naïve", " –", " yet", " always", " the", " same", " 文", ".",
)  # fmt: skip
# Renderings above this many tokens are made anew for each call instead of being kept.
_KEPT_TOKENS_MAX = 2000


class Endpoint(StrEnum):
    """What was called."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    EMBEDDING = "embeddings"
    MODERATION = "moderations"
    RERANK = "rerank"
    MODELS = "models"


# What these answer holds no choices.
LISTS = {Endpoint.EMBEDDING: "data", Endpoint.MODERATION: "results", Endpoint.RERANK: "results"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What is said: text in pieces of one token each, or a tool call's arguments."""

    pieces: tuple[str, ...]
    finish_reason: str
    tool: str | None = None

    @property
    def text(self) -> str:
        """Return the pieces as one text."""
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        """Return the visible output tokens: the name of a tool counts as one."""
        return len(self.pieces) + (self.tool is not None)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer before it is written as JSON or events."""

    endpoint: Endpoint
    model: str
    is_stream: bool
    choice: Choice
    choice_count: int
    prompt_tokens: int
    cached_tokens: int
    reasoning_tokens: int  # of each choice
    usage: bytes | None  # JSON; None: none is reported
    has_usage_event: bool
    has_null_usage: bool  # every other chunk of a stream says "usage": null
    data: bytes = b""  # JSON: the array of LISTS, or the whole body of a models answer
    service_tier: str = "default"  # that it says it served

    @property
    def output_tokens(self) -> int:
        """Return the output tokens of all choices, reasoning included."""
        return (self.choice.tokens + self.reasoning_tokens) * self.choice_count


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event, whole."""

    data: bytes
    tokens: int = 0  # output tokens it delivers
    has_usage: bool = False
    is_content: bool = False


DONE = Event(b"data: [DONE]\n\n")


def make_pieces(count: int) -> tuple[str, ...]:
    """Return that many tokens of text, always the same."""
    return tuple(
        piece.lstrip() if at == 0 else piece
        for at, piece in enumerate(islice(cycle(_WORDS), count))
    )


def render_usage(prompt: int, cached: int, output: int, reasoning: int) -> bytes:
    """Return a usage object as OpenAI writes it for chats and completions."""
    return orjson.dumps(
        {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
    )


def render_body(answer: Answer) -> bytes:
    """Return the answer as one JSON object."""
    if answer.endpoint is Endpoint.MODELS:
        return answer.data
    if answer.endpoint in LISTS:
        body: dict[str, Any] = {
            "id": f"list-{CREATED}",
            "object": "list",
            LISTS[answer.endpoint]: orjson.Fragment(answer.data),
            "model": answer.model,
        }
    else:
        is_chat = answer.endpoint is Endpoint.CHAT
        render_choice = _render_chat_choice if is_chat else _render_completion_choice
        body = _start_object(answer, is_event=False)
        body["choices"] = [render_choice(answer.choice, at) for at in range(answer.choice_count)]
    if answer.usage is not None:
        body["usage"] = orjson.Fragment(answer.usage)
    return orjson.dumps(body)


def render_events(answer: Answer) -> list[Event]:
    """Return the answer as server-sent events, `[DONE]` included."""
    choice = answer.choice
    positions = range(answer.choice_count)
    events: list[Event] = []
    if answer.endpoint is Endpoint.CHAT:
        opening = _render_opening(choice)
        # The reasoning happens before the first word; a tool's name is its call's first token.
        tokens = answer.reasoning_tokens + (choice.tool is not None)
        events += [render_event(answer, at, opening, tokens=tokens) for at in positions]
    for number, piece in enumerate(choice.pieces):
        delta = _render_delta(choice, piece)
        is_late = answer.endpoint is not Endpoint.CHAT and number == 0
        tokens = 1 + (answer.reasoning_tokens if is_late else 0)
        events += [
            render_event(answer, at, delta, tokens=tokens, is_content=True) for at in positions
        ]
    events += [render_event(answer, at, {}, choice.finish_reason) for at in positions]
    if answer.has_usage_event and answer.usage is not None:
        events.append(render_usage_event(answer, answer.usage))
    events.append(DONE)
    return events


def render_event(
    answer: Answer,
    position: int,
    delta: dict[str, Any],
    finish_reason: str | None = None,
    *,
    tokens: int = 0,
    is_content: bool = False,
    usage: bytes | None = None,
) -> Event:
    """Return one chunk of a stream as an event."""
    body = _start_object(answer, is_event=True)
    entry: dict[str, Any] = {"index": position}
    if answer.endpoint is Endpoint.CHAT:
        entry["delta"] = delta
    else:
        entry["text"] = delta.get("content", "")
    body["choices"] = [{**entry, "logprobs": None, "finish_reason": finish_reason}]
    if usage is not None:
        body["usage"] = orjson.Fragment(usage)
    elif answer.has_null_usage:
        body["usage"] = None
    data = b"data: " + orjson.dumps(body) + b"\n\n"
    return Event(data, tokens=tokens, is_content=is_content, has_usage=usage is not None)


def render_usage_event(answer: Answer, usage: bytes) -> Event:
    """Return the event that reports usage and no choice."""
    body = _start_object(answer, is_event=True)
    body["choices"] = []
    body["usage"] = orjson.Fragment(usage)
    return Event(b"data: " + orjson.dumps(body) + b"\n\n", has_usage=True)


def _start_object(answer: Answer, *, is_event: bool) -> dict[str, Any]:
    mark = ID_MARK.decode()
    if answer.endpoint is Endpoint.CHAT:
        kind = "chat.completion.chunk" if is_event else "chat.completion"
        start = {"id": f"chatcmpl-{mark}", "object": kind}
    else:
        start = {"id": f"cmpl-{mark}", "object": "text_completion"}
    return {
        **start,
        "created": CREATED,
        "model": answer.model,
        **({"service_tier": answer.service_tier} if answer.endpoint is Endpoint.CHAT else {}),
        "system_fingerprint": FINGERPRINT,
    }


def _render_chat_choice(choice: Choice, position: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.tool is not None:
        call = {"name": choice.tool, "arguments": choice.text}
        message["content"] = None
        message["tool_calls"] = [
            {"id": _name_tool_call(position), "type": "function", "function": call}
        ]
    message["annotations"] = []
    return {
        "index": position,
        "message": message,
        "logprobs": None,
        "finish_reason": choice.finish_reason,
    }


def _render_completion_choice(choice: Choice, position: int) -> dict[str, Any]:
    return {
        "text": choice.text,
        "index": position,
        "logprobs": None,
        "finish_reason": choice.finish_reason,
    }


def _render_opening(choice: Choice) -> dict[str, Any]:
    if choice.tool is None:
        return {"role": "assistant", "content": "", "refusal": None}
    call = {
        "index": 0,
        "id": _name_tool_call(0),
        "type": "function",
        "function": {"name": choice.tool, "arguments": ""},
    }
    return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}


def _render_delta(choice: Choice, piece: str) -> dict[str, Any]:
    if choice.tool is None:
        return {"content": piece}
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _name_tool_call(position: int) -> str:
    return f"call_demo{position:020d}"


@dataclass(frozen=True, slots=True)
class Rendering:
    """A whole response as it stands on the wire, with `ID_MARK` for the call's id."""

    wire: bytes
    events: int
    has_usage: bool


def render_response(answer: Answer) -> Rendering:
    """Return the undisturbed response to a call, kept for the next call like it."""
    if answer.endpoint in LISTS or answer.output_tokens > _KEPT_TOKENS_MAX:
        return _render_response(answer)
    return _render_kept_response(answer)


def _render_response(answer: Answer) -> Rendering:
    if not answer.is_stream:
        body = render_body(answer)
        head = render_response_head(TYPE_JSON, length=len(body))
        return Rendering(head + body, 0, answer.usage is not None)
    events = render_events(answer)
    chunks = b"".join(render_chunk(event.data) for event in events)
    wire = render_response_head(TYPE_EVENTS, length=None) + chunks + LAST_CHUNK
    return Rendering(wire, len(events), any(event.has_usage for event in events))


_render_kept_response = lru_cache(maxsize=256)(_render_response)


def render_response_head(
    content_type: str,
    *,
    length: int | None,
    status: int = 200,
    extra: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """Return the head of an API response; without a length its body is chunked."""
    framing = (
        ("transfer-encoding", "chunked") if length is None else ("content-length", str(length))
    )
    usual = (
        ("content-type", content_type),
        ("x-request-id", f"req_{ID_MARK.decode()}"),
        ("openai-processing-ms", "1"),
    )
    return render_head(status, (*usual, *extra, framing))
