"""Faults of what is said: statuses and bodies."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import (
    MESSAGES,
    connect,
    ended,
    post,
    stream,
    write_request,
)


@pytest.mark.parametrize(
    ("fault", "status", "type_", "code"),
    [
        ("status(400)", 400, "invalid_request_error", "invalid_value"),
        ("status(400,too_long)", 400, "invalid_request_error", "too_long"),
        ("status(401)", 401, "invalid_request_error", "invalid_api_key"),
        ("status(402)", 402, "insufficient_credits", "insufficient_credits"),
        ("status(403)", 403, "request_forbidden", "unsupported_country_region_territory"),
        ("status(404)", 404, "invalid_request_error", "model_not_found"),
        ("status(413)", 413, "invalid_request_error", "request_too_large"),
        ("status(422)", 422, "invalid_request_error", "invalid_value"),
        ("status(429)", 429, "requests", "rate_limit_exceeded"),
        ("status(429,insufficient_quota)", 429, "insufficient_quota", "insufficient_quota"),
        ("status(500)", 500, "server_error", None),
        ("status(502)", 502, "server_error", "bad_gateway"),
        ("status(503)", 503, "server_error", "service_unavailable"),
        ("status(529)", 529, "overloaded_error", "overloaded"),
        ("status(418,teapot)", 418, "invalid_request_error", "teapot"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_status_comes_in_openais_shape(
    provider: DemoProvider, fault: str, status: int, type_: str, code: str | None, is_stream: bool
) -> None:
    fields: dict[str, Any] = {"stream": True} if is_stream else {}

    got, headers, answer = await post(provider, f"m:fault={fault}", **fields)

    assert got == status
    assert headers["content-type"] == "application/json"
    assert (answer["error"]["type"], answer["error"]["code"]) == (type_, code)
    record = await ended(provider)
    assert (record["ended"], record["input_tokens"], record["output_tokens"]) == ("fault", 0, 0)


async def test_a_prompt_can_be_too_long(provider: DemoProvider) -> None:
    model = "m:fault=status(400,context_length_exceeded)"

    status, _, answer = await post(provider, model)

    assert status == 400
    assert (answer["error"]["code"], answer["error"]["param"]) == (
        "context_length_exceeded",
        "messages",
    )
    assert answer["error"]["message"].startswith("This model's maximum context length is 8192")


@pytest.mark.parametrize(
    ("model", "seconds"),
    [
        ("m:fault=status(429)", "1"),
        ("m:fault=status(429),retry_after=30", "30"),
        ("m:fault=status(503),retry_after=9", "9"),
        ("m:fault=status(503)", None),
        ("m:fault=status(429,insufficient_quota)", None),
    ],
)
async def test_retry_after_is_sent(provider: DemoProvider, model: str, seconds: str | None) -> None:
    _, headers, _ = await post(provider, model)

    assert headers.get("retry-after") == seconds


async def test_secrets_come_back_where_a_careless_provider_shows_them(
    provider: DemoProvider,
) -> None:
    url = provider.base_url + "/chat/completions"
    headers = {"authorization": "Bearer sk-canary", "x-other": "seen"}
    messages = []

    async with aiohttp.ClientSession(headers=headers) as session:
        for fault in ("status(401)", "echo_headers"):
            body = {"model": f"m:fault={fault}", "messages": MESSAGES}
            async with session.post(url, json=body) as response:
                messages.append((response.status, (await response.json())["error"]["message"]))

    assert messages[0][0] == 401
    assert "sk-canary" in messages[0][1]
    assert messages[1][0] == 500
    assert "authorization: Bearer sk-canary" in messages[1][1]
    assert "x-other: seen" in messages[1][1]


async def test_flaky_fails_first_and_then_answers(provider: DemoProvider) -> None:
    statuses = [(await post(provider, "m:fault=flaky(2)"))[0] for _ in range(4)]
    other, _, _ = await post(provider, "other:fault=flaky(2)")

    assert statuses == [500, 500, 200, 200]
    assert other == 500


@pytest.mark.parametrize(("fault", "status"), [("html", 200), ("html(502)", 502)])
async def test_a_page_comes_instead_of_an_answer(
    provider: DemoProvider, fault: str, status: int
) -> None:
    async with connect(provider) as peer:
        peer.ask(f"m:fault={fault}", stream=True)
        head = await peer.read_until(b"\r\n\r\n")

    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: text/html\r\n" in head


@pytest.mark.parametrize("is_stream", [False, True])
async def test_garbage_is_not_json(provider: DemoProvider, is_stream: bool) -> None:
    async with connect(provider) as peer:
        peer.ask("m:fault=garbage", **({"stream": True} if is_stream else {}))
        body = await peer.read_response()

    assert body.startswith(b"OK\x00")
    with pytest.raises(ValueError):
        json.loads(body)


async def test_json_comes_although_a_stream_was_asked_for(provider: DemoProvider) -> None:
    _, headers, answer = await post(provider, "m:tokens=1,fault=json_for_stream", stream=True)

    assert headers["content-type"] == "application/json"
    assert answer["choices"][0]["message"]["content"] == "This"
    assert answer["usage"]["completion_tokens"] == 1


async def test_the_wrong_shape_is_json_but_no_answer(provider: DemoProvider) -> None:
    _, _, answer = await post(provider, "m:fault=wrong_shape")
    events = await stream(provider, "m:fault=wrong_shape")

    assert answer["choices"] == {"0": None}
    assert events[:3] == [{"hello": "world"}, [], 42]


async def test_a_redirect_points_elsewhere(provider: DemoProvider) -> None:
    async with connect(provider) as peer:
        peer.ask("m:fault=redirect(http://127.0.0.1:1/a?b=c:d)")
        head = await peer.read_until(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 302 Found\r\n")
    assert b"\r\nlocation: http://127.0.0.1:1/a?b=c:d\r\n" in head


async def test_foreign_headers_come_with_an_answer(provider: DemoProvider) -> None:
    status, headers, _ = await post(provider, "m:fault=set_cookie")

    names = {name.lower() for name in headers}
    assert status == 200
    assert {"set-cookie", "location", "server", "via", "openai-organization", "cf-ray"} <= names


async def test_ids_can_repeat(provider: DemoProvider) -> None:
    _, _, first = await post(provider, "m:fault=dup_id")
    _, _, second = await post(provider, "m:fault=dup_id")

    assert first["id"] == second["id"] == "chatcmpl-" + "D" * 29


@pytest.mark.parametrize("is_stream", [False, True])
async def test_content_can_break_utf8(provider: DemoProvider, is_stream: bool) -> None:
    async with connect(provider) as peer:
        body = {"model": "m:fault=bad_utf8", "messages": MESSAGES, "stream": is_stream}
        peer.writer.write(write_request(body, "connection: close"))
        received = await peer.read_all()

    assert b'"content":"\xff\xfe\xc3(' in received


@pytest.mark.parametrize("fault", ["bad_utf8", "no_finish"])
async def test_the_tokens_of_a_spoiled_json_answer_are_logged(
    provider: DemoProvider, fault: str
) -> None:
    async with connect(provider) as peer:
        peer.ask(f"m:tokens=7,fault={fault}")
        await peer.read_response()

    (record,) = provider.calls
    assert (record["output_tokens"], record["usage_sent"]) == (7, True)
