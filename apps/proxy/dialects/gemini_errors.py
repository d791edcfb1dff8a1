"""The gateway's errors in the shape of Google's APIs.

Google's SDKs raise what they find as `error` in an event of a stream, by its `code`, and where they
are told to try again do so by the status alone: 408, 429, 500, 502, 503 and 504. They do not know
`x-should-retry`; what must not be sent again therefore has another status here.

Sources: https://google.aip.dev/193, https://ai.google.dev/gemini-api/docs/troubleshooting (402 is
what Google answers without credit) and https://github.com/googleapis/python-genai
(`_api_client.py`, `errors.py`)
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from apps.core.errors import GatewayError

# What tells more than the status: by the row of the error.
_ROWS: Final[dict[str, tuple[int | None, str]]] = {
    "E19": (402, "RESOURCE_EXHAUSTED"),
    "E20": (402, "RESOURCE_EXHAUSTED"),
    "E21": (402, "RESOURCE_EXHAUSTED"),
    "E32": (501, "UNIMPLEMENTED"),
    "E52": (501, "INTERNAL"),
    "E71": (501, "INTERNAL"),
}
_STATUSES: Final[dict[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# What the code of an error says that comes after the status: 200 is none for an error.
_IN_BAND: Final = {"E61": 501}
_IN_BAND_DEFAULT: Final = 503
_BEGUN: Final = 200
_TYPES: Final = "type.googleapis.com/google.rpc."


# What Google's names mean in the words of our records.
_CODES: Final = {
    "DEADLINE_EXCEEDED": "timeout",
    "INTERNAL": "internal_error",
    "RESOURCE_EXHAUSTED": "rate_limit_exceeded",
    "UNAVAILABLE": "service_unavailable",
}


def known_code(document: Mapping[str, Any]) -> str | None:
    """Return the code of an error of Google's for the record, None if it is no known one."""
    error = document.get("error")
    status = error.get("status") if isinstance(error, Mapping) else None
    return _CODES.get(status) if isinstance(status, str) else None


def gemini_status(error: GatewayError) -> int:
    """Return the status of the error's answer, which is not always the one of OpenAI's routes."""
    status, _ = _ROWS.get(error.row, (None, ""))
    return status or error.status


def gemini_code(error: GatewayError) -> int:
    """Return the code that the error tells: its status, or what would be if it came in time."""
    status = gemini_status(error)
    return _IN_BAND.get(error.row, _IN_BAND_DEFAULT) if status == _BEGUN else status


def gemini_name(error: GatewayError) -> str:
    """Return the error's canonical name."""
    if error.row in _ROWS:
        return _ROWS[error.row][1]
    code = gemini_code(error)
    if code in _STATUSES:
        return _STATUSES[code]
    return "INVALID_ARGUMENT" if 400 <= code < 500 else "INTERNAL"


def gemini_body(error: GatewayError, request_id: str) -> bytes:
    """Return the error in the JSON shape of Google's routes, at most 4 KB."""
    details: list[dict[str, Any]] = [
        {"@type": f"{_TYPES}ErrorInfo", "reason": error.code.upper()},
        {"@type": f"{_TYPES}RequestInfo", "requestId": request_id},
    ]
    if error.param is not None:
        violation = {"field": error.param}
        details.append({"@type": f"{_TYPES}BadRequest", "fieldViolations": [violation]})
    if error.retry_after is not None:
        details.append({"@type": f"{_TYPES}RetryInfo", "retryDelay": f"{error.retry_after}s"})
    told = {
        "code": gemini_code(error),
        "message": error.message,
        "status": gemini_name(error),
        "details": details,
    }
    return orjson.dumps({"error": told})


def gemini_in_band_event(error: GatewayError, request_id: str) -> bytes:
    """Return the error as the last event of a stream that has already begun.

    It must be followed by an abort, not by a clean end.
    """
    return b"data: " + gemini_body(error, request_id) + b"\n\n"
