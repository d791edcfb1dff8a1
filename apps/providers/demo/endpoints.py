"""From a request body to an `Answer`: checked as OpenAI checks it, deterministic.

Raises ProviderError for what OpenAI would refuse.
"""

from __future__ import annotations

import base64
import hashlib
import math
from array import array
from typing import Any
from urllib.parse import unquote

import orjson

from apps.providers.demo.answers import CREATED, Answer, Choice, Endpoint, make_pieces, render_usage
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.forced import find_forced
from apps.providers.demo.images import count_image
from apps.providers.demo.options import DEFAULT_TOKENS, OptionError, Options, parse_model_name
from apps.providers.demo.wire import Request

CHOICES_MAX = 128
EMBEDDING_INPUTS_MAX = 2048
EMBEDDING_DIMENSIONS = 1536
EMBEDDING_DIMENSIONS_MAX = 4096
PIECE_CHARACTERS = 4
MODELS = ("demo-chat", "demo-embedding")

_NO_CHOICE = Choice((), "stop")


def find_endpoint(request: Request) -> Endpoint:
    """Return what the request calls, with or without `/v1`. Raises ProviderError."""
    path = request.path.removeprefix("/v1").removeprefix("/")
    if path == "models" or path.startswith("models/"):
        endpoint, method = Endpoint.MODELS, "GET"
    elif path in _POSTED:
        endpoint, method = Endpoint(path), "POST"
    else:
        raise ProviderError(
            404, f"Invalid URL ({request.method} {request.path})", code="unknown_url"
        )
    if request.method != method:
        raise ProviderError(
            405, f"Not allowed to {request.method} on {request.path}.", code="method_not_supported"
        )
    return endpoint


_POSTED = set(Endpoint) - {Endpoint.MODELS}


