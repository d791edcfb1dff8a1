"""Gateways without enough memory, descriptors or processor time (F09 to F11, F96)."""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter

import psutil

from apps.billing.models import Incarnation
from tests.e2e.wire import RawConnection
from tests.faults.load import first_success_after, steady_calls
from tests.faults.machine import busy_core, pin
from tests.faults.planted import BLOCKED_SECONDS, BLOCKS
from tests.faults.site import Payer, Site, chat
from tests.support.gateway import GatewayProcess
from tests.support.processes import wait_until

MIB = 1 << 20
SENDERS = 8
ROOM_BYTES = 700 * MIB
DESCRIPTORS = 256
CLIENTS = 200
PLACES = 80  # half of what is left when 96 are kept
BACK_SECONDS_MAX = 5.0
BUSY_PERCENT_MAX = 90.0  # of a core: who waits for a descriptor does not ask again and again


def big_body(gateway: GatewayProcess, payer: Payer, is_chunked: bool, found: list[bytes]) -> None:
    """Send a gibibyte, as far as it is taken, and note the answer."""
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {1 << 30}"
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {payer.key}"
        f"\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    )
    piece = b"100000\r\n" + b" " * MIB + b"\r\n" if is_chunked else b" " * MIB
    with RawConnection(gateway.port) as connection:
        connection.send(head.encode())
        for _ in range(1024):
            if not connection.send_some(piece):
                break
        found.append(connection.read_all())


def test_a_gibibyte_is_refused_before_it_takes_memory(site: Site) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    (gateway,) = site.start_gateways("a")
    process = psutil.Process(gateway.process.pid)
    limit = process.memory_info().vms + ROOM_BYTES
    resource.prlimit(gateway.process.pid, resource.RLIMIT_AS, (limit, limit))
    before = process.memory_info().rss
    most, answers = before, list[bytes]()
    senders = [
        threading.Thread(target=big_body, args=(gateway, payer, bool(number % 2), answers))
        for number in range(SENDERS)
    ]

    with steady_calls(site, [gateway], payer, quick, 2) as outcomes:
        for sender in senders:
            sender.start()
        while any(sender.is_alive() for sender in senders):
            most = max(most, process.memory_info().rss)
            time.sleep(0.02)
        healed_at = time.monotonic()
        time.sleep(1.0)

    statuses = Counter(int(answer[9:12]) for answer in answers if answer)
    assert gateway.process.poll() is None
    # Announced ones are refused unread; of the others 32 MiB are read, or what there is room for.
    assert statuses.keys() <= {413, 503}
    assert statuses[413] >= SENDERS // 2
    assert most - before < 300 * MIB
    assert {one.status for one in outcomes} <= {200, 503}
    assert first_success_after(outcomes, healed_at) < BACK_SECONDS_MAX
    site.check_books(
        f"F09 {SENDERS} bodies of 1 GiB, memory +{(most - before) / MIB:.0f} MiB, {dict(statuses)}",
        outcomes,
        healed_at=healed_at,
    )


def test_a_gateway_without_descriptors_refuses_and_recovers_by_itself(site: Site) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    streaming = site.make_model("tokens=40,pace=0.1")
    (gateway,) = site.start_gateways("a")
    process = psutil.Process(gateway.process.pid)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=CLIENTS)
    time.sleep(2.0)
    process.cpu_percent()
    time.sleep(1.5)
    busy = process.cpu_percent()
    streams = site.crowd.wait(60)
    healed_at = time.monotonic()
    with steady_calls(site, [gateway], payer, quick, 4) as outcomes:
        time.sleep(BACK_SECONDS_MAX)

    answers = Counter(one.status for one in streams)
    # 0: who is refused unheard may not hear it.
    assert answers.keys() <= {200, 503, 0}
    assert answers[200] >= PLACES
    assert busy < BUSY_PERCENT_MAX
    assert all(one.is_whole for one in streams if one.status == 200)
    back = first_success_after(outcomes, healed_at)
    assert back < BACK_SECONDS_MAX
    late = [one for one in outcomes if one.ended_at - one.seconds > healed_at + 1.0]
    assert {one.status for one in late} == {200}
    site.check_books(
        f"F10 {CLIENTS} streams on {DESCRIPTORS} descriptors: {dict(answers)}, "
        f"processor {busy:.0f} %, calls again after {back:.1f} s",
        [*streams, *outcomes],
        healed_at=healed_at,
    )


def test_an_event_loop_that_is_blocked_for_five_seconds_ends_nothing_wrongly(site: Site) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    # Idle for less than the block.
    provider = site.make_provider(idle_timeout_seconds=2.0, first_byte_timeout_seconds=3.0)
    streaming = site.make_model("tokens=100,pace=0.1", provider=provider)
    blocking = site.make_model("tokens=5", name=f"model-{BLOCKS}")
    (gateway,) = site.start_gateways("a", plant=["tests.faults.planted:block_the_loop"])
    site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=30)
    wait_until(lambda: site.crowd.streaming == 30, timeout_seconds=20, what="the streams")
    lease = Incarnation.objects.get(ended_at=None)

    with steady_calls(site, [gateway], payer, quick, 4) as outcomes:
        time.sleep(1.0)
        site.crowd.call(gateway.url, payer.key, chat(blocking))
        time.sleep(BLOCKED_SECONDS + 2.0)
        healed_at = time.monotonic()
    streams = site.crowd.wait(60)

    assert [one.is_whole for one in streams] == [True] * 31
    assert {one.status for one in outcomes} == {200}
    assert Incarnation.objects.get(ended_at=None) == lease
    assert "the event loop stood still for" in gateway.log()
    site.check_books(
        f"F11 event loop blocked for {BLOCKED_SECONDS:.0f} s, slowest call "
        f"{max(one.seconds for one in outcomes):.1f} s",
        [*streams, *outcomes],
        healed_at=healed_at,
    )


def test_a_gateway_on_a_busy_core_answers_or_refuses_and_settles_everything(site: Site) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    streaming = site.make_model("tokens=60,pace=0.1")
    (gateway,) = site.start_gateways("a")
    pin(gateway.process.pid, 0)
    site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=30)
    wait_until(lambda: site.crowd.streaming == 30, timeout_seconds=20, what="the streams")

    with busy_core(0, 3), steady_calls(site, [gateway], payer, quick, 30) as outcomes:
        time.sleep(8.0)
        healed_at = time.monotonic()
    streams = site.crowd.wait(60)

    answers = Counter(one.status for one in outcomes)
    assert answers.keys() <= {200, 503}
    assert answers[200] > 100
    assert [one.is_whole for one in streams] == [True] * 30
    slowest = max(one.seconds for one in outcomes)
    assert slowest < 10.0
    site.check_books(
        f"F96 one core, shared with three busy processes: {dict(answers)}, slowest {slowest:.1f} s",
        [*streams, *outcomes],
        healed_at=healed_at,
    )
