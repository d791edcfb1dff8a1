"""Google's Gemini API: events of a stream, or pieces of one JSON array where none are asked for.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/embeddings,
https://ai.google.dev/api/tokens. Every piece of a stream tells the usage so far.
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import orjson

from apps.providers.demo.answers import ID_MARK, Answer, Endpoint, Event, Usage
from apps.providers.demo.building import MODELS, build_answer, build_fixed, count_tokens
from apps.providers.demo.dialects.dialect import DemoDialect, Headers, Incoming, find_bearer
from apps.providers.demo.dialects.gemini_errors import refuse_google_key, render_google_error
from apps.providers.demo.dialects.gemini_request import (
    EMBEDDINGS_MAX,
    count_prompt,
    read_dimensions,
    read_generation,
    read_text,
    take,
)
from apps.providers.demo.dialects.openai import check_method, refuse_url
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.vectors import DIMENSIONS, DIMENSIONS_MAX, embed
from apps.providers.demo.wire import Request

# Both versions are in use: the SDKs of 2026 say v1, older ones and most others v1beta.
_ROOT: Final = re.compile("/v1(beta)?/models/?")
CALLED: Final = {
    Endpoint.GENERATE,
    Endpoint.STREAM_GENERATE,
    Endpoint.COUNT_CONTENT,
    Endpoint.EMBED_CONTENT,
    Endpoint.EMBED_CONTENTS,
}
_SAYING: Final = {Endpoint.GENERATE, Endpoint.STREAM_GENERATE}
_FINISHES: Final = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS"}
_SIGNATURE: Final = base64.b64encode(b"what the demo provider thought").decode()


def is_google_key(request: Request) -> bool:
    """Return whether the request has its key where Google wants it."""
    return "x-goog-api-key" in request.headers or "key" in parse_qs(request.query)


class GeminiDialect(DemoDialect):
    """What Google's SDKs speak: a stream is server-sent events."""

    head = (("server-timing", "gfet4t7; dur=1"),)
    usage_mark = b'"candidatesTokenCount":'
    wrong_body = b'{"candidates":{"0":null},"usageMetadata":"none"}'
    wrong_documents = (
        b'{"hello":"world"}',
        b"[]",
        b"42",
        b'{"candidates":{"0":null}}',
        b'{"candidates":[null]}',
    )

    def find_key(self, request: Request) -> str:
        """Return the key as received, empty if there is none."""
        key = request.headers.get("x-goog-api-key") or find_bearer(request)
        return key or parse_qs(request.query).get("key", [""])[-1]

    def get_endpoint(self, request: Request) -> Endpoint:
        """Return what the request calls. Raises ProviderError."""
        called = request.path.rpartition(":")[2]
        if request.method == "GET" and called not in CALLED:
            return Endpoint.MODELS
        if called not in CALLED:
            raise refuse_url(request)
        check_method(request, "POST")
        return Endpoint(called)

    def get_model(self, endpoint: Endpoint, request: Request, body: Any) -> str:
        """Return the model in the address; empty for the list of models. Raises ProviderError."""
        name = _ROOT.sub("", request.path, count=1)
        if endpoint is Endpoint.MODELS:
            return unquote(name)
        if not isinstance(body, dict):
            raise ProviderError(400, "Invalid JSON payload received.")
        return unquote(name.rpartition(":")[0])

    def answer(self, incoming: Incoming) -> Answer:
        """Return the answer to a call. Raises ProviderError."""
        match incoming.endpoint:
            case Endpoint.MODELS:
                return build_fixed(self, incoming, _list_models(incoming.model))
            case Endpoint.COUNT_CONTENT:
                return build_fixed(self, incoming, _count(incoming))
            case Endpoint.EMBED_CONTENT | Endpoint.EMBED_CONTENTS:
                return _answer_embeddings(self, incoming)
            case _:
                is_stream = incoming.endpoint is Endpoint.STREAM_GENERATE
                asked = read_generation(incoming.body, is_stream=is_stream)
                return build_answer(self, incoming, asked)

    # Answers

    def render_body(self, answer: Answer) -> bytes:
        """Return the answer as one response."""
        usage = answer.usage
        if answer.endpoint in _SAYING:
            parts = _list_parts(answer)
            candidates = [
                _render_candidate(position, parts, answer.choice.finish_reason)
                for position in range(answer.choice_count)
            ]
            return self._render(answer, candidates, usage)
        if usage is None:
            return answer.data
        told = b',"usageMetadata":' + self.render_usage(answer, usage) + b"}"
        return answer.data.removesuffix(b"}") + told

    def render_events(self, answer: Answer) -> list[Event]:
        """Return the answer as pieces of a response, the last one with the reason of the end."""
        usage = answer.usage if answer.has_usage_event else None
        events: list[Event] = []
        count = answer.choice_count
        delivered = thought = 0
        for part, tokens, thinks in _list_pieces(answer):
            for position in range(count):
                delivered += tokens
                thought += thinks
                so_far = usage and replace(usage, output=delivered, reasoning=thought)
                document = self._render(answer, [_render_candidate(position, [part])], so_far)
                is_content = "thought" not in part
                events.append(
                    self.wrap(
                        document,
                        is_first=not events,
                        tokens=tokens,
                        has_usage=so_far is not None,
                        is_content=is_content,
                    )
                )
        for position in range(count):
            candidate = _render_candidate(position, [{"text": ""}], answer.choice.finish_reason)
            is_last = position == count - 1
            events.append(
                self.wrap(
                    self._render(answer, [candidate], usage),
                    is_first=not events,
                    # Thoughts that nothing was said after.
                    tokens=(answer.output_tokens - delivered) // count,
                    has_usage=usage is not None,
                    is_finish=True,
                    is_end=is_last,
                )
            )
        return events

    def render_piece(self, answer: Answer, text: str, *, is_first: bool) -> Event:
        """Return one more piece of text, whatever is said otherwise."""
        document = self._render(answer, [_render_candidate(0, [{"text": text}])], None)
        return self.wrap(document, is_first=is_first, tokens=1, is_content=True)

    def render_usage_event(self, answer: Answer, usage: Usage, *, is_late: bool) -> Event:
        """Return a piece that has usage and no candidate."""
        return self.wrap(self._render(answer, [], usage), is_first=False, has_usage=True)

    def tell_usage(self, answer: Answer, usage: Usage) -> dict[str, Any]:
        """Return a usage in Google's words: candidates leave out the thoughts."""
        text = [{"modality": "TEXT", "tokenCount": usage.prompt}]
        if answer.endpoint not in _SAYING:
            return {"promptTokenCount": usage.prompt, "promptTokenDetails": text}
        told: dict[str, Any] = {
            "promptTokenCount": usage.prompt,
            "candidatesTokenCount": usage.output - usage.reasoning,
            "totalTokenCount": usage.prompt + usage.output,
        }
        if usage.cached:
            told["cachedContentTokenCount"] = usage.cached
            told["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": usage.cached}]
        if usage.reasoning:
            told["thoughtsTokenCount"] = usage.reasoning
        return told | {"promptTokensDetails": text}

    def wrap(self, document: bytes, *, is_first: bool, **flags: Any) -> Event:
        """Return a document as the next piece of a stream."""
        return Event(b"data: %b\r\n\r\n" % document, **flags)

    def _render(self, answer: Answer, candidates: list[Any], usage: Usage | None) -> bytes:
        document: dict[str, Any] = {"candidates": candidates} if candidates else {}
        if usage is not None:
            document["usageMetadata"] = orjson.Fragment(self.render_usage(answer, usage))
        document |= {"modelVersion": answer.model, "responseId": ID_MARK.decode()}
        return orjson.dumps(document)

    # Errors

    def refuse_key(self, received: str) -> ProviderError:
        """Return the refusal of a wrong or missing key: 400 or 403, as Google's are."""
        return refuse_google_key(received)

    def render_error(self, error: ProviderError) -> bytes:
        """Return the JSON body of a refusal."""
        return render_google_error(error)

    def list_error_headers(self, error: ProviderError) -> Headers:
        """Return nothing: Google tells in the body when to come again."""
        return ()

    def render_overload(self) -> bytes:
        """Return the document by which an answer that has begun says that it failed."""
        overloaded = "The model is overloaded. Please try again later."
        return render_google_error(ProviderError(503, overloaded))

    def render_error_event(self, answer: Answer, *, is_first: bool) -> Event:
        """Return the error as Google sends it amid events: lines of JSON that are no event."""
        return Event(self.render_overload())


