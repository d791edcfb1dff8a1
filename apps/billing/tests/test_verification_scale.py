"""A verification of what is new reads what is new, whatever the ledger holds (PostgreSQL)."""

# ruff: noqa: S608 (numbers of this file)

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.db import transaction

from apps.billing.anchor_checks import check_anchors, read_promises
from apps.billing.anchors import append_anchor
from apps.billing.findings import Findings, fetch
from apps.billing.ledger.commands import Held
from apps.billing.ledger.store import Engine
from apps.billing.verification import report
from tests.support.databases import Database
from tests.support.tampering import Tamper
from tests.support.world import NOW, Gateway, make_world

pytestmark = pytest.mark.postgres

ACCOUNTS = 200
ENTRIES = 10_000  # and as many requests; two entries a transaction
NEW = 50  # entries of as many accounts, and requests
GROWING = ("billing_entry", "billing_transaction", "audit_apirequest")


@pytest.fixture
def big_ledger(ledger_connect: Callable[[], Engine], committed_db: Database) -> None:
    """Rows without sound links, most of which were verified. Statistics are up to date."""
    gateway = Gateway(make_world(), ledger_connect())
    held = gateway.hold(1_000)
    assert isinstance(held, Held)
    gateway.resolve(held, 1)
    Tamper(committed_db).run(
        "INSERT INTO billing_account (kind, customer_id, name, posted_nanos, held_nanos, sequence, "
        "head, created_at) SELECT 'quota', customer_id, 'many ' || n, 0, 0, "
        f"{ENTRIES // ACCOUNTS}, '', now() FROM billing_account, generate_series(1, {ACCOUNTS}) n "
        "WHERE kind = 'wallet'",
        "INSERT INTO billing_transaction SELECT lpad(to_hex(n), 32, '0')::uuid, 'settlement', "
        f"'many ' || n, NULL, 'gateway', '', now() FROM generate_series(1, {ENTRIES // 2}) n",
        "INSERT INTO billing_entry (transaction_id, account_id, request_id, kind, amount_nanos, "
        "sequence, balance_after_nanos, hash) SELECT lpad(to_hex((n + 1) / 2), 32, '0')::uuid, "
        f"first.id + n % {ACCOUNTS}, lpad(to_hex(n), 32, '0')::uuid, 'charge', n % 2 * 2 - 1, "
        f"(n - 1) / {ACCOUNTS} + 1, 0, '' FROM generate_series(1, {ENTRIES}) n, "
        "(SELECT MIN(id) AS id FROM billing_account WHERE name LIKE 'many %') AS first "
        "ORDER BY n",
        "INSERT INTO audit_apirequest SELECT (jsonb_populate_record(request, jsonb_build_object("
        "'id', left(request.id::text, 24) || lpad(to_hex(n), 12, '0'), 'sequence', n + 1))).* "
        f"FROM audit_apirequest AS request, generate_series(1, {ENTRIES}) n",
        f"UPDATE billing_incarnation SET sequence = {ENTRIES + 1}",
        "INSERT INTO billing_verifiedhead (chain, chain_id, sequence, head, verified_at) "
        f"SELECT 'account', id, sequence - (row_number() OVER (ORDER BY id) <= {NEW})::int, '', "
        "now() FROM billing_account WHERE name LIKE 'many %'",
        "INSERT INTO billing_verifiedhead (chain, chain_id, sequence, head, verified_at) "
        f"SELECT 'incarnation', id, sequence - {NEW}, '', now() FROM billing_incarnation",
        "ANALYZE",
    )


def rows_read(table: str) -> int:
    """Return how many rows of a table, or of its partitions, this transaction has read."""
    ((count,),) = fetch(
        "SELECT SUM(seq_tup_read + COALESCE(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables "
        "WHERE relname LIKE %s",
        (f"{table}%",),
    )
    return int(count)


def verify(*, is_full: bool) -> tuple[int, int, list[int]]:
    """Return entries and requests that were verified, and the rows read of what grows."""
    with transaction.atomic():
        found = report(is_full=is_full, anchors_path=Path("/nonexistent"), now=datetime.now(UTC))
        read = [rows_read(table) for table in GROWING]
    return found.entries, found.requests, read


def test_what_was_anchored_is_looked_up(big_ledger: None, tmp_path: Path) -> None:
    append_anchor(tmp_path / "anchors.jsonl", NOW)
    findings = Findings()
    promises = read_promises(tmp_path / "anchors.jsonl", findings)

    with transaction.atomic():
        check_anchors(promises, findings)
        read = [rows_read(table) for table in GROWING]

    # Of the many accounts and of the world's three, and of one incarnation.
    assert (read, findings.items) == ([ACCOUNTS + 3, 0, 1], [])


def test_what_is_verified_is_not_read_again(big_ledger: None) -> None:
    entries, requests, read = verify(is_full=False)

    # The world's own two transactions are new, too.
    assert (entries, requests) == (NEW + 4, NEW)
    # The last verified entry of each account, then each new one for its chain and for three checks.
    assert [rows <= ACCOUNTS + 8 * NEW for rows in read] == [True, True, True], read

    entries, requests, read = verify(is_full=True)

    assert (entries, requests) == (ENTRIES + 4, ENTRIES + 1)
    assert [rows >= ENTRIES / 2 for rows in read] == [True, True, True], read
