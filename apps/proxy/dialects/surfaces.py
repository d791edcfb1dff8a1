"""What clients can call, each endpoint in its dialect: requests as they are admitted. Pure."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.proxy.dialects import (
    anthropic_request,
    gemini_request,
    openai_request,
    openai_upstream,
    responses_request,
)
from apps.proxy.dialects.gemini_request_reader import counted_request
from apps.proxy.dialects.parsed_request import DialectName, Endpoint, ParsedRequest

_Bound = Callable[[ParsedRequest, bytes, int, int], int]


def _openai_bound(
    request: ParsedRequest, serialised: bytes, context_length: int, image_tokens_max: int
) -> int:
    return openai_upstream.input_tokens_bound(
        request.endpoint, request.body, serialised, context_length, image_tokens_max
    )


def _anthropic_bound(
    request: ParsedRequest, serialised: bytes, context_length: int, image_tokens_max: int
) -> int:
    return anthropic_request.input_tokens_bound(
        request.body, serialised, context_length, image_tokens_max
    )


def _gemini_bound(
    request: ParsedRequest, serialised: bytes, context_length: int, image_tokens_max: int
) -> int:
    return gemini_request.input_tokens_bound(
        request.body, serialised, context_length, image_tokens_max
    )


def _responses_bound(
    request: ParsedRequest, serialised: bytes, context_length: int, image_tokens_max: int
) -> int:
    return responses_request.input_tokens_bound(
        request.body, serialised, context_length, image_tokens_max
    )


_PARSERS: Final[dict[DialectName, Callable[[Endpoint, dict[str, Any]], ParsedRequest]]] = {
    "anthropic": anthropic_request.parse_request,
    "gemini": gemini_request.parse_request,
    "openai": openai_request.parse_request,
    "openai-responses": responses_request.parse_request,
}
_BOUNDS: Final[dict[DialectName, _Bound]] = {
    "anthropic": _anthropic_bound,
    "gemini": _gemini_bound,
    "openai": _openai_bound,
    "openai-responses": _responses_bound,
}


# What of a client's own headers goes on to a provider of the same dialect: names of versions.
_OWN_HEADERS: Final[dict[DialectName, tuple[str, ...]]] = {
    "anthropic": ("anthropic-version", "anthropic-beta"),
}
_HEADER_VALUE: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._, -]{0,1023}")


def headers_for(
    dialect: DialectName, headers: Mapping[bytes, bytes]
) -> tuple[tuple[str, str], ...]:
    """Return the headers of a client that go to a provider of its dialect. Raises E13."""
    found: list[tuple[str, str]] = []
    for name in _OWN_HEADERS.get(dialect, ()):
        value = headers.get(name.encode())
        if not value:
            continue
        if _HEADER_VALUE.fullmatch(value) is None:
            raise GatewayError("E13", param=name, message=f"The header {name} names no version.")
        found.append((name, value.decode("ascii")))
    return tuple(found)


def parse_request(endpoint: Endpoint, dialect: DialectName, body: dict[str, Any]) -> ParsedRequest:
    """Return what a request asks for. Raises E13 and E14 with the parameter at fault."""
    return _PARSERS[dialect](endpoint, body)


def complete_count(dialect: DialectName, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a call whose input is to be counted: it says nothing of an output."""
    if dialect == "gemini":
        return counted_request(body)
    # Any maximum that providers of every dialect take.
    return {"max_tokens": 16, **body} if dialect == "anthropic" else body


def count_document(dialect: DialectName, tokens: int) -> dict[str, Any]:
    """Return what is answered to who wants an input counted."""
    return {"totalTokens": tokens} if dialect == "gemini" else {"input_tokens": tokens}


def input_tokens_bound(
    request: ParsedRequest, serialised: bytes, context_length: int, image_tokens_max: int
) -> int:
    """Return a number of tokens that the input of this request cannot exceed.

    `serialised` is its body as it was sent.
    """
    return _BOUNDS[request.dialect](request, serialised, context_length, image_tokens_max)
