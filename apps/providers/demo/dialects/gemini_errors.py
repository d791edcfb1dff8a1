"""Refusals in Google's shape: a code, a status in words, and details by type.

Source: https://ai.google.dev/gemini-api/docs/troubleshooting
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from apps.providers.demo.errors import ProviderError

_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}
_MESSAGES: Final = {
    "context_length_exceeded": (
        "The input token count (9001) exceeds the maximum number of tokens allowed (8192)."
    ),
}
_TYPE: Final = "type.googleapis.com/google.rpc."


def refuse_google_key(received: str) -> ProviderError:
    """Return the refusal of a wrong or missing key."""
    if received:
        message = "API key not valid. Please pass a valid API key."
        return ProviderError(400, message, code="API_KEY_INVALID")
    message = (
        "Method doesn't allow unregistered callers (callers without established identity). Please "
        "use API Key or other form of API consumer identity to call this API."
    )
    return ProviderError(403, message)


def render_google_error(error: ProviderError) -> bytes:
    """Return the JSON body of a refusal, over several lines as Google writes it."""
    usual = "INTERNAL" if error.status >= 500 else "INVALID_ARGUMENT"
    fields: dict[str, Any] = {
        "code": error.status,
        "message": _MESSAGES.get(error.code or "", error.message),
        "status": _STATUSES.get(error.status, usual),
    }
    details = _list_details(error)
    if details:
        fields["details"] = details
    return orjson.dumps({"error": fields}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _list_details(error: ProviderError) -> list[dict[str, Any]]:
    details: list[dict[str, Any]] = []
    if error.code == "API_KEY_INVALID":
        service = {"service": "generativelanguage.googleapis.com"}
        details.append(
            {
                "@type": f"{_TYPE}ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
                "metadata": service,
            }
        )
    if error.status == 429:
        is_day = error.code == "insufficient_quota"
        quota = "GenerateRequestsPerDayPerProject" if is_day else "GenerateRequestsPerMinute"
        violation = {"quotaId": f"{quota}PerModel", "quotaValue": "3"}
        details.append({"@type": f"{_TYPE}QuotaFailure", "violations": [violation]})
    if error.retry_after is not None:
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{error.retry_after}s"})
    return details
