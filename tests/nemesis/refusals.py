"""The table of errors as each dialect tells it: what may be answered, what clients repeat, and what
has to be on record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
# What is answered to a call that has a hold. E41 and E42 come before one, too: where the providers
# have no key left that they take. E70 without one is a fault as well.
_AFTER_A_HOLD: Final = frozenset(
    {*(f"E{number}" for number in (40, *range(43, 55))), "E70", "E71"} & ROWS.keys()
)


@dataclass(frozen=True, slots=True)
class ErrorTold:
    """What an answer that is not 200 says."""

    code: str  # or what the dialect has in its place
    is_known: bool  # it is in the table
    is_after_hold: bool = False  # each row that is told so comes after a hold


def _all_errors() -> Iterator[GatewayError]:
    for name, row in ROWS.items():
        for status in row.statuses:
            for code in row.codes:
                yield GatewayError(name, status=status, code=code)


def _tell_all(tell: Callable[[GatewayError], tuple[object, ...]]) -> dict[tuple[object, ...], bool]:
    """Return all that a dialect tells, and whether each row that is told so comes after a hold."""
    told: dict[tuple[object, ...], bool] = {}
    for error in _all_errors():
        answer = tell(error)
        told[answer] = told.get(answer, True) and error.row in _AFTER_A_HOLD
    return told


_OPENAI: Final = _tell_all(lambda error: (error.status, error.type, error.code))
_ANTHROPIC: Final = _tell_all(lambda error: (anthropic_status(error), anthropic_type(error)))
_GEMINI: Final = _tell_all(
    lambda error: (gemini_status(error), gemini_name(error), error.code.upper())
)


def read_refusal(dialect: str, status: int, body: bytes) -> ErrorTold:
    """Return what a refusal says in a dialect."""
    try:
        document = orjson.loads(body)
        if dialect == "anthropic":
            return _read_anthropic(status, document)
        if dialect == "gemini":
            return _read_gemini(status, document)
        error = document["error"]
        answer = (status, error["type"], error["code"])
        return _look_up(_OPENAI, answer, error["code"], is_whole=document.keys() == {"error"})
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
        return ErrorTold("", is_known=False)


def _read_anthropic(status: int, document: Mapping[str, Any]) -> ErrorTold:
    kind = document["error"]["type"]
    is_whole = document["type"] == "error" and document.keys() == _ANTHROPIC_MEMBERS
    return _look_up(_ANTHROPIC, (status, kind), kind, is_whole=is_whole)


def _read_gemini(status: int, document: Mapping[str, Any]) -> ErrorTold:
    error = document["error"]
    reason = error["details"][0]["reason"]
    is_whole = error["code"] == status and document.keys() == {"error"}
    answer = (status, error["status"], reason)
    return _look_up(_GEMINI, answer, reason.lower(), is_whole=is_whole)


def _look_up(
    table: Mapping[tuple[object, ...], bool],
    answer: tuple[object, ...],
    code: str,
    *,
    is_whole: bool,
) -> ErrorTold:
    return ErrorTold(code, is_whole and answer in table, table.get(answer, False))


def is_repeated(dialect: str, status: int, headers: Mapping[str, str]) -> bool:
    """Return whether the SDKs of a dialect try again by themselves what is answered so."""
    if dialect == "gemini":
        return status in _RETRIED_BY_GOOGLE
    is_retried = status in _RETRIED or status >= 500
    return is_retried and headers.get("x-should-retry") != "false"
