"""Embeddings in Google's dialect: one content, or a batch of them.

What is not text is refused by name: how many tokens it takes is nowhere bounded.

Source: https://ai.google.dev/api/embeddings
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.proxy.dialects.gemini_parameters import GoogleParameters, member
from apps.proxy.dialects.gemini_usage import parse_gemini_usage
from apps.proxy.dialects.metered_answer import MeteredAnswer, load_answer
from apps.proxy.dialects.openai_refusals import above, missing, unsupported, wrong_value
from apps.proxy.dialects.parsed_request import Endpoint, ParsedRequest
from apps.proxy.dialects.request_fields import keep_allowed, read_model

ENDPOINTS: Final[frozenset[Endpoint]] = frozenset({"batchEmbedContents", "embedContent"})
# The most that Google takes at once.
TEXTS_MAX: Final = 100
_COLLECTION: Final = "models/"
_PLAIN: Final = frozenset(
    {
        "content", "embedContentConfig", "model", "outputDimensionality", "output_dimensionality",
        "requests", "taskType", "task_type", "title",
    }
)  # fmt: skip
_TEMPLATE_TOKENS: Final = 64


def parse_request(endpoint: Endpoint, body: dict[str, Any]) -> ParsedRequest:
    """Return what a request asks for. Raises E13 and E14 with the parameter at fault."""
    kept = body if body.keys() <= _PLAIN else keep_allowed(body, _PLAIN)
    model = read_model(kept)
    given = GoogleParameters(kept)
    asked = given.objects("requests") if endpoint == "batchEmbedContents" else [given]
    if not asked:
        raise missing("requests")
    if len(asked) > TEXTS_MAX:
        raise above("requests", TEXTS_MAX)
    for request in asked:
        named = request.text("model")
        if named is not None and named.removeprefix(_COLLECTION) != model:
            raise wrong_value(request.name("model"), "the model of the path")
        for part in request.require_object("content").objects("parts"):
            part.require_text("text")
            for name in part.names():
                if name != "text":
                    raise unsupported(part.name(name))
    return ParsedRequest(
        endpoint=endpoint,
        model=model,
        is_stream=False,
        include_usage=True,
        choices=1,
        output_tokens_asked=None,
        output_parameter=None,
        has_images=False,
        has_audio=False,
        body=kept,
        dialect="gemini",
    )


def input_tokens_bound(body: Mapping[str, Any], serialised: bytes, context_length: int) -> int:
    """Return a number of tokens that the input of this request cannot exceed: a token is at least
    one byte of text, and no text is read beyond the context.
    """
    count = sum(1 for _ in texts_of(body))
    return min(len(serialised) + count * _TEMPLATE_TOKENS, count * context_length)


def texts_of(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield each text that is read for itself."""
    requests = body.get("requests")
    for request in requests if isinstance(requests, list) else [body]:
        yield "".join(part["text"] for part in request["content"].get("parts") or ())


def sent_body(body: Mapping[str, Any], upstream_model: str) -> dict[str, Any]:
    """Return a body as its provider gets it, where each request of a batch names the model."""
    sent = {name: value for name, value in body.items() if name != "model"}
    name = upstream_model if "/" in upstream_model else _COLLECTION + upstream_model
    if "requests" in sent:
        sent["requests"] = [{**request, "model": name} for request in sent["requests"]]
    return sent


def read_embeddings(endpoint: Endpoint, body: bytes) -> MeteredAnswer:
    """Return what embeddings hold; raises E49 if they are none."""
    document = load_answer(body)
    found = (
        document.get("embeddings")
        if endpoint == "batchEmbedContents"
        else [document.get("embedding")]
    )
    if not isinstance(found, list) or not all(map(_is_vector, found)):
        raise GatewayError("E49")
    reported = member(document, "usageMetadata")
    # There is nothing but a prompt, and what is not written need not be told.
    usage = (
        parse_gemini_usage({"candidatesTokenCount": 0, **reported})
        if isinstance(reported, dict)
        else None
    )
    return MeteredAnswer(
        usage=usage,
        is_usage_unusable=usage is None and reported is not None,
        finish_reason=None,
        has_content=True,
        excerpts=list,
        document=document,
    )


def _is_vector(found: object) -> bool:
    return isinstance(found, dict) and isinstance(found.get("values"), list)
