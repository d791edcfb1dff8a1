"""The table of errors as each dialect tells it: what may be answered, and what clients repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from apps.core.error_rows import ROWS
from apps.core.errors import GatewayError
from apps.proxy.dialects.anthropic_errors import anthropic_status, anthropic_type
from apps.proxy.dialects.gemini_errors import gemini_name, gemini_status

_ANTHROPIC_MEMBERS: Final = {"type", "error", "request_id"}
# By what the SDKs of each dialect try again. Google's know no header that forbids it.
_RETRIED: Final = frozenset({408, 409, 429})
_RETRIED_BY_GOOGLE: Final = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class ErrorTold:
    """What an answer that is not 200 says."""

    code: str  # or what the dialect has in its place
    is_known: bool  # it is in the table


def _all_errors() -> Iterator[GatewayError]:
    for name, row in ROWS.items():
        for status in row.statuses:
            for code in row.codes:
                yield GatewayError(name, status=status, code=code)


_OPENAI: Final = {(error.status, error.type, error.code) for error in _all_errors()}
_ANTHROPIC: Final = {(anthropic_status(error), anthropic_type(error)) for error in _all_errors()}
_GEMINI: Final = {
    (gemini_status(error), gemini_name(error), error.code.upper()) for error in _all_errors()
}


def read_refusal(dialect: str, status: int, body: bytes) -> ErrorTold:
    """Return what a refusal says in a dialect."""
    try:
        document = orjson.loads(body)
        if dialect == "anthropic":
            return _read_anthropic(status, document)
        if dialect == "gemini":
            return _read_gemini(status, document)
        error = document["error"]
        known = (status, error["type"], error["code"]) in _OPENAI and document.keys() == {"error"}
        return ErrorTold(error["code"], known)
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return ErrorTold("", is_known=False)


def _read_anthropic(status: int, document: Mapping[str, Any]) -> ErrorTold:
    kind = document["error"]["type"]
    is_known = document["type"] == "error" and document.keys() == _ANTHROPIC_MEMBERS
    return ErrorTold(kind, is_known and (status, kind) in _ANTHROPIC)


def _read_gemini(status: int, document: Mapping[str, Any]) -> ErrorTold:
    error = document["error"]
    reason = error["details"][0]["reason"]
    is_known = error["code"] == status and document.keys() == {"error"}
    return ErrorTold(reason.lower(), is_known and (status, error["status"], reason) in _GEMINI)


def is_repeated(dialect: str, status: int, headers: Mapping[str, str]) -> bool:
    """Return whether the SDKs of a dialect try again by themselves what is answered so."""
    if dialect == "gemini":
        return status in _RETRIED_BY_GOOGLE
    is_retried = status in _RETRIED or status >= 500
    return is_retried and headers.get("x-should-retry") != "false"
