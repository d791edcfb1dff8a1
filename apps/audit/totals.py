"""Exact sums over recorded calls, from the rows themselves and in whole numbers.

A success is a call that completed. Input and output tokens are the sums of all input and of all
output classes. A call whose cost is not known counts as one that cost nothing, so margin = charge +
late charges − cost holds for every sum, and `requests_without_cost` says for how many calls that is
so. What was charged late, and what was told of costs with it, is not in the rows: who can read the
ledger adds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from decimal import Decimal
from functools import reduce
from operator import add
from typing import Any, Final, Literal

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, DateField, F, Func, Max, Q, QuerySet, Sum
from django.db.models.expressions import Combinable
from django.db.models.sql.compiler import SQLCompiler

from apps.audit.models import APIRequest, RequestState
from apps.core.usage import INPUT_CLASSES, OUTPUT_CLASSES

GROUPS_MAX: Final = 100
DAYS_MAX: Final = 1_000
# What is summed, and where Sums and rollups have it.
SUM_COLUMNS: Final = {
    "requests": "requests",
    "successes": "successes",
    "input": "input_tokens",
    "output": "output_tokens",
    "charge": "charge_nanos",
    "cost": "cost_nanos",
    "requests_without_cost": "requests_without_cost",
}
_RATE_STEP: Final = Decimal("0.0001")


class Earned:
    """What was charged and what it cost, in nanos. Costs that nobody knows are left out."""

    __slots__ = ()
    charge_nanos: int
    late_charges_nanos: int
    cost_nanos: int

    @property
    def margin_nanos(self) -> int:
        """Return what is left of all charges after the known costs."""
        return self.charge_nanos + self.late_charges_nanos - self.cost_nanos


@dataclass(frozen=True, slots=True)
class Sums(Earned):
    """What some calls come to. Money in nanos."""

    requests: int
    successes: int
    input_tokens: int
    output_tokens: int
    charge_nanos: int
    cost_nanos: int
    requests_without_cost: int
    late_charges_nanos: int = field(default=0, kw_only=True)  # after the record was written

    @property
    def success_rate(self) -> str | None:
        """Return the share of successes with four decimals, None where there was no call."""
        if not self.requests:
            return None
        return str((Decimal(self.successes) / self.requests).quantize(_RATE_STEP))


@dataclass(frozen=True, slots=True)
class Totals(Sums):
    """What all calls come to, and how many users made them."""

    active_users: int


@dataclass(frozen=True, slots=True)
class DaySums:
    """The calls of one day in UTC."""

    date: date
    sums: Sums


@dataclass(frozen=True, slots=True)
class GroupSums:
    """The calls that share one id. `name` is one that was recorded with it."""

    id: int | None
    name: str
    sums: Sums


class UTCDay(Func):
    """The day of a moment in UTC, without the session's time zone."""

    output_field = DateField()

    def as_postgresql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any
    ) -> Any:
        """Return the SQL for PostgreSQL."""
        template = "(%(expressions)s AT TIME ZONE 'UTC')::date"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_sqlite(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any
    ) -> Any:
        """Return the SQL for SQLite, where moments are texts in UTC that begin with their day."""
        return self.as_sql(compiler, connection, template="substr(%(expressions)s, 1, 10)", **extra)


def sum_requests(requests: QuerySet[APIRequest]) -> Totals:
    """Return the sums of all the calls, in one pass over them."""
    # By user first, and then over the users: counting the different users of all calls at once
    # would have the database sort the calls.
    by_user = requests.order_by().values("user_id").annotate(**aggregates())
    row = by_user.aggregate(
        active_users=Count("user_id"), **{f"all_{name}": Sum(name) for name in aggregates()}
    )
    sums = read_sums({name: row[f"all_{name}"] for name in aggregates()})
    return Totals(**asdict(sums), active_users=row["active_users"])


def sum_requests_by_day(
    requests: QuerySet[APIRequest], *, moment: Literal["started_at", "settled_at"] = "started_at"
) -> list[DaySums]:
    """Return the sums of each day that had calls, the first day first and at most DAYS_MAX.

    `moment` is the column that decides the day.
    """
    rows = requests.order_by().values(day=UTCDay(F(moment))).annotate(**aggregates())
    return [DaySums(row["day"], read_sums(row)) for row in rows.order_by("day")[:DAYS_MAX]]


def sum_requests_by(
    requests: QuerySet[APIRequest],
    *,
    column: str,
    name_column: str,
    largest: Literal["requests", "charge"] = "requests",
    limit: int | None = GROUPS_MAX,
) -> list[GroupSums]:
    """Return the sums of each id in `column`, at most `limit` of them, the `largest` sum first."""
    rows = (
        requests.order_by()
        .values(column)
        .annotate(recorded_name=Max(name_column), **aggregates())
        .order_by(F(largest).desc(), F(column).asc(nulls_last=True))[:limit]
    )
    return [GroupSums(row[column], row["recorded_name"], read_sums(row)) for row in rows]


def aggregates() -> dict[str, Any]:
    """Return what is summed of calls, by its name in SUM_COLUMNS."""
    return {
        "requests": Count("pk"),
        "successes": Count("pk", filter=Q(state=RequestState.COMPLETED)),
        "input": Sum(_sum_of(INPUT_CLASSES)),
        "output": Sum(_sum_of(OUTPUT_CLASSES)),
        "charge": Sum("charge_nanos"),
        "cost": Sum("cost_nanos"),
        "requests_without_cost": Count("pk", filter=Q(cost_nanos__isnull=True)),
    }


def _sum_of(classes: Iterable[str]) -> Combinable:
    return reduce(add, (F(f"{name}_tokens") for name in classes))


def read_sums(row: Mapping[str, Any]) -> Sums:
    """Read sums by their names in SUM_COLUMNS."""
    # A sum of nothing is null, and PostgreSQL's sum of 64-bit numbers is a decimal.
    return Sums(**{column: int(row[name] or 0) for name, column in SUM_COLUMNS.items()})
