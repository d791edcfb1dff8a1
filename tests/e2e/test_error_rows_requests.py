"""Rows E01 to E16 of the error table: who is calling, and what is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import orjson
import pytest

from apps.api_keys.models import APIKey
from apps.proxy import operations
from apps.users.models import User
from tests.e2e.answers import HttpAnswer, Told, ask, check_error, check_told
from tests.e2e.rows import (
    CHAT,
    CONSTANTS,
    INVALID,
    PLANT,
    chat,
    check_nothing_happened,
    parse_answer,
    wait_until_refused,
)
from tests.e2e.wire import RawConnection
from tests.support.bench import (
    Bench,
)
from tests.support.processes import wait_until

__all__ = ["CONSTANTS", "PLANT"]

# Decided by what the gateway has in memory, before any database is asked.
pytestmark = pytest.mark.sqlite


# ---- E01 to E06: who is calling


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/api/v1/embeddings/", "/v1/usage"])
def test_e01_without_a_key(bench: Bench, path: str) -> None:
    method = "GET" if path in ("/v1/models", "/v1/usage") else "POST"

    answer = ask(bench.gateway, method, path, body=b"{}")

    check_error(answer, status=401, type=INVALID, code="missing_api_key", www_authenticate="Bearer")


BAD_KEYS = [
    "sk-audit-unknown",
    "' OR '1'='1",
    "'; SELECT pg_sleep(5)--",
    "x" * 10_000,
    "\x01\x02",
    "sk-\xe9\xff",
]


@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "x-goog-api-key"])
@pytest.mark.parametrize("key", BAD_KEYS)
def test_e02_with_an_unknown_or_malformed_key(bench: Bench, header: str, key: str) -> None:
    value = f"Bearer {key}" if header == "Authorization" else key

    # At a path that only one dialect has: who asks for models is told apart by his headers.
    answer = ask(bench.gateway, "GET", "/v1/usage", headers={header: value})

    if "\x01" in key:
        # Not even HTTP.
        check_error(answer, status=400, type=INVALID, code="invalid_json", connection="close")
        return
    check_error(answer, status=401, type=INVALID, code="invalid_api_key", www_authenticate="Bearer")


@pytest.mark.parametrize("scheme", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "token abc"])
def test_e02_with_another_scheme(bench: Bench, scheme: str) -> None:
    answer = ask(bench.gateway, "GET", "/v1/models", headers={"Authorization": scheme})

    check_error(answer, status=401, type=INVALID, code="invalid_api_key", www_authenticate="Bearer")


def test_e02_a_key_in_the_address_is_not_taken(bench: Bench) -> None:
    caller = bench.make_caller()

    answer = ask(bench.gateway, "GET", f"/v1/models?api_key={caller.raw}&key={caller.raw}")

    check_error(answer, status=401, type=INVALID, code="missing_api_key", www_authenticate="Bearer")
    assert caller.raw not in bench.gateway.log()


def test_e03_with_two_different_keys(bench: Bench) -> None:
    caller, other = bench.make_caller(), bench.make_caller()

    answer = ask(
        bench.gateway, "GET", "/v1/models", headers={**caller.headers, "x-api-key": other.raw}
    )
    same = ask(
        bench.gateway, "GET", "/v1/models", headers={**caller.headers, "x-api-key": caller.raw}
    )

    check_error(answer, status=401, type=INVALID, code="conflicting_credentials")
    assert same.status == 200


def test_e04_with_a_disabled_or_expired_key(bench: Bench) -> None:
    stage = bench.stage()
    expired = bench.make_caller()
    past = datetime.now(UTC) - timedelta(seconds=1)
    APIKey.objects.filter(pk=expired.key.pk).update(expires_at=past)
    APIKey.objects.filter(pk=stage.caller.key.pk).update(is_active=False)
    for caller in (stage.caller, expired):
        wait_until_refused(caller, bench)

    disabled_answer, expired_answer = chat(stage), chat(stage, expired)

    check_error(disabled_answer, status=401, type=INVALID, code="api_key_disabled")
    check_error(expired_answer, status=401, type=INVALID, code="api_key_expired")
    assert disabled_answer.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.AuthenticationError):
        stage.client().chat.completions.create(**stage.body())


def test_e05_with_a_suspended_account(bench: Bench) -> None:
    stage = bench.stage()
    User.objects.filter(pk=stage.caller.user.pk).update(is_active=False)
    wait_until(lambda: chat(stage).status == 403, timeout_seconds=5, what="the suspension")

    check_error(chat(stage), status=403, type=INVALID, code="account_disabled")
    with pytest.raises(openai.PermissionDeniedError):
        stage.client().chat.completions.create(**stage.body())


@pytest.mark.parametrize("header", ["Authorization", "x-api-key"])
def test_e06_from_a_network_that_is_not_allowed(bench: Bench, header: str) -> None:
    stage = bench.stage()
    caller = bench.make_caller(allowed_networks=["10.0.0.0/8"])
    value = f"Bearer {caller.raw}" if header == "Authorization" else caller.raw

    answer = ask(
        bench.gateway,
        "POST",
        CHAT,
        # Nobody may choose his own address.
        headers={header: value, "X-Forwarded-For": "10.0.0.1", "X-Real-IP": "10.0.0.1"},
        body=orjson.dumps(stage.body()),
    )

    check_error(answer, status=403, type=INVALID, code="ip_not_authorized")
    check_nothing_happened(stage, caller)


# ---- E07 to E16: what is asked


@dataclass(frozen=True)
class Refused:
    """A body that is refused before anything is held."""

    row: str
    status: int
    code: str
    param: str | None
    exception: type[openai.APIStatusError]
    values: dict[str, Any] = field(default_factory=dict)
    path: str = CHAT


BAD = openai.BadRequestError
REFUSED = [
    Refused("E07", 404, "model_not_found", "model", openai.NotFoundError, {"model": "no-such"}),
    Refused("E09", 404, "unknown_url", None, openai.NotFoundError, path="/v1/videos"),
    Refused("E13", 400, "missing_required_parameter", "model", BAD, {"model": None}),
    Refused("E13", 400, "missing_required_parameter", "messages", BAD, {"messages": None}),
    Refused("E13", 400, "invalid_type", "max_tokens", BAD, {"max_tokens": "5"}),
    Refused("E13", 400, "invalid_type", "max_tokens", BAD, {"max_tokens": 1.5}),
    Refused("E13", 400, "invalid_type", "max_tokens", BAD, {"max_tokens": True}),
    Refused("E13", 400, "integer_below_min_value", "max_tokens", BAD, {"max_tokens": 0}),
    Refused("E13", 400, "integer_below_min_value", "max_tokens", BAD, {"max_tokens": -1}),
    Refused("E13", 400, "integer_above_max_value", "max_tokens", BAD, {"max_tokens": 2**63}),
    Refused("E13", 400, "integer_above_max_value", "max_tokens", BAD, {"max_tokens": 16_385}),
    Refused("E13", 400, "integer_above_max_value", "n", BAD, {"n": 129}),
    Refused("E13", 400, "invalid_type", "stream", BAD, {"stream": "true"}),
    Refused("E14", 400, "unsupported_parameter", "service_tier", BAD, {"service_tier": "priority"}),
    Refused("E14", 400, "unsupported_parameter", "web_search_options", BAD,
            {"web_search_options": {}}),
    Refused("E14", 400, "unsupported_parameter", "tools[0].type", BAD,
            {"tools": [{"type": "web_search"}]}),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case.row} {case.code} {case.param}")
def test_e07_to_e14_a_refused_request(bench: Bench, case: Refused) -> None:
    stage = bench.stage()
    body = {**stage.body(), **case.values}

    answer = ask(
        bench.gateway, "POST", case.path, headers=stage.caller.headers, body=orjson.dumps(body)
    )

    check_error(answer, status=case.status, type=INVALID, code=case.code, param=case.param)
    with pytest.raises(case.exception) as raised:
        stage.client(prefix="").post(case.path, cast_to=object, body=body)
    assert (raised.value.code, raised.value.param) == (case.code, case.param)
    check_nothing_happened(stage)


METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "LOCK")
# By path below the prefix: which methods are offered there, and the dialect that is spoken.
OFFERED = {
    "chat/completions": ("POST", "openai"),
    "completions": ("POST", "openai"),
    "embeddings": ("POST", "openai"),
    "messages": ("POST", "anthropic"),
    "messages/count_tokens": ("POST", "anthropic"),
    "models": ("GET", "openai"),
    "models/a": ("GET", "openai"),
    "models/a:generateContent": ("POST", "gemini"),
    "models/a:embedContent": ("POST", "gemini"),
    "moderations": ("POST", "openai"),
    "quote": ("POST", "openai"),
    "rerank": ("POST", "openai"),
    "responses": ("POST", "openai-responses"),
    "responses/input_tokens": ("POST", "openai-responses"),
    "responses/resp_0123456789abcdef": ("GET, DELETE", "openai-responses"),
    "responses/resp_0123456789abcdef/input_items": ("GET", "openai-responses"),
    "usage": ("GET", "openai"),
}
# Whose headers are asked for as well.
LOOKED_AT = ("models", "models/a", "usage")


def _spellings(path: str) -> list[str]:
    if ":" in path:
        return [f"/v1/{path}", f"/api/v1beta/{path}"]
    return [f"/v1/{path}", f"/api/v1/{path}/"]


def test_every_path_is_asked_here() -> None:
    assert set(operations._BY_PATH) <= set(OFFERED)


@pytest.mark.parametrize("path", OFFERED)
def test_e10_a_method_that_is_not_offered(bench: Bench, path: str) -> None:
    allowed, dialect = OFFERED[path]
    told = Told(405, INVALID, "method_not_supported", "invalid_request_error", "INVALID_ARGUMENT")

    for spelling in _spellings(path):
        for method in METHODS:
            if method not in allowed.split(", "):
                answer = ask(bench.gateway, method, spelling)
                check_told(answer, told, dialect, allow=allowed)


@pytest.mark.parametrize("path", [*OFFERED, "none", ""])
def test_t6_a_head_request_has_the_headers_of_an_error_and_no_body(bench: Bench, path: str) -> None:
    expected = 401 if path in LOOKED_AT else 405 if path in OFFERED else 404

    for spelling in _spellings(path):
        answer = ask(bench.gateway, "HEAD", spelling)

        assert answer.status == expected
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert int(answer.headers["content-length"]) > 0
        assert answer.body == b""


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "GET", "POST", "LOCK"])
@pytest.mark.parametrize("path", ["/v1", "/v1/../admin", "/v1/%2e%2e/admin", "/v1/none?x=1"])
def test_t6_every_method_on_unknown_paths_gets_json(bench: Bench, method: str, path: str) -> None:
    answer = ask(bench.gateway, method, path)

    check_error(answer, status=404, type=INVALID, code="unknown_url")


def test_e15_a_body_that_is_too_large_is_refused_before_it_is_read(bench: Bench) -> None:
    stage = bench.stage()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {stage.caller.raw}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {(32 << 20) + 1}\r\n\r\n"
    )

    with RawConnection(bench.gateway.port) as connection:
        connection.send(head.encode() + b'{"model": ')
        received = connection.read_all()

    answer = HttpAnswer(*parse_answer(received))
    check_error(answer, status=413, type=INVALID, code="request_too_large", connection="close")
    check_nothing_happened(stage)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br"},
    ],
)
def test_e16_another_type_or_encoding(bench: Bench, headers: dict[str, str]) -> None:
    stage = bench.stage()

    answer = ask(
        bench.gateway, "POST", CHAT, headers={**stage.caller.headers, **headers}, body=b"{}"
    )

    check_error(
        answer,
        status=415,
        type=INVALID,
        code="unsupported_media_type",
        accept="application/json",
    )
    check_nothing_happened(stage)
