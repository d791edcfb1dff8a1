"""What providers have billed today, for those that may bill so much a day.

Summed from the recorded calls of all gateways, which are complete: a call is on record with what it
cost, or is held and not yet over. A day is one of UTC, and a call belongs to the day on which it
began. A call whose cost is not known counts what its client was charged: nothing is free by
accident. What attempts cost that led to nothing counts for the provider that was tried last.

All of today is read once, by the index on the time; from then on only what each incarnation has
added to its chain since. So a limit is noticed READ_SECONDS after the call that reached it was
settled, and calls that run by then still end: a cap (docs/pricing.md) is what is never exceeded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

from django.db import connection
from django.db.models import QuerySet, Sum
from django.db.models.functions import Coalesce

from apps.audit.models import APIRequest, Attempt
from apps.billing.models import Incarnation
from apps.core.ids import uuid7_lower_bound
from apps.core.moments import one_moment
from apps.proxy.snapshot import Catalogue

READ_SECONDS: Final = 2.0
# An incarnation renews its lease every ten seconds: one that has not for so long writes no more,
# or is read from its beginning when it does.
_QUIET: Final = timedelta(hours=1)
# How much earlier than today an attempt of today may have got its id, by the clock of a host.
_CLOCK_DIFFERENCE: Final = timedelta(days=1)

Billed = tuple[Literal["provider", "provider_key"], int]


@dataclass(slots=True)
class DailyCosts:
    """What was billed on one day, as far as it was read."""

    day: date
    has_keys: bool
    nanos: Counter[Billed] = field(default_factory=Counter)
    read_up_to: dict[int, int] = field(default_factory=dict)  # incarnation → sequence

    def is_spent(self, billed: Billed, limit_nanos: int | None) -> bool:
        """Return whether no more may be billed today."""
        return limit_nanos is not None and self.nanos[billed] >= limit_nanos


def find_limited(catalogue: Catalogue) -> tuple[bool, bool]:
    """Return whether any provider, and whether any provider key, has a limit a day."""
    providers = [route.provider for model in catalogue.models.values() for route in model.routes]
    keys = [key for provider in providers for key in provider.credentials]
    return (
        any(provider.daily_cost_nanos is not None for provider in providers),
        any(key.daily_cost_nanos is not None for key in keys),
    )


def read_daily_costs(known: DailyCosts | None, now: datetime, *, has_keys: bool) -> DailyCosts:
    """Return the sums of today, from what is known of them if that is of today.

    Reads the database. What is known stays as it was until all has been read.
    """
    day = now.astimezone(UTC).date()
    begun = datetime.combine(day, time(), UTC)
    rows = APIRequest.objects.filter(started_at__gte=begun)
    with one_moment():
        live = Incarnation.objects.filter(renewed_at__gte=begun - _QUIET)
        heads = dict(live.values_list("id", "sequence"))
        if known is None or known.day != day or (has_keys and not known.has_keys):
            costs = DailyCosts(day, has_keys, read_up_to=heads)
            _add(costs, rows, begun)
            return costs
        costs = DailyCosts(day, has_keys, Counter(known.nanos), known.read_up_to | heads)
        for incarnation_id, sequence in heads.items():
            since = known.read_up_to.get(incarnation_id, 0)
            if sequence > since:
                later = rows.filter(incarnation_id=incarnation_id, sequence__gt=since)
                _add(costs, later, begun)
    return costs


def _add(costs: DailyCosts, rows: QuerySet[APIRequest], begun: datetime) -> None:
    billed = Coalesce("cost_nanos", "charge_nanos")
    by_provider = rows.order_by().values_list("provider_id").annotate(nanos=Sum(billed))
    for provider_id, nanos in by_provider:
        if provider_id is not None:
            costs.nanos["provider", provider_id] += nanos
    if not costs.has_keys:
        return
    # The last attempt of a call is the one that answered.
    each = rows.order_by().values("id", "attempt_count", nanos=billed)
    sql, params = each.query.sql_with_params()
    # Attempts are keyed by time: without it those of all years are looked through.
    key = Attempt._meta.pk
    first = key.get_db_prep_value(uuid7_lower_bound(begun - _CLOCK_DIFFERENCE), connection)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attempt.provider_key_id, SUM(request.nanos) "  # noqa: S608 (of the ORM)
            f"FROM ({sql}) request JOIN audit_attempt attempt "
            "ON attempt.request_id = request.id AND attempt.number = request.attempt_count "
            "WHERE attempt.id >= %s GROUP BY attempt.provider_key_id",
            [*params, first],
        )
        for key_id, nanos in cursor.fetchall():
            costs.nanos["provider_key", key_id] += int(nanos)
