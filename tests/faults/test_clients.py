"""Clients that leave, crawl, vanish and storm (F70, F72 to F76)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import orjson
import psutil
import pytest

from apps.ai_models.models import AIModel, Route
from apps.audit.models import APIRequest
from apps.billing.models import Hold
from tests.e2e.wire import RawConnection
from tests.faults.crowd import Outcome
from tests.faults.load import steady_calls
from tests.faults.site import (
    INPUT_NANOS,
    OUTPUT_NANOS,
    PROMPT_TOKENS,
    ROUNDS,
    Site,
    chat,
    raw_chat,
)
from tests.support.gateway import GatewayProcess
from tests.support.processes import wait_until

LEAVERS = 20
LEFT_SECONDS_MAX = 1.0
SLOW_SECONDS = 5.0
SILENT_SECONDS = 6
# An address of the loopback interface that nobody else has.
LONELY = "127.73.0.1"
STORMERS = 200


# ---- F70

# What has been read when the client leaves, and whether it pays then.
POINTS = {
    "before the head": ("latency=30", b"", False),
    "after one word": ("fault=stall_after(2)", b'"This"', True),
    "before the usage": ("tokens=3,fault=stall_after(5)", b'"stop"', True),
    "after the last word": ("tokens=3,fault=stall_after(6)", b'"stop"', True),
}


@pytest.mark.slice
@pytest.mark.parametrize("number", range(ROUNDS))
def test_the_provider_is_told_within_a_second_that_a_client_has_left(
    site: Site, number: int
) -> None:
    payer = site.make_payer()
    models = {point: site.make_model(wishes) for point, (wishes, _, _) in POINTS.items()}
    (gateway,) = site.start_gateways("a")
    left: dict[str, float] = {}
    connections: list[tuple[str, RawConnection]] = []
    for (point, model), _ in itertools.product(models.items(), range(LEAVERS)):
        connection = RawConnection(gateway.port)
        connection.send(raw_chat(payer.key, chat(model, stream=True)))
        connections.append((point, connection))
    for point, connection in connections:
        if mark := POINTS[point][1]:
            connection.read_until(mark)
    wait_until(
        lambda: Hold.objects.count() == LEAVERS * len(POINTS), timeout_seconds=20, what="the holds"
    )
    time.sleep(1.0)

    for turn, (point, connection) in enumerate(connections):
        left[point] = time.time()
        connection.reset() if turn % 2 else connection.close()
    healed_at = time.monotonic()
    wait_until(
        lambda: len(site.upstream_calls()) == len(connections),
        timeout_seconds=20,
        what="the end of the calls at the provider",
    )

    calls = [orjson.loads(line) for line in site.log.read_bytes().splitlines()]
    latest = max(left.values())
    waits = [call["client_closed_at"] - latest for call in calls]
    assert max(waits) < LEFT_SECONDS_MAX
    assert {call["ended"] for call in calls} == {"client_closed"}
    site.check_books(f"F70.{number}", [], healed_at=healed_at)
    for point, model in models.items():
        rows = APIRequest.objects.filter(model_id=model.pk)
        assert {(row.state, row.status_code) for row in rows} == {("client_disconnected", 499)}
        assert [row.charge_nanos > 0 for row in rows] == [POINTS[point][2]] * LEAVERS
    site.report(
        f"F70.{number} {len(connections)} clients left at 4 points by FIN and RST, "
        f"the provider was told after at most {max(waits):.2f} s"
    )


# ---- F72


async def crawl(port: int, first: bytes, drip: bytes) -> tuple[float, bytes]:
    """Send something, then a bit every half second; return when and with what it ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begun = time.monotonic()
    reading = asyncio.ensure_future(reader.read())
    with contextlib.suppress(ConnectionError):
        writer.write(first)
        while not reading.done() and time.monotonic() < begun + 30:
            await asyncio.wait([reading], timeout=0.5)
            writer.write(drip)
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reading, 5)
    writer.close()
    return time.monotonic() - begun, answer


