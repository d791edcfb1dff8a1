"""What calls come to over a range, exact and without reading each of them.

Whole days are read from the rollups. Read call by call is what no rollup has yet (see `rolling`),
and what of the range's first and last day lies within it where the range does not begin and end at
midnight in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta
from functools import reduce
from operator import attrgetter
from typing import Any, Final, Literal

from django.db.models import F, Max, Q, QuerySet, Sum

from apps.analytics.models import NO_PROVIDER, Rollup
from apps.analytics.parts import in_parts
from apps.analytics.ranges import Range, day_of
from apps.analytics.rolling import Piece
from apps.audit.models import APIRequest
from apps.audit.totals import (
    DAYS_MAX,
    GROUPS_MAX,
    SUM_COLUMNS,
    DaySums,
    GroupSums,
    Sums,
    Totals,
    read_sums,
    sum_requests,
    sum_requests_by,
    sum_requests_by_day,
)

Moment = Literal["started_at", "settled_at"]
Largest = Literal["requests", "charge"]
_DAYS: Final[dict[Moment, str]] = {"started_at": "started_on", "settled_at": "settled_on"}
_LARGEST: Final = {"requests": attrgetter("requests"), "charge": attrgetter("charge_nanos")}
_NOTHING: Final = Sums(0, 0, 0, 0, 0, 0, 0)
_ROLLED_UP: Final[dict[str, Any]] = {f"sum_{name}": Sum(name) for name in SUM_COLUMNS.values()}
# So many chains are read from where their rollups end: where there are more, as before the first
# run, calls are read one by one.
_PIECES_MAX: Final = 16


class CallSums:
    """The calls of a range, by when they began or were settled, that have `subject` in common.

    `subject`: columns of a call that are in rollups, too, and their ids.
    `new`: what no rollup has (`list_new`), of the moment at which all is read.
    """

    def __init__(
        self,
        over: Range,
        subject: Mapping[str, int],
        *,
        new: Sequence[Piece],
        moment: Moment = "started_at",
    ) -> None:
        self._moment: Moment = moment
        first, last = _whole_days(over)
        calls = APIRequest.objects.filter(**subject)
        within = calls.filter(**_between(moment, over.start, over.end))
        self._rollups = Rollup.objects.none()
        # They have no call in common.
        self._calls: list[QuerySet[APIRequest]] = [within]
        if first < last and len(new) <= _PIECES_MAX:
            days = {f"{_DAYS[moment]}__gte": first.date(), f"{_DAYS[moment]}__lt": last.date()}
            self._rollups = Rollup.objects.filter(**subject, **days)
            edges = [(over.start, first), (last, over.end)]
            self._calls = [
                calls.filter(**_between(moment, start, end)) for start, end in edges if start < end
            ]
            whole = calls.filter(**_between(moment, first, last))
            self._calls += [whole.filter(_recorded_in(piece)) for piece in new]

    def total(self) -> Totals:
        """Return the sums of all the calls."""
        users: set[int] = set()
        found = [read_sums(_renamed(self._rollups.aggregate(**_ROLLED_UP)))]
        for calls in self._calls:
            found.append(sum_requests(calls))
            users.update(calls.order_by().values_list("user_id", flat=True).distinct())
        known = self._rollups.order_by().values("user_id").distinct().count()
        known -= sum(
            self._rollups.filter(user_id__in=part).values("user_id").distinct().count()
            for part in in_parts(users)
        )
        sums = reduce(_add, found, _NOTHING)
        return Totals(**asdict(sums), active_users=known + len(users))

    def by_day(self) -> list[DaySums]:
        """Return the sums of each day that had calls, the first day first and at most DAYS_MAX."""
        days: dict[date, Sums] = {}
        rows = self._rollups.order_by().values(day=F(_DAYS[self._moment])).annotate(**_ROLLED_UP)
        found = [DaySums(row["day"], read_sums(_renamed(row))) for row in rows]
        for calls in self._calls:
            found += sum_requests_by_day(calls, moment=self._moment)
        for day in found:
            days[day.date] = _add(days.get(day.date, _NOTHING), day.sums)
        return [DaySums(day, days[day]) for day in sorted(days)][:DAYS_MAX]

    def by(
        self, column: str, name_column: str, *, largest: Largest = "requests"
    ) -> list[GroupSums]:
        """Return the sums of each id in `column`, at most GROUPS_MAX, the `largest` sum first."""
        groups: dict[int | None, GroupSums] = {}
        for calls in self._calls:
            found = sum_requests_by(calls, column=column, name_column=name_column, limit=None)
            for group in found:
                groups[group.id] = _merged(groups.get(group.id), group)
        rows = (
            self._rollups.order_by()
            .values(column)
            .annotate(recorded_name=Max(name_column), **_ROLLED_UP)
            .order_by(F(f"sum_{SUM_COLUMNS[largest]}").desc(), column)
        )
        # Of those that were read call by call all that the rollups have; of the others the largest.
        also = [NO_PROVIDER if one is None else one for one in groups]
        for part in in_parts(also):
            for row in rows.filter(**{f"{column}__in": part}):
                group = _group(row, column)
                groups[group.id] = _merged(groups[group.id], group)
        left = GROUPS_MAX
        for row in rows.iterator():
            group = _group(row, column)
            if group.id in groups:
                continue
            groups[group.id] = group
            left -= 1
            if not left:
                break
        size = _LARGEST[largest]
        ordered = sorted(
            groups.values(),
            key=lambda group: (-size(group.sums), group.id is None, group.id or 0),
        )
        return ordered[:GROUPS_MAX]


def _group(row: Mapping[str, Any], column: str) -> GroupSums:
    number = row[column]
    is_none = column == "provider_id" and number == NO_PROVIDER
    return GroupSums(None if is_none else number, row["recorded_name"], read_sums(_renamed(row)))


def _merged(one: GroupSums | None, other: GroupSums) -> GroupSums:
    if one is None:
        return other
    return GroupSums(one.id, max(one.name, other.name), _add(one.sums, other.sums))


def _renamed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[f"sum_{column}"] for name, column in SUM_COLUMNS.items()}


def _add(one: Sums, other: Sums) -> Sums:
    return Sums(*(mine + more for mine, more in zip(_numbers(one), _numbers(other), strict=True)))


def _numbers(sums: Sums) -> tuple[int, ...]:
    return tuple(getattr(sums, name) for name in SUM_COLUMNS.values())


def _between(moment: Moment, start: datetime, end: datetime) -> dict[str, datetime]:
    return {f"{moment}__gte": start, f"{moment}__lt": end}


def _recorded_in(piece: Piece) -> Q:
    return Q(
        incarnation_id=piece.incarnation_id,
        sequence__gt=piece.after,
        sequence__lte=piece.up_to,
    )


def _whole_days(over: Range) -> tuple[datetime, datetime]:
    """Return where the first whole day of a range begins, and where the last one ends."""
    first, last = day_of(over.start).start, day_of(over.end).start
    if first < over.start:
        first += timedelta(days=1)
    return first, last
