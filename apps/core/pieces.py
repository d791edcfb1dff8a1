"""Long changes in short transactions: SQLite has one writer, and running calls need it as well."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from django.db import connection
from django.db.models import QuerySet

# The ledger asks for the lock again and again, and must find it free in between.
PAUSE_SECONDS: Final = 0.03

_Item = TypeVar("_Item")


def in_pieces(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Give the items piece by piece; take a transaction for each.

    `size` is what SQLite writes within 50 ms. Each piece is complete by itself, so that a crash in
    between leaves a beginning which the repeated call completes.
    """
    for start in range(0, len(items), size):
        if start:
            leave_to_others()
        yield items[start : start + size]


def delete_in_pieces(rows: QuerySet[Any], *, size: int, rows_max: int) -> int:
    """Delete rows in their order, `size` at a time, and return how many there were.

    What comes after `rows_max` is left for the next run. A row that is not among `rows` any more
    when its turn has come stays.
    """
    deleted = 0
    while deleted < rows_max:
        page = list(rows.values_list("pk", flat=True)[:size])
        if not page:
            break
        gone, _ = rows.filter(pk__in=page).delete()
        if not gone:
            break
        deleted += gone
        leave_to_others()
    return deleted


def leave_to_others() -> None:
    """Wait a moment where there is only one writer."""
    if connection.vendor == "sqlite":
        time.sleep(PAUSE_SECONDS)
