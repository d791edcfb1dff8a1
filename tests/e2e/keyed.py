"""Calls with an idempotency key, without the SDK."""

from __future__ import annotations

from typing import Any

import orjson

from tests.e2e.answers import HttpAnswer, ask
from tests.e2e.rows import CHAT
from tests.e2e.wire import LAST_CHUNK, RawConnection, post_bytes
from tests.support.bench import Caller, Stage


def post(
    stage: Stage,
    key: str = "once",
    *,
    caller: Caller | None = None,
    path: str = CHAT,
    body: bytes | None = None,
    **values: Any,
) -> HttpAnswer:
    """Make a call with an idempotency key, without the SDK."""
    headers = {**(caller or stage.caller).headers, "Idempotency-Key": key}
    sent = orjson.dumps(stage.body(**values)) if body is None else body
    return ask(stage.bench.gateway, "POST", path, headers=headers, body=sent)


def stream(stage: Stage, key: str = "once", **values: Any) -> bytes:
    """Make a streamed call with a key and return all that came over the wire."""
    sent = orjson.dumps(stage.body(stream=True, **values))
    extra = f"Idempotency-Key: {key}\r\n"
    with RawConnection(stage.bench.gateway.port) as connection:
        connection.send(post_bytes(stage.caller, sent, extra=extra))
        while not connection.received.endswith(LAST_CHUNK) and connection.read_more():
            pass  # bounded by the socket's timeout
        return connection.received
