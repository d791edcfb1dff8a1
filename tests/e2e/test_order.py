"""The order of things: the hold before the provider, the settlement before the end."""

from __future__ import annotations

import time
from functools import partial
from uuid import UUID

import pytest

from apps.audit.models import APIRequest
from apps.billing.models import Account, Entry, Hold
from tests.e2e.faults import LOCKED_SECONDS, nothing_commits
from tests.e2e.wire import RawConnection, open_stream, post
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench
from tests.support.processes import wait_until

CHARGE = 10 * INPUT_NANOS + 5 * OUTPUT_NANOS


def test_nothing_reaches_the_provider_before_its_hold(bench: Bench) -> None:
    stage = bench.stage("demo-chat:latency=1,prompt=10,tokens=5")
    connection = RawConnection(bench.gateway.port)
    connection.send(post(stage.caller, stage.body(max_tokens=5)))
    running = partial(bench.demo.calls, stage.upstream_name)
    wait_until(lambda: bool(running()), timeout_seconds=5, what="the provider's call")

    request_id = UUID(running()[0]["request_headers"]["x-request-id"])
    hold = Hold.objects.get(pk=request_id)
    wallet = Account.objects.get(kind="wallet", customer_id=stage.caller.user.customer_id)

    assert hold.amount_nanos == wallet.held_nanos
    assert hold.amount_nanos >= CHARGE
    assert not APIRequest.objects.filter(pk=request_id).exists()
    statement = stage.settled()
    assert [row.pk for row in statement.rows] == [request_id]
    connection.close()


def test_nothing_reaches_the_provider_while_its_hold_is_not_committed(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=5")

    with RawConnection(bench.gateway.port) as connection:
        with nothing_commits(stage):
            connection.send(post(stage.caller, stage.body()))
            time.sleep(LOCKED_SECONDS)
            calls_meanwhile = bench.demo.calls(stage.upstream_name)
        connection.read_until(b'"usage":')

    assert calls_meanwhile == []
    assert len(stage.upstream_calls) == 1
    assert stage.settled().charges == (CHARGE,)


def test_a_client_that_saw_the_end_has_been_charged(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=5")
    connection = open_stream(stage)

    connection.read_until(b"data: [DONE]")

    entries = Entry.objects.filter(
        kind="charge", account__customer_id=stage.caller.user.customer_id
    ).values_list("amount_nanos", flat=True)
    assert list(entries) == [-CHARGE]
    connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_the_end_of_an_answer_waits_for_the_commit_of_its_charge(
    bench: Bench, stream: bool
) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=5,latency=0.3")
    end = b"[DONE]" if stream else b'"usage":'

    with RawConnection(bench.gateway.port) as connection:
        connection.send(post(stage.caller, stage.body(stream=stream)))
        wait_until(
            lambda: bool(bench.demo.calls(stage.upstream_name)),
            timeout_seconds=5,
            what="the provider's call",
        )
        with nothing_commits(stage):
            calls = stage.upstream_calls
            time.sleep(LOCKED_SECONDS)
            received = connection.read_what_came()
        connection.read_until(end)

    assert [call["ended"] for call in calls] == ["done"]
    assert end not in received
    assert (b"data: " in received) == stream
    assert stage.settled().charges == (CHARGE,)
