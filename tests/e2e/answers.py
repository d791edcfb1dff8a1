"""Plain HTTP answers of the gateway, and what every error among them must have."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from tests.support.bench import PROVIDER_SECRET
from tests.support.gateway import GatewayProcess

BODY_BYTES_MAX = 4096
# What no client may ever see.
FORBIDDEN = (PROVIDER_SECRET, PROVIDER_SECRET[3:], "Traceback", 'File "/', "127.0.0.1", "canary")
HIDDEN_HEADERS = ("server", "set-cookie", "via", "location", "x-powered-by")
# What Google's SDKs try again, whatever the headers say.
GOOGLE_RETRIES: Final = (408, 429, 500, 502, 503, 504)
_GOOGLE: Final = "type.googleapis.com/google.rpc."


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object."""
        found: dict[str, Any] = orjson.loads(self.body)["error"]
        return found


def ask(
    gateway: GatewayProcess,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> HttpAnswer:
    """Send one request on a connection of its own."""
    caller = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=15)
    try:
        caller.request(method, path, body=body, headers=dict(headers or {}))
        with caller.getresponse() as response:
            pairs = {name.lower(): value for name, value in response.getheaders()}
            return HttpAnswer(response.status, pairs, response.read())
    finally:
        caller.close()


class Told(NamedTuple):
    """What an error tells the clients of each dialect, as in the columns of docs/errors.md.

    `anthropic` is the type there and `google` the name of the status, behind the status itself
    where it is another one.
    """

    status: int
    type: str
    code: str
    anthropic: str
    google: str


def check_error(
    answer: HttpAnswer,
    *,
    status: int,
    type: str,
    code: str,
    param: str | None = None,
    retries: bool = False,
    has_retry_after: bool = False,
    **headers: str,
) -> None:
    """Check an error's answer in full; `retries`: the SDKs try again by themselves."""
    error = answer.error
    assert (answer.status, error["type"], error["code"]) == (status, type, code), error
    assert error["param"] == param
    assert sorted(error) == ["code", "message", "param", "type"]
    assert error["message"]
    is_retried = status in (408, 409, 429) or status >= 500
    _check_head(answer, is_retried and not retries, has_retry_after, headers)


def check_told(
    answer: HttpAnswer,
    told: Told,
    dialect: str,
    *,
    param: str | None = None,
    retries: bool = False,
    has_retry_after: bool = False,
    **headers: str,
) -> None:
    """Check an error's answer in full, in the dialect that was spoken; else as `check_error`."""
    if dialect.startswith("openai"):
        check_error(
            answer,
            status=told.status,
            type=told.type,
            code=told.code,
            param=param,
            retries=retries,
            has_retry_after=has_retry_after,
            **headers,
        )
        return
    *other, name = (told.anthropic if dialect == "anthropic" else told.google).split(" ")
    status = int(other[0]) if other else told.status
    message, request_id = answer.error["message"], answer.headers["request-id"]
    expected: dict[str, Any] = {
        "type": "error",
        "error": {"type": name, "message": message},
        "request_id": request_id,
    }
    if dialect == "anthropic":
        assert param is None or param in message
    else:
        assert retries or status not in GOOGLE_RETRIES
        details: list[dict[str, Any]] = [
            {"@type": f"{_GOOGLE}ErrorInfo", "reason": told.code.upper()},
            {"@type": f"{_GOOGLE}RequestInfo", "requestId": request_id},
        ]
        if param is not None:
            details.append({"@type": f"{_GOOGLE}BadRequest", "fieldViolations": [{"field": param}]})
        if has_retry_after:
            delay = f"{answer.headers['retry-after']}s"
            details.append({"@type": f"{_GOOGLE}RetryInfo", "retryDelay": delay})
        inner = {"code": status, "message": message, "status": name, "details": details}
        expected = {"error": inner}
    assert (answer.status, orjson.loads(answer.body)) == (status, expected)
    assert message
    is_retried = told.status in (408, 409, 429) or told.status >= 500
    _check_head(answer, is_retried and not retries, has_retry_after, headers)


def _check_head(
    answer: HttpAnswer, is_final: bool, has_retry_after: bool, headers: Mapping[str, str]
) -> None:
    """Check all of an error but its shape; `is_final`: that SDKs are told not to try again."""
    assert len(answer.body) <= BODY_BYTES_MAX
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"] == answer.headers["request-id"]
    retry_after = answer.headers.get("retry-after")
    assert (retry_after is not None) is has_retry_after
    if retry_after is not None:
        assert retry_after.isdigit()
        assert 1 <= int(retry_after) <= 60
    assert answer.headers.get("x-should-retry") == ("false" if is_final else None)
    for name, value in headers.items():
        assert answer.headers.get(name.replace("_", "-")) == value
    check_nothing_leaks(answer)


def check_nothing_leaks(answer: HttpAnswer) -> None:
    """Check that an answer holds nothing of the inside."""
    text = answer.body.decode("utf-8", "replace") + str(answer.headers)
    assert [word for word in FORBIDDEN if word in text] == []
    assert [name for name in HIDDEN_HEADERS if name in answer.headers] == []
