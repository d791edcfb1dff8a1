"""Monthly partitions of the audit tables on PostgreSQL, by the time inside their UUIDv7 keys.

Every statement here is safe to repeat and to run from several gateways at once. A default partition
takes rows of months that have none, so that no settlement ever fails for want of a partition. A
month of which it has rows gets no partition of its own any more: they stay until an operator moves
them (docs/operations.md), and the other months are made.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from apps.core.ids import uuid7_lower_bound
from apps.core.triggers import no_truncate

logger = logging.getLogger(__name__)

# table → the column that is the partition key
PARTITIONED = {"audit_apirequest": "id", "audit_attempt": "id", "audit_payload": "request_id"}
MONTHS_AHEAD = 2
# Any number, the same in all gateways: serialises them while they make partitions.
_ADVISORY_LOCK = 7_270_418_001


class Cursor(Protocol):
    """What a DB-API cursor can do."""

    def execute(self, sql: str, params: Any = ..., /) -> object: ...
    def fetchone(self) -> Any: ...


def month_start(at: datetime, months_later: int = 0) -> datetime:
    """Return the first moment of the month of `at`, or of a later one, in UTC."""
    months = at.year * 12 + at.month - 1 + months_later
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def ensure_partitions(cursor: Cursor, *, now: datetime) -> int:
    """Make the partitions of this month and the next ones and return how many were made.

    Needs PostgreSQL and an open transaction. A new table is made aside and attached: readers and
    writers of the other partitions go on, only the (empty) default partition is locked shortly.
    """
    made, kept_in_default = 0, []
    wanted = [
        (table, month_start(now, later))
        for table in PARTITIONED
        for later in range(MONTHS_AHEAD + 1)
    ]
    for table, start in wanted:
        name = f"{table}_{start:%Y_%m}"
        if _exists(cursor, name):
            continue
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
        if _exists(cursor, name):
            continue
        low, high = uuid7_lower_bound(start), uuid7_lower_bound(month_start(start, 1))
        if not _has_rows(cursor, table, low, high):
            cursor.execute(_make(table, name, low, high))
        if _exists(cursor, name):
            made += 1
        else:
            kept_in_default.append(name)
    if kept_in_default:
        logger.warning(
            "not made, because the default partition has rows of the month: %s "
            "(docs/operations.md, Partitions)",
            ", ".join(kept_in_default),
        )
    return made


def _make(table: str, name: str, low: UUID, high: UUID) -> str:
    """Return the statement that makes a partition, or nothing if rows of it came meanwhile.

    The block is a savepoint: what was made before stays. Triggers for rows come with the table's,
    those for statements do not.
    """
    return f"""DO $make$ BEGIN
        CREATE TABLE "{name}" (LIKE "{table}" INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
        ALTER TABLE "{table}" ATTACH PARTITION "{name}" FOR VALUES FROM ('{low}') TO ('{high}');
        IF EXISTS (SELECT 1 FROM pg_trigger
                   WHERE tgrelid = '"{table}"'::regclass AND tgname = '{table}_no_truncate') THEN
            {no_truncate(name)};
        END IF;
    EXCEPTION WHEN check_violation THEN NULL;
    END $make$"""  # noqa: S608 (names and bounds of our own)


def _exists(cursor: Cursor, name: str) -> bool:
    # The catalogue itself: to_regclass() may answer what it knew before the lock was waited for.
    cursor.execute("SELECT EXISTS (SELECT 1 FROM pg_class WHERE relname = %s)", (name,))
    row = cursor.fetchone()
    return bool(row and row[0])


def _has_rows(cursor: Cursor, table: str, low: UUID, high: UUID) -> bool:
    # Of a month without a partition they lie in the default one, which a gateway may not name.
    column = PARTITIONED[table]
    cursor.execute(
        f'SELECT EXISTS (SELECT 1 FROM "{table}" WHERE "{column}" >= %s AND "{column}" < %s)',  # noqa: S608 (constants)
        (low, high),
    )
    row = cursor.fetchone()
    return bool(row and row[0])
