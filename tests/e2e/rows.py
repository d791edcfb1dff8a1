"""What the tests of the error table share: one call, and what a refusal must not leave behind."""

from __future__ import annotations

from typing import Any

import orjson

from tests.e2e.answers import HttpAnswer, ask
from tests.support.bench import (
    Bench,
    Caller,
    Stage,
)
from tests.support.gateway import FAST
from tests.support.processes import wait_until

CHAT = "/v1/chat/completions"
INVALID = "invalid_request_error"
CONSTANTS = {
    **FAST,
    "apps.proxy.http:BODY_PIECE_SECONDS": 0.5,
    "apps.proxy.protocol:HEAD_SECONDS": 1.0,
    "apps.proxy.protocol:LATE_BODY_SECONDS": 1.0,
}
PLANT = [
    "tests.e2e.planted:shorten_patience",
    "tests.e2e.planted:break_before_settlement",
    "tests.e2e.planted:break_after_settlement",
    "tests.e2e.planted:break_inside_a_stream",
]
# What would choose the provider, or what it is asked with.
CHOOSING = {
    "api_base": "http://evil.example",
    "base_url": "http://evil.example",
    "api_key": "sk-evil-evil-evil",
    "custom_llm_provider": "evil",
    "organization": "org-evil",
    "extra_headers": {"x": "evil"},
    "extra_body": {"model": "evil"},
    "proxy": "http://evil.example",
    "aws_secret_access_key": "evil",
    "litellm_params": {"evil": 1},
}


def chat(stage: Stage, caller: Caller | None = None, **values: Any) -> HttpAnswer:
    """Make a call without the SDK."""
    body = orjson.dumps(stage.body(**values))
    headers = (caller or stage.caller).headers
    return ask(stage.bench.gateway, "POST", CHAT, headers=headers, body=body)


def check_nothing_happened(stage: Stage, caller: Caller | None = None) -> None:
    """Check that a refused call left no row, no hold and no upstream call."""
    statement = stage.bench.statement(caller or stage.caller)
    assert (statement.rows, statement.entries) == ((), ())
    assert (statement.holds, statement.held_nanos) == (0, 0)
    assert stage.upstream_calls == []


def wait_until_refused(caller: Caller, bench: Bench) -> None:
    wait_until(
        lambda: bench.gateway.get("/v1/models", caller.raw) == 401,
        timeout_seconds=5,
        what="the end of the key",
    )


def parse_answer(received: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return int(status.split(" ")[1]), {name.lower(): value for name, _, value in pairs}, body