async def crawl_all(port: int, key: str, model: AIModel) -> dict[str, list[tuple[float, bytes]]]:
    body = b'{"model":"%b","messages":[' % model.name.encode()
    head = raw_chat(key, {}).partition(b"Content-Length")[0]
    slow_body = head + b"Content-Length: 100000\r\n\r\n" + body
    ways = {
        "heads": (b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nX-Slow: ", b"x"),
        "bodies": (slow_body, b" "),
        "bodies without a key": (slow_body.replace(key.encode(), b"sk-audit-none"), b" "),
    }
    counts = {"heads": 250, "bodies": 150, "bodies without a key": 100}
    found = await asyncio.gather(
        *(
            asyncio.gather(*(crawl(port, *ways[way]) for _ in range(count)))
            for way, count in counts.items()
        )
    )
    return dict(zip(counts, found, strict=True))


def test_five_hundred_clients_that_crawl_are_cut_and_nobody_else_notices(site: Site) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    (gateway,) = site.start_gateways(
        "a",
        constants={
            "apps.proxy.protocol:HEAD_SECONDS": SLOW_SECONDS,
            "apps.proxy.protocol:LATE_BODY_SECONDS": SLOW_SECONDS,
            "apps.proxy.http:BODY_PIECE_SECONDS": SLOW_SECONDS,
        },
    )

    with steady_calls(site, [gateway], payer, quick, 4) as outcomes:
        found = asyncio.run(crawl_all(gateway.port, payer.key, quick))
        healed_at = time.monotonic()

    assert {one.status for one in outcomes} == {200}
    statuses = {way: Counter(answer[9:12] for _, answer in ends) for way, ends in found.items()}
    assert statuses == {
        "heads": {b"408": 250},
        "bodies": {b"408": 150},
        "bodies without a key": {b"401": 100},
    }
    slowest = {way: max(seconds for seconds, _ in ends) for way, ends in found.items()}
    assert max(slowest.values()) < 2 * SLOW_SECONDS
    site.check_books(
        f"F72 500 clients crawl, limits of {SLOW_SECONDS:.0f} s, cut after at most "
        f"{max(slowest.values()):.1f} s",
        outcomes,
        healed_at=healed_at,
    )


# ---- F73


@contextmanager
def vanished(address: str) -> Iterator[None]:
    """Have packets to an address of the loopback interface disappear."""
    route = ["blackhole", f"{address}/32", "table", "local"]
    adding = subprocess.run(
        ["ip", "route", "add", *route], capture_output=True, text=True, check=False
    )
    if adding.returncode:
        pytest.skip(f"this process may not change routes: {adding.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["ip", "route", "del", *route], check=True)


@pytest.mark.parametrize("wishes", ["tokens=900,pace=0.1", "fault=stall_after(3)"])
def test_a_client_whose_power_is_cut_is_given_up_in_time(site: Site, wishes: str) -> None:
    payer, model = site.make_payer(), site.make_model(wishes)
    constants = {"apps.proxy.management.commands.serve:SILENT_SECONDS": SILENT_SECONDS}
    (gateway,) = site.start_gateways("a", constants=constants)
    connections = []
    for _ in range(5):
        client = socket.create_connection(
            ("127.0.0.1", gateway.port), timeout=10, source_address=(LONELY, 0)
        )
        client.sendall(raw_chat(payer.key, chat(model, stream=True)))
        assert b" 200 OK" in client.recv(65_536)
        connections.append(client)
    time.sleep(1.0)

    with vanished(LONELY):
        vanished_at = time.monotonic()
        wait_until(
            lambda: not Hold.objects.exists(), timeout_seconds=60, what="the end of the calls"
        )
        given_up_after = time.monotonic() - vanished_at
    for client in connections:
        client.close()

    assert given_up_after < 4 * SILENT_SECONDS
    rows = APIRequest.objects.filter(model_id=model.pk)
    assert {row.state for row in rows} == {"client_disconnected"}
    site.check_books(
        f"F73 clients without power, {wishes}: given up after {given_up_after:.1f} s where "
        f"{SILENT_SECONDS} s are allowed",
        [],
        healed_at=vanished_at,
    )


# ---- F74


async def storm(
    gateway: GatewayProcess, key: str, model: AIModel, count: int
) -> list[tuple[int, str]]:
    """Have clients of the official SDK call at once, with its own retries."""

    async def call(client: openai.AsyncOpenAI) -> tuple[int, str]:
        try:
            answer = await client.chat.completions.create(**chat(model))
        except openai.APIStatusError as error:
            return error.status_code, str(error.code)
        return 200, answer.choices[0].finish_reason

    async with openai.AsyncOpenAI(
        api_key=key, base_url=f"{gateway.url}/v1", timeout=60, max_retries=2
    ) as client:
        return await asyncio.gather(*(call(client) for _ in range(count)))


def test_sdks_that_retry_while_all_providers_fail_pay_nothing_and_recover(site: Site) -> None:
    payer = site.make_payer()
    model = site.make_model("fault=status(503)")
    (gateway,) = site.start_gateways("a")
    process = psutil.Process(gateway.process.pid)

    begun, used = time.monotonic(), sum(process.cpu_times()[:2])
    failed = asyncio.run(storm(gateway, payer.key, model, STORMERS))
    seconds = time.monotonic() - begun
    busy = (sum(process.cpu_times()[:2]) - used) / seconds
    Route.objects.filter(model=model).update(
        upstream_name=f"demo-chat:prompt={PROMPT_TOKENS},tokens=5"
    )
    healed_at = time.monotonic()
    outcomes: list[Outcome] = []
    while not any(one.is_whole for one in outcomes) and time.monotonic() < healed_at + 10:
        site.crowd.call(gateway.url, payer.key, chat(model))
        outcomes += site.crowd.wait(30)
        time.sleep(0.2)
    back = time.monotonic() - healed_at
    again = asyncio.run(storm(gateway, payer.key, model, STORMERS))

    assert Counter(failed) == {(503, "upstream_error"): STORMERS}
    assert Counter(again) == {(200, "stop"): STORMERS}
    assert back < 10.0
    rows = APIRequest.objects.filter(status_code=503)
    assert rows.count() >= 3 * STORMERS
    assert not rows.exclude(charge_nanos=0).exists()
    charge = PROMPT_TOKENS * INPUT_NANOS + 5 * OUTPUT_NANOS
    paid = APIRequest.objects.filter(state="completed")
    assert {row.charge_nanos for row in paid} == {charge}
    site.check_books(
        f"F74 {STORMERS} SDKs retry for {seconds:.1f} s, processor {100 * busy:.0f} %, answered "
        f"{back:.1f} s after the end",
        outcomes,
        healed_at=healed_at,
    )


# ---- F75


def test_five_hundred_calls_on_money_for_ten(site: Site) -> None:
    model = site.make_model("tokens=5,latency=2")
    (gateway,) = site.start_gateways("a")
    body = chat(model, max_tokens=5)
    probe = site.make_payer()
    time.sleep(1.5)
    site.crowd.call(gateway.url, probe.key, body)
    (first,) = site.crowd.wait(30)
    hold = APIRequest.objects.get(pk=first.request_id).hold_nanos
    payer = site.make_payer(10 * hold)
    time.sleep(1.5)

    site.crowd.line_up(gateway.url, payer.key, body, count=500)
    site.crowd.release()
    outcomes = site.crowd.wait(60)

    answers = Counter((one.status, one.kind) for one in outcomes)
    assert answers == {(200, ""): 10, (429, "insufficient_quota"): 490}
    refused = sorted(one.seconds for one in outcomes if one.status == 429)
    assert payer.owed_nanos == 0
    site.check_books(
        f"F75 500 calls on money for 10, half of the refusals within {refused[245]:.2f} s, all "
        f"within {refused[-1]:.2f} s",
        outcomes,
        healed_at=time.monotonic(),
    )


# ---- F76


class Answer:
    """One answer off a connection that stays open."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.status = int(head[9:12])
        headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        self.request_id = headers[b"x-request-id"]
        self.body = body


def take_answer(connection: RawConnection) -> Answer:
    """Read one answer that tells its length, and leave what follows."""
    connection.read_until(b"\r\n\r\n")
    head, _, rest = connection.received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(rest) < length:
        connection.read_more()
        rest = connection.received.partition(b"\r\n\r\n")[2]
    connection.received = rest[length:]
    return Answer(head, rest[:length])


@pytest.mark.slice
def test_answers_on_one_connection_are_those_to_its_requests_whatever_failed_before(
    site: Site,
) -> None:
    payer = site.make_payer()
    # The number of tokens tells the answers apart.
    models = [site.make_model(f"tokens={number},latency=0.0{number % 3}") for number in range(1, 9)]
    bad = site.make_model("fault=status(500)")
    (gateway,) = site.start_gateways("a")
    key = payer.key
    requests: list[tuple[bytes, tuple[int, bytes]]] = []
    for number in range(120):
        model = models[number % 8]
        told = b'"completion_tokens":%d' % (number % 8 + 1)
        requests += [
            (raw_chat(key, chat(model)), (200, told)),
            (raw_chat("sk-audit-wrong", chat(model)), (401, b"invalid_api_key")),
            (raw_chat(key, {**chat(model), "model": f"none-{number}"}), (404, b"model_not_found")),
            (raw_chat(key, {**chat(model), "n": -number - 1}), (400, b"integer_below_min_value")),
            (raw_chat(key, chat(bad)), (502, b"upstream_error")),
        ]
    found, ids = [], set()

    with RawConnection(gateway.port) as connection:
        for start in range(0, len(requests), 10):
            part = requests[start : start + 10]
            # Alone, or ten at once.
            for several in [part] if start % 20 else [[one] for one in part]:
                connection.send(b"".join(data for data, _ in several))
                for _, (status, told) in several:
                    answer = take_answer(connection)
                    found.append((answer.status, told in answer.body))
                    ids.add(answer.request_id)
                    assert (answer.status, told in answer.body) == (status, True)

    assert len(ids) == len(requests) == 600
    site.check_books(
        f"F76 {len(found)} answers on one connection in their order",
        [],
        healed_at=time.monotonic(),
    )