class GeminiArrayDialect(GeminiDialect):
    """The same where no events are asked for: the pieces are the items of one JSON array."""

    stream_type = "application/json; charset=UTF-8"

    def wrap(self, document: bytes, *, is_first: bool, **flags: Any) -> Event:
        """Return a document as the next item."""
        return Event((b"[" if is_first else b",\r\n") + document, **flags)

    def render_events(self, answer: Answer) -> list[Event]:
        """Return the answer as items, and the end of their array."""
        items = super().render_events(answer)
        return [*items[:-1], replace(items[-1], is_end=False), Event(b"\r\n]", is_end=True)]

    def render_error_event(self, answer: Answer, *, is_first: bool) -> Event:
        """Return the error as the last item."""
        item = self.wrap(self.render_overload(), is_first=is_first)
        return replace(item, data=item.data + b"]")


def _render_candidate(position: int, parts: list[Any], finish: str = "") -> dict[str, Any]:
    content = {"parts": parts, "role": "model"} if parts else {"role": "model"}
    reason = {"finishReason": _FINISHES[finish]} if finish else {}
    return {"content": content, **reason, "index": position}


def _list_parts(answer: Answer) -> list[dict[str, Any]]:
    """Return the parts of a whole answer."""
    choice, thoughts = answer.choice, answer.thoughts
    parts: list[dict[str, Any]] = []
    if thoughts:
        parts.append({"text": "".join(thoughts), "thought": True})
    if choice.tool is not None:
        parts.append(_render_call(answer))
    elif choice.pieces:
        parts.append({"text": choice.text})
    return parts


