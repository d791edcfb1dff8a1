"""Clients that would choose provider, path, headers or another model (P3, P4, P7, P8, P16).

The provider is made of bytes: what came over the wire is compared, not what a library read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from tests.e2e.answers import ask
from tests.e2e.raw_upstream import Heard, RawUpstream, completion, respond
from tests.e2e.rows import CHOOSING
from tests.e2e.wire import RawConnection, head_of, post_bytes
from tests.support.bench import PROVIDER_SECRET, Bench, Stage

# What comes over the wire is judged before any database is asked.
pytestmark = pytest.mark.sqlite

CHAT = "/v1/chat/completions"
HOSTILE = [
    "Cookie: session=evil", "Proxy-Authorization: Basic evil", "Proxy-Connection: evil",
    "Connection: x-evil, authorization, x-api-key", "X-Evil: evil", "TE: trailers, evil",
    "Keep-Alive: timeout=99", "Forwarded: for=evil", "X-Forwarded-For: 10.9.8.7",
    "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: evil", "X-Forwarded-Port: 1",
    "X-Real-IP: 10.9.8.7", "X-Original-URL: /evil", "X-Rewrite-URL: /evil",
    "X-HTTP-Method-Override: DELETE", "traceparent: 00-evil", "tracestate: evil", "baggage: evil",
    "X-Request-Id: evil", "Request-Id: evil", "User-Agent: evil", "Accept: text/evil",
    "Accept-Encoding: gzip, evil", "Accept-Language: evil", "Origin: https://evil.example",
    "Referer: https://evil.example", "Range: bytes=0-1", "If-None-Match: evil",
    "OpenAI-Organization: evil", "OpenAI-Project: evil", "OpenAI-Beta: evil", "api-key: evil",
    "anthropic-beta: evil", "X-Portkey-Custom-Host: http://evil.example",
    "X-Portkey-Config: evil", "Helicone-Target-Url: http://evil.example", "Helicone-Auth: evil",
    "X-LiteLLM-Api-Base: evil", "X-Stainless-Lang: evil",
    "Content-Language: evil", "Content-MD5: evil", "Transfer-Encodings: evil", "Host2: evil",
    "X_Forwarded_For: evil", "Via: 1.1 evil", "Priority: evil", "Sec-Fetch-Site: evil",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wire:
    """A model and what its provider hears."""

    stage: Stage
    upstream: RawUpstream


@pytest.fixture(scope="module")
def wire(module_bench: Bench) -> Iterator[Wire]:
    """Run the provider."""

    def say(heard: Heard) -> list[bytes]:
        return [respond(completion("text"))]

    with RawUpstream(say) as upstream:
        stage = module_bench.stage("raw", provider=module_bench.make_provider(upstream.base_url))
        yield Wire(stage, upstream)


def _send(wire: Wire, data: bytes) -> int:
    with RawConnection(wire.stage.bench.gateway.port) as connection:
        connection.send(data)
        return head_of(connection.read_until(b"\r\n\r\n"))[0]


@pytest.mark.parametrize("path", [CHAT, "/api/v1/chat/completions/", "/v1/chat/completions?a=evil"])
def test_only_our_own_bytes_reach_the_provider(bench: Bench, wire: Wire, path: str) -> None:
    stage = wire.stage
    body = orjson.dumps({**stage.body(), **CHOOSING})
    extra = "".join(f"{line}\r\n" for line in HOSTILE)
    before = len(wire.upstream.heard)

    status = _send(wire, post_bytes(stage.caller, body, path, extra))

    assert status == 200
    (heard,) = wire.upstream.wait_for(before + 1)[before:]
    (row,) = bench.settled(stage.caller, before + 1).rows[before:]
    sent = orjson.dumps({**stage.body(), "model": stage.upstream_name})
    assert heard.lines == [
        "POST /v1/chat/completions HTTP/1.1",
        f"host: 127.0.0.1:{wire.upstream.port}",
        f"authorization: Bearer {PROVIDER_SECRET}",
        "content-type: application/json",
        "accept: */*",
        "accept-encoding: identity",
        f"x-request-id: {row.pk}",
        f"content-length: {len(sent)}",
    ]
    assert heard.body == sent


BREAKS = ["\r\nX-Evil: evil", "\n", "\r", "%0d%0aX-Evil: evil", "\u010a\u010dX-Evil: evil", "\x00"]


@pytest.mark.parametrize("field", ["model", "user", "content", "key"])
@pytest.mark.parametrize("text", BREAKS, ids=repr)
def test_a_line_break_in_a_body_stays_text(bench: Bench, wire: Wire, field: str, text: str) -> None:
    stage = wire.stage
    fields: dict[str, dict[str, Any]] = {
        "model": {"model": stage.model.name + text},
        "user": {"user": text},
        "content": {"messages": [{"role": "user", "content": text}]},
        "key": {text or "x": text},
    }
    values = fields[field]
    before = len(wire.upstream.heard)

    answer = ask(
        bench.gateway, "POST", CHAT, headers=stage.caller.headers,
        body=orjson.dumps({**stage.body(), **values}),
    )  # fmt: skip

    if field == "model" or text == "\x00":
        assert answer.status in (400, 404)
        assert len(wire.upstream.heard) == before
    else:
        assert answer.status == 200
        (heard,) = wire.upstream.heard[before:]
        assert not any("evil" in line.lower() for line in heard.lines)
        assert heard.json == {**stage.body(), **values, "model": stage.upstream_name}
    assert "evil" not in str(answer.headers)
    assert all(line.startswith("{") for line in bench.gateway.log().splitlines())


@pytest.mark.parametrize("value", ["a\rb", "a\nX-Evil: 1", "a%0d%0aX-Evil:1", "\u010a".encode()])
@pytest.mark.parametrize("name", ["X-Request-Id", "User-Agent", "Idempotency-Key"])
def test_a_line_break_in_a_header_goes_nowhere(
    bench: Bench, wire: Wire, name: str, value: str | bytes
) -> None:
    raw = value.encode() if isinstance(value, str) else value
    body = orjson.dumps(wire.stage.body())
    request = post_bytes(wire.stage.caller, body).replace(
        b"Content-Type", name.encode() + b": " + raw + b"\r\nContent-Type"
    )
    before = len(wire.upstream.heard)

    with RawConnection(bench.gateway.port) as connection:
        connection.send(request)
        received = connection.read_until(b"\r\n\r\n")

    status, headers = head_of(received)
    assert status == (400 if raw.startswith(b"a\r") else status)
    assert "x-evil" not in headers
    assert headers["x-request-id"] != raw.decode("latin-1")
    for heard in wire.upstream.heard[before:]:
        assert "evil" not in heard.head.decode("latin-1").lower()


PATHS = [
    "/v1/../admin/", "/v1/%2e%2e/admin/", "/v1/..%2fadmin/", "//v1/chat/completions", "/V1/models",
    "/v1//chat/completions", "/v1/chat//completions", "/v1/./chat/completions",
    "/v1/chat/completions/..", "/v1/chat/completions;x=1", "/v1/chat/completions%00",
    "/v1/chat/completions.json", "/v1/chat%2fcompletions/x", "/v1/chat\\completions",
    "/api/v1/../../admin/", "/api/../v1/chat/completions", "/v1/api/v1/models",
    "/api/api/v1/models",
    "/v1/metrics", "/v1/../metrics", "/v1/%2e%2e/metrics", "/v1/engines/x/completions",
    "/v1/files", "/v1/organization/admin_api_keys", "/v1/proxy/x", "/v1/@evil.example/x",
    "/v1/models/../../admin", "/v1/models/..%2f..%2fadmin", "/v1/models/x%3fy",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_none_of_ours_leads_nowhere(
    bench: Bench, wire: Wire, method: str, path: str
) -> None:
    before = len(wire.upstream.heard)
    headers = wire.stage.caller.headers

    answer = ask(bench.gateway, method, path, headers=headers, body=orjson.dumps(wire.stage.body()))

    assert answer.status in (404, 405)
    assert b"<html" not in answer.body.lower() or not path.startswith("/v1/")
    assert b"gateway_" not in answer.body
    assert len(wire.upstream.heard) == before


@pytest.mark.parametrize(
    "change",
    [
        str.upper, str.title, lambda name: name + " ", lambda name: " " + name,
        lambda name: name + "\u200b", lambda name: name.replace("-", "\u2010"),
        lambda name: name.replace("o", "\u043e"), lambda name: name.replace("e", "e\u0301"),
        lambda name: name.replace("l", "\uff4c"), lambda name: name + "@raw",
        lambda name: "public/" + name, lambda name: name + ":free", lambda name: name + "/../x",
        lambda name: name + "?x=1", lambda name: name + "#x", lambda name: name + "%20",
        lambda name: name + "\x7f", lambda name: name * 20, lambda name: "*", lambda name: "raw",
    ],
)  # fmt: skip
def test_a_name_that_only_looks_like_a_model_is_none(
    bench: Bench, wire: Wire, change: object
) -> None:
    assert callable(change)
    before = len(wire.upstream.heard)
    name = change(wire.stage.model.name)
    body = orjson.dumps({**wire.stage.body(), "model": name})

    answer = ask(bench.gateway, "POST", CHAT, headers=wire.stage.caller.headers, body=body)

    assert name != wire.stage.model.name
    assert answer.status in (400, 404)
    assert answer.error["param"] == "model"
    assert len(wire.upstream.heard) == before