def find_model(endpoint: Endpoint, request: Request, body: Any) -> str:
    """Return the model that was asked for; empty for the list of models. Raises ProviderError."""
    if endpoint is Endpoint.MODELS:
        return unquote(request.path.partition("/models")[2].removeprefix("/"))
    if not isinstance(body, dict):
        raise ProviderError(400, "We could not parse the JSON body of your request.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise ProviderError(400, "you must provide a model parameter", param="model")
    return model


def parse_options(model: str) -> Options:
    """Return the options in the model name. Raises ProviderError."""
    try:
        return parse_model_name(model)
    except OptionError as error:
        message = f"The demo provider does not know this model name: {error}."
        raise ProviderError(400, message, code="invalid_demo_option", param="model") from error


def build_answer(endpoint: Endpoint, model: str, options: Options, body: Any) -> Answer:
    """Return the answer to a call. Raises ProviderError."""
    if endpoint is Endpoint.MODELS:
        return _build_models(model)
    if endpoint is Endpoint.EMBEDDING:
        return _build_embeddings(model, options, body)
    if endpoint is Endpoint.MODERATION:
        return _build_moderations(model, body)
    if endpoint is Endpoint.RERANK:
        return _build_ranking(model, options, body)
    is_chat = endpoint is Endpoint.CHAT
    is_stream = _check_stream(body)
    asked = bool(isinstance(body.get("stream_options"), dict)) and (
        body["stream_options"].get("include_usage") is True
    )
    prompt = _count_chat_prompt(body) if is_chat else 0
    prompts = 1
    if not is_chat:
        inputs = _list_inputs(body.get("prompt", ""), "prompt")
        prompts = len(inputs)
        prompt = sum(_count_input(item) for item in inputs)
    prompt = options.prompt if options.prompt is not None else prompt
    choice, reasoning = _build_choice(options, body, is_chat=is_chat)
    count = prompts * (_read_count(body, "n", CHOICES_MAX) or 1)
    cached = min(options.cached, prompt)
    output = (choice.tokens + reasoning) * count
    usage = render_usage(prompt, cached, output, reasoning * count)
    return Answer(
        endpoint=endpoint,
        model=model,
        is_stream=is_stream,
        choice=choice,
        choice_count=count,
        prompt_tokens=prompt,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        usage=None if options.usage == "off" else usage,
        has_usage_event=options.usage == "always" or (asked and options.usage == "on"),
        has_null_usage=asked and options.usage != "off",
        service_tier=_read_tier(body),
    )


def _read_tier(body: dict[str, Any]) -> str:
    """Return the service tier that is served: the one asked for, but for what means the usual."""
    tier = body.get("service_tier")
    return tier if isinstance(tier, str) and tier not in ("", "auto") else "default"


def _check_stream(body: dict[str, Any]) -> bool:
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ProviderError(400, "Invalid type for 'stream': expected a boolean.", param="stream")
    if body.get("stream_options") is not None and stream is not True:
        raise ProviderError(
            400,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    return stream is True


def _read_count(body: dict[str, Any], name: str, maximum: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
        message = f"Invalid value for '{name}': expected an integer from 1 to {maximum}."
        raise ProviderError(400, message, code="invalid_value", param=name)
    return value


def _count_chat_prompt(body: dict[str, Any]) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ProviderError(
            400, "Invalid 'messages': expected a list with a message.", param="messages"
        )
    characters = images = 0
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            param = f"messages[{position}]"
            raise ProviderError(400, f"Invalid '{param}': a role is missing.", param=param)
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
        elif isinstance(content, list):
            parts = [part for part in content if isinstance(part, dict)]
            texts = [part.get("text") for part in parts]
            characters += sum(len(text) for text in texts if isinstance(text, str))
            images += sum(count_image(part["image_url"]) for part in parts if "image_url" in part)
    if body.get("tools"):
        characters += len(orjson.dumps(body["tools"]))
    return max(1, math.ceil(characters / PIECE_CHARACTERS)) + images


def _build_choice(options: Options, body: dict[str, Any], *, is_chat: bool) -> tuple[Choice, int]:
    """Return what is said and the reasoning tokens spent before it, cut at the maximum."""
    limits = [_read_count(body, name, 2**31) for name in ("max_tokens", "max_completion_tokens")]
    maximum = min((limit for limit in limits if limit is not None), default=2**31)
    forced = find_forced(body, calls_tools=options.tools == "on") if is_chat else None
    if forced is not None:
        tool, text, reason = forced
        pieces = _cut_into_pieces(text)
        reasoning = min(options.reasoning, maximum)
        room = max(0, maximum - reasoning - (tool is not None))
        if len(pieces) > room:
            return Choice(pieces[:room], "length", tool), _fit(reasoning, maximum, tool)
        return Choice(pieces, reason, tool), reasoning
    wanted = DEFAULT_TOKENS if options.tokens is None else options.tokens
    output = min(wanted, maximum)
    reasoning = min(options.reasoning, output)
    reason = "length" if wanted > maximum else "stop"
    return Choice(make_pieces(output - reasoning), reason), reasoning


def _fit(reasoning: int, maximum: int, tool: str | None) -> int:
    # A tool's name counts as one token, which must also stay below the maximum.
    return min(reasoning, maximum - (tool is not None))


def _cut_into_pieces(text: str) -> tuple[str, ...]:
    # At least two, so that every tool call's arguments arrive in several deltas.
    size = min(PIECE_CHARACTERS, max(1, len(text) // 2))
    return tuple(text[at : at + size] for at in range(0, len(text), size))


def _list_inputs(value: Any, name: str) -> list[Any]:
    """Return the inputs: OpenAI takes a text, texts, tokens, or lists of tokens."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and len(value) <= EMBEDDING_INPUTS_MAX:
        if all(isinstance(item, int) and not isinstance(item, bool) for item in value):
            return [value]
        if all(isinstance(item, str) for item in value) or all(
            isinstance(item, list) for item in value
        ):
            return value
    raise ProviderError(400, f"'$.{name}' is invalid.", param=name)


def _count_input(item: Any) -> int:
    return len(item) if isinstance(item, list) else math.ceil(len(item) / PIECE_CHARACTERS)


def _build_embeddings(model: str, options: Options, body: dict[str, Any]) -> Answer:
    inputs = _list_inputs(body.get("input"), "input")
    dimensions = _read_count(body, "dimensions", EMBEDDING_DIMENSIONS_MAX) or EMBEDDING_DIMENSIONS
    encoding = body.get("encoding_format", "float")
    if encoding not in {"float", "base64"}:
        raise ProviderError(400, "Invalid 'encoding_format'.", param="encoding_format")
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _embed(item, dimensions, encoding == "base64"),
        }
        for index, item in enumerate(inputs)
    ]
    prompt = sum(_count_input(item) for item in inputs)
    prompt = options.prompt if options.prompt is not None else max(1, prompt)
    usage = orjson.dumps({"prompt_tokens": prompt, "total_tokens": prompt})
    return _build_fixed(
        Endpoint.EMBEDDING,
        model,
        orjson.dumps(data),
        prompt=prompt,
        usage=None if options.usage == "off" else usage,
    )


def _build_moderations(model: str, body: dict[str, Any]) -> Answer:
    """Flag whatever says so. OpenAI reports no usage here."""
    value = body.get("input")
    inputs = value if isinstance(value, list) else [value]
    results = [
        {
            "flagged": "flag" in str(item),
            "categories": {"demo": "flag" in str(item)},
            "category_scores": {"demo": 0.99 if "flag" in str(item) else 0.01},
        }
        for item in inputs
    ]
    return _build_fixed(Endpoint.MODERATION, model, orjson.dumps(results), prompt=0, usage=None)


def _build_ranking(model: str, options: Options, body: dict[str, Any]) -> Answer:
    """Rank by how many words of the query a document has; report a total alone, as Jina does."""
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not isinstance(documents, list) or not documents:
        raise ProviderError(400, "A query and documents are needed.", param="documents")
    words = set(query.lower().split())
    texts = [str(item.get("text")) if isinstance(item, dict) else str(item) for item in documents]
    shares = [len(words & set(text.lower().split())) / max(1, len(words)) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: -shares[index])
    count = _read_count(body, "top_n", 2**31) or len(texts)
    results = [{"index": index, "relevance_score": shares[index]} for index in order[:count]]
    prompt = sum(_count_input(query) + _count_input(text) for text in texts)
    prompt = options.prompt if options.prompt is not None else max(1, prompt)
    usage = None if options.usage == "off" else orjson.dumps({"total_tokens": prompt})
    return _build_fixed(Endpoint.RERANK, model, orjson.dumps(results), prompt=prompt, usage=usage)


def _embed(item: Any, dimensions: int, is_base64: bool) -> list[float] | str:
    digest = hashlib.shake_256(orjson.dumps(item)).digest(dimensions * 2)
    raw = array("h", digest)
    length = math.sqrt(sum(number * number for number in raw)) or 1.0
    vector = array("f", (number / length for number in raw))
    if is_base64:
        return base64.b64encode(vector.tobytes()).decode()
    return vector.tolist()


def _build_models(model: str) -> Answer:
    names = [model] if model else list(MODELS)
    entries = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "demo"} for name in names
    ]
    body = entries[0] if model else {"object": "list", "data": entries}
    return _build_fixed(Endpoint.MODELS, model, orjson.dumps(body), prompt=0, usage=None)


def _build_fixed(
    endpoint: Endpoint, model: str, data: bytes, *, prompt: int, usage: bytes | None
) -> Answer:
    return Answer(
        endpoint=endpoint,
        model=model,
        is_stream=False,
        choice=_NO_CHOICE,
        choice_count=1,
        prompt_tokens=prompt,
        cached_tokens=0,
        reasoning_tokens=0,
        usage=usage,
        has_usage_event=False,
        has_null_usage=False,
        data=data,
    )
