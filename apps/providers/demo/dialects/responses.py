"""OpenAI's Responses API: items, and events that are numbered.

Sources: https://platform.openai.com/docs/api-reference/responses/object, …/responses-streaming
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from apps.providers.demo.answers import CREATED, ID_MARK, Answer, Endpoint, Event, Usage
from apps.providers.demo.building import build_answer, build_fixed
from apps.providers.demo.dialects.dialect import (
    DemoDialect,
    Headers,
    Incoming,
    named_event,
    wrap_by_type,
)
from apps.providers.demo.dialects.openai import (
    OVERLOADED,
    OpenAIDialect,
    check_method,
    list_openai_error_headers,
    name_tool_call,
    refuse_url,
    render_openai_error,
)
from apps.providers.demo.dialects.responses_request import count_prompt, list_items, read_response
from apps.providers.demo.errors import ProviderError, build_key_error
from apps.providers.demo.wire import Request

PREFIX: Final = "resp_"
_MARK: Final = ID_MARK.decode()
# A fault's own events have a number beyond those of every answer.
_FAULT_NUMBER: Final = 1_000_000


class ResponsesDialect(DemoDialect):
    """What OpenAI's SDKs speak when they create responses."""

    head = OpenAIDialect.head
    usage_mark = b'"output_tokens":'
    wrong_body = b'{"object":"response","output":{"0":null},"usage":"none"}'
    wrong_documents = (
        b'{"hello":"world"}',
        b"[]",
        b"42",
        b'{"type":"response.output_text.delta","delta":null}',
        b'{"type":"response.completed","response":[]}',
    )

    def get_endpoint(self, request: Request) -> Endpoint:
        """Return what the request calls, with or without `/v1`. Raises ProviderError."""
        path = request.path.removeprefix("/v1").removeprefix("/")
        methods = ["GET"]
        if path in {Endpoint.RESPONSES, Endpoint.COUNT_INPUT}:
            endpoint, methods = Endpoint(path), ["POST"]
        elif path.count("/") == 1:
            endpoint, methods = Endpoint.STORED_RESPONSE, ["GET", "DELETE"]
        elif path.count("/") == 2 and path.endswith("/input_items"):
            endpoint = Endpoint.STORED_INPUT
        else:
            raise refuse_url(request)
        check_method(request, *methods)
        return endpoint

    def get_model(self, endpoint: Endpoint, request: Request, body: Any) -> str:
        """Return the model asked for; empty for what is stored. Raises ProviderError."""
        if endpoint in {Endpoint.STORED_RESPONSE, Endpoint.STORED_INPUT}:
            return ""
        return super().get_model(endpoint, request, body)

    def answer(self, incoming: Incoming) -> Answer:
        """Return the answer to a call. Raises ProviderError."""
        body = incoming.body
        if incoming.endpoint in {Endpoint.STORED_RESPONSE, Endpoint.STORED_INPUT}:
            return self._answer_stored(incoming)
        if incoming.endpoint is Endpoint.COUNT_INPUT:
            wanted = incoming.options.prompt
            counted = count_prompt(body, list_items(body)) if wanted is None else wanted
            data = {"object": "response.input_tokens", "input_tokens": counted}
            return build_fixed(self, incoming, orjson.dumps(data))
        earlier = self._find_previous(incoming)
        told = 0 if earlier is None else earlier.prompt_tokens + earlier.choice.tokens
        return build_answer(self, incoming, read_response(body, told_tokens=told))

    def list_input(self, body: Any) -> list[dict[str, Any]]:
        """Return the items of a request whose answer is stored."""
        return list_items(body)

    def _answer_stored(self, incoming: Incoming) -> Answer:
        name = incoming.request.path.partition("responses/")[2].removesuffix("/input_items")
        key, response_id = self.find_key(incoming.request), name.removeprefix(PREFIX)
        found = incoming.stored.find(key, response_id)
        if found is None:
            raise ProviderError(404, f"Response with id '{name}' not found.")
        if incoming.request.method == "DELETE":
            incoming.stored.forget(key, response_id)
            data = orjson.dumps({"id": name, "object": "response", "deleted": True})
        elif incoming.endpoint is Endpoint.STORED_INPUT:
            data = _list_stored(found.input_items, response_id)
        else:
            data = self.render_body(found.answer).replace(ID_MARK, response_id.encode())
        return build_fixed(self, incoming, data)

    def _find_previous(self, incoming: Incoming) -> Answer | None:
        """Return the answer that a call goes on from. Raises ProviderError."""
        name = incoming.body.get("previous_response_id")
        if name is None:
            return None
        key = self.find_key(incoming.request)
        found = incoming.stored.find(key, str(name).removeprefix(PREFIX))
        if found is None:
            raise ProviderError(
                400,
                f"Previous response with id '{name}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return found.answer

    # Answers

    def render_body(self, answer: Answer) -> bytes:
        """Return the answer as one response."""
        if answer.endpoint is not Endpoint.RESPONSES:
            return answer.data
        return orjson.dumps(self._render_ended(answer, answer.usage))

    def render_events(self, answer: Answer) -> list[Event]:
        """Return the answer as numbered events, that of the finished response included."""
        started = _start_response(answer)
        events = [
            _number(0, "response.created", {"response": started}),
            _number(1, "response.in_progress", {"response": started}),
        ]
        for index, item in enumerate(_list_items(answer)):
            events += _render_item(answer, item, index, len(events))
        usage = answer.usage if answer.has_usage_event else None
        ended = self._render_ended(answer, usage)
        name = "incomplete" if answer.choice.finish_reason == "length" else "completed"
        flags = {"has_usage": usage is not None, "is_finish": True, "is_end": True}
        events.append(_number(len(events), f"response.{name}", {"response": ended}, **flags))
        return events

    def render_piece(self, answer: Answer, text: str, *, is_first: bool) -> Event:
        """Return one more event of text, whatever is said otherwise."""
        index = int(answer.reasoning_tokens > 0)
        deltas = _render_deltas("response.output_text.delta", "msg", index, (text,), _FAULT_NUMBER)
        return deltas[0]

    def render_usage_event(self, answer: Answer, usage: Usage, *, is_late: bool) -> Event:
        """Return an event with a response that has usage: finished again if it comes late."""
        if is_late:
            response, name = self._render_ended(answer, usage), "response.completed"
        else:
            told = orjson.Fragment(self.render_usage(answer, usage))
            response, name = _start_response(answer) | {"usage": told}, "response.in_progress"
        return _number(_FAULT_NUMBER, name, {"response": response}, has_usage=True)

    def tell_usage(self, answer: Answer, usage: Usage) -> dict[str, Any]:
        """Return a usage in the words of this API."""
        written = usage.written_5m + usage.written_1h
        return {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": written},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.prompt + usage.output,
        }

    def wrap(self, document: bytes, *, is_first: bool) -> Event:
        """Return a document as an event of the type that it names."""
        return wrap_by_type(document, "response.output_text.delta")

    def _render_ended(self, answer: Answer, usage: Usage | None) -> dict[str, Any]:
        status = _find_status(answer)
        ended = _start_response(answer) | {
            "status": status,
            "completed_at": CREATED if status == "completed" else None,
            "output": _list_items(answer),
        }
        if status == "incomplete":
            ended["incomplete_details"] = {"reason": "max_output_tokens"}
        if usage is not None:
            ended["usage"] = orjson.Fragment(self.render_usage(answer, usage))
        return ended

    # Errors

    def refuse_key(self, received: str) -> ProviderError:
        """Return the 401 for a wrong or missing key."""
        return build_key_error(received)

    def render_error(self, error: ProviderError) -> bytes:
        """Return the JSON body of a refusal."""
        return render_openai_error(error)

    def list_error_headers(self, error: ProviderError) -> Headers:
        """Return what stands in the head of a refusal beside the usual."""
        return list_openai_error_headers(error)

    def render_overload(self) -> bytes:
        """Return the document by which an answer that has begun says that it failed."""
        return render_openai_error(OVERLOADED)

    def render_error_event(self, answer: Answer, *, is_first: bool) -> Event:
        """Return an error where nothing was said yet, and else the failure of the response."""
        message = OVERLOADED.message
        if is_first:
            told = {"code": OVERLOADED.code, "message": message, "param": None}
            return _number(0, "error", told)
        error = {"code": "server_error", "message": message}
        failed = _start_response(answer) | {"status": "failed", "error": error}
        return _number(_FAULT_NUMBER, "response.failed", {"response": failed})


def _list_stored(items: Sequence[dict[str, Any]], response_id: str) -> bytes:
    """Return the items that a stored response answers, all of them on one page."""
    data = []
    for number, item in enumerate(items):
        told = {"type": "message", "id": f"msg_{response_id}_{number}", **item}
        if isinstance(told.get("content"), str):
            told["content"] = [{"type": "input_text", "text": told["content"]}]
        data.append(told)
    ids = [item["id"] for item in data] or [None]
    page = {"object": "list", "data": data, "has_more": False}
    return orjson.dumps({**page, "first_id": ids[0], "last_id": ids[-1]})


def _find_status(answer: Answer) -> str:
    match answer.choice.finish_reason:
        case "":
            return "in_progress"
        case "length":
            return "incomplete"
        case _:
            return "completed"


def _start_response(answer: Answer) -> dict[str, Any]:
    """Return a response of which nothing is there yet."""
    return {
        "id": f"{PREFIX}{_MARK}",
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": answer.model,
        "output": [],
        "service_tier": answer.service_tier,
        "usage": None,
        **orjson.loads(answer.data),
    }


def _list_items(answer: Answer) -> list[dict[str, Any]]:
    """Return the items of the output, whole."""
    choice = answer.choice
    items: list[dict[str, Any]] = []
    if answer.reasoning_tokens:
        thought = "".join(answer.thoughts)
        items.append(
            {
                "id": f"rs_{_MARK}",
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": thought}] if thought else [],
                "encrypted_content": _encrypt(answer.reasoning_tokens),
            }
        )
    status = "incomplete" if choice.finish_reason == "length" else "completed"
    if choice.tool is not None:
        items.append(
            {
                "id": f"fc_{_MARK}",
                "type": "function_call",
                "status": status,
                "arguments": choice.text,
                "call_id": name_tool_call(0),
                "name": choice.tool,
            }
        )
    elif choice.pieces:
        items.append(
            {
                "id": f"msg_{_MARK}",
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": [_write_text(choice.text)],
            }
        )
    return items


def _write_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _encrypt(tokens: int) -> str:
    return base64.b64encode(hashlib.shake_256(str(tokens).encode()).digest(96)).decode()


def _number(number: int, name: str, fields: dict[str, Any], **flags: Any) -> Event:
    document = orjson.dumps({"type": name, "sequence_number": number, **fields})
    return named_event(name, document, **flags)


def _render_item(answer: Answer, item: dict[str, Any], index: int, number: int) -> list[Event]:
    """Return the events of an item, numbered from there on."""
    place = {"output_index": index}
    inside = {"item_id": item["id"], **place}
    empty: dict[str, Any]
    match item["type"]:
        case "reasoning":
            hidden = 0 if answer.thoughts else answer.reasoning_tokens
            empty, parts = {"summary": []}, _list_summary(answer, inside)
        case "function_call":
            # The name of a tool is its call's first token.
            hidden, empty = 1, {"status": "in_progress", "arguments": ""}
            parts = _list_arguments(answer, inside)
        case _:
            hidden, empty = 0, {"status": "in_progress", "content": []}
            parts = _list_text(answer, inside)
    added = {**place, "item": item | empty}
    events = [_number(number, "response.output_item.added", added, tokens=hidden)]
    for name, fields in parts:
        at = number + len(events)
        if isinstance(fields, tuple):
            prefix = item["id"].partition("_")[0]
            events += _render_deltas(name, prefix, index, fields, at)
        else:
            events.append(_number(at, name, fields))
    done = {**place, "item": item}
    return [*events, _number(number + len(events), "response.output_item.done", done)]


# The name of an event and its fields, or of several and the pieces that they deliver.
_Parts = Iterator[tuple[str, dict[str, Any] | tuple[str, ...]]]


def _list_summary(answer: Answer, inside: dict[str, Any]) -> _Parts:
    thoughts = answer.thoughts
    if not thoughts:
        return
    place = {**inside, "summary_index": 0}
    text = "".join(thoughts)
    part = {"type": "summary_text", "text": ""}
    yield "response.reasoning_summary_part.added", {**place, "part": part}
    yield "response.reasoning_summary_text.delta", thoughts
    yield "response.reasoning_summary_text.done", {**place, "text": text}
    yield "response.reasoning_summary_part.done", {**place, "part": part | {"text": text}}


def _list_text(answer: Answer, inside: dict[str, Any]) -> _Parts:
    place = {**inside, "content_index": 0}
    text = answer.choice.text
    yield "response.content_part.added", {**place, "part": _write_text("")}
    yield "response.output_text.delta", answer.choice.pieces
    yield "response.output_text.done", {**place, "text": text, "logprobs": []}
    yield "response.content_part.done", {**place, "part": _write_text(text)}


def _list_arguments(answer: Answer, inside: dict[str, Any]) -> _Parts:
    yield "response.function_call_arguments.delta", answer.choice.pieces
    done = {**inside, "name": answer.choice.tool, "arguments": answer.choice.text}
    yield "response.function_call_arguments.done", done


_INDEXES: Final = {
    "response.output_text.delta": ',"content_index":0,"logprobs":[]',
    "response.reasoning_summary_text.delta": ',"summary_index":0',
    "response.function_call_arguments.delta": "",
}


def _render_deltas(
    name: str, prefix: str, index: int, pieces: tuple[str, ...], number: int
) -> list[Event]:
    """Return an event for each piece. Only the piece and its number are written anew."""
    start = (
        f'event: {name}\ndata: {{"type":"{name}","item_id":"{prefix}_{_MARK}",'
        f'"output_index":{index}{_INDEXES[name]},"sequence_number":'
    ).encode()
    is_content = prefix != "rs"
    return [
        Event(b'%b%d,"delta":%b}\n\n' % (start, at, orjson.dumps(piece)), 1, is_content=is_content)
        for at, piece in enumerate(pieces, number)
    ]
