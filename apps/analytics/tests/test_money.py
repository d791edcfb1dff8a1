"""Tests of money over a range, against the ledger."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from django.db.models import Sum

from apps.analytics.money import Balances, report_money
from apps.analytics.ranges import Range
from apps.analytics.tests.kit import record_call
from apps.billing.ledger.commands import Held, Line
from apps.billing.ledger.store import flush
from apps.billing.models import Account, AccountKind
from tests.support.world import (
    DOLLAR,
    NOW,
    Gateway,
    World,
    django_engine,
    make_quota,
    make_world,
    post_lines,
)

TODAY = Range(datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC))


@pytest.fixture
def world(db: None) -> World:
    """Return a customer who paid 10 dollars in."""
    return make_world()


@pytest.fixture
def gateway(world: World) -> Gateway:
    """Return a gateway of this customer."""
    return Gateway(world, django_engine())


def _settle(gateway: Gateway, tokens: int, *, at: datetime = NOW, cost: int | None = None) -> None:
    held = gateway.hold(DOLLAR)
    assert isinstance(held, Held)
    gateway.resolve(held, tokens, at=at, cost_nanos=cost)


def test_charges_costs_and_movements_are_told_apart(world: World, gateway: Gateway) -> None:
    _settle(gateway, 1_000_000, cost=400_000_000)
    _settle(gateway, 500_000)
    make_quota(world, 2 * DOLLAR)
    adjustment = Account.objects.get(kind=AccountKind.ADJUSTMENT).pk
    for kind, line_kind, nanos in (
        ("adjustment", "credit", 3 * DOLLAR),
        ("adjustment", "debit", -DOLLAR),
        ("refund", "refund", DOLLAR // 4),
    ):
        post_lines(kind, Line(world.wallet_id, line_kind, nanos), Line(adjustment, "debit", -nanos))

    report = report_money(over=TODAY)

    money = report.money
    assert (money.requests, money.requests_without_cost) == (2, 1)
    assert (money.charge_nanos, money.cost_nanos) == (1_500_000_000, 400_000_000)
    assert (money.late_charges_nanos, money.margin_nanos) == (0, 1_100_000_000)
    assert (money.top_ups_nanos, money.quotas_nanos) == (10 * DOLLAR, 2 * DOLLAR)
    assert (money.adjustments_nanos, money.refunds_nanos) == (2 * DOLLAR, DOLLAR // 4)
    assert [(day.date, day.money) for day in report.days] == [(date(2026, 11, 21), money)]
    assert [(row.id, row.name, row.sums.charge_nanos) for row in report.users] == [
        (world.user.pk, world.user.username, 1_500_000_000)
    ]
    revenue = Account.objects.filter(kind=AccountKind.REVENUE).aggregate(all=Sum("posted_nanos"))
    assert int(revenue["all"]) == money.charge_nanos


def test_late_charges_are_revenue_that_no_record_has(world: World, gateway: Gateway) -> None:
    held = gateway.hold(DOLLAR)
    assert isinstance(held, Held)
    gateway.resolve(held, 0, state="interrupted", usage_source="checkpoint")
    late = gateway.resolution(held, 250_000, cost_nanos=100_000_000)
    flush(gateway.engine, gateway.batch(resolves=(late,)), incarnation_id=gateway.incarnation_id)

    report = report_money(over=TODAY)

    money, user = report.money, report.users[0].sums
    assert (money.charge_nanos, user.charge_nanos) == (0, 0)
    assert (money.late_charges_nanos, money.cost_nanos) == (250_000_000, 100_000_000)
    assert (user.late_charges_nanos, user.cost_nanos) == (250_000_000, 100_000_000)
    assert money.margin_nanos == user.margin_nanos == 150_000_000
    assert money.requests_without_cost == 1  # as its record says
    revenue = Account.objects.filter(kind=AccountKind.REVENUE).aggregate(all=Sum("posted_nanos"))
    assert int(revenue["all"]) == 250_000_000


def test_who_was_charged_late_for_a_call_of_another_range_is_listed_as_well(
    world: World, gateway: Gateway
) -> None:
    held = gateway.hold(DOLLAR)
    assert isinstance(held, Held)
    before = TODAY.start - timedelta(days=1)
    gateway.resolve(held, 0, at=before, settled_at=before, state="interrupted")
    gateway.resolve(held, 250_000, cost_nanos=100_000_000)

    report = report_money(over=TODAY)

    assert [(row.id, row.name) for row in report.users] == [(world.user.pk, world.user.username)]
    assert (report.users[0].sums.requests, report.users[0].sums.margin_nanos) == (0, 150_000_000)
    money = report.money
    assert (money.late_charges_nanos, money.cost_nanos) == (250_000_000, 100_000_000)
    assert (money.requests, money.requests_without_cost) == (0, 0)


def test_money_belongs_to_the_moment_it_was_settled(world: World, gateway: Gateway) -> None:
    for moment in (TODAY.start, TODAY.end):
        _settle(gateway, 1_000, at=moment - timedelta(microseconds=1))
        _settle(gateway, 2_000, at=moment)
    # Began today, was settled tomorrow.
    record_call(started_at=NOW, settled_at=TODAY.end, charge_nanos=10**12)

    days = [
        report_money(over=Range(TODAY.start + shift, TODAY.end + shift))
        for shift in (timedelta(days=-1), timedelta(0), timedelta(days=1))
    ]

    assert [day.money.charge_nanos for day in days] == [
        1_000_000,
        3_000_000,
        2_000_000 + 10**12,
    ]
    assert [day.money.top_ups_nanos for day in days] == [0, 10 * DOLLAR, 0]
    assert days[1].days[0].money.charge_nanos == 3_000_000


def test_balances_are_those_of_all_customers_now(world: World, gateway: Gateway) -> None:
    make_quota(world, 2 * DOLLAR)
    _settle(gateway, 12_000_000)  # of 10 dollars: 2 are owed
    other = make_world(5 * DOLLAR)
    Gateway(other, django_engine()).hold(3 * DOLLAR)

    report = report_money(over=Range(TODAY.end, TODAY.end))

    assert report.balances == Balances(
        wallets_nanos=5 * DOLLAR,
        quotas_nanos=2 * DOLLAR,
        owed_nanos=2 * DOLLAR,
        held_nanos=3 * DOLLAR,
    )
    assert (report.days, report.users, report.money.top_ups_nanos) == ([], [], 0)
