"""The order of things: the hold before the provider, the settlement before the end."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from apps.audit.models import APIRequest
from apps.billing.models import Account, Entry, Hold
from tests.e2e.wire import RawConnection, open_stream, post
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench
from tests.support.processes import wait_until


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
    assert hold.amount_nanos >= 10 * INPUT_NANOS + 5 * OUTPUT_NANOS
    assert not APIRequest.objects.filter(pk=request_id).exists()
    statement = stage.settled()
    assert [row.pk for row in statement.rows] == [request_id]
    connection.close()


def test_a_client_that_saw_the_end_has_been_charged(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=5")
    connection = open_stream(stage)

    connection.read_until(b"data: [DONE]")

    entries = Entry.objects.filter(
        kind="charge", account__customer_id=stage.caller.user.customer_id
    ).values_list("amount_nanos", flat=True)
    assert list(entries) == [-(10 * INPUT_NANOS + 5 * OUTPUT_NANOS)]
    connection.close()
