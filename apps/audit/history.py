"""Whether calls name something, which then has to stay.

A long history takes long to look through, and inside SQLite's write transaction that would keep all
money waiting. So it is looked through before the transaction, without a lock, and inside it only
for what came since then. Calls that run are looked for first: one that ends meanwhile is on record
by then.

What was made long ago and never used is looked for among all attempts since. Where that takes
longer than a statement may, nobody knows that it was not used: it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.audit.models import APIRequest, Attempt
from apps.core.ids import uuid7_lower_bound

# How much earlier than a row its first call may have begun, by the clock of another host.
_CLOCK_DIFFERENCE: Final = timedelta(minutes=1)
# The same, and the time between the begin of a call and its hold.
_OVERLAP: Final = timedelta(minutes=2)

# Whether a call is running whose record will have this value in this column.
OpenCalls = Callable[[str, int], bool]


@dataclass(frozen=True, slots=True)
class Trace:
    """By what calls name a row. What they are looked up by should have an index."""

    row_id: int
    created_at: datetime
    column: str = ""  # of APIRequest, known when a call begins; empty: known only when it ends
    requests: Mapping[str, Any] = field(default_factory=dict)  # empty: not to be looked through
    attempts: Mapping[str, Any] = field(default_factory=dict)  # the same


@dataclass(frozen=True, slots=True)
class Look:
    """What a look through the whole history has found, and when it began.

    `is_found` also where there was no time to look through all of it.
    """

    trace: Trace
    is_found: bool
    began_at: datetime

    def is_called(self) -> bool:
        """Return whether calls name the row by now; reads only what came since the look."""
        return self.is_found or _find(self.trace, since=self.began_at - _OVERLAP)


class _Running:
    """Where running calls are looked for. Set once, when the apps are ready."""

    find: OpenCalls | None = None


_looks: ContextVar[dict[str, Look] | None] = ContextVar("looks", default=None)


def set_open_calls(find: OpenCalls) -> None:
    """Tell how running calls are found: they are kept by a layer above this one."""
    _Running.find = staticmethod(find)


def is_call_open(column: str, value: int) -> bool:
    """Return whether a call is running whose record will have the value in the column."""
    return _Running.find is not None and _Running.find(column, value)


def look_for_calls(trace: Trace) -> Look:
    """Look through the whole history: call it before the transaction, `is_called` inside it."""
    remembered = _looks.get()
    name = repr(trace)
    if remembered is not None and name in remembered:
        return remembered[name]
    began_at = timezone.now()
    look = Look(trace, _find(trace, since=trace.created_at - _CLOCK_DIFFERENCE), began_at)
    if remembered is not None:
        remembered[name] = look
    return look


@contextmanager
def remembered_looks() -> Iterator[None]:
    """Have each look made once, for pages that ask again inside their transaction."""
    token = _looks.set({})
    try:
        yield
    finally:
        _looks.reset(token)


def _find(trace: Trace, *, since: datetime) -> bool:
    if trace.column and is_call_open(trace.column, trace.row_id):
        return True
    requests = APIRequest.objects.filter(started_at__gte=since, **trace.requests)
    if trace.requests and _has_any(requests):
        return True
    # Attempts are keyed by time.
    attempts = Attempt.objects.filter(id__gte=uuid7_lower_bound(since), **trace.attempts)
    return bool(trace.attempts) and _has_any(attempts)


def _has_any(rows: QuerySet[Any]) -> bool:
    """Return whether there are rows, or no time to find out."""
    # A statement that is ended breaks its transaction. On SQLite none is, and a transaction would
    # take the one write lock.
    savepoint = transaction.atomic() if connection.vendor == "postgresql" else nullcontext()
    try:
        with savepoint:
            return rows.exists()
    except OperationalError as error:
        if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            return True
        raise
