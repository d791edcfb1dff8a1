"""What recorded calls come to in a range of time: in all, today, by day and by what they have in
common. A call belongs to the moment it began, and what it was charged late with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from django.db.models import F, QuerySet

from apps.ai_models.models import AIModel
from apps.analytics.late_charges import sum_late_charges, sum_late_charges_by
from apps.analytics.ranges import Range, day_of
from apps.audit.models import APIRequest
from apps.audit.totals import (
    GROUPS_MAX,
    DaySums,
    GroupSums,
    Sums,
    Totals,
    UTCDay,
    sum_requests,
    sum_requests_by,
    sum_requests_by_day,
)
from apps.core.moments import one_moment
from apps.providers.models import Provider
from apps.users.models import User

Aspect = Literal["day", "model", "provider", "user"]
ASPECTS: Final[tuple[Aspect, ...]] = ("day", "model", "provider", "user")
# Of one user, key or provider.
SUBJECT_ASPECTS: Final[tuple[Aspect, ...]] = ("day", "model")


@dataclass(frozen=True, slots=True)
class Report:
    """What calls come to. Aspects that were not asked for are None."""

    range: Range
    totals: Totals
    today: Totals
    days: list[DaySums] | None = None
    models: list[GroupSums] | None = None
    providers: list[GroupSums] | None = None
    users: list[GroupSums] | None = None


def report_usage(
    calls: QuerySet[APIRequest], *, over: Range, now: datetime, by: tuple[Aspect, ...] = ()
) -> Report:
    """Return the sums of `calls` over a range and of today, in all and by the aspects asked for.

    All of them are as of one moment, so that they add up.
    """
    found = calls.filter(started_at__gte=over.start, started_at__lt=over.end)
    today = day_of(now)
    with one_moment():
        return Report(
            range=over,
            totals=_totals(found),
            today=_totals(calls.filter(started_at__gte=today.start, started_at__lt=today.end)),
            days=_by_day(found) if "day" in by else None,
            models=_by_model(found) if "model" in by else None,
            providers=_by_provider(found) if "provider" in by else None,
            users=_by_user(found) if "user" in by else None,
        )


def list_users(
    calls: QuerySet[APIRequest],
    *,
    largest: Literal["requests", "charge"],
    late_charges: Mapping[Any, int],
) -> list[GroupSums]:
    """Return the sums of the users with the largest ones, with the names that they have now.

    `late_charges`: user id → nanos. Who has nothing else comes last.
    """
    groups = sum_requests_by(calls, column="user_id", name_column="user_name", largest=largest)
    room = GROUPS_MAX - len(groups)
    others = sorted(late_charges.keys() - _ids(groups))[:room]
    groups += [GroupSums(user_id, "", Sums(0, 0, 0, 0, 0, 0, 0)) for user_id in others]
    names = User.objects.filter(pk__in=_ids(groups)).values_list("pk", "username")
    return _finished(groups, dict(names), late_charges)


def _totals(calls: QuerySet[APIRequest]) -> Totals:
    return replace(sum_requests(calls), late_charges_nanos=sum_late_charges(calls))


def _by_day(calls: QuerySet[APIRequest]) -> list[DaySums]:
    late_charges = sum_late_charges_by(calls, UTCDay(F("started_at")))
    return [
        replace(day, sums=replace(day.sums, late_charges_nanos=late_charges.get(day.date, 0)))
        for day in sum_requests_by_day(calls)
    ]


def _by_model(calls: QuerySet[APIRequest]) -> list[GroupSums]:
    groups = sum_requests_by(calls, column="model_id", name_column="requested_model")
    names = AIModel.objects.filter(pk__in=_ids(groups)).values_list("pk", "name")
    return _finished(groups, dict(names), sum_late_charges_by(calls, F("model_id")))


def _by_provider(calls: QuerySet[APIRequest]) -> list[GroupSums]:
    groups = sum_requests_by(calls, column="provider_id", name_column="provider_name")
    names = Provider.objects.filter(pk__in=_ids(groups)).values_list("pk", "name")
    return _finished(groups, dict(names), sum_late_charges_by(calls, F("provider_id")))


def _by_user(calls: QuerySet[APIRequest]) -> list[GroupSums]:
    late_charges = sum_late_charges_by(calls, F("user_id"))
    return list_users(calls, largest="requests", late_charges=late_charges)


def _ids(groups: list[GroupSums]) -> list[int]:
    return [group.id for group in groups if group.id is not None]


def _finished(
    groups: list[GroupSums], names: Mapping[int, str], late_charges: Mapping[Any, int]
) -> list[GroupSums]:
    """Give groups today's names, what is gone keeps the recorded one, and what was charged late."""
    return [
        replace(
            group,
            name=group.name if group.id is None else names.get(group.id, group.name),
            sums=replace(group.sums, late_charges_nanos=late_charges.get(group.id, 0)),
        )
        for group in groups
    ]
