"""Tests of what calls come to in a range."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from apps.analytics.ranges import Range
from apps.analytics.tests.kit import record_call
from apps.analytics.usage import ASPECTS, report_usage
from apps.billing.ledger.commands import Held
from tests.support.world import DOLLAR, Gateway, django_engine, make_world

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOVEMBER = Range(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
A_MICROSECOND = timedelta(microseconds=1)


def test_a_range_has_its_first_moment_and_not_its_last(db: None) -> None:
    for moment in (NOVEMBER.start, NOVEMBER.end):
        record_call(started_at=moment - A_MICROSECOND)
        record_call(started_at=moment)

    months = [
        Range(datetime(2026, month, 1, tzinfo=UTC), datetime(2026, month + 1, 1, tzinfo=UTC))
        for month in (10, 11)
    ] + [Range(datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))]
    found = [report_usage({}, over=month, now=NOW).totals.requests for month in months]

    assert found == [1, 2, 1]


def test_today_counts_whatever_the_range(db: None) -> None:
    record_call(started_at=datetime(2026, 11, 20, 23, 59, 59, 999_999, UTC))
    record_call(started_at=datetime(2026, 11, 21, tzinfo=UTC), charge_nanos=7)
    record_call(started_at=datetime(2026, 11, 22, tzinfo=UTC))

    report = report_usage({}, over=Range(NOVEMBER.start, NOVEMBER.start), now=NOW)

    assert (report.totals.requests, report.today.requests, report.today.charge_nanos) == (0, 1, 7)


def test_every_aspect_adds_up_to_the_totals(db: None) -> None:
    worlds = [make_world(), make_world()]
    for number in range(7):
        world = worlds[number % 2]
        record_call(
            started_at=NOW - timedelta(days=number % 3),
            user_id=world.user.pk,
            model_id=world.model.pk,
            provider_id=world.provider.pk if number else None,
            charge_nanos=10**number,
            cost_nanos=number,
            input_tokens=number,
        )

    report = report_usage({}, over=NOVEMBER, now=NOW, by=ASPECTS)

    groups = [report.days, report.models, report.providers, report.users]
    for group in groups:
        assert group is not None
        assert sum(row.sums.charge_nanos for row in group) == 1_111_111
        assert sum(row.sums.cost_nanos for row in group) == 21
        assert sum(row.sums.input_tokens for row in group) == 21
    assert [len(group or []) for group in groups] == [3, 2, 3, 2]
    assert report.days is not None
    assert [day.date for day in report.days] == [
        date(2026, 11, 19),
        date(2026, 11, 20),
        date(2026, 11, 21),
    ]


def test_what_a_call_is_charged_late_belongs_to_the_call(db: None) -> None:
    world = make_world()
    gateway = Gateway(world, django_engine())
    for tokens in (250_000, 0):
        held = gateway.hold(DOLLAR)
        assert isinstance(held, Held)
        gateway.resolve(held, 100_000, state="interrupted", usage_source="checkpoint")
        if tokens:
            gateway.resolve(held, tokens, at=NOW + timedelta(days=40), cost_nanos=30_000_000)
    record_call(started_at=NOW, charge_nanos=1, cost_nanos=5, user_id=999_999, model_id=999_999)

    report = report_usage({}, over=NOVEMBER, now=NOW, by=ASPECTS)

    assert (report.totals.charge_nanos, report.today.charge_nanos) == (200_000_001, 200_000_001)
    assert report.totals.late_charges_nanos == report.today.late_charges_nanos == 150_000_000
    assert report.totals.cost_nanos == report.today.cost_nanos == 30_000_005
    assert report.totals.margin_nanos == 319_999_996
    assert report.totals.requests_without_cost == 1  # of the two that were interrupted
    groups = [report.days, report.models, report.providers, report.users]
    assert [[row.sums.late_charges_nanos for row in group or []] for group in groups] == [
        [150_000_000],
        [150_000_000, 0],
        [150_000_000, 0],
        [150_000_000, 0],
    ]
    for group in groups:
        assert sum(row.sums.cost_nanos for row in group or []) == 30_000_005
        assert sum(row.sums.requests_without_cost for row in group or []) == 1


def test_a_cost_that_is_told_late_counts_beyond_what_the_record_says(db: None) -> None:
    gateway = Gateway(make_world(), django_engine())
    for recorded, told in ((0, 7), (5, 7), (None, None)):
        held = gateway.hold(DOLLAR)
        assert isinstance(held, Held)
        gateway.resolve(held, 0, state="interrupted", cost_nanos=recorded)
        gateway.resolve(held, 1_000, cost_nanos=told)

    totals = report_usage({}, over=NOVEMBER, now=NOW).totals

    assert (totals.cost_nanos, totals.requests_without_cost) == (14, 1)
    assert totals.late_charges_nanos == 3_000_000


def test_groups_have_todays_names_and_what_is_gone_the_recorded_one(db: None) -> None:
    world = make_world()
    for user_id, name in ((world.user.pk, "old name"), (999_999, "long gone")):
        record_call(
            started_at=NOW,
            user_id=user_id,
            user_name=name,
            model_id=user_id + 7_000_000,
            requested_model=name,
            provider_id=user_id + 7_000_000,
            provider_name=name,
        )

    report = report_usage({}, over=NOVEMBER, now=NOW, by=("user", "model", "provider"))

    assert report.users is not None
    assert [row.name for row in report.users] == [world.user.username, "long gone"]
    assert report.models is not None
    assert {row.name for row in report.models} == {"old name", "long gone"}
    assert report.providers is not None
    assert {row.name for row in report.providers} == {"old name", "long gone"}
    assert report.days is None
