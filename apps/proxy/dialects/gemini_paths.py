"""Paths of Google's Gemini API, which hold the model and what is asked of it.

Paths come decoded. Sources: https://ai.google.dev/api/generate-content,
https://ai.google.dev/api/tokens and https://ai.google.dev/api/models
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, get_args
from urllib.parse import parse_qsl

from apps.providers.questions import name_below_google
from apps.proxy.dialects.openai_refusals import unsupported, wrong_value
from apps.proxy.dialects.request_fields import MODEL_NAME_LENGTH_MAX

Method = Literal[
    "generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents"
]
Form = Literal["json", "sse"]
_FORMS: Final[dict[str, Form]] = {form: form for form in get_args(Form)}
_METHODS: Final[dict[str, Method]] = {method: method for method in get_args(Method)}
# Under these nothing else is offered; Google's first version has the prefix that others have, too.
GEMINI_PREFIXES: Final = ("/v1beta", "/api/v1beta")
_MODELS: Final = tuple(f"{prefix}/models" for prefix in (*GEMINI_PREFIXES, "/v1", "/api/v1"))
_EVENTS: Final = b"alt=sse"
# By these Google leaves parts of an answer out, or has it run as a script.
# Source: https://docs.cloud.google.com/apis/docs/system-parameters
_SHAPING: Final = ("fields", "$fields", "callback", "$callback")
_COLLECTION: Final = "models/"
# Of providers: one for each of their models and what is asked of it.
_PATHS_MAX: Final = 4_096
_NAME: Final = re.compile(r"[^?#\x00-\x1f\x7f]+")
# What a model that writes does, and one that only makes vectors.
_GENERATING: Final[tuple[Method, ...]] = ("generateContent", "streamGenerateContent", "countTokens")
_EMBEDDING: Final[tuple[Method, ...]] = ("embedContent", "batchEmbedContents", "countTokens")
_EMBEDS: Final = re.compile(
    r"embed|(?:^|/)(?:bge|e5|gte|m3e|multilingual-e5|voyage)[-_.\d](?!.*rerank)", re.IGNORECASE
)


class GeminiPath(NamedTuple):
    """What a path asks of a model."""

    model: str  # as the client has it, without `models/`
    method: Method


def find_gemini_path(path: str) -> GeminiPath | None:
    """Return what a path asks of a model, None where it is none of these."""
    rest = _below_models(path)
    if not rest:
        return None
    # Names may hold a colon themselves, methods never.
    name, _, method = rest.rpartition(":")
    known = _METHODS.get(method)
    return GeminiPath(name, known) if known is not None and _is_name(name) else None


def find_listed_model(path: str) -> str | None:
    """Return which model a path describes, "" where it lists all; None where it is no such path."""
    rest = _below_models(path)
    return rest if rest is None or rest == "" or _is_name(rest) else None


def _below_models(path: str) -> str | None:
    """Return what follows the collection of models in a path, None where it is not of it."""
    for prefix in _MODELS:
        if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
            return path[len(prefix) + 1 :].removesuffix("/")
    return None


def _is_name(text: str) -> bool:
    return len(text) <= MODEL_NAME_LENGTH_MAX and _NAME.fullmatch(text) is not None


def read_form(query: bytes) -> Form:
    """Return the form of an answer that a query asks for: of a stream, one array or events.

    Raises E13 and E14 for what would make another answer of Google's.
    """
    if query == _EVENTS:
        return "sse"  # As nearly all say it.
    given = dict(parse_qsl(query.decode("latin-1")))
    for name in _SHAPING:
        if name in given:
            raise unsupported(name)
    form = _FORMS.get(given.get("alt", given.get("$alt", "json")))
    if form is None:
        raise wrong_value("alt", "json or sse")
    return form


@lru_cache(maxsize=_PATHS_MAX)
def upstream_path(model: str, method: str = "generateContent", *, is_stream: bool = False) -> str:
    """Return the path below the base URL of a provider; streams are always events."""
    if is_stream:
        method = "streamGenerateContent?alt=sse"
    return f"{name_below_google(model)}:{method}"


def model_document(
    name: str, *, context_length: int, max_output_tokens: int, upstream_names: Iterable[str] = ()
) -> dict[str, Any]:
    """Return a model as Google describes one; sizes are in tokens.

    What it does is told by what its providers call it, or by its own name where it has none.
    """
    names = tuple(upstream_names) or (name,)
    does = _EMBEDDING if all(_EMBEDS.search(each) for each in names) else _GENERATING
    return {
        "name": _COLLECTION + name,
        "displayName": name,
        "inputTokenLimit": context_length,
        "outputTokenLimit": max_output_tokens,
        "supportedGenerationMethods": list(does),
    }
