"""Whole answers in OpenAI's dialect: what they hold, and how they look as a stream."""

from collections.abc import Callable
from typing import Any, Final

import orjson

from apps.core.errors import GatewayError
from apps.proxy.dialects.metered_answer import MeteredAnswer, load_answer
from apps.proxy.dialects.openai_spoken import spoken_ids
from apps.proxy.dialects.openai_usage import parse_input_usage, parse_usage
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.dialects.stream_meter import clean_label
from apps.proxy.estimate import Excerpt, excerpt
from apps.proxy.media import spoken_tokens

_TEXT_MEMBERS: Final = ("content", "refusal")
# Sent twice by some servers, under both names.
_REASONING_MEMBERS: Final = ("reasoning_content", "reasoning")
_CONTENT_MEMBERS: Final = (
    *_TEXT_MEMBERS,
    *_REASONING_MEMBERS,
    "audio",
    "function_call",
    "images",
    "tool_calls",
)


def read_answer(endpoint: Endpoint, body: bytes) -> MeteredAnswer:
    """Return what an answer to this endpoint holds; raises E49 if it is no such answer."""
    if endpoint == "chat/completions":
        return read_chat_answer(body)
    if endpoint == "completions":
        return read_completion_answer(body)
    return read_list_answer(endpoint, body)


def read_chat_answer(body: bytes) -> MeteredAnswer:
    """Return what a chat completion holds; raises E49 if it is none."""
    document = load_answer(body)
    choices = _objects(document, "choices")
    messages = [choice.get("message") for choice in choices]
    present = [message for message in messages if isinstance(message, dict)]
    if len(present) != len(messages):
        raise GatewayError("E49")
    has_content = any(message.get(name) for message in present for name in _CONTENT_MEMBERS)
    # Hardly any answer is spoken or holds images, and to look into its bytes is quicker.
    is_spoken = b'"audio"' in body and any(message.get("audio") for message in present)
    return _answer(
        document,
        choices,
        has_content=has_content,
        excerpts=lambda: [part for message in present for part in _message_excerpts(message)],
        images=sum(_count_images(message.get("images")) for message in present)
        if b'"images"' in body
        else 0,
        count_spoken=(lambda: sum(_spoken_tokens(message.get("audio")) for message in present))
        if is_spoken
        else None,
        stored_ids=spoken_ids(present) if is_spoken else (),
    )


def read_completion_answer(body: bytes) -> MeteredAnswer:
    """Return what a completion holds; raises E49 if it is none."""
    document = load_answer(body)
    choices = _objects(document, "choices")
    texts = [choice.get("text") for choice in choices]
    present = [text for text in texts if isinstance(text, str)]
    if len(present) != len(texts):
        raise GatewayError("E49")
    return _answer(
        document,
        choices,
        has_content=any(present),
        excerpts=lambda: [excerpt(text) for text in present],
    )


def read_list_answer(endpoint: Endpoint, body: bytes) -> MeteredAnswer:
    """Return what embeddings, a moderation or a ranking hold; raises E49 if they are none."""
    document = load_answer(body)
    name = "data" if endpoint == "embeddings" or "results" not in document else "results"
    if not all(_IS_ITEM[endpoint](item) for item in _objects(document, name)):
        raise GatewayError("E49")
    usage, is_reported = parse_input_usage(document)
    return MeteredAnswer(
        usage=usage,
        is_usage_unusable=usage is None and is_reported,
        finish_reason=None,
        has_content=True,
        excerpts=list,
        document=document,
        service_tier=clean_label(document.get("service_tier")),
    )


# Whether something is a part of an answer, by what was asked.
_IS_ITEM: Final[dict[str, Callable[[dict[str, Any]], bool]]] = {
    "embeddings": lambda item: isinstance(item.get("embedding"), list | str),
    "moderations": lambda item: isinstance(item.get("flagged"), bool),
    "rerank": lambda item: type(item.get("index")) is int,
}


