"""What an owner brings that comes after others have ended his call (I-07)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apps.audit.models import APIRequest, Attempt, Payload
from apps.audit.records import attempt_row
from apps.billing.late_records import read_reason
from apps.billing.ledger.commands import Held, PayloadRecord, Resolve, Resolved
from apps.billing.ledger.store import Engine
from apps.billing.models import Transaction
from apps.billing.tests.writer_kit import account, flusher_of
from tests.support.databases import Database
from tests.support.people import rest_client
from tests.support.soundness import is_sound
from tests.support.world import NOW, Gateway, World, make_world

WALLET = 1_000_000
COSTS = (200, 4_000)
Connect = Callable[[], Engine]


@pytest.fixture
def world(committed_db: Database) -> World:
    """A customer with 1,000,000 nanos; input costs 1000 nanos a token."""
    return make_world(WALLET)


@pytest.fixture
def gateway(world: World, ledger_connect: Connect) -> Gateway:
    """His gateway."""
    return Gateway(world, ledger_connect())


@pytest.fixture
def ended(gateway: Gateway) -> Held:
    """A call that somebody else has ended, for nothing."""
    held = gateway.hold(9_000)
    assert isinstance(held, Held)
    gateway.resolve(
        held, 0, state="interrupted", usage_source="none", cost_nanos=None, attempt_count=0
    )
    return held


def settlement(gateway: Gateway, held: Held, *, tokens: int = 5, **attempt: Any) -> Resolve:
    """Return what its owner knows of it: two attempts, usage, and bodies."""
    attempts = tuple(
        attempt_row(
            request_id=held.request_id,
            number=number,
            route_id=1,
            provider_id=1,
            provider_name="somewhere",
            provider_key_id=1,
            upstream_model="small",
            started_at=NOW,
        )
        | {"cost_nanos": cost, **attempt}
        for number, cost in enumerate(COSTS, start=1)
    )
    return gateway.resolution(
        held, tokens, cost_nanos=sum(COSTS), cost_version_id=77, attempt_count=len(attempts)
    )._replace(attempts=attempts, payload=PayloadRecord(b"s" * 16, b"asked", b"told", False, False))


def costs_of_attempts() -> list[int | None]:
    return list(Attempt.objects.order_by("number").values_list("cost_nanos", flat=True))


def test_what_came_of_a_call_is_told_with_its_late_charge(gateway: Gateway, ended: Held) -> None:
    before = APIRequest.objects.values().get()

    flusher_of(gateway).flush([settlement(gateway, ended)], [])

    told = read_reason(Transaction.objects.get(kind="late_settlement").reason)
    assert told is not None
    assert {name: value for name, value in told.items() if value} == {
        "input_tokens": 5,
        "usage_source": "reported",
        "price_version_id": gateway.world.price.pk,
        "cost_version_id": 77,
        "cost_nanos": 4_200,
    }
    assert costs_of_attempts() == [200, 4_000]
    assert APIRequest.objects.values().get() == before
    assert Payload.objects.count() == 0
    assert account(gateway.world.wallet_id) == (WALLET - 5_000, 0)
    assert is_sound()


def test_who_comes_late_again_writes_nothing_more(gateway: Gateway, ended: Held) -> None:
    late, flusher = settlement(gateway, ended), flusher_of(gateway)

    answers = [flusher.flush([late], [])[0][0] for _ in range(2)]
    in_one_batch, _ = flusher.flush([late, late], [])

    nothing = Resolved(ended.request_id, 0, is_first=False)
    assert answers == [Resolved(ended.request_id, 5_000, is_first=False), nothing]
    assert in_one_batch == [nothing, nothing]
    assert costs_of_attempts() == [200, 4_000]
    assert Transaction.objects.filter(kind="late_settlement").count() == 1


def test_attempts_that_the_database_refuses_do_not_keep_the_charge_away(
    gateway: Gateway, ended: Held
) -> None:
    late = settlement(gateway, ended, provider_name=None)

    (answer,), _ = flusher_of(gateway).flush([late], [])

    assert answer == Resolved(ended.request_id, 5_000, is_first=False)
    assert costs_of_attempts() == []
    assert account(gateway.world.wallet_id) == (WALLET - 5_000, 0)


def test_without_a_late_charge_nothing_is_written(gateway: Gateway) -> None:
    held = gateway.hold(9_000)
    assert isinstance(held, Held)
    gateway.resolve(held, 5, state="interrupted", usage_source="checkpoint", attempt_count=0)

    flusher_of(gateway).flush([settlement(gateway, held)], [])

    assert costs_of_attempts() == []
    assert Transaction.objects.filter(kind="late_settlement").count() == 0


def test_a_customer_is_not_told_what_his_call_cost_the_operator(
    gateway: Gateway, ended: Held
) -> None:
    flusher_of(gateway).flush([settlement(gateway, ended)], [])

    client = rest_client(gateway.world.user)
    listed = client.get("/api/user/ledger/?kind=late").json()["results"]
    call = client.get(f"/api/user/requests/{ended.request_id}/").json()

    assert [row["reason"] for row in listed] == [
        f"settled after the hold of {ended.request_id} had been resolved"
    ]
    (line,) = call["explained_charge"]["lines"]
    assert (line["item"], line["count"], line["amount"]) == ("input", 5, "0.000005")
    assert not {name for name in call if "cost" in name}
