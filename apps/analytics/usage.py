"""What recorded calls come to in a range of time: in all, today, by day and by what they have in
common. A call belongs to the moment it began.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from django.db.models import QuerySet

from apps.ai_models.models import AIModel
from apps.analytics.ranges import Range, day_of
from apps.audit.models import APIRequest
from apps.audit.totals import (
    DaySums,
    GroupSums,
    Totals,
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
            totals=sum_requests(found),
            today=sum_requests(calls.filter(started_at__gte=today.start, started_at__lt=today.end)),
            days=sum_requests_by_day(found) if "day" in by else None,
            models=_by_model(found) if "model" in by else None,
            providers=_by_provider(found) if "provider" in by else None,
            users=list_users(found, largest="requests") if "user" in by else None,
        )


def list_users(
    calls: QuerySet[APIRequest], *, largest: Literal["requests", "charge"]
) -> list[GroupSums]:
    """Return the sums of the users with the largest ones, with the names that they have now."""
    groups = sum_requests_by(calls, column="user_id", name_column="user_name", largest=largest)
    names = User.objects.filter(pk__in=_ids(groups)).values_list("pk", "username")
    return _renamed(groups, dict(names))


def _by_model(calls: QuerySet[APIRequest]) -> list[GroupSums]:
    groups = sum_requests_by(calls, column="model_id", name_column="requested_model")
    names = AIModel.objects.filter(pk__in=_ids(groups)).values_list("pk", "name")
    return _renamed(groups, dict(names))


def _by_provider(calls: QuerySet[APIRequest]) -> list[GroupSums]:
    groups = sum_requests_by(calls, column="provider_id", name_column="provider_name")
    names = Provider.objects.filter(pk__in=_ids(groups)).values_list("pk", "name")
    return _renamed(groups, dict(names))


def _ids(groups: list[GroupSums]) -> list[int]:
    return [group.id for group in groups if group.id is not None]


def _renamed(groups: list[GroupSums], names: dict[int, str]) -> list[GroupSums]:
    """Give groups today's names; what is gone keeps the recorded one."""
    return [
        replace(group, name=group.name if group.id is None else names.get(group.id, group.name))
        for group in groups
    ]
