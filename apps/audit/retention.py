"""Erases stored bodies by rule: by age, by user, or of one call (I-73).

Only rows of Payload go, bodies and salt together; the calls, their amounts and their hashes stay,
so every chain still verifies. What is stored of answers for who repeats a call goes as well, and
after a day with its key, and counts of refused calls after KEPT_REFUSALS. Batches are small,
because on SQLite the ledger waits for each. What has been erased here is still in older backups.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Func, IntegerField, Q, QuerySet
from django.db.models.functions import Coalesce, Now

from apps.audit.events import record_event
from apps.audit.models import APIRequest, CallKey, Payload, RefusalCount
from apps.core.ids import uuid7_lower_bound
from apps.core.pieces import delete_in_pieces, leave_to_others

# One transaction removes at most so much: well under 50 ms on a slow disk.
BATCH_ROWS: Final = 50
BATCH_BYTES: Final = 1 << 20
_PAGE_ROWS: Final = 1_000
# What is selected is counted up to so many pages before anything goes: the rest is "at least".
_PAGES_MEASURED: Final = 10
# As far back as statistics go.
KEPT_REFUSALS: Final = timedelta(days=400)
# Of counts whose time is up, in one transaction and in one run.
_REFUSAL_ROWS: Final = 1_000
_REFUSAL_ROWS_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which payloads are meant. What is None does not restrict; at least one must be given."""

    before: datetime | None = None  # of calls that began before this moment
    user_id: int | None = None
    request_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased: how many payloads, and the first and last call."""

    count: int = 0
    first: UUID | None = None
    last: UUID | None = None
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class _Sized:
    request_id: UUID
    size: int  # bytes of both bodies as stored


class SelectionEmpty(ValueError):
    """Nothing says which payloads are meant: that would be all of them."""


def erase_payloads(
    selection: Selection, *, reason: str, seconds_max: float | None = None
) -> Erasure:
    """Erase the selected payloads, on record, and return what went.

    One event is written with the first batch, so that nothing is erased without a record whenever
    the process dies, and one at the end tells what really went. After `seconds_max`, which do not
    count what measuring takes, the rest is left for the next run; each run erases something.
    Raises SelectionEmpty.
    """
    if selection == Selection():
        raise SelectionEmpty
    if selection.before is None and selection.request_id is None:
        # Calls that begin from now on were not meant, and would keep this going.
        selection = replace(selection, before=datetime.now(UTC))
    at_least = _measure(selection)
    deadline = None if seconds_max is None else time.monotonic() + seconds_max
    done, answers = Erasure(is_complete=False), 0
    try:
        for batch in _list_batches(selection):
            if done.count:
                if deadline is not None and time.monotonic() > deadline:
                    break
                leave_to_others()
            with _overwriting(), transaction.atomic():
                erased = _erase(batch)
                if erased and not done.count:
                    _record("payloads.erasing", selection, {"payloads_at_least": at_least}, reason)
            if erased:
                count, first = done.count + len(erased), done.first or erased[0]
                done = Erasure(count, first, erased[-1], is_complete=False)
        else:
            done = replace(done, is_complete=True)
        answers, is_all = _erase_answers(
            selection, reason=None if done.count else reason, deadline=deadline
        )
        done = replace(done, is_complete=done.is_complete and is_all)
    finally:
        # Also where a batch failed: what had gone by then has gone.
        if done.count or answers:
            told = _describe(done) | ({"answers": answers} if answers else {})
            _record("payloads.erased", selection, told, reason)
    return done


def _erase_answers(
    selection: Selection, *, reason: str | None, deadline: float | None
) -> tuple[int, bool]:
    """Erase the stored answers of the selected calls; return how many, and whether it was all.

    Their keys stay used. `reason`: of the event with the first batch, None where there has been
    one. After the monotonic `deadline` and one batch the rest is left.
    """
    rows = CallKey.objects.filter(_until(selection), body__isnull=False)
    if selection.request_id is not None:
        rows = rows.filter(pk=selection.request_id)
    if selection.user_id is not None:
        rows = rows.filter(user_id=selection.user_id)
    erased = 0
    for batch in _list_answers(rows):
        with _overwriting(), transaction.atomic():
            if reason is not None and not erased:
                _record("payloads.erasing", selection, {"payloads_at_least": 0}, reason)
            erased += CallKey.objects.filter(pk__in=batch).update(body=None)
        if deadline is not None and time.monotonic() > deadline:
            return erased, not rows.exists()
        leave_to_others()
    return erased, True


def prune_idempotency_keys(*, now: datetime, seconds_max: float) -> int:
    """Delete the idempotency keys whose time is up, some at a time, and return how many.

    It is up by the database's clock, too: that of a worker may be ahead. After `seconds_max` the
    rest is left for the next run; each run deletes something.
    """
    deadline = time.monotonic() + seconds_max
    deleted = 0
    over = CallKey.objects.filter(expires_at__lt=now).filter(expires_at__lt=Now())
    for batch in _list_answers(over):
        with _overwriting():
            deleted += over.filter(pk__in=batch).delete()[0]
        if time.monotonic() > deadline:
            break
        leave_to_others()
    return deleted


def prune_refusals(*, now: datetime) -> int:
    """Delete the counts of refused calls whose time is up, and return how many there were."""
    rows = RefusalCount.objects.filter(minute__lt=now - KEPT_REFUSALS).order_by("minute")
    return delete_in_pieces(rows, size=_REFUSAL_ROWS, rows_max=_REFUSAL_ROWS_MAX)


def _list_answers(rows: QuerySet[CallKey]) -> Iterator[list[UUID]]:
    """Yield the keys among `rows` in batches; those it yielded are expected to be gone then."""
    size = Coalesce(_length("body"), 0)
    page = rows.order_by("expires_at").annotate(size=size).values_list("pk", "size")
    while found := [_Sized(*row) for row in page.all()[:_PAGE_ROWS]]:
        yield from _batches_of(found)


def _measure(selection: Selection) -> int:
    """Return how many payloads are selected at least, without holding any lock."""
    return sum(len(page) for page in itertools.islice(_list_pages(selection), _PAGES_MEASURED))


def _list_batches(selection: Selection) -> Iterator[list[UUID]]:
    """Yield ids of payloads, in batches bounded by rows and by bytes."""
    for page in _list_pages(selection):
        yield from _batches_of(page)


def _batches_of(page: list[_Sized]) -> Iterator[list[UUID]]:
    batch: list[UUID] = []
    size = 0
    for item in page:
        if batch and (len(batch) == BATCH_ROWS or size + item.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item.request_id)
        size += item.size
    if batch:
        yield batch


def _list_pages(selection: Selection) -> Iterator[list[_Sized]]:
    """Yield what is selected, some at a time; a page of a user's calls may hold no payloads."""
    if selection.request_id is not None:
        pages: Iterator[Q] = iter([Q(pk=selection.request_id)])
    elif selection.user_id is not None:
        pages = _pages_of_user(selection.user_id)
    else:
        yield from _pages_by_age(selection)
        return
    for restriction in pages:
        yield _read(restriction & _until(selection))


