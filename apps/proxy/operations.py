"""What clients ask for, by path: calls in every dialect, and what may be read. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from apps.api_keys.operations import KeyOperation
from apps.proxy.dialects.gemini_paths import (
    GEMINI_PREFIXES,
    find_gemini_path,
    find_listed_model,
)
from apps.proxy.dialects.parsed_request import DialectName, Endpoint

Kind = Literal["call", "count", "model", "models", "quote", "stored", "stored_input", "usage"]
PREFIXES: Final = ("/v1", "/api/v1", *GEMINI_PREFIXES)
_BELOW: Final = tuple(f"{prefix}/" for prefix in PREFIXES)


class Operation(NamedTuple):
    """What is asked for. Errors are told in its dialect."""

    kind: Kind
    dialect: DialectName = "openai"
    endpoint: Endpoint = "chat/completions"  # of calls, and of what is counted of one
    model: str = ""  # where the path names it
    is_stream: bool = False  # the same
    response_id: str = ""  # of a stored answer

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods by which it is asked for."""
        return _METHODS.get(self.kind, ("POST",))

    @property
    def may_name_method(self) -> bool:
        """Whether a POST asks by it for what Google's models do, and what is not offered here."""
        return self.kind == "model" and ":" in self.model

    @property
    def key_operation(self) -> KeyOperation:
        """What a key has to be allowed for it."""
        return _OF_KINDS.get(self.kind) or _OF_ENDPOINTS[self.endpoint]


_METHODS: Final[dict[Kind, tuple[str, ...]]] = {
    "model": ("GET", "HEAD"),
    "models": ("GET", "HEAD"),
    "stored": ("GET", "DELETE"),
    "stored_input": ("GET",),
    "usage": ("GET", "HEAD"),
}
# What a key can be narrowed to. A call, the count of its input and its stored answer go together.
_OF_KINDS: Final[dict[Kind, KeyOperation]] = {
    "model": "models",
    "models": "models",
    "quote": "quote",
    "usage": "usage",
}
_OF_ENDPOINTS: Final[dict[Endpoint, KeyOperation]] = {
    "batchEmbedContents": "embeddings",
    "chat/completions": "chat",
    "completions": "completions",
    "embedContent": "embeddings",
    "embeddings": "embeddings",
    "generateContent": "chat",
    "messages": "chat",
    "moderations": "moderations",
    "rerank": "rerank",
    "responses": "chat",
}
_BY_PATH: Final[dict[str, Operation]] = {
    "chat/completions": Operation("call"),
    "completions": Operation("call", endpoint="completions"),
    "embeddings": Operation("call", endpoint="embeddings"),
    "messages": Operation("call", "anthropic", "messages"),
    "messages/count_tokens": Operation("count", "anthropic", "messages"),
    "models": Operation("models"),
    "moderations": Operation("call", endpoint="moderations"),
    "quote": Operation("quote"),
    "rerank": Operation("call", endpoint="rerank"),
    "responses": Operation("call", "openai-responses", "responses"),
    "responses/input_tokens": Operation("count", "openai-responses", "responses"),
    "usage": Operation("usage"),
}


# An id stands in a path of the provider's, too. OpenAI's begin with a mark; others are long.
_STORED: Final = re.compile(
    r"responses/(resp_[A-Za-z0-9_-]{1,128}|[A-Za-z0-9_-]{16,128})(/input_items)?", re.ASCII
)
# Headers by which an SDK can be told from others.
_TOLD_BY: Final[dict[bytes, DialectName]] = {
    b"anthropic-version": "anthropic",
    b"x-goog-api-key": "gemini",
}

CALLS: Final = {path: found for path, found in _BY_PATH.items() if found.kind == "call"}
"""What is held and charged, by its path below the prefix."""


def is_operation_path(path: str) -> bool:
    """Return whether a path is below one of the prefixes, or one itself."""
    return path.startswith(_BELOW) or path in PREFIXES


def find_operation(path: str) -> Operation | None:
    """Return what a path asks for, None where nothing is offered there."""
    asked = find_gemini_path(path) if ":" in path else None
    if asked is not None:
        if asked.method == "embedContent" or asked.method == "batchEmbedContents":
            return Operation("call", "gemini", asked.method, asked.model)
        kind: Kind = "count" if asked.method == "countTokens" else "call"
        is_stream = asked.method == "streamGenerateContent"
        return Operation(kind, "gemini", "generateContent", asked.model, is_stream)
    if path.startswith(GEMINI_PREFIXES):
        model = find_listed_model(path)
        if model is None:
            return None
        return Operation("model" if model else "models", "gemini", model=model)
    rest = _rest_of(path)
    found = _BY_PATH.get(rest)
    if found is None and rest.startswith("models/"):
        return Operation("model", model=rest.removeprefix("models/"))
    if found is None and (stored := _STORED.fullmatch(rest)) is not None:
        kind = "stored_input" if stored[2] else "stored"
        return Operation(kind, "openai-responses", "responses", response_id=stored[1])
    return found


def dialect_of(path: str, headers: Iterable[tuple[bytes, bytes]]) -> DialectName:
    """Return the dialect in which whatever stands at a path is answered.

    Several SDKs ask for models at the same path: Anthropic's tells its version, Google's has a
    header of its own for the key.
    """
    if path.startswith(GEMINI_PREFIXES) or find_gemini_path(path) is not None:
        return "gemini"
    head = _rest_of(path).partition("/")[0]
    if head == "messages":
        return "anthropic"
    if head == "models":
        return next((_TOLD_BY[name] for name, _ in headers if name in _TOLD_BY), "openai")
    return "openai"


def recorded_path(path: str, operation: Operation) -> str:
    """Return a path as it is recorded: what names a model there is told elsewhere."""
    if not operation.model:
        return path
    head, _, method = path.rpartition(":")
    return f"{head[: head.index('/models/')]}/models/{{model}}:{method}"


def _rest_of(path: str) -> str:
    """Return a path below its prefix, without a slash at the end."""
    return path.removeprefix("/api").removeprefix("/v1").removeprefix("/").removesuffix("/")
