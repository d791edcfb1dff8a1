"""What recorded calls come to in a range of time: in all, today, by day and by what they have in
common. A call belongs to the moment it began; so do its late charges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, Literal

from apps.ai_models.models import AIModel
from apps.analytics.call_sums import CallSums, Largest
from apps.analytics.late_charges import LateCharge, late_by, list_late_charges, with_late
from apps.analytics.ranges import Range, day_of
from apps.analytics.rolling import list_new
from apps.audit.totals import GROUPS_MAX, DaySums, GroupSums, Sums, Totals
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
    subject: Mapping[str, int], *, over: Range, now: datetime, by: tuple[Aspect, ...] = ()
) -> Report:
    """Return the sums of the calls that have `subject` in common, over a range and of today, in all
    and by the aspects asked for.

    All of them are as of one moment, so that they add up.
    """
    today = day_of(now)
    with one_moment():
        new = list_new()
        calls = _Calls(CallSums(over, subject, new=new), late=list_late_charges(over, subject))
        calls_of_today = _Calls(
            CallSums(today, subject, new=new), late=list_late_charges(today, subject)
        )
        return Report(
            range=over,
            totals=calls.total(),
            today=calls_of_today.total(),
            days=calls.by_day() if "day" in by else None,
            models=calls.by_model() if "model" in by else None,
            providers=calls.by_provider() if "provider" in by else None,
            users=calls.by_user() if "user" in by else None,
        )


def list_users(calls: CallSums, *, largest: Largest, late: Sequence[LateCharge]) -> list[GroupSums]:
    """Return the sums of the users with the largest ones, with the names that they have now.

    Who was only charged late comes last.
    """
    groups = calls.by("user_id", "user_name", largest=largest)
    room = GROUPS_MAX - len(groups)
    by_user = late_by(attrgetter("user_id"), late)
    others = sorted(by_user.keys() - _ids(groups))[:room]
    groups += [GroupSums(user_id, "", Sums(0, 0, 0, 0, 0, 0, 0)) for user_id in others]
    names = User.objects.filter(pk__in=_ids(groups)).values_list("pk", "username")
    return _finished(groups, dict(names), by_user)


class _Calls:
    """Sums of the same calls with what they were charged late."""

    def __init__(self, sums: CallSums, *, late: list[LateCharge]) -> None:
        self._sums = sums
        self._late = late

    def total(self) -> Totals:
        return with_late(self._sums.total(), self._late)

    def by_day(self) -> list[DaySums]:
        late = late_by(attrgetter("began_on"), self._late)
        return [
            replace(day, sums=with_late(day.sums, late.get(day.date, ())))
            for day in self._sums.by_day()
        ]

    def by_model(self) -> list[GroupSums]:
        groups = self._sums.by("model_id", "requested_model")
        names = AIModel.objects.filter(pk__in=_ids(groups)).values_list("pk", "name")
        return _finished(groups, dict(names), late_by(attrgetter("model_id"), self._late))

    def by_provider(self) -> list[GroupSums]:
        groups = self._sums.by("provider_id", "provider_name")
        names = Provider.objects.filter(pk__in=_ids(groups)).values_list("pk", "name")
        return _finished(groups, dict(names), late_by(attrgetter("provider_id"), self._late))

    def by_user(self) -> list[GroupSums]:
        return list_users(self._sums, largest="requests", late=self._late)


def _ids(groups: list[GroupSums]) -> list[int]:
    return [group.id for group in groups if group.id is not None]


def _finished(
    groups: list[GroupSums], names: Mapping[int, str], late: Mapping[Any, list[LateCharge]]
) -> list[GroupSums]:
    """Give groups today's names, what is gone keeps the recorded one, and what was charged late."""
    return [
        replace(
            group,
            name=group.name if group.id is None else names.get(group.id, group.name),
            sums=with_late(group.sums, late.get(group.id, ())),
        )
        for group in groups
    ]
