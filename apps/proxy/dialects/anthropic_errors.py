"""The gateway's errors in Anthropic's shape.

Source: https://platform.claude.com/docs/en/api/errors. An event without its `event:` line is
ignored by Anthropic's SDKs, and the error in it would be lost.
"""

from typing import Any, Final

import orjson

from apps.core.errors import GatewayError

# What tells more than the status: by the row of the error.
_ROWS: Final[dict[str, tuple[int | None, str]]] = {
    "E18": (None, "timeout_error"),
    "E19": (402, "billing_error"),
    "E20": (402, "billing_error"),
    "E21": (402, "billing_error"),
    "E33": (529, "overloaded_error"),
    "E36": (None, "overloaded_error"),
    "E37": (529, "overloaded_error"),
    "E48": (None, "timeout_error"),
    "E53": (529, "overloaded_error"),
}
_STATUSES: Final[dict[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
# Conversations that Anthropic keeps, of which a request has only what is new. Told so, Claude Code
# and the SDKs' tool runners send the whole of it, and ask for no thread again.
# Source: https://platform.claude.com/docs/en/build-with-claude/message-threads
_THREAD: Final = "thread"
_NO_THREAD: Final = {"error_code": "thread_unsupported_request"}
_OVERLOADED: Final = 529
_UNAVAILABLE: Final = 503


def anthropic_status(error: GatewayError) -> int:
    """Return the status of the error's answer, which is not always the one of OpenAI's routes."""
    if error.row == "E46" and error.status == _UNAVAILABLE:
        return _OVERLOADED
    status, _ = _ROWS.get(error.row, (None, ""))
    return status or error.status


def anthropic_type(error: GatewayError) -> str:
    """Return the error's type, by which SDKs choose the class of what they raise."""
    if error.row in _ROWS:
        return _ROWS[error.row][1]
    status = anthropic_status(error)
    if status in _STATUSES:
        return _STATUSES[status]
    # 200: the stream had begun before it failed.
    return "invalid_request_error" if 400 <= status < 500 else "api_error"


def anthropic_body(error: GatewayError, request_id: str) -> bytes:
    """Return the error in the JSON shape of Anthropic's routes, at most 4 KB."""
    return orjson.dumps(_document(error, request_id))


def anthropic_in_band_event(error: GatewayError, request_id: str) -> bytes:
    """Return the error as the last event of a stream that has already begun.

    It must be followed by an abort, not by a clean end.
    """
    return b"event: error\ndata: " + anthropic_body(error, request_id) + b"\n\n"


def _document(error: GatewayError, request_id: str) -> dict[str, Any]:
    message = error.message
    if error.param is not None and error.param not in message:
        # There is no member of its own for the parameter.
        message = f"{error.param}: {message}"
    told: dict[str, Any] = {"type": anthropic_type(error), "message": message}
    if error.row == "E14" and error.param == _THREAD:
        told["details"] = _NO_THREAD
    return {"type": "error", "error": told, "request_id": request_id}
