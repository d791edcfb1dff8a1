"""Long changes in short transactions: SQLite has one writer, and running calls need it as well."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from django.db import connection

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


def leave_to_others() -> None:
    """Wait a moment where there is only one writer."""
    if connection.vendor == "sqlite":
        time.sleep(PAUSE_SECONDS)
