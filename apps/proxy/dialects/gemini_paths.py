"""Paths of Google's Gemini API, which hold the model and what is asked of it.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/tokens,
https://ai.google.dev/api/embeddings and https://ai.google.dev/api/models
"""

import re
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple, get_args
from urllib.parse import parse_qsl, quote, unquote

from apps.proxy.dialects.request_fields import MODEL_NAME_LENGTH_MAX

Method = Literal["generateContent", "streamGenerateContent", "countTokens", "embedContent"]
PREFIXES: Final = ("/v1beta/models", "/v1/models", "/api/v1beta/models", "/api/v1/models")
_METHODS: Final = frozenset(get_args(Method))
_COLLECTION: Final = "models/"
_NAME: Final = re.compile(r"[^?#\x00-\x1f\x7f]+")


class GeminiPath(NamedTuple):
    """What a path asks of a model."""

    model: str  # as the client has it, without `models/`
    method: Method


def find_gemini_path(path: str) -> GeminiPath | None:
    """Return what a path asks of a model, None where it is none of these."""
    for prefix in PREFIXES:
        rest = path.removeprefix(prefix)
        if rest == path or not rest.startswith("/"):
            continue
        # Names may hold a colon themselves, methods never.
        name, _, method = rest[1:].rpartition(":")
        model = unquote(name)
        is_name = len(model) <= MODEL_NAME_LENGTH_MAX and _NAME.fullmatch(model) is not None
        known = next((known for known in get_args(Method) if known == method), None)
        return GeminiPath(model, known) if is_name and known is not None else None
    return None


def is_array(query: str) -> bool:
    """Return whether a stream is to be one JSON array: it is, unless events are asked for."""
    return dict(parse_qsl(query)).get("alt") != "sse"


def upstream_path(model: str, *, is_stream: bool) -> str:
    """Return the path below the base URL of a provider; streams are always events.

    A name with a slash names its collection itself, as tuned models and Vertex AI's do.
    """
    name = model if "/" in model else _COLLECTION + model
    method = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
    return f"{quote(name, safe='/@.-_~')}:{method}"


class ListedModel(NamedTuple):
    """A model as clients are told of it."""

    name: str
    context_length: int  # tokens
    max_output_tokens: int


def model_document(model: ListedModel) -> dict[str, Any]:
    """Return a model in Google's shape."""
    return {
        "name": _COLLECTION + model.name,
        "baseModelId": model.name,
        "version": "",
        "displayName": model.name,
        "inputTokenLimit": model.context_length,
        "outputTokenLimit": model.max_output_tokens,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent"],
    }


def model_list(models: Iterable[ListedModel]) -> dict[str, Any]:
    """Return all models in Google's shape, on one page."""
    return {"models": [model_document(model) for model in models]}
