"""Rows of the error table that end or fill a gateway: each test has a gateway of its own.

Over 400 lines because each row needs a gateway in a state of its own.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import orjson
import psutil
import pytest

from tests.e2e.answers import (
    HttpAnswer,
    Told,
    ask,
    check_broken_off,
    check_error,
    check_told,
)
from tests.e2e.dialects import SURFACES
from tests.e2e.endpoints import CHATS, ENDPOINTS, Asked
from tests.e2e.faults import LockedAccounts
from tests.e2e.raw_upstream import Heard, RawUpstream, respond
from tests.e2e.wire import (
    LAST_CHUNK,
    RawConnection,
    body_of,
    events_of,
    head_of,
    open_stream,
    post,
    post_bytes,
)
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage, open_bench
from tests.support.databases import Database
from tests.support.gateway import FAST, DemoThread, GatewayProcess
from tests.support.processes import wait_until
from tests.support.prometheus import parse

CHAT = "/v1/chat/completions"
SHORT = ["tests.e2e.planted:shorten_patience"]


class Alone:
    """Starts gateways for one test and stops what it started."""

    def __init__(self, directory: Path, database: Database, demo: DemoThread) -> None:
        self._directory = directory
        self._database = database
        self._demo = demo
        self._started: list[GatewayProcess] = []

    def open(self, **options: Any) -> Bench:
        """Start the first gateway and set up its world."""
        bench = open_bench(self._directory / "0", self._database, self._demo, **options)
        self._started.append(bench.gateway)
        return bench

    def start_another(self, **options: Any) -> GatewayProcess:
        """Start one more gateway on the same database."""
        directory = self._directory / str(len(self._started))
        gateway = GatewayProcess.start(directory, self._database, **options)
        self._started.append(gateway)
        return gateway

    def stop(self) -> None:
        """Kill what still runs."""
        for gateway in self._started:
            gateway.kill()


@pytest.fixture
def alone(committed_db: Database, demo: DemoThread, tmp_path: Path) -> Iterator[Alone]:
    """Let the test start gateways of its own."""
    made = Alone(tmp_path, committed_db, demo)
    yield made
    made.stop()


def chat(stage: Stage, **values: Any) -> HttpAnswer:
    """Make a call without the SDK."""
    body = orjson.dumps(stage.body(**values))
    return ask(stage.bench.gateway, "POST", CHAT, headers=stage.caller.headers, body=body)


def test_e36_and_e66_a_gateway_that_drains_refuses_new_calls_and_ends_long_streams(
    alone: Alone,
) -> None:
    bench = alone.open(environment={"DRAIN_SECONDS": "3"}, constants=FAST)
    endless = bench.stage("demo-chat:prompt=10,pace=0.02,fault=never_end")
    short = bench.stage("demo-chat:prompt=10,tokens=16,pace=0.03")
    idle, finishing = RawConnection(bench.gateway.port), open_stream(short)
    running = {dialect: RawConnection(bench.gateway.port) for dialect in SURFACES}
    with ExitStack() as opened:
        for connection in (idle, finishing, *running.values()):
            opened.enter_context(connection)
        for dialect, surface in SURFACES.items():
            running[dialect].send(surface.request(endless))
            running[dialect].read_until(b" more")
        finishing.read_until(b'"This"')
        # A connection that has been used stays open, as those of SDKs do.
        idle.send(post(short.caller, {"model": "none", "messages": []}))
        idle.read_until(b"}}")

        bench.gateway.process.send_signal(signal.SIGTERM)
        bench.gateway.process.send_signal(signal.SIGTERM)
        finished = finishing.read_until(LAST_CHUNK)
        broken = {dialect: connection.read_all() for dialect, connection in running.items()}

    assert events_of(finished)[-1] == "[DONE]"
    told = Told(200, "server_error", "service_restarting", "api_error", "503 UNAVAILABLE")
    for dialect, received in broken.items():
        check_broken_off(received, told, dialect)
    statement = endless.settled(4)
    assert statement.states == ("gateway_drained",) * 4
    assert all(0 < row.charge_nanos <= row.hold_nanos for row in statement.rows)
    assert short.settled().charges == (10 * INPUT_NANOS + 16 * OUTPUT_NANOS,)
    bench.gateway.process.wait(15)


def test_a_gateway_that_drains_takes_calls_for_a_moment_then_e36(alone: Alone) -> None:
    bench = alone.open(environment={"DRAIN_SECONDS": "6"}, constants=FAST)
    stage = bench.stage("demo-chat:prompt=10,tokens=60,pace=0.05")
    quick = bench.stage("demo-chat:prompt=10,tokens=4")
    port = bench.gateway.port
    chats = [Asked(ENDPOINTS[name], stage) for name in CHATS]
    requests = [post_bytes(stage.caller, asked.body(), asked.path_of()) for asked in chats]
    probe, used = RawConnection(port), RawConnection(port)
    late = [RawConnection(port) for _ in chats]
    with ExitStack() as opened:
        running = opened.enter_context(open_stream(stage))
        for connection in (probe, used, *late):
            opened.enter_context(connection)
        running.read_until(b'"This"')
        # Their heads are there when the signal comes, their bodies long after.
        for connection, request in zip(late, requests, strict=True):
            connection.send(request[:-20])
        # A connection that has been used stays open, as those of proxies do.
        used.send(b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n")
        used.read_until(b"}")
        used.received = b""

        bench.gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not _is_listening(bench), timeout_seconds=5, what="the drain")
        probe.send(b"GET /readyz HTTP/1.1\r\nHost: gateway\r\n\r\n")
        used.send(post(quick.caller, quick.body()))
        probed, taken = probe.read_all(), used.read_all()
        time.sleep(1.5)
        for connection, request in zip(late, requests, strict=True):
            connection.send(request[-20:])
        refused = [connection.read_all() for connection in late]
        finished = running.read_until(LAST_CHUNK)

    assert head_of(probed)[0] == 503
    assert (head_of(taken)[0], head_of(taken)[1]["connection"]) == (200, "close")
    told = Told(503, "server_error", "service_restarting", "overloaded_error", "UNAVAILABLE")
    for asked, received in zip(chats, refused, strict=True):
        check_told(
            HttpAnswer(*head_of(received), body_of(received)),
            told,
            asked.dialect,
            retries=True,
            has_retry_after=True,
            connection="close",
        )
    assert events_of(finished)[-1] == "[DONE]"
    assert (stage.settled().states, quick.settled().states) == (("completed",), ("completed",))
    bench.gateway.process.wait(15)


def _is_listening(bench: Bench) -> bool:
    try:
        bench.gateway.get("/livez")
    except OSError:
        return False
    return True


def test_e36_a_call_whose_hold_is_being_placed_when_the_gateway_drains(alone: Alone) -> None:
    bench = alone.open(environment={"DRAIN_SECONDS": "1"}, constants=FAST)
    stage = bench.stage()
    answers: list[HttpAnswer] = []

    with LockedAccounts(bench.database):
        caller = threading.Thread(target=lambda: answers.append(chat(stage)))
        caller.start()
        wait_until(
            lambda: _is_connected(bench),
            timeout_seconds=5,
            what="the call",
        )
        bench.gateway.process.send_signal(signal.SIGTERM)
        caller.join(10)

    assert [answer.status for answer in answers] == [503]
    assert answers[0].error["code"] in ("service_restarting", "service_unavailable")
    bench.gateway.process.wait(20)
    statement = stage.settled(0)
    assert (set(statement.charges) | {0}, statement.entries) == ({0}, ())
    assert stage.upstream_calls == []


def _is_connected(bench: Bench) -> bool:
    """Return whether somebody is connected to the gateway."""
    process = psutil.Process(bench.gateway.process.pid)
    return any(
        connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == bench.gateway.port
        for connection in process.net_connections("tcp")
    )


def test_e71_a_settlement_that_the_server_does_not_wait_for_is_not_tried_again(
    alone: Alone,
) -> None:
    bench = alone.open(
        environment={"DRAIN_SECONDS": "1"},
        constants=FAST,
        plant=["tests.e2e.planted:lengthen_patience"],
    )
    stage = bench.stage("demo-chat:prompt=10,latency=1")
    answers: list[HttpAnswer] = []
    caller = threading.Thread(target=lambda: answers.append(chat(stage)))
    caller.start()
    wait_until(
        lambda: bench.demo.calls(stage.upstream_name) != [],
        timeout_seconds=5,
        what="the call at the provider",
    )

    with LockedAccounts(bench.database):
        assert len(stage.upstream_calls) == 1
        bench.gateway.process.send_signal(signal.SIGTERM)
        caller.join(15)

    bench.gateway.process.wait(20)
    # What the database did not take in time is in the journal.
    alone.start_another(environment={"DATA_DIR": str(bench.gateway.data_dir)})
    check_error(
        answers[0], status=500, type="server_error", code="internal_error", retries=False,
        connection="close",
    )  # fmt: skip
    statement = stage.settled()
    assert statement.states == ("completed",)
    assert statement.charges == (10 * INPUT_NANOS + 16 * OUTPUT_NANOS,)
    assert len(statement.attempts) == 1


def test_e34_use_that_takes_long_to_sum_is_told_to_who_asks_again(alone: Alone) -> None:
    pieces = {"apps.proxy.used:PIECE_ROWS": 1, "apps.proxy.used:SECONDS": 0.0}
    bench = alone.open(constants={**FAST, **pieces})
    stage = bench.stage()
    for _ in range(2):
        assert chat(stage).status == 200
    stage.settled()

    answers = [
        ask(bench.gateway, "GET", "/v1/usage", headers=stage.caller.headers) for _ in range(3)
    ]

    assert [answer.status for answer in answers] == [503, 503, 200]
    check_error(
        answers[0],
        status=503,
        type="server_error",
        code="service_unavailable",
        retries=True,
        has_retry_after=True,
    )
    assert orjson.loads(answers[2].body)["requests"] == 2


def test_e37_a_gateway_that_is_full(alone: Alone) -> None:
    bench = alone.open(constants={**FAST, "apps.proxy.weight:BYTES_IN_FLIGHT_MAX": 100_000})
    stage = bench.stage()

    small = chat(stage)
    chats = [Asked(ENDPOINTS[name], stage) for name in CHATS]
    padding: dict[str, dict[str, Any]] = {
        "gemini": {"labels": {"a": "x" * 20_000}},
        "anthropic": {"system": "x" * 20_000},
    }
    large = [asked(**padding.get(asked.dialect, {"user": "x" * 20_000})) for asked in chats]
    with pytest.raises(openai.InternalServerError):
        stage.client().chat.completions.create(**stage.body(user="x" * 20_000))

    assert small.status == 200
    full = "service_unavailable_error", "server_is_overloaded", "529 overloaded_error"
    told = Told(503, *full, "UNAVAILABLE")
    for asked, answer in zip(chats, large, strict=True):
        check_told(answer, told, asked.dialect, retries=True, has_retry_after=True)
    assert len(stage.settled().rows) == 1
    assert len(stage.upstream_calls) == 1
    bench.close_clients()


def test_e37_a_gateway_that_has_no_descriptors_for_more_clients(alone: Alone) -> None:
    bench = alone.open(
        # What is left of any limit is one client, and what it asks.
        constants={**FAST, "apps.proxy.protocol:KEPT_DESCRIPTORS": 1 << 30}
    )
    stage = bench.stage("demo-chat:prompt=10,tokens=40,pace=0.05")
    chats = [Asked(ENDPOINTS[name], stage) for name in CHATS]
    with open_stream(stage) as stream:
        stream.read_until(b'"This"')

        refused = [asked() for asked in chats]
        probes = [bench.gateway.get(path) for path in ("/livez", "/readyz", "/metrics", "/admin/")]
        streamed = stream.read_until(LAST_CHUNK)
    counted = parse(ask(bench.gateway, "GET", "/metrics").body.decode())[1]

    full = "service_unavailable_error", "server_is_overloaded", "529 overloaded_error"
    told = Told(503, *full, "UNAVAILABLE")
    for asked, answer in zip(chats, refused, strict=True):
        check_told(answer, told, asked.dialect, retries=True, has_retry_after=True)
        assert answer.headers["connection"] == "close"
    assert probes == [200, 200, 200, 302]
    assert events_of(streamed)[-1] == "[DONE]"
    row = 'gateway_refusals_total{row="E37",code="server_is_overloaded"}'
    assert counted[row] == len(chats)
    assert len(stage.settled().rows) == len(stage.upstream_calls) == 1


def _vectors(heard: Heard) -> list[bytes]:
    """Answer with as many bytes as the input says; a model in vain, with what is no answer."""
    size = int(heard.json["input"])
    if heard.json["model"].startswith("vain"):
        return [respond(b'"' + b"A" * size + b'"')]
    vector = {"object": "embedding", "index": 0, "embedding": "A" * size}
    usage = {"prompt_tokens": 10, "total_tokens": 10}
    return [respond(orjson.dumps({"object": "list", "data": [vector], "usage": usage}))]


def test_e37_an_answer_for_which_there_is_no_room_is_not_sent_and_not_charged(
    alone: Alone,
) -> None:
    bench = alone.open(
        constants={**FAST, "apps.proxy.weight:ANSWER_BYTES_IN_FLIGHT_MAX": 2_600_000}
    )
    with RawUpstream(_vectors) as upstream:
        provider = bench.make_provider(upstream.base_url)
        stage = bench.stage("good", provider=provider, fallbacks=[("other", provider)])
        twice = bench.stage("vain", provider=provider, fallbacks=[("other", provider)])

        def embed(one: Stage, size: int) -> HttpAnswer:
            body = orjson.dumps({"model": one.model.name, "input": str(size)})
            headers = one.caller.headers
            return ask(bench.gateway, "POST", "/v1/embeddings", headers=headers, body=body)

        # Six times of it is set aside, but for what is small.
        too_large, *others = [embed(stage, size) for size in (600_000, 400_000, 200_000)]
        second = embed(twice, 400_000)
        asked = [heard.json["model"].partition("-")[0] for heard in upstream.heard]
    left = parse(ask(bench.gateway, "GET", "/metrics").body.decode())[1]

    check_error(
        too_large,
        status=503,
        type="service_unavailable_error",
        code="server_is_overloaded",
        retries=True,
        has_retry_after=True,
    )
    assert [answer.status for answer in (*others, second)] == [200, 200, 200]
    # No other route is asked for what would be as large.
    assert asked == ["good", "good", "good", "vain", "other"]
    statement = stage.settled()
    assert statement.states == ("failed", "completed", "completed")
    assert statement.charges == (0, 10 * INPUT_NANOS, 10 * INPUT_NANOS)
    assert (statement.held_nanos, statement.holds) == (0, 0)
    first = statement.attempts[0]
    assert (first.outcome, first.status_code) == ("server_is_overloaded", 200)
    assert first.cost_nanos is None
    assert twice.settled().charges == (10 * INPUT_NANOS,)
    assert left["gateway_bytes_in_flight"] == 0
    assert left["gateway_answer_bytes_in_flight"] == 0


def _kept(heard: Heard) -> list[bytes]:
    """Answer shortly, and at length who asks for the answer again."""
    said = {"type": "output_text", "text": "Hello.", "annotations": []}
    document = {
        "id": "resp_raw",
        "object": "response",
        "status": "completed",
        "model": "raw",
        "output": [{"type": "message", "role": "assistant", "content": [said]}],
        "usage": {"input_tokens": 10, "output_tokens": 16, "total_tokens": 26},
    }
    if heard.lines[0].startswith("GET"):
        document["instructions"] = "x" * (100_000 if "include=" in heard.lines[0] else 400_000)
    return [respond(orjson.dumps(document))]


def test_e37_a_stored_answer_for_which_there_is_no_room(alone: Alone) -> None:
    bench = alone.open(
        constants={**FAST, "apps.proxy.weight:ANSWER_BYTES_IN_FLIGHT_MAX": 2_000_000}
    )
    with RawUpstream(_kept) as upstream:
        provider = bench.make_provider(upstream.base_url, dialect="openai-responses")
        stage = bench.stage("raw", provider=provider)
        headers = stage.caller.headers
        body = orjson.dumps({"model": stage.model.name, "input": "Hi", "store": True})
        made = ask(bench.gateway, "POST", "/v1/responses", headers=headers, body=body)

        large, small = [
            ask(bench.gateway, "GET", f"/v1/responses/resp_raw{query}", headers=headers)
            for query in ("", "?include=message.output_text.logprobs")
        ]
    left = parse(ask(bench.gateway, "GET", "/metrics").body.decode())[1]

    assert (made.status, small.status) == (200, 200)
    assert (large.status, large.error["code"]) == (503, "server_is_overloaded")
    assert large.headers["retry-after"] == "1"
    assert left["gateway_bytes_in_flight"] == 0
    assert left["gateway_answer_bytes_in_flight"] == 0


def test_e64_a_stream_of_a_killed_gateway_is_cut_and_its_hold_resolved_by_the_next(
    alone: Alone,
) -> None:
    bench = alone.open(constants=FAST, plant=SHORT)
    stage = bench.stage("demo-chat:fault=stall_after(4)")
    with open_stream(stage) as connection:
        connection.read_until(b"costs")

        bench.gateway.kill()
        received = connection.read_all()
        alone.start_another(constants=FAST, plant=SHORT)

    assert not received.endswith(LAST_CHUNK)
    statement = _wait_for_rows(stage)
    assert statement.states == ("interrupted",)
    assert statement.charges == (0,)
    assert (statement.held_nanos, statement.holds) == (0, 0)
    assert [call["ended"] for call in stage.upstream_calls] == ["client_closed"]


def _wait_for_rows(stage: Stage) -> Any:
    wait_until(
        lambda: bool(stage.bench.statement(stage.caller).rows),
        timeout_seconds=20,
        what="the end of the dead gateway's hold",
    )
    return stage.settled()