def _objects(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a member that must be an array of at least one object."""
    items = document.get(name)
    if not isinstance(items, list) or not items:
        raise GatewayError("E49")
    if not all(isinstance(item, dict) for item in items):
        raise GatewayError("E49")
    return items


def _answer(
    document: dict[str, Any],
    choices: list[dict[str, Any]],
    *,
    has_content: bool,
    excerpts: Callable[[], list[Excerpt]],
    images: int = 0,
    count_spoken: Callable[[], int] | None = None,
    stored_ids: tuple[str, ...] = (),
) -> MeteredAnswer:
    reported = document.get("usage")
    usage = parse_usage(reported)
    reasons = (clean_label(choice.get("finish_reason")) for choice in choices)
    return MeteredAnswer(
        usage=usage,
        is_usage_unusable=usage is None and reported is not None,
        finish_reason=next((reason for reason in reasons if reason), None),
        has_content=has_content,
        excerpts=excerpts,
        document=document,
        choices=len(choices),
        characters=sum(_count_characters(choice) for choice in choices),
        images=images,
        count_spoken=count_spoken,
        stored_ids=stored_ids,
        service_tier=clean_label(document.get("service_tier")),
    )


def _count_characters(choice: dict[str, Any]) -> int:
    """Return the length of what a choice says in plain text."""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return len(text) if isinstance(text, str) else 0


def _count_images(images: object) -> int:
    """Return how many images a message brings, beside its text (OpenRouter)."""
    return sum(isinstance(image, dict) for image in images) if isinstance(images, list) else 0


def _spoken_tokens(audio: object) -> int:
    """Return how many tokens a sound took, by its length."""
    data = audio.get("data") if isinstance(audio, dict) else None
    return spoken_tokens(data) if isinstance(data, str) else 0


def _message_excerpts(message: dict[str, Any]) -> list[Excerpt]:
    """Return all that a message says."""
    said = [part for name in _TEXT_MEMBERS for part in _excerpts(message.get(name))]
    said += max(
        (_excerpts(message.get(name), is_thought=True) for name in _REASONING_MEMBERS),
        key=lambda parts: sum(part.quarters for part in parts),
    )
    audio = message.get("audio")
    if isinstance(audio, dict):
        said += _excerpts(audio.get("transcript"))
    calls = message.get("tool_calls")
    functions = [
        call.get("function")
        for call in (calls if isinstance(calls, list) else ())
        if isinstance(call, dict)
    ]
    for function in (*functions, message.get("function_call")):
        if isinstance(function, dict):
            said += _excerpts(function.get("name")) + _excerpts(function.get("arguments"))
    return said


def _excerpts(content: object, *, is_thought: bool = False) -> list[Excerpt]:
    """Return a text, or the texts of an array of parts, which may hold thoughts (Mistral)."""
    if isinstance(content, str):
        return [excerpt(content, is_thought=is_thought)]
    found: list[Excerpt] = []
    for part in content if isinstance(content, list) else ():
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str):
            found.append(excerpt(text, is_thought=is_thought))
        elif isinstance(part, dict) and not is_thought:
            found += _excerpts(part.get("thinking"), is_thought=True)
    return found


def answer_to_sse(
    endpoint: Endpoint, document: dict[str, Any], *, include_usage: bool
) -> list[bytes]:
    """Return the events of a whole answer that `read_answer` took for this endpoint, for a client
    that asked for a stream (E50).

    The last one is [DONE]. What the provider calls the document does not count.
    """
    is_chat = endpoint == "chat/completions"
    common: dict[str, Any] = {
        name: document[name]
        for name in ("id", "created", "model", "system_fingerprint", "service_tier")
        if name in document
    }
    common["object"] = "chat.completion.chunk" if is_chat else "text_completion"
    contents: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    for position, choice in enumerate(document["choices"]):
        index = choice.get("index", position)
        reason = choice.get("finish_reason")
        if is_chat:
            contents.append(_chat_choice(index, choice))
            ends.append({"index": index, "delta": {}, "finish_reason": reason})
        else:
            contents.append(
                {
                    "index": index,
                    "text": choice.get("text", ""),
                    "logprobs": choice.get("logprobs"),
                    "finish_reason": None,
                }
            )
            ends.append({"index": index, "text": "", "logprobs": None, "finish_reason": reason})
    chunks = [common | {"choices": [choice]} for choice in (*contents, *ends)]
    if include_usage:
        for chunk in chunks:
            chunk["usage"] = None
        chunks.append(common | {"choices": [], "usage": document.get("usage")})
    return [*(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


def _chat_choice(index: object, choice: dict[str, Any]) -> dict[str, Any]:
    delta = dict(choice["message"])
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        # In a stream each tool call carries its position.
        delta["tool_calls"] = [
            {"index": position} | call if isinstance(call, dict) else call
            for position, call in enumerate(calls)
        ]
    return {
        "index": index,
        "delta": delta,
        "logprobs": choice.get("logprobs"),
        "finish_reason": None,
    }
