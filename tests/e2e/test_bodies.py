"""Hostile requests: bodies that two parsers read differently, and headers."""

from __future__ import annotations

import gzip

import orjson
import psutil
import pytest

from tests.e2e.answers import HttpAnswer, ask, check_error, check_nothing_leaks
from tests.e2e.rows import CHOOSING, check_nothing_happened
from tests.e2e.wire import RawConnection, head_of
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage

# What comes over the wire is judged before any database is asked.
pytestmark = pytest.mark.sqlite

CHAT = "/v1/chat/completions"
INVALID = "invalid_request_error"
CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS


def send(stage: Stage, body: bytes, **headers: str) -> HttpAnswer:
    """Send a body as it stands."""
    return ask(
        stage.bench.gateway, "POST", CHAT, headers={**stage.caller.headers, **headers}, body=body
    )


M = b'"messages":[{"role":"user","content":"x"}]'
# MODEL stands for the model's name.
BODIES: dict[str, tuple[bytes, str, str | None]] = {
    "empty": (b"", "invalid_json", None),
    "not JSON": (b"hello", "invalid_json", None),
    "an array": (b"[]", "invalid_json", None),
    "a string": (b'"MODEL"', "invalid_json", None),
    "null": (b"null", "invalid_json", None),
    "a byte order mark": (b'\xef\xbb\xbf{"model":"MODEL",' + M + b"}", "invalid_json", None),
    "UTF-16": ('{"model":"MODEL"}'.encode("utf-16"), "invalid_json", None),
    "Latin-1": (b'{"model":"MODEL\xe9",' + M + b"}", "invalid_json", "model"),
    "a comment": (b'{"model":"MODEL",/* x */' + M + b"}", "invalid_json", None),
    "a trailing comma": (b'{"model":"MODEL",' + M + b",}", "invalid_json", None),
    "single quotes": (b"{'model':'MODEL'}", "invalid_json", None),
    "two objects": (b'{"model":"MODEL",' + M + b'}{"model":"other"}', "invalid_json", None),
    "a key twice": (b'{"model":"MODEL","model":"dear",' + M + b"}", "duplicate_parameter", "model"),
    "a key twice but for case": (
        b'{"model":"MODEL","Model":"dear",' + M + b"}",
        "duplicate_parameter",
        "Model",
    ),
    "an escaped key twice": (
        b'{"model":"MODEL","\\u006dodel":"dear",' + M + b"}",
        "duplicate_parameter",
        "model",
    ),
    "a nested key twice": (
        b'{"model":"MODEL","messages":[{"role":"user","role":"system"}]}',
        "duplicate_parameter",
        "role",
    ),
    "a metered key in capitals": (
        b'{"model":"MODEL","Max_Tokens":1,' + M + b"}",
        "unsupported_parameter",
        "Max_Tokens",
    ),
    "NaN": (b'{"model":"MODEL","temperature":NaN,' + M + b"}", "invalid_json", "temperature"),
    "Infinity": (b'{"model":"MODEL","top_p":-Infinity,' + M + b"}", "invalid_json", "top_p"),
    "1e999": (b'{"model":"MODEL","top_p":1e999,' + M + b"}", "invalid_json", "top_p"),
    "5000 digits": (
        b'{"model":"MODEL","seed":' + b"9" * 5000 + b"," + M + b"}",
        "invalid_json",
        "seed",
    ),
    "2**64": (b'{"model":"MODEL","seed":18446744073709551616,' + M + b"}", "invalid_json", "seed"),
    "a lone surrogate": (b'{"model":"MODEL","user":"\\ud800",' + M + b"}", "invalid_json", "user"),
    "NUL": (b'{"model":"MODEL","user":"a\\u0000b",' + M + b"}", "invalid_json", "user"),
    "a raw NUL": (b'{"model":"MODEL","user":"a\x00b",' + M + b"}", "invalid_json", None),
    "depth 65": (
        b'{"model":"MODEL","metadata":' + b"[" * 64 + b"]" * 64 + b"," + M + b"}",
        "invalid_json",
        "metadata",
    ),
    "depth 100000": (
        b'{"model":"MODEL","metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"," + M + b"}",
        "invalid_json",
        "metadata",
    ),
    "depth without an end": (b'{"a":' * 100_000, "invalid_json", "a"),
    "line breaks in a model name": (b'{"model":"MODEL\\r\\nx: y",' + M + b"}", "invalid_value",
                                    "model"),
    "an array as model": (b'{"model":["MODEL"],' + M + b"}", "invalid_type", "model"),
    "a long model name": (b'{"model":"' + b"m" * 10_000 + b'",' + M + b"}", "invalid_value",
                          "model"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_what_parsers_read_differently_is_refused(bench: Bench, name: str) -> None:
    body, code, param = BODIES[name]
    stage = bench.stage()

    answer = send(stage, body.replace(b"MODEL", stage.model.name.encode()))

    check_error(answer, status=400, type=INVALID, code=code, param=param)
    check_nothing_happened(stage)


@pytest.mark.parametrize(
    "name",
    ["../../files", "x?y=1", "x#y", "x@y", "%2e%2e", "Model", " model", "mode\u0301l", "x/../y"],
)
def test_names_of_models_match_exactly_or_not_at_all(bench: Bench, name: str) -> None:
    stage = bench.stage()

    answer = send(stage, orjson.dumps(stage.body() | {"model": name}))
    padded = send(stage, orjson.dumps(stage.body() | {"model": stage.model.name + " "}))

    check_error(answer, status=404, type=INVALID, code="model_not_found", param="model")
    check_error(padded, status=404, type=INVALID, code="model_not_found", param="model")
    check_nothing_happened(stage)


def test_a_body_of_just_under_32_mebibytes_is_taken_and_one_above_is_not(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    room = (32 << 20) - len(orjson.dumps(stage.body(user="")))

    fits = send(stage, orjson.dumps(stage.body(user="x" * room)))

    assert fits.status == 200
    assert stage.settled().charges == (CHARGE,)
    assert stage.upstream_calls[0]["body_bytes"] > 32 << 20


def test_an_endless_chunked_body_is_refused_at_the_limit_with_little_memory(bench: Bench) -> None:
    stage = bench.stage()
    process = psutil.Process(bench.gateway.process.pid)
    before = process.memory_info().rss
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {stage.caller.raw}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"

    with RawConnection(bench.gateway.port) as connection:
        connection.send(head.encode())
        most = before
        for _ in range(40):
            connection.send(chunk)
            most = max(most, process.memory_info().rss)
        received = connection.read_all()

    # The answer may be lost where the client goes on sending into a closed connection.
    assert received == b"" or head_of(received)[0] == 413
    assert most - before < 50 << 20
    check_nothing_happened(stage)


def test_a_million_values_are_refused(bench: Bench) -> None:
    stage = bench.stage()
    body = b'{"model":"x","messages":[' + b"0," * 1_000_001 + b"0]}"

    answer = send(stage, body)

    check_error(answer, status=400, type=INVALID, code="invalid_json")
    check_nothing_happened(stage)


def test_a_compressed_body_is_refused_unread(bench: Bench) -> None:
    stage = bench.stage()
    bomb = gzip.compress(b" " * (64 << 20))

    answer = send(stage, bomb, **{"Content-Encoding": "gzip"})

    check_error(answer, status=415, type=INVALID, code="unsupported_media_type")
    check_nothing_happened(stage)


# ---- what goes up


FOREIGN_HEADERS = {
    "X-Portkey-Custom-Host": "http://evil.example",
    "Helicone-Target-Url": "http://evil.example",
    "OpenAI-Organization": "org-evil",
    "OpenAI-Project": "evil",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-For": "10.9.8.7",
    "Forwarded": "for=10.9.8.7",
    "X-Real-IP": "10.9.8.7",
    "Cookie": "session=evil",
    "Proxy-Authorization": "Basic evil",
    "Proxy-Connection": "evil",
    "Connection": "keep-alive, x-evil",
    "X-Evil": "evil",
    "TE": "trailers",
    "Keep-Alive": "timeout=99",
    "traceparent": "00-evil",
    "X-Request-Id": "evil",
    "User-Agent": "evil-agent",
    "Accept-Encoding": "gzip",
    "Idempotency-Key": "evil",
    "X-Stainless-Retry-Count": "1",
}


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_that_would_choose_the_provider_reaches_it(bench: Bench, stream: bool) -> None:
    stage = bench.stage("demo-chat:prompt=10")

    answer = send(stage, orjson.dumps(stage.body(stream=stream, **CHOOSING)), **FOREIGN_HEADERS)

    assert answer.status == 200
    (call,) = stage.upstream_calls
    options = {"stream_options": {"include_usage": True}} if stream else {}
    assert call["body"] == {
        **stage.body(stream=stream),
        "model": stage.upstream_name,
        **options,
    }
    assert sorted(call["request_headers"]) == [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "x-request-id",
    ]
    assert "evil" not in str(call)
    assert call["request_headers"]["accept-encoding"] == "identity"
    assert call["request_headers"]["x-request-id"] == answer.headers["x-request-id"]


def test_the_body_is_written_anew(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    name = stage.model.name
    body = (
        f'{{ "\\u006dodel" : "{name}" ,\n "messages": [ {{"role":"user", "content":"\\u00e9"}} ],'
        '"x_unknown": [1, 2.50, 1e2, true, null] }'
    )

    answer = send(stage, body.encode())

    assert answer.status == 200
    (call,) = stage.upstream_calls
    sent = {
        "model": stage.upstream_name,
        "messages": [{"role": "user", "content": "é"}],
        "x_unknown": [1, 2.5, 100.0, True, None],
    }
    assert call["body"] == sent
    assert call["body_bytes"] == len(orjson.dumps(sent))


# ---- what comes down


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["set_cookie", "100_continue"])
def test_headers_of_the_provider_stay_with_us(bench: Bench, stream: bool, fault: str) -> None:
    stage = bench.stage(f"demo-chat:prompt=10,fault={fault}")

    answer = send(stage, orjson.dumps(stage.body(stream=stream)))

    framing = "transfer-encoding" if stream else "content-length"
    assert sorted(answer.headers) == sorted(
        [
            "cache-control",
            "content-type",
            "date",
            framing,
            "request-id",
            "x-content-type-options",
            "x-request-id",
        ]
    )
    assert answer.headers["content-type"] == (
        "text/event-stream; charset=utf-8" if stream else "application/json; charset=utf-8"
    )
    assert bench.request_row(answer.headers["x-request-id"]).charge_nanos == CHARGE


def test_te_and_cl_of_the_provider_at_once_lead_to_no_wrong_answer(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,fault=te_cl_conflict")

    answer = send(stage, orjson.dumps(stage.body()))

    check_nothing_leaks(answer)
    statement = stage.settled()
    assert (answer.status, statement.charges) in ((200, (CHARGE,)), (502, (0,)))
