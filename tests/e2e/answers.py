"""Plain HTTP answers of the gateway, and what every error among them must have."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from tests.support.bench import PROVIDER_SECRET
from tests.support.gateway import GatewayProcess

BODY_BYTES_MAX = 4096
# What no client may ever see.
FORBIDDEN = (PROVIDER_SECRET, PROVIDER_SECRET[3:], "Traceback", 'File "/', "127.0.0.1", "canary")
HIDDEN_HEADERS = ("server", "set-cookie", "via", "location", "x-powered-by")


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
    is_retried = status in (408, 409, 429) or status >= 500
    expected = "false" if is_retried and not retries else None
    assert answer.headers.get("x-should-retry") == expected
    for name, value in headers.items():
        assert answer.headers.get(name.replace("_", "-")) == value
    check_nothing_leaks(answer)


def check_nothing_leaks(answer: HttpAnswer) -> None:
    """Check that an answer holds nothing of the inside."""
    text = answer.body.decode("utf-8", "replace") + str(answer.headers)
    assert [word for word in FORBIDDEN if word in text] == []
    assert [name for name in HIDDEN_HEADERS if name in answer.headers] == []
