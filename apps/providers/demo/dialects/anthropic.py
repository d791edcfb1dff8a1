"""Anthropic's Messages API.

Sources: https://platform.claude.com/docs/en/api/messages, …/build-with-claude/streaming,
…/api/errors. `input_tokens` leave out what a cache gave and took; what a stream tells is
cumulative.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import orjson

from apps.providers.demo.answers import CREATED, ID_MARK, Answer, Choice, Endpoint, Event, Usage
from apps.providers.demo.building import MODELS, build_answer, build_fixed
from apps.providers.demo.dialects.anthropic_request import count_prompt, read_message
from apps.providers.demo.dialects.dialect import (
    DemoDialect,
    Headers,
    Incoming,
    find_bearer,
    named_event,
    spoil,
    wrap_by_type,
)
from apps.providers.demo.dialects.openai import check_method, refuse_url
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.wire import Request

_MARK: Final = ID_MARK.decode()
_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_MESSAGES: Final = {
    "context_length_exceeded": "prompt is too long: 9001 tokens > 8192 maximum",
    "insufficient_quota": "Your credit balance is too low to access the Anthropic API.",
}
_PING: Final = Event(b'event: ping\ndata: {"type":"ping"}\n\n')
_STOP: Final = Event(b'event: message_stop\ndata: {"type":"message_stop"}\n\n', is_end=True)


class AnthropicDialect(DemoDialect):
    """What Anthropic's SDKs speak."""

    head = (("request-id", f"req_{_MARK}"), ("anthropic-organization-id", "org-demo"))
    usage_mark = b'"output_tokens":'
    wrong_body = b'{"type":"message","content":{"0":null},"usage":"none"}'
    wrong_documents = (
        b'{"hello":"world"}',
        b"[]",
        b"42",
        b'{"type":"content_block_delta","index":0,"delta":null}',
        b'{"type":"message_delta","delta":[],"usage":"none"}',
    )

    def find_key(self, request: Request) -> str:
        """Return the key as received, empty if there is none."""
        return request.headers.get("x-api-key") or find_bearer(request)

    def get_endpoint(self, request: Request) -> Endpoint:
        """Return what the request calls, with or without `/v1`. Raises ProviderError."""
        path = request.path.removeprefix("/v1").removeprefix("/")
        if "anthropic-version" not in request.headers:
            raise ProviderError(400, "anthropic-version: header is required")
        if path == "models" or path.startswith("models/"):
            endpoint, method = Endpoint.MODELS, "GET"
        elif path in {Endpoint.MESSAGES, Endpoint.COUNT}:
            endpoint, method = Endpoint(path), "POST"
        else:
            raise refuse_url(request)
        check_method(request, method)
        return endpoint

    def get_model(self, endpoint: Endpoint, request: Request, body: Any) -> str:
        """Return the model asked for; empty for the list of models. Raises ProviderError."""
        if endpoint is Endpoint.MODELS:
            return unquote(request.path.partition("/models")[2].removeprefix("/"))
        return super().get_model(endpoint, request, body)

    def answer(self, incoming: Incoming) -> Answer:
        """Return the answer to a call. Raises ProviderError."""
        if incoming.endpoint is Endpoint.MESSAGES:
            return build_answer(self, incoming, read_message(incoming.body))
        if incoming.endpoint is Endpoint.MODELS:
            return build_fixed(self, incoming, _list_models(incoming.model))
        wanted = incoming.options.prompt
        counted = count_prompt(incoming.body) if wanted is None else wanted
        return build_fixed(self, incoming, orjson.dumps({"input_tokens": counted}))

    # Answers

    def render_body(self, answer: Answer) -> bytes:
        """Return the answer as one message."""
        if answer.endpoint is not Endpoint.MESSAGES:
            return answer.data
        body = _start_message(answer)
        body["content"] = [block for block, _ in _list_blocks(answer)]
        body["stop_reason"] = _find_stop(answer.choice)
        if answer.usage is not None:
            body["usage"] = orjson.Fragment(self.render_usage(answer, answer.usage))
        return orjson.dumps(body)

    def render_events(self, answer: Answer) -> list[Event]:
        """Return the answer as named events, `message_stop` included."""
        events = [_render_start(answer)]
        for index, (block, deltas) in enumerate(_list_blocks(answer)):
            # The name of a tool is its call's first token.
            tokens = int(block["type"] == "tool_use")
            start = orjson.dumps(block | _EMPTY[block["type"]])
            events.append(_start_block(index, start, tokens))
            if index == 0:
                events.append(_PING)
            for kind, name, pieces in deltas:
                events += _render_deltas(index, kind, name, pieces)
            events.append(_stop_block(index))
        usage = answer.usage if answer.has_usage_event else None
        events += [_render_delta(_find_stop(answer.choice), usage), _STOP]
        return events

    def render_piece(self, answer: Answer, text: str, *, is_first: bool) -> Event:
        """Return one more event of text, whatever is said otherwise."""
        index = int(bool(answer.thoughts))
        return _render_deltas(index, "text_delta", "text", (text,))[0]

    def render_usage_event(self, answer: Answer, usage: Usage, *, is_late: bool) -> Event:
        """Return a delta of the message in which nothing changes but the usage."""
        return _render_delta(None, usage)

    def tell_usage(self, answer: Answer, usage: Usage) -> dict[str, Any]:
        """Return a usage as a whole message has it."""
        return _tell_usage(usage, is_whole=True)

    def wrap(self, document: bytes, *, is_first: bool) -> Event:
        """Return a document as an event of the type that it names."""
        return wrap_by_type(document, "content_block_delta")

    # Errors

    def refuse_key(self, received: str) -> ProviderError:
        """Return the 401 for a wrong or missing key."""
        return ProviderError(401, "invalid x-api-key")

    def render_error(self, error: ProviderError) -> bytes:
        """Return the JSON body of a refusal."""
        message = _MESSAGES.get(error.code or "", error.message)
        usual = "api_error" if error.status >= 500 else "invalid_request_error"
        return _write_error(_TYPES.get(error.status, usual), message)

    def list_error_headers(self, error: ProviderError) -> Headers:
        """Return what stands in the head of a refusal beside the usual."""
        headers = super().list_error_headers(error)
        if error.status != 429:
            return headers
        return (
            ("anthropic-ratelimit-requests-limit", "3"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            *headers,
        )

    def render_overload(self) -> bytes:
        """Return the document by which an answer that has begun says that it failed."""
        return _write_error("overloaded_error", "Overloaded")


def _write_error(type_: str, message: str) -> bytes:
    error = {"type": type_, "message": message}
    return orjson.dumps({"type": "error", "error": error, "request_id": f"req_{_MARK}"})


def _list_models(model: str) -> bytes:
    created = datetime.fromtimestamp(CREATED, UTC).isoformat().replace("+00:00", "Z")
    entries = [
        {"type": "model", "id": name, "display_name": name, "created_at": created}
        for name in ([model] if model else MODELS)
    ]
    if model:
        return orjson.dumps(entries[0])
    first, last = entries[0]["id"], entries[-1]["id"]
    return orjson.dumps({"data": entries, "has_more": False, "first_id": first, "last_id": last})


# Kind of delta, its member, and the pieces.
_Deltas = tuple[str, str, tuple[str, ...]]
# What a block has at its start instead of its content.
_EMPTY: Final[dict[str, dict[str, Any]]] = {
    "thinking": {"thinking": "", "signature": ""},
    "text": {"text": ""},
    "tool_use": {"input": {}},
}


def _list_blocks(answer: Answer) -> list[tuple[dict[str, Any], list[_Deltas]]]:
    """Return the content blocks, each with the deltas that make it."""
    blocks: list[tuple[dict[str, Any], list[_Deltas]]] = []
    choice, thoughts = answer.choice, answer.thoughts
    if thoughts:
        text = "".join(thoughts)
        signature = _sign(text)
        deltas: list[_Deltas] = [
            ("thinking_delta", "thinking", thoughts),
            ("signature_delta", "signature", (signature,)),
        ]
        blocks.append(({"type": "thinking", "thinking": text, "signature": signature}, deltas))
    if choice.tool is not None:
        call = {"type": "tool_use", "id": f"toolu_demo{0:020d}", "name": choice.tool}
        deltas = [("input_json_delta", "partial_json", choice.pieces)]
        blocks.append((call | {"input": _read_arguments(choice.text)}, deltas))
    elif choice.pieces:
        deltas = [("text_delta", "text", choice.pieces)]
        blocks.append(({"type": "text", "text": choice.text}, deltas))
    return blocks


def _read_arguments(text: str) -> Any:
    """Return a tool's arguments; none where they were cut."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}


def _sign(text: str) -> str:
    return base64.b64encode(hashlib.shake_256(text.encode()).digest(96)).decode()


def _find_stop(choice: Choice) -> str | None:
    match choice.finish_reason:
        case "":
            return None
        case "length":
            return "max_tokens"
        case _:
            return "end_turn" if choice.tool is None else "tool_use"


def _start_message(answer: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_{_MARK}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _render_start(answer: Answer) -> Event:
    message, usage = _start_message(answer), answer.usage
    if usage is not None:
        # The first token is there; how many will be is not known yet.
        opening = replace(usage, output=min(1, usage.output), reasoning=0)
        message["usage"] = orjson.Fragment(spoil(_tell_usage(opening, is_whole=True), opening))
    document = orjson.dumps({"type": "message_start", "message": message})
    hidden = 0 if answer.shows_reasoning else answer.reasoning_tokens
    return named_event("message_start", document, tokens=hidden, has_usage=usage is not None)


def _start_block(index: int, block: bytes, tokens: int) -> Event:
    document = b'{"type":"content_block_start","index":%d,"content_block":%b}' % (index, block)
    return named_event("content_block_start", document, tokens=tokens)


def _stop_block(index: int) -> Event:
    return named_event("content_block_stop", b'{"type":"content_block_stop","index":%d}' % index)


def _render_deltas(index: int, kind: str, name: str, pieces: tuple[str, ...]) -> list[Event]:
    """Return an event for each piece. Only the piece is written anew."""
    start = (
        f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},'
        f'"delta":{{"type":"{kind}","{name}":'
    ).encode()
    is_content = kind in {"text_delta", "input_json_delta"}
    tokens = int(kind != "signature_delta")
    return [
        Event(start + orjson.dumps(piece) + b"}}\n\n", tokens, is_content=is_content)
        for piece in pieces
    ]


def _render_delta(stop: str | None, usage: Usage | None) -> Event:
    document: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": stop, "stop_sequence": None},
    }
    if usage is not None:
        document["usage"] = orjson.Fragment(spoil(_tell_usage(usage, is_whole=False), usage))
    return named_event(
        "message_delta",
        orjson.dumps(document),
        has_usage=usage is not None,
        is_finish=stop is not None,
    )


def _tell_usage(usage: Usage, *, is_whole: bool) -> dict[str, Any]:
    written = usage.written_5m + usage.written_1h
    told: dict[str, Any] = {
        "input_tokens": usage.prompt - usage.cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached,
    }
    if is_whole:
        told["cache_creation"] = {
            "ephemeral_5m_input_tokens": usage.written_5m,
            "ephemeral_1h_input_tokens": usage.written_1h,
        }
    told["output_tokens"] = usage.output
    if usage.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    if is_whole:
        told["service_tier"] = "standard"
    return told