def _list_pieces(answer: Answer) -> list[tuple[dict[str, Any], int, int]]:
    """Return the parts of a stream, each with its tokens and how many of them were thinking.

    Thoughts that are not shown come with the first part. A call of a function comes whole.
    """
    choice, thoughts = answer.choice, answer.thoughts
    pieces = [({"text": thought, "thought": True}, 1, 1) for thought in thoughts]
    hidden = 0 if thoughts else answer.reasoning_tokens
    if choice.tool is not None:
        return [*pieces, (_render_call(answer), choice.tokens + hidden, hidden)]
    said = [({"text": piece}, 1, 0) for piece in choice.pieces]
    if said and hidden:
        said[0] = (said[0][0], 1 + hidden, hidden)
    return [*pieces, *said]


def _render_call(answer: Answer) -> dict[str, Any]:
    """Return the part that calls a function; its arguments are empty where they were cut."""
    try:
        arguments = orjson.loads(answer.choice.text)
    except orjson.JSONDecodeError:
        arguments = {}
    call = {"functionCall": {"name": answer.choice.tool, "args": arguments}}
    # What was thought has to come back with the call.
    return call | ({"thoughtSignature": _SIGNATURE} if answer.reasoning_tokens else {})


def _list_models(model: str) -> bytes:
    entries = [
        {
            "name": f"models/{name}",
            "version": "001",
            "displayName": name,
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": sorted(CALLED),
        }
        for name in ([model] if model else MODELS)
    ]
    return orjson.dumps(entries[0] if model else {"models": entries})


def _count(incoming: Incoming) -> bytes:
    body, wanted = incoming.body, incoming.options.prompt
    asked = take(body, "generateContentRequest")
    counted = count_prompt(asked if isinstance(asked, dict) else body)
    total = counted if wanted is None else wanted
    details = [{"modality": "TEXT", "tokenCount": total}]
    return orjson.dumps({"totalTokens": total, "promptTokensDetails": details})


def _answer_embeddings(dialect: DemoDialect, incoming: Incoming) -> Answer:
    """Return the vector of a content, or one for each of a batch. Raises ProviderError."""
    is_batch = incoming.endpoint is Endpoint.EMBED_CONTENTS
    requests = incoming.body.get("requests") if is_batch else [incoming.body]
    if not isinstance(requests, list) or not 1 <= len(requests) <= EMBEDDINGS_MAX:
        message = f"* BatchEmbedContentsRequest.requests: at most {EMBEDDINGS_MAX} requests"
        raise ProviderError(400, message, param="requests")
    texts = []
    vectors = []
    for request in requests:
        asked = request if isinstance(request, dict) else {}
        texts.append(read_text(asked.get("content")))
        dimensions = read_dimensions(asked, DIMENSIONS_MAX) or DIMENSIONS
        vectors.append({"values": embed(texts[-1], dimensions).tolist()})
    data = {"embeddings": vectors} if is_batch else {"embedding": vectors[0]}
    wanted = incoming.options.prompt
    prompt = sum(count_tokens(len(text)) for text in texts) if wanted is None else wanted
    return build_fixed(dialect, incoming, orjson.dumps(data), prompt=prompt, has_usage=True)
