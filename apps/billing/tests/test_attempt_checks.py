"""Attempts that are not those of their call's record are found by a verification of everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from apps.audit.records import attempt_row
from apps.billing.ledger.commands import Held
from apps.billing.ledger.store import Engine, flush
from apps.billing.tests.verification_kit import find
from tests.support.tampering import Tamper
from tests.support.world import NOW, Gateway, make_world

Connect = Callable[[], Engine]


def settle_with_attempts(
    gateway: Gateway, *costs: int | None, cost_nanos: int | None, **row: Any
) -> None:
    """Settle a call with an attempt for each of `costs`, the last of which answered."""
    held = gateway.hold(5_000)
    assert isinstance(held, Held)
    world = gateway.world
    attempts = [
        attempt_row(
            request_id=held.request_id,
            number=number,
            route_id=world.route.pk,
            provider_id=world.provider.pk,
            provider_name=world.provider.name,
            provider_key_id=1,
            upstream_model="small",
            started_at=NOW,
        )
        | {"cost_nanos": cost}
        for number, cost in enumerate(costs, start=1)
    ]
    resolve = gateway.resolution(
        held, 5, cost_nanos=cost_nanos, **({"attempt_count": len(attempts)} | row)
    )
    batch = gateway.batch(resolves=(resolve._replace(attempts=tuple(attempts)),))
    flush(gateway.engine, batch, incarnation_id=gateway.incarnation_id)


@pytest.fixture
def tried(ledger_connect: Connect) -> Gateway:
    """A gateway that has settled calls with several attempts, of which not all costs are known."""
    gateway = Gateway(make_world(), ledger_connect())
    settle_with_attempts(gateway, 200, 0, 500, cost_nanos=700)
    settle_with_attempts(gateway, None, 500, cost_nanos=500)
    settle_with_attempts(gateway, None, None, cost_nanos=500)
    settle_with_attempts(gateway, 9, cost_nanos=9)
    return gateway


def test_a_call_that_does_not_cost_what_its_attempts_do_is_found(
    tried: Gateway, tamper: Tamper
) -> None:
    assert find() == []

    tamper.run("UPDATE audit_attempt SET cost_nanos = cost_nanos + 3 WHERE cost_nanos = 200")

    (found,) = find()
    assert found.invariant == "I-23"
    assert found.message.endswith("off by -3 nanos")


@pytest.mark.parametrize(
    ("change", "told"),
    {
        "one of no cost": (
            "DELETE FROM audit_attempt WHERE cost_nanos = 0",
            "it has 2 attempts, and its record says 3",
        ),
        "all of a call": (
            "DELETE FROM audit_attempt WHERE cost_nanos = 9",
            "it has 0 attempts, and its record says 1",
        ),
        "another provider": (
            "UPDATE audit_attempt SET provider_id = provider_id + 1 WHERE cost_nanos = 9",
            "its last attempt was not by the route and at the provider of its record",
        ),
        "another route": (
            "UPDATE audit_attempt SET route_id = route_id + 1 WHERE cost_nanos = 9",
            "its last attempt was not by the route and at the provider of its record",
        ),
        "another number": (
            "UPDATE audit_attempt SET number = 2 WHERE cost_nanos = 9",
            "its last attempt was not by the route and at the provider of its record",
        ),
    }.values(),
)
def test_attempts_that_are_not_those_of_the_record_are_found(
    tried: Gateway, tamper: Tamper, change: str, told: str
) -> None:
    tamper.run(change)

    (found,) = find()
    assert (found.invariant, found.message) == ("I-23", told)


@pytest.mark.parametrize(
    "row",
    [
        {"upstream_model": "", "attempt_count": 2},
        {"state": "interrupted", "attempt_count": 0},
        {"attempt_count": 0},
    ],
    ids=["in its bare form", "ended by somebody else", "answered by nobody"],
)
def test_calls_without_attempts_are_no_finding(
    ledger_connect: Connect, row: dict[str, Any]
) -> None:
    settle_with_attempts(Gateway(make_world(), ledger_connect()), cost_nanos=0, **row)

    assert find() == []
