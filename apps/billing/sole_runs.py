"""Lets one scheduled verification of a kind run at a time, whoever runs it.

PostgreSQL's lock goes with its connection and a file's with its process: none outlives its holder.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from django.conf import settings
from django.db import connection

Kind = Literal["recent", "full"]
# Any numbers, the same in all workers.
_ADVISORY_LOCKS: Final[dict[Kind, int]] = {"recent": 7_270_418_011, "full": 7_270_418_012}


@contextmanager
def sole_run(kind: Kind) -> Iterator[bool]:
    """Yield whether nobody else is at it; then nobody else will be until the end."""
    if connection.vendor != "postgresql":
        with _locked_file(Path(settings.DATA_DIR) / f"verification-{kind}.lock") as is_ours:
            yield is_ours
        return
    lock = (_ADVISORY_LOCKS[kind],)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", lock)
        is_ours = bool(cursor.fetchone()[0])
    try:
        yield is_ours
    finally:
        # Where the connection is lost the lock is, too.
        if is_ours and connection.connection is not None and connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", lock)


@contextmanager
def _locked_file(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
