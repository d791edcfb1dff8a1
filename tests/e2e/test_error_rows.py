"""One case for each row of the error table: what is answered, what the SDK does, what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import orjson
import pytest

from apps.api_keys.models import APIKey
from apps.audit.models import APIRequest
from apps.billing.models import Entry
from apps.users.models import User
from tests.e2e import planted
from tests.e2e.answers import HttpAnswer, ask, check_error, check_nothing_leaks
from tests.e2e.faults import BrokenHolds, LockedAccounts
from tests.e2e.wire import LAST_CHUNK, RawConnection, events_of, open_stream, post_bytes
from tests.support.databases import Database
from tests.support.gateway import (
    FAST,
    INPUT_NANOS,
    OUTPUT_NANOS,
    PROVIDER_SECRET,
    Bench,
    Caller,
    DemoThread,
    Stage,
    open_bench,
)
from tests.support.processes import free_port, wait_until

CHAT = "/v1/chat/completions"
INVALID = "invalid_request_error"
CONSTANTS = {
    **FAST,
    "apps.proxy.http:BODY_PIECE_SECONDS": 0.5,
    "apps.proxy.protocol:HEAD_SECONDS": 1.0,
}
PLANT = [
    "tests.e2e.planted:shorten_patience",
    "tests.e2e.planted:break_before_settlement",
    "tests.e2e.planted:break_after_settlement",
]


@pytest.fixture(scope="module")
def module_bench(
    module_db: Database, demo: DemoThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Run a gateway with short patience, and with two bugs."""
    directory = tmp_path_factory.mktemp("gateway")
    bench = open_bench(directory, module_db, demo, constants=CONSTANTS, plant=PLANT)
    yield bench
    bench.gateway.stop()


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

    answer = ask(bench.gateway, "GET", "/v1/models", headers={header: value})

    if "\x01" in key:
        # Not even HTTP.
        assert answer.status == 400
        check_nothing_leaks(answer)
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
        _wait_until_refused(caller, bench)

    disabled_answer, expired_answer = chat(stage), chat(stage, expired)

    check_error(disabled_answer, status=401, type=INVALID, code="api_key_disabled")
    check_error(expired_answer, status=401, type=INVALID, code="api_key_expired")
    assert disabled_answer.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.AuthenticationError):
        stage.client().chat.completions.create(**stage.body())


def _wait_until_refused(caller: Caller, bench: Bench) -> None:
    wait_until(
        lambda: bench.gateway.get("/v1/models", caller.raw) == 401,
        timeout_seconds=5,
        what="the end of the key",
    )


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


# ---- E07 to E18: what is asked


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


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/v1/embeddings/", "/api/v1/usage"])
@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "PROPFIND"])
def test_e10_a_method_that_is_not_offered(bench: Bench, path: str, method: str) -> None:
    allowed = "GET" if path in ("/v1/models", "/api/v1/usage") else "POST"

    answer = ask(bench.gateway, method, path)

    check_error(answer, status=405, type=INVALID, code="method_not_supported", allow=allowed)


@pytest.mark.parametrize("path", [CHAT, "/v1/none", "/v1", "/v1/", "/v1/models/none"])
def test_t6_a_head_request_has_the_headers_of_an_error_and_no_body(bench: Bench, path: str) -> None:
    answer = ask(bench.gateway, "HEAD", path)

    assert answer.status in (401, 404, 405)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
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

    answer = HttpAnswer(*_parse(received))
    check_error(answer, status=413, type=INVALID, code="request_too_large", connection="close")
    check_nothing_happened(stage)


