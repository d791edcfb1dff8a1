"""What users have used in all, exact and without reading all of it again.

The first time all calls of a user are summed; from then on only what each incarnation has added to
its chain since. A client that asks after every call would otherwise have the database read all
calls before it each time. What a call was charged after its record had been written stands in
entries alone, and is summed in the same way, by the chains of accounts.

Bound: USERS_MAX users are remembered, those who asked last.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, NamedTuple

from django.db.models import Max, Q, QuerySet, Sum

from apps.audit.models import APIRequest
from apps.audit.totals import sum_requests
from apps.billing.models import Account, AccountKind, Entry, EntryKind, Incarnation
from apps.proxy.loader import one_moment

USERS_MAX: Final = 1_000
# An incarnation renews its lease every ten seconds: of one that has not for so long nobody notes
# how far it was read.
_QUIET: Final = timedelta(hours=1)


class Used(NamedTuple):
    """What the recorded calls of a user come to."""

    requests: int
    input_tokens: int
    output_tokens: int
    charge_nanos: int  # with what was charged late


_NOTHING: Final = Used(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a user had used when he was last read of."""

    used: Used
    read_at: datetime  # not after it, by the clock that leases are renewed by
    read_up_to: dict[int, int]  # incarnation → sequence of its records
    entries_up_to: dict[int, int]  # account → sequence of its entries
    newest: int  # the last incarnation that there was


class UsedTotals:
    """The totals of one process. For any thread."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._known: OrderedDict[int, _Known] = OrderedDict()

    def read(self, user_id: int) -> Used:
        """Return what a user has used up to now. Reads the database."""
        with self._guard:
            known = self._known.get(user_id)
        known = _read(user_id, known, datetime.now(UTC))
        with self._guard:
            self._known[user_id] = known
            self._known.move_to_end(user_id)
            while len(self._known) > USERS_MAX:
                self._known.popitem(last=False)
        return known.used


def _read(user_id: int, known: _Known | None, now: datetime) -> _Known:
    calls = APIRequest.objects.filter(user_id=user_id)
    with one_moment():
        last = Incarnation.objects.aggregate(newest=Max("id"), renewed_at=Max("renewed_at"))
        # The clock of this machine may be hours ahead of the database's, and so may a lease that
        # was renewed by a clock that has been set back since.
        read_at, newest = min(now, last["renewed_at"] or now), last["newest"] or 0
        since = read_at if known is None else known.read_at
        live = Incarnation.objects.filter(renewed_at__gte=since - _QUIET)
        heads = dict(live.values_list("id", "sequence"))
        if known is None or _is_lost(known, heads):
            known = _Known(_NOTHING, read_at, {}, {}, newest)
            more = _sum(calls)
        else:
            more = _sum_added(calls, known, heads)
        late_nanos, entries = _sum_late(user_id, known.entries_up_to)
    total = Used(*(before + new for before, new in zip(known.used, more, strict=True)))
    total = total._replace(charge_nanos=total.charge_nanos + late_nanos)
    return _Known(total, read_at, known.read_up_to | heads, entries, newest)


def _sum_added(calls: QuerySet[APIRequest], known: _Known, heads: dict[int, int]) -> Used:
    """Return what incarnations have recorded since."""
    added = Q()
    for incarnation_id, sequence in heads.items():
        start = known.read_up_to.get(incarnation_id, 0)
        if sequence > start:
            added |= Q(incarnation_id=incarnation_id, sequence__gt=start)
    return _sum(calls.filter(added)) if added else _NOTHING


def _sum_late(user_id: int, read_up_to: dict[int, int]) -> tuple[int, dict[int, int]]:
    """Return what calls were charged after their records were written, since then, and up to where
    that is. A customer is one user, so his accounts tell.
    """
    accounts = Account.objects.filter(
        customer__user=user_id, kind__in=(AccountKind.WALLET, AccountKind.RECEIVABLE)
    )
    heads = dict(accounts.values_list("id", "sequence"))
    added = Q()
    for account_id, sequence in heads.items():
        start = read_up_to.get(account_id, 0)
        if sequence > start:
            added |= Q(account_id=account_id, sequence__gt=start)
    if not added:
        return 0, heads
    late = Entry.objects.filter(added, kind=EntryKind.LATE).aggregate(nanos=Sum("amount_nanos"))
    return -int(late["nanos"] or 0), heads


def _is_lost(known: _Known, heads: dict[int, int]) -> bool:
    """Return whether one writes again of which nobody noted how far it was read."""
    return any(one not in known.read_up_to and one <= known.newest for one in heads)


def _sum(calls: QuerySet[APIRequest]) -> Used:
    sums = sum_requests(calls)
    return Used(sums.requests, sums.input_tokens, sums.output_tokens, sums.charge_nanos)