def _pages_by_age(selection: Selection) -> Iterator[list[_Sized]]:
    """Yield payloads oldest first, by their key: it holds the time, and is the partition key."""
    after = Q()
    while page := _read(_until(selection) & after):
        yield page
        after = Q(pk__gt=page[-1].request_id)


def _pages_of_user(user_id: int) -> Iterator[Q]:
    """Yield restrictions to a user's calls, some at a time, along the index of a user's calls."""
    rows = APIRequest.objects.filter(user_id=user_id).order_by("started_at", "id")
    after = Q()
    while page := list(rows.filter(after).values_list("started_at", "id")[:_PAGE_ROWS]):
        yield Q(pk__in=[request_id for _, request_id in page])
        started_at, request_id = page[-1]
        after = Q(started_at__gte=started_at) & (
            Q(started_at__gt=started_at) | Q(id__gt=request_id)
        )


def _until(selection: Selection) -> Q:
    if selection.before is None:
        return Q()
    return Q(pk__lt=uuid7_lower_bound(selection.before))


def _read(restriction: Q) -> list[_Sized]:
    rows = (
        Payload.objects.filter(restriction)
        .order_by("pk")
        .annotate(size=_length("request_body") + _length("response_body"))
        .values_list("pk", "size")
    )
    return [_Sized(request_id, size) for request_id, size in rows[:_PAGE_ROWS]]


def _length(column: str) -> Func:
    # Of a body only the length is read, on both engines.
    function = "octet_length" if connection.vendor == "postgresql" else "length"
    return Func(F(column), function=function, output_field=IntegerField())


def _erase(batch: list[UUID]) -> list[UUID]:
    """Erase payloads and return the ids of those that were still there, in order."""
    key = Payload._meta.pk
    values = [key.get_db_prep_value(request_id, connection) for request_id in batch]
    # The range lets PostgreSQL look at the partitions concerned only.
    statement = (
        f"DELETE FROM {Payload._meta.db_table} "  # noqa: S608 (names of the model's own)
        f"WHERE {key.column} IN ({', '.join(['%s'] * len(values))}) "
        f"AND {key.column} BETWEEN %s AND %s RETURNING {key.column}"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [*values, min(values), max(values)])
        return sorted(UUID(str(request_id)) for (request_id,) in cursor.fetchall())


@contextmanager
def _overwriting() -> Iterator[None]:
    """Have SQLite overwrite what is erased, which would otherwise stay readable in its file."""
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA secure_delete")
        before = cursor.fetchone()[0]
        cursor.execute("PRAGMA secure_delete = ON")
        try:
            yield
        finally:
            cursor.execute(f"PRAGMA secure_delete = {int(before)}")


def _describe(done: Erasure) -> dict[str, object]:
    return {
        "payloads": done.count,
        "first_request": done.first,
        "last_request": done.last,
        "is_complete": done.is_complete,
    }


def _record(action: str, selection: Selection, told: dict[str, object], reason: str) -> None:
    record_event(
        actor=None,
        action=action,
        subject=None,
        after={
            **told,
            "before": selection.before,
            "user_id": selection.user_id,
            "request_id": selection.request_id,
        },
        reason=reason,
    )
