"""The REST API of one gateway, as an administrator uses it."""

from __future__ import annotations

import http.client
from typing import Any

import orjson

from tests.support.gateway import GatewayProcess
from tests.support.people import PASSWORD


def ask(
    gateway: GatewayProcess, method: str, path: str, token: str = "", body: Any = None
) -> tuple[int, Any]:
    """Call a gateway; return the status and what the answer says."""
    caller = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        caller.request(method, path, None if body is None else orjson.dumps(body), headers)
        answer = caller.getresponse()
        return answer.status, orjson.loads(answer.read() or b"null")
    finally:
        caller.close()


def sign_in(gateway: GatewayProcess, name: str = "root") -> str:
    """Sign in and return the access token."""
    credentials = {"username": name, "password": PASSWORD}
    status, answer = ask(gateway, "POST", "/api/auth/login", body=credentials)
    assert status == 200, answer
    return str(answer["access"])
