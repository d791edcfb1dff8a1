"""Requests whose ends two servers see in different places: one refusal, and never two answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.e2e.wire import RawConnection, head_of
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage

CHAT = "/v1/chat/completions"
CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS


def check_nothing_happened(stage: Stage) -> None:
    """Check that a refused call left no row, no hold and no upstream call."""
    statement = stage.bench.statement(stage.caller)
    assert (statement.rows, statement.entries, statement.holds) == ((), (), 0)
    assert stage.upstream_calls == []


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
