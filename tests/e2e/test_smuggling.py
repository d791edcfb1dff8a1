"""Requests whose ends two servers see in different places: one refusal, and never two answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.rows import check_nothing_happened
from tests.e2e.smuggling import CHAT, NAMES, VALID, requests
from tests.e2e.wire import RawConnection, head_of
from tests.faults.front import needs_nginx, nginx
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage

# What comes over the wire is judged before any database is asked.
pytestmark = pytest.mark.sqlite

CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
# How long nothing comes before nothing more is taken to come.
QUIET_SECONDS = 0.4


def _smuggle(lines: list[str], body: bytes) -> bytes:
    return "\r\n".join([f"POST {CHAT} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body


HIDDEN = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer KEY\r\n\r\n"
HOST = ["Host: gateway", "Authorization: Bearer KEY", "Content-Type: application/json"]
CHUNKED = "Transfer-Encoding: chunked"
# What nginx takes and writes anew: the gateway sees two whole requests, as nginx does.
REPAIRED = {
    "a bare LF behind a chunk size": [400, 200],
    "a bare LF behind a chunk": [400, 200],
    "a bare LF behind the last chunk": [200, 200],
    "a bare LF behind a header": [400],
    "a header without a colon": [200, 200],
    "the address of another host": [401, 200],
}
# Behind nginx an answer to HTTP/0.9 has no head.
HEADLESS = {"no version", "a line break in the address"}


def _answers(received: bytes) -> list[int]:
    """Return the status of each answer but 100, which is none."""
    found = [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)]
    return [status for status in found if status != 100]


def _send(port: int, request: bytes) -> tuple[bytes, bool]:
    """Return all that came back, and whether the connection was closed."""
    with RawConnection(port, wait_seconds=QUIET_SECONDS) as connection:
        connection.send(request)
        return _read(connection)


def _read(connection: RawConnection) -> tuple[bytes, bool]:
    try:
        return connection.read_all(), True
    except TimeoutError:
        return connection.received, False


def test_there_are_more_than_40_requests() -> None:
    assert (len(NAMES), len(VALID)) == (76, 8)


@pytest.fixture(scope="module")
def refused(module_bench: Bench) -> Stage:
    """Return a stage for requests none of which becomes a call."""
    return module_bench.stage()


@pytest.mark.parametrize("name", NAMES)
def test_ambiguous_requests_get_one_refusal_and_the_end_of_the_connection(
    bench: Bench, refused: Stage, name: str
) -> None:
    request = requests(refused.caller.raw, refused.model.name)[name]

    received, is_closed = _send(bench.gateway.port, request)

    assert _answers(received) == [VALID.get(name, 400)]
    if name not in VALID:
        assert is_closed
        assert head_of(received)[1]["connection"] == "close"
    check_nothing_happened(refused)


@pytest.mark.parametrize("name", VALID)
def test_a_body_in_a_segment_of_its_own_is_no_request(
    bench: Bench, refused: Stage, name: str
) -> None:
    request = requests(refused.caller.raw, refused.model.name)[name]
    at = request.index(b"\r\n\r\n") + 4

    with RawConnection(bench.gateway.port, wait_seconds=QUIET_SECONDS) as connection:
        connection.send(request[:at])
        bench.gateway.get("/livez")  # Once this is answered the head has been read.
        connection.send(request[at:])
        received, _ = _read(connection)

    assert _answers(received) == [VALID[name]]
    check_nothing_happened(refused)


# What java.net.http sends with every call: it would rather speak HTTP/2.
JAVA = ["Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAAAAI", "Upgrade: h2c"]


def test_calls_that_offer_http_2_are_answered_and_their_connection_goes_on(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    body = orjson.dumps(stage.body())
    head = _smuggle([*HOST, *JAVA, f"Content-Length: {len(body)}"], b"")
    head = head.replace(b"KEY", stage.caller.raw.encode())

    with RawConnection(bench.gateway.port) as connection:
        connection.send(head)
        bench.gateway.get("/livez")
        connection.send(body + head + body)
        while connection.received.count(b"chat.completion") < 2:
            assert connection.read_more()

    assert _answers(connection.received) == [200, 200]
    assert stage.settled(2).charges == (CHARGE, CHARGE)


@needs_nginx
def test_behind_nginx_they_are_refused_or_read_alike_by_both(bench: Bench, tmp_path: Path) -> None:
    stage = bench.stage()
    found: dict[str, list[int]] = {}
    calls: dict[str, int] = {}

    with nginx(tmp_path / "nginx", [bench.gateway]) as port:
        for name, request in requests(stage.caller.raw, stage.model.name).items():
            before = len(stage.upstream_calls)
            received, is_closed = _send(port, request)
            found[name] = _answers(received)
            calls[name] = len(stage.upstream_calls) - before
            assert is_closed or name in VALID or name in REPAIRED, name

    for name, statuses in found.items():
        if name in REPAIRED:
            assert statuses == REPAIRED[name], name
            # Each call that the gateway made is one that its client saw answered.
            assert calls[name] == statuses.count(200), name
        else:
            assert len(statuses) == (name not in HEADLESS), name
            assert set(statuses) <= ({VALID[name]} if name in VALID else {400, 501, 505}), name
            assert calls[name] == 0, name
    assert len(stage.settled(7).rows) == sum(calls.values()) == 7


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