def _parse(received: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return int(status.split(" ")[1]), {name.lower(): value for name, _, value in pairs}, body


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


@pytest.mark.parametrize(
    ("path", "lines", "status"),
    [
        ("/v1/models", ["X-Long: " + "a" * 70_000], 431),
        ("/v1/models", [f"X-{number}: a" for number in range(120)], 431),
        ("/v1/models?" + "a" * 9_000, [], 414),
        ("/v1/models?" + "a" * 70_000, [], 414),
    ],
    ids=["a long header", "many headers", "a long address", "an endless address"],
)
def test_e17_a_head_that_is_too_large(
    bench: Bench, path: str, lines: list[str], status: int
) -> None:
    head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: gateway", *lines, "", ""])

    with RawConnection(bench.gateway.port) as connection:
        connection.send(head.encode())
        received = connection.read_all()

    answer = HttpAnswer(*_parse(received))
    check_error(answer, status=status, type=INVALID, code="header_too_large", connection="close")


def test_e18_a_body_that_does_not_arrive(bench: Bench) -> None:
    stage = bench.stage()
    request = post_bytes(stage.caller, b'{"model": "x"}')

    with RawConnection(bench.gateway.port) as connection:
        connection.send(request[:-5])
        received = connection.read_all()

    answer = HttpAnswer(*_parse(received))
    check_error(
        answer,
        status=408,
        type=INVALID,
        code="request_timeout",
        retries=True,
        connection="close",
    )
    check_nothing_happened(stage)


def test_e18_a_head_that_does_not_arrive(bench: Bench) -> None:
    with RawConnection(bench.gateway.port) as connection:
        connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: gate")
        received = connection.read_all()

    answer = HttpAnswer(*_parse(received))
    check_error(
        answer, status=408, type=INVALID, code="request_timeout", retries=True, connection="close"
    )


# ---- E19 to E37: limits, and the gateway's own state


def test_e19_a_balance_that_cannot_cover_the_call(bench: Bench) -> None:
    stage = bench.stage()
    poor = bench.make_caller(wallet_nanos=1_000)

    answer = chat(stage, poor, max_tokens=100)

    check_error(answer, status=429, type="insufficient_quota", code="credit_balance_exhausted")
    with pytest.raises(openai.RateLimitError):
        bench.client(poor).chat.completions.create(**stage.body(max_tokens=100))
    check_nothing_happened(stage, poor)


def test_e20_a_key_that_has_spent_its_limit(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    capped = bench.make_caller(cap_nanos=300_000)
    chat(stage, capped, max_tokens=16)

    answers = [chat(stage, capped, max_tokens=16) for _ in range(4)]

    check_error(
        answers[-1], status=429, type="insufficient_quota", code="project_spend_limit_exceeded"
    )
    statement = bench.settled(capped, 1)
    assert sum(statement.charges) <= 300_000
    assert len(stage.upstream_calls) == len(statement.rows)
    before = len(statement.rows)
    with pytest.raises(openai.RateLimitError):
        bench.client(capped).chat.completions.create(**stage.body(max_tokens=16))
    assert len(bench.statement(capped).rows) == before


@pytest.mark.parametrize(
    ("limits", "type", "left"),
    # What a call used replaces what was reserved for it.
    [({"rpm": 1}, "requests", "0"), ({"tpm": 30}, "tokens", "4")],
)
def test_e22_and_e23_more_than_a_minute_takes(
    bench: Bench, limits: dict[str, int], type: str, left: str
) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    values: dict[str, Any] = {"user": "x" * 200}
    limited = bench.make_caller(**limits)  # type: ignore[arg-type]  # rpm or tpm
    first = chat(stage, limited, **values)

    second = chat(stage, limited, **values)

    assert first.status == 200
    assert f"x-ratelimit-limit-{type}" in first.headers
    check_error(
        second,
        status=429,
        type=type,
        code="rate_limit_exceeded",
        retries=True,
        has_retry_after=True,
        **{f"x_ratelimit_remaining_{type}": left},
    )
    with pytest.raises(openai.RateLimitError):
        bench.client(limited).chat.completions.create(**stage.body(**values))
    assert len(bench.settled(limited, 1).rows) == 1
    assert len(stage.upstream_calls) == 1


def test_e24_more_at_the_same_time_than_allowed(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=stall_after(2)")
    limited = bench.make_caller(concurrency=1)
    with RawConnection(bench.gateway.port) as running:
        running.send(post_bytes(limited, orjson.dumps(stage.body(stream=True))))
        running.read_until(b'"This"')

        answer = chat(stage, limited)
        with pytest.raises(openai.RateLimitError):
            bench.client(limited).chat.completions.create(**stage.body())

    check_error(
        answer,
        status=429,
        type="rate_limit_error",
        code="slow_down",
        retries=True,
        has_retry_after=True,
    )
    assert len(bench.settled(limited, 1).rows) == 1
    assert len(stage.upstream_calls) == 1


@pytest.mark.parametrize("kind", ["no price", "no route", "no key"])
def test_e32_a_model_without_price_or_route(bench: Bench, kind: str) -> None:
    stage = bench.stage()
    provider = bench.make_provider()
    if kind == "no key":
        provider.keys.all().delete()
    model = bench.make_model(
        "demo-chat-e32",
        prices=None if kind == "no price" else {"input": 1, "output": 1},
        provider=provider,
    )
    if kind == "no route":
        model.routes.all().delete()
    bench.wait_for_model(model, stage.caller)

    def answer() -> HttpAnswer:
        return chat(stage, model=model.name)

    wait_until(lambda: answer().status == 503, timeout_seconds=5, what="the configuration")
    check_error(answer(), status=503, type="server_error", code="model_not_available")
    with pytest.raises(openai.InternalServerError):
        stage.client().chat.completions.create(**{**stage.body(), "model": model.name})
    assert bench.demo.calls("demo-chat-e32") == []


def test_e33_the_last_route_is_tried_although_its_circuit_is_open(bench: Bench) -> None:
    port = free_port()
    stage = bench.stage(provider=bench.make_provider(f"http://127.0.0.1:{port}/v1"))

    answers = [chat(stage) for _ in range(7)]

    assert {answer.error["code"] for answer in answers} == {"upstream_unreachable"}
    assert stage.settled(7).charges == (0,) * 7


def test_e34_the_database_does_not_answer(bench: Bench) -> None:
    stage = bench.stage()

    with LockedAccounts(bench.database):
        answer = chat(stage)
        with pytest.raises(openai.InternalServerError):
            stage.client().chat.completions.create(**stage.body())

    check_error(
        answer,
        status=503,
        type="server_error",
        code="service_unavailable",
        retries=True,
        has_retry_after=True,
    )
    statement = stage.settled(0)
    assert set(statement.charges) <= {0}
    assert statement.entries == ()
    assert stage.upstream_calls == []
    wait_until(lambda: chat(stage).status == 200, timeout_seconds=10, what="the recovery")


def test_e35_the_record_of_the_call_cannot_be_written(bench: Bench) -> None:
    stage = bench.stage()
    fine = bench.make_caller()

    with BrokenHolds(bench.database, stage.caller.user.username):
        answer = chat(stage)
        other = chat(stage, fine)

    check_error(
        answer,
        status=503,
        type="server_error",
        code="service_unavailable",
        retries=True,
        has_retry_after=True,
    )
    assert other.status == 200
    assert bench.statement(stage.caller).rows == ()
    assert len(stage.upstream_calls) == 1


# ---- E40 to E53: what the provider did


@dataclass(frozen=True)
class Failed:
    """A fault of the provider before the first event."""

    row: str
    fault: str
    status: int
    code: str
    type: str = "server_error"
    param: str | None = None
    retries: bool = True
    has_retry_after: bool = True
    tries: int = 1  # upstream calls for one call of ours
    stream: bool | None = None  # None: both


FAILED = [
    Failed("E40", "status(400,context_length_exceeded)", 400, "context_length_exceeded", INVALID,
           "messages", False, False),
    Failed("E40", "status(422)", 422, "invalid_value", INVALID, "messages", False, False),
    Failed("E40", "status(400,some_secret_code)", 400, "invalid_request", INVALID, "messages",
           False, False),
    Failed("E41", "status(401)", 502, "upstream_auth_error"),
    Failed("E41", "status(403)", 502, "upstream_auth_error"),
    Failed("E42", "status(402)", 503, "upstream_unavailable"),
    Failed("E42", "status(429,insufficient_quota)", 503, "upstream_unavailable"),
    Failed("E43", "status(429)", 429, "upstream_rate_limited", "rate_limit_error"),
    Failed("E44", "status(404)", 503, "model_not_available"),
    Failed("E45", "status(413)", 413, "request_too_large", INVALID, None, False, False),
    Failed("E46", "status(500)", 502, "upstream_error"),
    Failed("E46", "status(503)", 503, "upstream_error"),
    Failed("E46", "status(529)", 503, "upstream_error"),
    Failed("E46", "echo_headers", 502, "upstream_error"),
    Failed("E46", "html(502)", 502, "upstream_error"),
    Failed("E46", "cut_after(0)", 502, "upstream_error"),
    Failed("E47", "cut_after(-1)", 502, "upstream_unreachable", tries=2),
    Failed("E47", "rst_after(-1)", 502, "upstream_unreachable"),
    Failed("E48", "slow_first(30)", 504, "upstream_timeout"),
    Failed("E48", "stall_after(-1)", 504, "upstream_timeout"),
    Failed("E49", "html", 502, "upstream_invalid_response"),
    Failed("E49", "garbage", 502, "upstream_invalid_response"),
    Failed("E49", "wrong_shape", 502, "upstream_invalid_response"),
    Failed("E49", "gzip_unasked", 502, "upstream_invalid_response"),
    Failed("E49", "gzip_bomb", 502, "upstream_invalid_response"),
    Failed("E51", "redirect", 502, "upstream_invalid_response"),
    Failed("E52", "big_body(34000000)", 502, "upstream_response_too_large", retries=False,
           has_retry_after=False, stream=False),
    Failed("E53", "err_event_first", 503, "upstream_error", stream=True),
]  # fmt: skip
EXCEPTIONS = {
    400: openai.BadRequestError,
    413: openai.APIStatusError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", FAILED, ids=lambda case: f"{case.row} {case.fault}")
def test_e40_to_e53_a_provider_that_fails(bench: Bench, case: Failed, stream: bool) -> None:
    is_stream = stream if case.stream is None else case.stream
    provider = bench.make_provider(first_byte_timeout_seconds=0.15, idle_timeout_seconds=0.15)
    stage = bench.stage(f"demo-chat:fault={case.fault}", provider=provider)

    answer = chat(stage, stream=is_stream)
    with pytest.raises(EXCEPTIONS.get(case.status, openai.InternalServerError)):
        stage.client().chat.completions.create(**stage.body(stream=is_stream))

    check_error(
        answer,
        status=case.status,
        type=case.type,
        code=case.code,
        param=case.param,
        retries=case.retries,
        has_retry_after=case.has_retry_after,
    )
    calls = 4 if case.retries else 2
    statement = stage.settled(calls)
    assert len(statement.rows) == calls
    assert set(statement.states) == {"failed"}
    assert (set(statement.charges), statement.entries) == ({0}, ())
    assert (statement.held_nanos, statement.holds) == (0, 0)
    assert len(stage.upstream_calls) == calls * case.tries
    assert {row.error_code for row in statement.rows} == {case.code}
    assert PROVIDER_SECRET not in "".join(attempt.error_text for attempt in statement.attempts)


def test_e43_the_provider_decides_how_long_to_wait_up_to_a_minute(bench: Bench) -> None:
    short = bench.stage("demo-chat:retry_after=7,fault=status(429)")
    long = bench.stage("demo-chat:retry_after=3600,fault=status(429)")

    assert chat(short).headers["retry-after"] == "7"
    assert chat(long).headers["retry-after"] == "60"


def test_e47_nobody_listens_at_the_provider(bench: Bench) -> None:
    stage = bench.stage(provider=bench.make_provider(f"http://127.0.0.1:{free_port()}/v1"))

    answer = chat(stage)
    with pytest.raises(openai.InternalServerError):
        stage.client().chat.completions.create(**stage.body())

    check_error(
        answer,
        status=502,
        type="server_error",
        code="upstream_unreachable",
        retries=True,
        has_retry_after=True,
    )
    statement = stage.settled(4)
    assert (set(statement.charges), statement.entries) == ({0}, ())


def test_e40_is_final_and_everything_else_is_tried_elsewhere(bench: Bench) -> None:
    final = bench.stage("demo-chat:fault=status(400)", fallbacks=[("demo-chat-never", None)])

    answer = chat(final)

    assert answer.status == 400
    assert bench.demo.calls("demo-chat-never") == []
    assert len(final.settled().attempts) == 1


def test_three_attempts_are_the_most(bench: Bench) -> None:
    names = [f"demo-chat-most{number}:fault=status(500)" for number in range(4)]
    stage = bench.stage("demo-chat:fault=status(500)", fallbacks=[(name, None) for name in names])

    answer = chat(stage)

    assert answer.status == 502
    assert len(stage.settled().attempts) == 3
    assert [len(bench.demo.calls(name)) for name in names] == [1, 1, 0, 0]


# ---- E60 to E66: after the stream has begun


def _error_of_sdk_stream(stage: Stage) -> openai.APIError:
    with pytest.raises(openai.APIError) as raised:
        list(stage.client().chat.completions.create(**stage.body(stream=True)))
    return raised.value


def test_e60_the_sdk_raises_and_does_not_try_again(bench: Bench) -> None:
    stage = bench.stage("demo-chat:pace=0.02,fault=cut_after(4)")

    error = _error_of_sdk_stream(stage)

    assert (error.code, error.type) == ("upstream_interrupted", "server_error")
    assert len(stage.upstream_calls) == 1
    assert len(stage.settled().rows) == 1


def test_e61_a_stream_that_takes_too_long_is_ended(bench: Bench) -> None:
    provider = bench.make_provider(total_timeout_seconds=0.5)
    stage = bench.stage("demo-chat:pace=0.02,fault=never_end", provider=provider)

    error = _error_of_sdk_stream(stage)

    assert error.code == "stream_limit_exceeded"
    statement = stage.settled()
    assert statement.states == ("limit_exceeded",)
    assert 0 < statement.charges[0] <= statement.rows[0].hold_nanos
    assert [call["ended"] for call in stage.upstream_calls] == ["client_closed"]


def test_e63_a_stream_whose_key_is_revoked_runs_to_its_end(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=16,pace=0.05")
    with open_stream(stage) as connection:
        connection.read_until(b'"This"')
        APIKey.objects.filter(pk=stage.caller.key.pk).update(is_active=False)
        _wait_until_refused(stage.caller, bench)

        events = events_of(connection.read_until(LAST_CHUNK))

    assert events[-1] == "[DONE]"
    assert stage.settled().charges == (10 * INPUT_NANOS + 16 * OUTPUT_NANOS,)


def test_e65_a_stream_ends_normally_while_the_database_is_away_and_is_settled_later(
    bench: Bench,
) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=3,pace=0.02")
    with open_stream(stage) as connection:
        connection.read_until(b'"role"')
        with LockedAccounts(bench.database):
            events = events_of(connection.read_until(LAST_CHUNK))
            journal = sorted((bench.gateway.data_dir / "journal").iterdir())

    assert events[-1] == "[DONE]"
    assert journal
    statement = stage.settled()
    assert statement.charges == (10 * INPUT_NANOS + 3 * OUTPUT_NANOS,)
    assert statement.entries == (("charge", -statement.charges[0]),)
    wait_until(lambda: chat(stage).status == 200, timeout_seconds=10, what="the recovery")


# ---- E70 and E71: our own bugs


def test_e70_a_bug_before_the_settlement_costs_nothing(bench: Bench) -> None:
    stage = bench.stage(planted.BEFORE_SETTLEMENT)

    answer = chat(stage)
    with pytest.raises(openai.InternalServerError):
        stage.client().chat.completions.create(**stage.body())

    check_error(answer, status=500, type="server_error", code="internal_error", retries=True)
    assert answer.headers["x-request-id"] in answer.error["message"]
    statement = stage.settled(4)
    assert statement.states == ("failed",) * 4
    assert (statement.charges, statement.entries) == ((0,) * 4, ())
    assert stage.upstream_calls == []
    assert planted.SECRET not in bench.gateway.log()


@pytest.mark.parametrize("stream", [False, True])
def test_e71_a_bug_after_the_settlement_is_not_tried_again(bench: Bench, stream: bool) -> None:
    stage = bench.stage(f"{planted.AFTER_SETTLEMENT}:prompt=10,fault=json_for_stream")

    with pytest.raises(openai.InternalServerError) as raised:
        stage.client().chat.completions.create(**stage.body(stream=stream))

    assert raised.value.response.headers["x-should-retry"] == "false"
    assert raised.value.code == "internal_error"
    statement = stage.settled()
    assert statement.charges == (10 * INPUT_NANOS + 16 * OUTPUT_NANOS,)
    assert len(stage.upstream_calls) == 1


# ---- over all of them


def test_what_the_sdks_repeat_by_themselves_was_never_charged(bench: Bench) -> None:
    failed = APIRequest.objects.exclude(status_code__in=[200, 499])

    charged = Entry.objects.filter(request_id__in=failed.values("pk"))

    assert not charged.exists()
    assert not failed.exclude(charge_nanos=0).exists()
