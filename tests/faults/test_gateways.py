"""Gateways that are killed or frozen with open streams (F01, F03)."""

from __future__ import annotations

import signal
import time
from random import Random

import pytest

from apps.audit.models import APIRequest
from apps.billing.models import Entry, Hold
from tests.faults.site import RECOVERY_SECONDS_MAX, ROUNDS, Site, chat
from tests.support.processes import wait_until

pytestmark = pytest.mark.slice
STREAMS = 100
FROZEN_SECONDS = 45.0


@pytest.mark.sqlite
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_gateway_killed_with_100_streams_is_started_again(
    site: Site, number: int, chance: Random
) -> None:
    long, short = site.make_model("tokens=150,pace=0.2"), site.make_model("tokens=20,pace=0.02")
    payer = site.make_payer()
    (gateway,) = site.start_gateways("a")
    site.crowd.call(gateway.url, payer.key, chat(short, stream=True), count=30)
    site.crowd.call(gateway.url, payer.key, chat(long, stream=True), count=STREAMS)
    wait_until(lambda: site.crowd.streaming >= STREAMS, timeout_seconds=30, what="the streams")
    time.sleep(chance.uniform(1.0, 3.0))

    gateway.kill()
    outcomes = site.crowd.wait(30)
    killed_at = time.monotonic()
    site.start_gateways("a")

    assert sum(not one.is_whole for one in outcomes) >= STREAMS
    site.check_books(f"kill -9 and restart, round {number}", outcomes, healed_at=killed_at)


@pytest.mark.postgres
@pytest.mark.parametrize("number", range(ROUNDS))
def test_another_gateway_takes_over_from_a_killed_and_from_a_frozen_one(
    site: Site, number: int, chance: Random
) -> None:
    long = site.make_model("tokens=250,pace=0.2")
    killed_payer, living_payer, frozen_payer = (site.make_payer() for _ in range(3))
    killed, living, frozen = site.start_gateways("killed", "living", "frozen")
    body = chat(long, stream=True)
    site.crowd.call(killed.url, killed_payer.key, body, count=STREAMS)
    site.crowd.call(living.url, living_payer.key, body, count=10)
    site.crowd.call(frozen.url, frozen_payer.key, body, count=30)
    wait_until(lambda: site.crowd.streaming == 140, timeout_seconds=30, what="the streams")
    without_note = Hold.objects.filter(checkpoint=None)
    wait_until(
        lambda: not without_note.exists(), timeout_seconds=40, what="checkpoints of all streams"
    )
    time.sleep(chance.uniform(0.0, 3.0))

    killed.kill()
    frozen.process.send_signal(signal.SIGSTOP)
    harmed_at = time.monotonic()
    try:
        mine = Hold.objects.filter(customer_id=killed_payer.customer_id)
        wait_until(
            lambda: not mine.exists(), timeout_seconds=RECOVERY_SECONDS_MAX, what="take-over"
        )
        taken_over_at = time.monotonic()
        theirs = Hold.objects.filter(customer_id=frozen_payer.customer_id)
        wait_until(lambda: not theirs.exists(), timeout_seconds=20, what="the frozen one's holds")
        time.sleep(max(0.0, harmed_at + FROZEN_SECONDS - time.monotonic()))
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    woken_at = time.monotonic()
    outcomes = site.crowd.wait(60)

    rows = APIRequest.objects.filter(customer_id=killed_payer.customer_id)
    assert [row.state for row in rows] == ["interrupted"] * STREAMS
    assert all(0 < row.charge_nanos < row.hold_nanos for row in rows)
    assert [one.is_whole for one in outcomes] == [False] * STREAMS + [True] * 40
    site.check_books(
        f"kill -9, taken over in {taken_over_at - harmed_at:.1f} s, and SIGSTOP for 45 s, "
        f"round {number}",
        outcomes,
        healed_at=woken_at,
        faults=2,
    )
    late = Entry.objects.filter(kind="late", account__customer_id=frozen_payer.customer_id)
    assert late.count() == 30
