"""Plain HTTP answers of the gateway, and what every error among them must have."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from tests.e2e.wire import LAST_CHUNK, body_of, head_of
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
        details = _google_details(told, request_id)
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


def check_broken_off(
    received: bytes, told: Told, dialect: str, *, is_converted: bool = True
) -> None:
    """Check that a stream ends as a failure, which it tells in the dialect that was spoken.

    Nobody has counted the events of a stream that is not converted.
    """
    status, headers = head_of(received)
    body = body_of(received)
    blocks = body.replace(b"\r\n", b"\n").split(b"\n\n")
    # A comment is no event, and has no number.
    events = [block for block in blocks if not block.startswith(b":")]
    assert (status, events.pop()) == (told.status, b"")
    assert not received.endswith(LAST_CHUNK)
    assert headers.get("connection") != "close"
    failed = events.pop() if dialect == "openai-responses" else b""
    name, _, data = events.pop().rpartition(b"data: ")
    assert name == (b"event: error\n" if dialect in ("anthropic", "openai-responses") else b"")
    document = orjson.loads(data)
    message, request_id = document["error"]["message"], headers["x-request-id"]
    said: dict[str, Any] = {"message": message, "param": None, "code": told.code}
    expected: dict[str, Any]
    if dialect == "anthropic":
        inner = {"type": told.anthropic, "message": message}
        expected = {"type": "error", "error": inner, "request_id": request_id}
    elif dialect == "gemini":
        code, google = told.google.split(" ")
        details = _google_details(told, request_id)
        inner = {"code": int(code), "message": message, "status": google, "details": details}
        expected = {"error": inner}
    elif dialect == "openai":
        expected = {"error": {"type": told.type, **said}}
    else:
        number = document["sequence_number"]
        assert number == (len(events) if is_converted else 0)
        inner = {"type": told.type, **said}
        expected = {"type": "error", "sequence_number": number, **said, "error": inner}
        name, _, data = failed.rpartition(b"data: ")
        response = orjson.loads(data)["response"]
        assert name == b"event: response.failed\n"
        assert response["status"] == "failed"
        assert response["error"] == {"code": "server_error", "message": message}
    assert document == expected
    assert message
    check_nothing_leaks(HttpAnswer(status, headers, body))


def _google_details(told: Told, request_id: str) -> list[dict[str, Any]]:
    return [
        {"@type": f"{_GOOGLE}ErrorInfo", "reason": told.code.upper()},
        {"@type": f"{_GOOGLE}RequestInfo", "requestId": request_id},
    ]


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
