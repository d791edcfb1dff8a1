"""OpenAI's dialect: chats, legacy completions, and the lists that others copied.

Sources: https://platform.openai.com/docs/api-reference/chat/object, …/chat/streaming,
…/completions/object
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import orjson

from apps.providers.demo.answers import CREATED, ID_MARK, Answer, Choice, Endpoint, Event, Usage
from apps.providers.demo.building import build_answer
from apps.providers.demo.dialects.dialect import DemoDialect, Headers, Incoming
from apps.providers.demo.dialects.openai_lists import LISTS, answer_list
from apps.providers.demo.dialects.openai_request import read_chat, read_completion
from apps.providers.demo.errors import ProviderError, build_key_error
from apps.providers.demo.wire import Request

FINGERPRINT = "fp_demo0000"
DONE = Event(b"data: [DONE]\n\n", is_end=True)
OVERLOADED = ProviderError(
    500,
    "The server is overloaded. Please try again later.",
    type="server_error",
    code="server_overloaded",
)
_POSTED = {
    Endpoint.CHAT,
    Endpoint.COMPLETION,
    Endpoint.EMBEDDING,
    Endpoint.MODERATION,
    Endpoint.RERANK,
}


class OpenAIDialect(DemoDialect):
    """What OpenAI's Python SDK speaks when it completes chats."""

    head = (*DemoDialect.head, ("openai-processing-ms", "1"))
    usage_mark = b'"completion_tokens":'
    wrong_body = b'{"object":"list","data":"none","choices":{"0":null}}'
    wrong_documents = (
        b'{"hello":"world"}',
        b"[]",
        b"42",
        b'{"choices":{"0":null}}',
        b'{"choices":[null]}',
    )

    def get_endpoint(self, request: Request) -> Endpoint:
        """Return what the request calls, with or without `/v1`. Raises ProviderError."""
        path = request.path.removeprefix("/v1").removeprefix("/")
        if path == "models" or path.startswith("models/"):
            endpoint, method = Endpoint.MODELS, "GET"
        elif path in _POSTED:
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
        if incoming.endpoint is Endpoint.CHAT:
            return build_answer(self, incoming, read_chat(incoming.body))
        if incoming.endpoint is Endpoint.COMPLETION:
            return build_answer(self, incoming, read_completion(incoming.body))
        return answer_list(self, incoming)

    def render_body(self, answer: Answer) -> bytes:
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
            positions = range(answer.choice_count)
            body = _start_object(answer, is_event=False)
            body["choices"] = [render_choice(answer.choice, at) for at in positions]
        if answer.usage is not None:
            body["usage"] = orjson.Fragment(self.render_usage(answer, answer.usage))
        return orjson.dumps(body)

    def render_events(self, answer: Answer) -> list[Event]:
        """Return the answer as server-sent events, `[DONE]` included."""
        choice = answer.choice
        positions = range(answer.choice_count)
        events: list[Event] = []
        if answer.endpoint is Endpoint.CHAT:
            opening = _render_opening(choice)
            # The reasoning happens before the first word; a tool's name is its first token.
            tokens = answer.reasoning_tokens + (choice.tool is not None)
            events += [_render_event(answer, at, opening, tokens=tokens) for at in positions]
        for number, piece in enumerate(choice.pieces):
            delta = _render_delta(choice, piece)
            is_late = answer.endpoint is not Endpoint.CHAT and number == 0
            tokens = 1 + (answer.reasoning_tokens if is_late else 0)
            events += [
                _render_event(answer, at, delta, tokens=tokens, is_content=True) for at in positions
            ]
        events += [_render_finish(answer, at) for at in positions]
        if answer.has_usage_event and answer.usage is not None:
            events.append(self.render_usage_event(answer, answer.usage, is_late=False))
        events.append(DONE)
        return events

    def render_piece(self, answer: Answer, text: str, *, is_first: bool) -> Event:
        """Return one more event of text, whatever is said otherwise."""
        return _render_event(answer, 0, {"content": text}, tokens=1, is_content=True)

    def render_usage_event(self, answer: Answer, usage: Usage, *, is_late: bool) -> Event:
        """Return the event that reports usage: beside no choice, or late beside an empty one."""
        data = self.render_usage(answer, usage)
        if is_late:
            return _render_event(answer, 0, {}, usage=data)
        body = _start_object(answer, is_event=True)
        body["choices"] = []
        body["usage"] = orjson.Fragment(data)
        return Event(b"data: " + orjson.dumps(body) + b"\n\n", has_usage=True)

    def tell_usage(self, answer: Answer, usage: Usage) -> dict[str, Any]:
        """Return a usage as OpenAI writes it, and a ranking's as Jina does."""
        if answer.endpoint is Endpoint.RERANK:
            return {"total_tokens": usage.prompt}
        if answer.endpoint is Endpoint.EMBEDDING:
            return {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt}
        return {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.output,
            "total_tokens": usage.prompt + usage.output,
            "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": usage.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

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


def refuse_url(request: Request) -> ProviderError:
    """Return the refusal of an address that is none."""
    message = f"Invalid URL ({request.method} {request.path})"
    return ProviderError(404, message, code="unknown_url")


def check_method(request: Request, *methods: str) -> None:
    """Check that the request has one of the methods. Raises ProviderError."""
    if request.method not in methods:
        message = f"Not allowed to {request.method} on {request.path}."
        raise ProviderError(405, message, code="method_not_supported")


def render_openai_error(error: ProviderError) -> bytes:
    """Return the JSON body of a refusal in OpenAI's shape."""
    fields = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    return orjson.dumps({"error": fields})


def list_openai_error_headers(error: ProviderError) -> Headers:
    """Return the limits and the wait that OpenAI tells in the head of a refusal."""
    if error.retry_after is None:
        return ()
    seconds = str(error.retry_after)
    limits: Headers = ()
    if error.status == 429 and error.type != "insufficient_quota":
        limits = (
            ("x-ratelimit-limit-requests", "3"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", f"{seconds}s"),
        )
    return (*limits, ("retry-after", seconds))


def _render_event(
    answer: Answer,
    position: int,
    delta: dict[str, Any],
    finish_reason: str | None = None,
    *,
    tokens: int = 0,
    is_content: bool = False,
    usage: bytes | None = None,
) -> Event:
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
    return Event(
        b"data: " + orjson.dumps(body) + b"\n\n",
        tokens=tokens,
        has_usage=usage is not None,
        is_content=is_content,
        is_finish=finish_reason is not None,
    )


def _render_finish(answer: Answer, position: int) -> Event:
    return _render_event(answer, position, {}, answer.choice.finish_reason)


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
            {"id": name_tool_call(position), "type": "function", "function": call}
        ]
    message["annotations"] = []
    return {
        "index": position,
        "message": message,
        "logprobs": None,
        "finish_reason": choice.finish_reason or None,
    }


def _render_completion_choice(choice: Choice, position: int) -> dict[str, Any]:
    return {
        "text": choice.text,
        "index": position,
        "logprobs": None,
        "finish_reason": choice.finish_reason or None,
    }


def _render_opening(choice: Choice) -> dict[str, Any]:
    if choice.tool is None:
        return {"role": "assistant", "content": "", "refusal": None}
    call = {
        "index": 0,
        "id": name_tool_call(0),
        "type": "function",
        "function": {"name": choice.tool, "arguments": ""},
    }
    return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}


def _render_delta(choice: Choice, piece: str) -> dict[str, Any]:
    if choice.tool is None:
        return {"content": piece}
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def name_tool_call(position: int) -> str:
    """Return the id of a call of a tool."""
    return f"call_demo{position:020d}"
