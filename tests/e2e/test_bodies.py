"""Hostile requests: bodies that two parsers read differently, headers, and the framing of HTTP."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import psutil
import pytest

from tests.e2e.answers import HttpAnswer, ask, check_error, check_nothing_leaks
from tests.e2e.wire import RawConnection, head_of
from tests.support.gateway import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage

CHAT = "/v1/chat/completions"
INVALID = "invalid_request_error"
CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS


def send(stage: Stage, body: bytes, **headers: str) -> HttpAnswer:
    """Send a body as it stands."""
    return ask(
        stage.bench.gateway, "POST", CHAT, headers={**stage.caller.headers, **headers}, body=body
    )


def check_nothing_happened(stage: Stage) -> None:
    """Check that a refused call left no row, no hold and no upstream call."""
    statement = stage.bench.statement(stage.caller)
    assert (statement.rows, statement.entries, statement.holds) == ((), (), 0)
    assert stage.upstream_calls == []


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
        for _ in range(40):
            connection.send(chunk)
        received = connection.read_all()

    # The answer may be lost where the client goes on sending into a closed connection.
    assert received == b"" or head_of(received)[0] == 413
    assert process.memory_info().rss - before < 120 << 20
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


# ---- smuggling


def _smuggle(lines: list[str], body: bytes) -> bytes:
    return "\r\n".join([f"POST {CHAT} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body


HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer KEY\r\n\r\n"
HOST = ["Host: gateway", "Authorization: Bearer KEY", "Content-Type: application/json"]
CHUNKED = "Transfer-Encoding: chunked"
SMUGGLING: dict[str, bytes] = {
    "CL.TE": _smuggle([*HOST, "Content-Length: 6", CHUNKED], b"0\r\n\r\n" + HIDDEN),
    "TE.CL": _smuggle([*HOST, CHUNKED, "Content-Length: 4"], b"5c\r\n" + HIDDEN),
    "TE twice": _smuggle([*HOST, CHUNKED, "Transfer-Encoding: identity"], b"0\r\n\r\n" + HIDDEN),
    "TE xchunked": _smuggle([*HOST, "Transfer-Encoding: xchunked"], b"0\r\n\r\n" + HIDDEN),
    "TE chunked, identity": _smuggle(
        [*HOST, "Transfer-Encoding: chunked, identity"], b"0\r\n\r\n" + HIDDEN
    ),
    "a space before the colon": _smuggle(
        [*HOST, "Transfer-Encoding : chunked", "Content-Length: 3"], b"0\r\n" + HIDDEN
    ),
    "a vertical tab": _smuggle(
        [*HOST, "Transfer-Encoding:\x0bchunked", "Content-Length: 3"], b"0\r\n" + HIDDEN
    ),
    "CL twice": _smuggle([*HOST, "Content-Length: 2", "Content-Length: 5"], b"{}" + HIDDEN),
    "CL list": _smuggle([*HOST, "Content-Length: 2, 5"], b"{}" + HIDDEN),
    "CL +2": _smuggle([*HOST, "Content-Length: +2"], b"{}" + HIDDEN),
    "CL 0x2": _smuggle([*HOST, "Content-Length: 0x2"], b"{}" + HIDDEN),
    "CL -2": _smuggle([*HOST, "Content-Length: -2"], b"{}" + HIDDEN),
    "CL too large": _smuggle([*HOST, "Content-Length: 99999999999999999999"], b"{}" + HIDDEN),
    "a bare LF after a header": _smuggle(HOST, b"").replace(b"gateway\r\n", b"gateway\n"),
    "a bare CR in a header": _smuggle(["Host: gate\rway", *HOST[1:]], b""),
    "a folded header": _smuggle([*HOST, "X-A: 1\r\n Transfer-Encoding: chunked"], HIDDEN),
    "NUL in a header": _smuggle([*HOST, "X-A: \x00"], b""),
    "a chunk size of 0x2": _smuggle([*HOST, CHUNKED], b"0x2\r\n{}\r\n0\r\n\r\n" + HIDDEN),
    "a chunk size with a sign": _smuggle([*HOST, CHUNKED], b"+2\r\n{}\r\n0\r\n\r\n" + HIDDEN),
    "a chunk size beyond 64 bits": _smuggle([*HOST, CHUNKED], b"f" * 17 + b"\r\n" + HIDDEN),
    "a chunk without its end": _smuggle([*HOST, CHUNKED], b"2\r\n{}xx0\r\n\r\n" + HIDDEN),
    "a bare LF after a chunk size": _smuggle([*HOST, CHUNKED], b"2\n{}\r\n0\r\n\r\n" + HIDDEN),
    "a line break in a chunk extension": _smuggle(
        [*HOST, CHUNKED], b"2;a=\n1\r\n{}\r\n0\r\n\r\n" + HIDDEN
    ),
    "no version": b"GET /v1/models\r\nHost: x\r\n\r\n" + HIDDEN,
    "version 9": b"GET /v1/models HTTP/9.9\r\nHost: x\r\n\r\n" + HIDDEN,
    "the address of another host": b"GET http://evil.example/v1/models HTTP/1.1\r\n\r\n" + HIDDEN,
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a line break in the address": b"GET /v1/models\r\n/x HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_ambiguous_requests_get_one_refusal_and_the_end_of_the_connection(
    bench: Bench, name: str
) -> None:
    stage = bench.stage()
    request = SMUGGLING[name].replace(b"KEY", stage.caller.raw.encode())

    with RawConnection(bench.gateway.port) as connection:
        connection.send(request)
        received = connection.read_all()

    status, headers = head_of(received)
    assert received.count(b"HTTP/1.1 ") == 1
    assert status == 400
    assert headers["connection"] == "close"
    assert b'"object":"list"' not in received
    check_nothing_happened(stage)


def test_what_follows_a_refused_body_is_never_answered(bench: Bench) -> None:
    stage = bench.stage()
    hidden = HIDDEN.replace(b"KEY", stage.caller.raw.encode())
    head = _smuggle([*HOST, f"Content-Length: {(32 << 20) + 1}"], b"").replace(
        b"KEY", stage.caller.raw.encode()
    )

    with RawConnection(bench.gateway.port) as connection:
        connection.send(head + hidden)
        received = connection.read_all()

    assert head_of(received)[0] == 413
    assert received.count(b"HTTP/1.1 ") == 1


def test_garbage_behind_a_running_stream_never_becomes_a_part_of_it(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=stall_after(2)")
    body = orjson.dumps(stage.body(stream=True))
    head = _smuggle([*HOST, f"Content-Length: {len(body)}"], body)

    with RawConnection(bench.gateway.port) as connection:
        connection.send(head.replace(b"KEY", stage.caller.raw.encode()))
        connection.read_until(b'"This"')
        connection.send(b"\x00\x01garbage\r\n\r\n")
        received = connection.read_all()

    assert received.count(b"HTTP/1.1 ") == 1
    assert not received.endswith(b"0\r\n\r\n")
    statement = stage.settled()
    assert statement.states == ("client_disconnected",)
    assert len(statement.entries) == 1


def test_an_error_in_a_body_that_was_answered_already_gets_no_second_answer(bench: Bench) -> None:
    request = _smuggle(["Host: gateway", CHUNKED], b"2\r\n{}\r\n")

    with RawConnection(bench.gateway.port) as connection:
        connection.send(request)
        connection.read_until(b"missing_api_key")
        connection.send(b"zz\r\ngarbage")
        received = connection.read_all()

    assert received.count(b"HTTP/1.1 ") == 1


def test_pipelined_requests_are_answered_in_their_order(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,latency=0.1")
    body = orjson.dumps(stage.body())
    first = _smuggle([*HOST, f"Content-Length: {len(body)}"], body)
    both = (first + HIDDEN).replace(b"KEY", stage.caller.raw.encode())

    with RawConnection(bench.gateway.port) as connection:
        connection.send(both)
        received = connection.read_until(b'"object":"list"')

    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.index(b"chat.completion") < received.index(b'"object":"list"')
    assert stage.settled().charges == (CHARGE,)


def test_streams_of_many_callers_do_not_mix(bench: Bench) -> None:
    stages = [bench.stage(f"demo-chat:prompt={number}") for number in range(1, 21)]
    connections = [RawConnection(bench.gateway.port) for _ in stages]
    found: list[Any] = []

    for stage, connection in zip(stages, connections, strict=True):
        body = orjson.dumps(stage.body(stream=True, stream_options={"include_usage": True}))
        head = _smuggle([*HOST, f"Content-Length: {len(body)}"], body)
        connection.send(head.replace(b"KEY", stage.caller.raw.encode()))
    for connection in connections:
        received = connection.read_until(b"0\r\n\r\n")
        found.append([b'"prompt_tokens":%d,' % n in received for n in range(1, 21)].index(True))
        connection.close()

    assert found == list(range(20))
    assert all(len(stage.settled().rows) == 1 for stage in stages)
