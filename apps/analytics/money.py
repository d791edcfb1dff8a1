"""Money over a range of time: what calls earned and cost by the moment they were settled, what
moved to and from customers beside them, and what everybody has now.

Movements are signed from the customer's side. A late charge is the rest of a call's charge that was
posted after its record was written, with what was told then of its cost; margin = charge + late
charges − cost.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date
from functools import reduce
from operator import add
from typing import Final

from django.db.models import F, Sum

from apps.analytics.call_sums import CallSums
from apps.analytics.late_charges import list_posted
from apps.analytics.ranges import Range
from apps.analytics.rolling import list_new
from apps.analytics.usage import list_users
from apps.audit.totals import Earned, GroupSums, UTCDay
from apps.billing.models import Account, AccountKind, Entry, TransactionKind
from apps.core.moments import one_moment

# Transactions that move money to or from customers without a call's record: their kind, and the sum
# that each belongs to with its sign there.
_KINDS: Final = {
    TransactionKind.TOP_UP: ("top_ups_nanos", 1),
    TransactionKind.ADJUSTMENT: ("adjustments_nanos", 1),
    TransactionKind.REFUND: ("refunds_nanos", 1),
    TransactionKind.QUOTA: ("quotas_nanos", 1),
    TransactionKind.LATE_SETTLEMENT: ("late_charges_nanos", -1),
}


@dataclass(frozen=True, slots=True)
class Money(Earned):
    """What came in and went out."""

    requests: int = 0
    charge_nanos: int = 0
    cost_nanos: int = 0
    requests_without_cost: int = 0
    late_charges_nanos: int = 0
    top_ups_nanos: int = 0
    adjustments_nanos: int = 0
    refunds_nanos: int = 0
    quotas_nanos: int = 0

    def __add__(self, other: Money) -> Money:
        """Return both together."""
        return Money(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in fields(self)
            }
        )


@dataclass(frozen=True, slots=True)
class DayMoney:
    """The money of one day in UTC."""

    date: date
    money: Money


@dataclass(frozen=True, slots=True)
class Balances:
    """What all customers have, owe and hold at this moment, in nanos."""

    wallets_nanos: int
    quotas_nanos: int
    owed_nanos: int
    held_nanos: int


@dataclass(frozen=True, slots=True)
class MoneyReport:
    """The money of a range, by day and by user."""

    range: Range
    money: Money
    days: list[DayMoney]
    users: list[GroupSums]
    balances: Balances


def report_money(*, over: Range) -> MoneyReport:
    """Return what was settled and moved in a range, and what everybody has now.

    All of it is as of one moment, so that it adds up.
    """
    with one_moment():
        return _report(over)


def _report(over: Range) -> MoneyReport:
    settled = CallSums(over, {}, new=list_new(), moment="settled_at")
    days = _moved(over)
    late = list_posted(over)
    for charge in late:
        cost = Money(cost_nanos=charge.cost_nanos)
        days[charge.posted_on] = days.get(charge.posted_on, Money()) + cost
    for day in settled.by_day():
        days[day.date] = days.get(day.date, Money()) + Money(
            requests=day.sums.requests,
            charge_nanos=day.sums.charge_nanos,
            cost_nanos=day.sums.cost_nanos,
            requests_without_cost=day.sums.requests_without_cost,
        )
    return MoneyReport(
        range=over,
        money=reduce(add, days.values(), Money()),
        days=[DayMoney(day, days[day]) for day in sorted(days)],
        users=list_users(settled, largest="charge", late=late),
        balances=_balances(),
    )


def _moved(over: Range) -> dict[date, Money]:
    """Return of each day what moved beside the settlement of calls."""
    rows = (
        Entry.objects.filter(
            account__customer__isnull=False,
            transaction__kind__in=list(_KINDS),
            transaction__created_at__gte=over.start,
            transaction__created_at__lt=over.end,
        )
        .values(day=UTCDay(F("transaction__created_at")), what=F("transaction__kind"))
        .annotate(nanos=Sum("amount_nanos"))
        .order_by()
    )
    days: dict[date, Money] = {}
    for row in rows:
        name, sign = _KINDS[row["what"]]
        moved = Money(**{name: sign * int(row["nanos"])})
        days[row["day"]] = days.get(row["day"], Money()) + moved
    return days


def _balances() -> Balances:
    rows = (
        Account.objects.filter(customer__isnull=False)
        .values("kind")
        .annotate(posted=Sum("posted_nanos"), held=Sum("held_nanos"))
        .order_by()
    )
    posted = {row["kind"]: int(row["posted"]) for row in rows}
    return Balances(
        wallets_nanos=posted.get(AccountKind.WALLET, 0),
        quotas_nanos=posted.get(AccountKind.QUOTA, 0),
        owed_nanos=-posted.get(AccountKind.RECEIVABLE, 0),
        held_nanos=sum(int(row["held"]) for row in rows),
    )
