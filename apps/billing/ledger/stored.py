"""Where answers lie that providers keep, as rows that commit with their settlements. Pure.

A row is replaced by that of a later answer with the same id, and by no earlier one: a settlement
that is replayed leaves what has come since.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from apps.billing.ledger.commands import Row, StoredRecord


def rows_of(record: StoredRecord) -> Iterator[Row]:
    """Yield a row for each id."""
    for digest in record.digests:
        yield {
            "digest": digest,
            "provider_id": record.provider_id,
            "provider_key_id": record.provider_key_id,
            "user_id": record.user_id,
            "model_id": record.model_id,
            "created_at": record.created_at,
            "expires_at": record.expires_at,
        }


def latest_by_id(rows: Sequence[Row]) -> list[Row]:
    """Return of the rows with one id at one provider the latest, in one order everywhere.

    One statement replaces no row twice; and of two gateways that write the same ids in one order
    only one waits for the other.
    """
    latest: dict[tuple[bytes, int], Row] = {}
    for row in rows:
        key = row["digest"], row["provider_id"]
        before = latest.get(key)
        if before is None or before["created_at"] <= row["created_at"]:
            latest[key] = row
    return [latest[key] for key in sorted(latest)]
