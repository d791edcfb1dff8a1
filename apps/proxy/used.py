"""What users have used in all, exact and without reading all of it again.

The first time all calls of a user are summed; from then on only what each incarnation has added to
its chain since. A client that asks after every call would otherwise have the database read all
calls before it each time. What a call was charged after its record had been written stands in
entries alone, and is summed in the same way, by the chains of accounts.

All calls of a user are summed in pieces, by when they began, as they were when the first piece was
read: what is recorded meanwhile, wherever it stands among them, is left to the chains. Who asks
again goes on where the last one stopped.

Bounds: USERS_MAX users are remembered, those who asked last. A statement reads PIECE_ROWS calls,
and who asks waits SECONDS and one piece.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, NamedTuple
from uuid import UUID

from django.db import DatabaseError
from django.db.models import Max, Q, QuerySet, Sum

from apps.audit.models import APIRequest
from apps.audit.totals import sum_requests
from apps.billing.models import Account, AccountKind, Entry, EntryKind, Incarnation
from apps.core.moments import one_moment

USERS_MAX: Final = 1_000
PIECE_ROWS: Final = 50_000
SECONDS: Final = 5.0
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


class StillSumming(DatabaseError):
    """There is more to read than one request waits for; the next one goes on from there."""


class _Place(NamedTuple):
    """Where a call stands among those of its user."""

    started_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class _Known:
    """What a user had used when he was last read of."""

    used: Used
    read_at: datetime  # not after it, by the clock that leases are renewed by
    read_up_to: Mapping[int, int]  # incarnation → sequence of its records
    entries_up_to: Mapping[int, int]  # account → sequence of its entries
    newest: int  # the last incarnation that there was
    is_whole: bool  # else calls are missing that had been recorded up to there
    summed_up_to: _Place | None = None  # of those, while they are summed; None before the first
    is_current: bool = False  # nothing was left when it was read


class UsedTotals:
    """The totals of one process. For any thread."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._known: OrderedDict[int, _Known] = OrderedDict()

    def read(self, user_id: int) -> Used:
        """Return what a user has used up to now. Reads the database. Raises StillSumming."""
        until = time.monotonic() + SECONDS
        with self._guard:
            known = self._known.get(user_id)
        while True:
            known = _advance(user_id, known, datetime.now(UTC))
            self._keep(user_id, known)
            if known.is_current:
                return known.used
            if time.monotonic() >= until:
                raise StillSumming("the calls of a user are still being summed")

    def _keep(self, user_id: int, known: _Known) -> None:
        with self._guard:
            self._known[user_id] = known
            self._known.move_to_end(user_id)
            while len(self._known) > USERS_MAX:
                self._known.popitem(last=False)


def _advance(user_id: int, known: _Known | None, now: datetime) -> _Known:
    """Return what is known after one more piece, or after all that is left where that is less."""
    calls = APIRequest.objects.filter(user_id=user_id)
    with one_moment():
        last = Incarnation.objects.aggregate(newest=Max("id"), renewed_at=Max("renewed_at"))
        # The clock of this machine may be hours ahead of the database's, and so may a lease that
        # was renewed by a clock that has been set back since.
        read_at, newest = min(now, last["renewed_at"] or now), last["newest"] or 0
        since = read_at if known is None else known.read_at
        live = Incarnation.objects.filter(renewed_at__gte=since - _QUIET)
        heads = dict(live.values_list("id", "sequence"))
        if known is None or _is_lost(known, heads) or _is_far_behind(known, heads):
            known = _Known(_NOTHING, read_at, heads, {}, newest, is_whole=False)
        if not known.is_whole:
            known = _sum_piece(calls, known, heads)
            if not known.is_whole:
                return known
        known, is_all = _sum_added(calls, known, heads)
        if not is_all:
            return known
        late_nanos, entries = _sum_late(user_id, known.entries_up_to)
    total = known.used._replace(charge_nanos=known.used.charge_nanos + late_nanos)
    return _Known(total, read_at, known.read_up_to, entries, newest, is_whole=True, is_current=True)


def _sum_piece(calls: QuerySet[APIRequest], known: _Known, heads: Mapping[int, int]) -> _Known:
    """Add the next of the calls that had been recorded when the first were summed."""
    calls = calls.order_by("started_at", "id")
    start = known.summed_up_to
    if start is not None:
        # In this form the index is entered where the last piece ended.
        calls = calls.filter(started_at__gte=start.started_at)
        calls = calls.exclude(started_at=start.started_at, id__lte=start.id)
    ends = calls.values_list("started_at", "id")[PIECE_ROWS - 1 : PIECE_ROWS]
    end = next((_Place(*place) for place in ends), None)
    if end is not None:
        calls = calls.filter(started_at__lte=end.started_at)
        calls = calls.exclude(started_at=end.started_at, id__gt=end.id)
    later = Q(incarnation_id__gt=known.newest)
    for incarnation_id, sequence in heads.items():
        # All that were there are known: else it would be lost.
        if incarnation_id <= known.newest and sequence > known.read_up_to[incarnation_id]:
            read_up_to = known.read_up_to[incarnation_id]
            later |= Q(incarnation_id=incarnation_id, sequence__gt=read_up_to)
    return replace(
        known,
        used=_add(known.used, _sum(calls.exclude(later))),
        is_whole=end is None,
        summed_up_to=end,
    )


def _sum_added(
    calls: QuerySet[APIRequest], known: _Known, heads: Mapping[int, int]
) -> tuple[_Known, bool]:
    """Add what incarnations have recorded since, and return whether that is all."""
    added, left = Q(), PIECE_ROWS
    read_up_to = {**known.read_up_to}
    for incarnation_id, sequence in heads.items():
        start = known.read_up_to.get(incarnation_id, 0)
        end = read_up_to[incarnation_id] = min(sequence, start + left)
        if end > start:
            added |= Q(incarnation_id=incarnation_id, sequence__gt=start, sequence__lte=end)
            left -= end - start
    is_all = all(read_up_to[one] == sequence for one, sequence in heads.items())
    more = _sum(calls.filter(added)) if added else _NOTHING
    used = _add(known.used, more)
    return replace(known, used=used, read_up_to=read_up_to, is_current=False), is_all


def _sum_late(user_id: int, read_up_to: Mapping[int, int]) -> tuple[int, dict[int, int]]:
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


def _is_lost(known: _Known, heads: Mapping[int, int]) -> bool:
    """Return whether one writes again of which nobody noted how far it was read."""
    return any(one not in known.read_up_to and one <= known.newest for one in heads)


def _is_far_behind(known: _Known, heads: Mapping[int, int]) -> bool:
    """Return whether all users have been recorded so often since that to read all calls of this one
    is less.
    """
    if not known.is_whole:
        return False
    added = sum(sequence - known.read_up_to.get(one, 0) for one, sequence in heads.items())
    return added > max(PIECE_ROWS, known.used.requests)


def _add(used: Used, more: Used) -> Used:
    return Used(*(before + new for before, new in zip(used, more, strict=True)))


def _sum(calls: QuerySet[APIRequest]) -> Used:
    sums = sum_requests(calls)
    return Used(sums.requests, sums.input_tokens, sums.output_tokens, sums.charge_nanos)
