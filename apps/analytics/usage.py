"""What recorded calls come to in a range of time: in all, today, by day and by what they have in
common. A call belongs to the moment it began; so do its late charges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, Literal

from apps.ai_models.models import AIModel
from apps.analytics.call_sums import CallSums, Largest
from apps.analytics.late_charges import LateCharge, list_late_charges
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


def list_users(
    calls: CallSums, *, largest: Largest, late_charges: Mapping[Any, int]
) -> list[GroupSums]:
    """Return the sums of the users with the largest ones, with the names that they have now.

    `late_charges`: user id → nanos. Who has nothing else comes last.
    """
    groups = calls.by("user_id", "user_name", largest=largest)
    room = GROUPS_MAX - len(groups)
    others = sorted(late_charges.keys() - _ids(groups))[:room]
    groups += [GroupSums(user_id, "", Sums(0, 0, 0, 0, 0, 0, 0)) for user_id in others]
    names = User.objects.filter(pk__in=_ids(groups)).values_list("pk", "username")
    return _finished(groups, dict(names), late_charges)


class _Calls:
    """Sums of the same calls with what they were charged late."""

    def __init__(self, sums: CallSums, *, late: list[LateCharge]) -> None:
        self._sums = sums
        self._late = late

    def total(self) -> Totals:
        late_nanos = sum(charge.nanos for charge in self._late)
        return replace(self._sums.total(), late_charges_nanos=late_nanos)

    def by_day(self) -> list[DaySums]:
        late = self._late_by(attrgetter("day"))
        return [
            replace(day, sums=replace(day.sums, late_charges_nanos=late.get(day.date, 0)))
            for day in self._sums.by_day()
        ]

    def by_model(self) -> list[GroupSums]:
        groups = self._sums.by("model_id", "requested_model")
        names = AIModel.objects.filter(pk__in=_ids(groups)).values_list("pk", "name")
        return _finished(groups, dict(names), self._late_by(attrgetter("model_id")))

    def by_provider(self) -> list[GroupSums]:
        groups = self._sums.by("provider_id", "provider_name")
        names = Provider.objects.filter(pk__in=_ids(groups)).values_list("pk", "name")
        return _finished(groups, dict(names), self._late_by(attrgetter("provider_id")))

    def by_user(self) -> list[GroupSums]:
        late = self._late_by(attrgetter("user_id"))
        return list_users(self._sums, largest="requests", late_charges=late)

    def _late_by(self, what: Callable[[LateCharge], Any]) -> dict[Any, int]:
        nanos: Counter[Any] = Counter()
        for charge in self._late:
            nanos[what(charge)] += charge.nanos
        return dict(nanos)


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
