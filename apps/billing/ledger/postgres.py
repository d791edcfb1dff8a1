"""The ledger's statements on PostgreSQL, over a synchronous psycopg connection.

A batch costs two round trips and the commit: one pipeline locks and reads, one writes. Rows
travel as one JSON parameter a table.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import dict_row, tuple_row

from apps.audit.partitions import ensure_partitions
from apps.billing.ledger.commands import (
    AccountState,
    ChainState,
    Changes,
    CounterState,
    RecordedCharge,
    Row,
    RowKey,
    State,
)
from apps.billing.ledger.store import TABLES, IncarnationEnded, no_chain, tables_of

_LOCK_ACCOUNTS = """SELECT id, kind, posted_nanos, held_nanos, sequence, head FROM billing_account
    WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"""
_OWING = "SELECT id FROM billing_account WHERE id = ANY(%s) AND posted_nanos < 0"
# Before any counter is locked, and in one order, so that who waits here has none that others need.
_MAKE_COUNTERS = """INSERT INTO billing_spendcounter (scope, scope_id, spent_nanos, held_nanos)
    SELECT scope, scope_id, 0, 0 FROM unnest(%s::text[], %s::bigint[]) AS wanted (scope, scope_id)
    WHERE NOT EXISTS (SELECT 1 FROM billing_spendcounter AS counter
        WHERE counter.scope = wanted.scope AND counter.scope_id = wanted.scope_id)
    ORDER BY scope, scope_id ON CONFLICT (scope, scope_id) DO NOTHING"""
# One array of ids: an OR of two ways to find them would read the whole table.
_FIND_COUNTERS = """SELECT id, scope, scope_id, spent_nanos, held_nanos FROM billing_spendcounter
    WHERE id = ANY(%s::bigint[] || ARRAY(
        SELECT counter.id FROM unnest(%s::text[], %s::bigint[]) AS wanted (scope, scope_id)
        JOIN billing_spendcounter AS counter
            ON counter.scope = wanted.scope AND counter.scope_id = wanted.scope_id))
    ORDER BY id"""
_LOCK_COUNTERS = f"{_FIND_COUNTERS} FOR NO KEY UPDATE"
_LOCK_CHAIN = """SELECT sequence, head, ended_at IS NOT NULL FROM billing_incarnation WHERE id = %s
    FOR NO KEY UPDATE"""
_CLAIM_HOLDS = "DELETE FROM billing_hold WHERE request_id = ANY(%s) RETURNING request_id"
_RESOLVED = """SELECT request.id, COALESCE((SELECT -SUM(amount_nanos) FROM billing_entry AS entry
        WHERE entry.request_id = request.id AND entry.kind IN ('charge', 'excess', 'late')), 0),
        EXISTS (SELECT 1 FROM billing_entry AS entry
            WHERE entry.request_id = request.id AND entry.kind = 'late'),
        request.provider_id
    FROM audit_apirequest AS request WHERE request.id = ANY(%s)"""
_UPDATE_ACCOUNTS = """UPDATE billing_account AS account
    SET posted_nanos = new.posted, held_nanos = new.held, sequence = new.sequence, head = new.head
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[])
        AS new (id, posted, held, sequence, head)
    WHERE account.id = new.id"""
_UPDATE_COUNTERS = """UPDATE billing_spendcounter AS counter
    SET spent_nanos = new.spent, held_nanos = new.held
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS new (id, spent, held)
    WHERE counter.id = new.id"""
_UPDATE_CHAIN = "UPDATE billing_incarnation SET sequence = %s, head = %s WHERE id = %s"
# A hold's age is measured on the database's clock, so that clock sets it.
_SET_BY_DATABASE = {"placed_at": "clock_timestamp()"}


def _insert(table: str, columns: tuple[str, ...]) -> str:
    values = ", ".join(_SET_BY_DATABASE.get(name, name) for name in columns)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} "  # noqa: S608 (constants)
        f"FROM json_populate_recordset(NULL::{table}, %s::json)"
    )


_INSERT = {table: _insert(table, columns) for table, columns in TABLES.items()}


def connect(dsn: dict[str, Any]) -> psycopg.Connection[Any]:
    """Open the writer's own connection: bounded waits, no prepared-statement surprises."""
    return psycopg.connect(
        **dsn,
        autocommit=True,
        connect_timeout=2,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=15_000,
        options="-c lock_timeout=1s -c statement_timeout=10s "
        "-c idle_in_transaction_session_timeout=15s -c application_name=ledger_writer",
    )


class PostgresEngine:
    """The ledger's statements on one psycopg connection."""

    name = "postgresql"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Open a write transaction (a savepoint inside one that is open)."""
        with self._connection.transaction():
            yield

    def lock(
        self,
        *,
        account_ids: Sequence[int],
        receivable_ids: Sequence[int],
        scopes: Sequence[tuple[str, int]],
        counter_ids: Sequence[int],
        incarnation_id: int | None,
        hold_ids: Sequence[UUID],
    ) -> State:
        """Lock and read all that a batch needs, and delete the holds that it claims."""
        names, ids = [scope for scope, _ in scopes], [scope_id for _, scope_id in scopes]
        accounts = owing = counters = chain = claimed = None
        with self._connection.pipeline():
            if account_ids:
                accounts = self._query(_LOCK_ACCOUNTS, (list(account_ids),))
            if receivable_ids:
                owing = self._query(_OWING, (list(receivable_ids),))
            if scopes:
                self._query(_MAKE_COUNTERS, (names, ids))
            if scopes or counter_ids:
                counters = self._query(_LOCK_COUNTERS, (list(counter_ids), names, ids))
            if incarnation_id is not None:
                chain = self._query(_LOCK_CHAIN, (incarnation_id,))
            if hold_ids:
                claimed = self._query(_CLAIM_HOLDS, (list(hold_ids),))
        counter_rows = counters.fetchall() if counters else []
        return State(
            accounts={
                row[0]: AccountState(*row[1:]) for row in (accounts.fetchall() if accounts else ())
            },
            owing={row[0] for row in (owing.fetchall() if owing else ())},
            counters={row[0]: CounterState(*row[1:]) for row in counter_rows},
            counter_ids={(row[1], row[2]): row[0] for row in counter_rows},
            chain=_chain(incarnation_id, chain.fetchone() if chain else None),
            claimed={row[0] for row in (claimed.fetchall() if claimed else ())},
            resolved={},
        )

    def read_resolved(self, request_ids: Sequence[UUID]) -> dict[UUID, RecordedCharge]:
        """Return what recorded requests were charged so far."""
        rows = self._query(_RESOLVED, (list(request_ids),))
        return {row[0]: RecordedCharge(int(row[1]), row[2], row[3]) for row in rows}

    def write(self, changes: Changes, state: State) -> None:
        """Write the rows and the changed balances in one pipeline."""
        changed = [(key, account) for key, account in state.accounts.items() if account.is_changed]
        counted = [(key, counter) for key, counter in state.counters.items() if counter.is_changed]
        with self._connection.pipeline():
            for table, _, rows in tables_of(changes):
                self._query(_INSERT[table], (orjson.dumps(rows, default=_json_value).decode(),))
            if changed:
                self._query(
                    _UPDATE_ACCOUNTS,
                    (
                        [key for key, _ in changed],
                        [account.posted for _, account in changed],
                        [account.held for _, account in changed],
                        [account.sequence for _, account in changed],
                        [account.head for _, account in changed],
                    ),
                )
            if counted:
                self._query(
                    _UPDATE_COUNTERS,
                    (
                        [key for key, _ in counted],
                        [counter.spent for _, counter in counted],
                        [counter.held for _, counter in counted],
                    ),
                )
            if changes.requests:
                self._query(
                    _UPDATE_CHAIN,
                    (state.chain.sequence, state.chain.head, state.chain.incarnation_id),
                )

    def open_incarnation(self, *, kind: str, host: str, pid: int, lease_seconds: int) -> int:
        """Insert a lease on the database's clock and return its id."""
        row = self._query(
            """INSERT INTO billing_incarnation
                   (kind, host, pid, started_at, renewed_at, expires_at, sequence, head)
               VALUES (%s, %s, %s, clock_timestamp(), clock_timestamp(),
                   clock_timestamp() + make_interval(secs => %s), 0, '') RETURNING id""",
            (kind, host, pid, lease_seconds),
        ).fetchone()
        assert row is not None  # noqa: S101 (RETURNING of an INSERT always has a row)
        return int(row[0])

    def renew(self, incarnation_id: int, lease_seconds: int) -> bool:
        """Extend a lease and return whether it is still ours."""
        cursor = self._query(
            """UPDATE billing_incarnation SET renewed_at = clock_timestamp(),
                   expires_at = clock_timestamp() + make_interval(secs => %s)
               WHERE id = %s AND ended_at IS NULL""",
            (lease_seconds, incarnation_id),
        )
        return cursor.rowcount == 1

    def end(self, incarnation_id: int) -> None:
        """Mark a lease as ended."""
        self._query(
            "UPDATE billing_incarnation SET ended_at = clock_timestamp() "
            "WHERE id = %s AND ended_at IS NULL",
            (incarnation_id,),
        )

    def end_expired(self, *, but: int, all_others: bool, grace_seconds: float) -> list[int]:
        """End leases that ran out so long ago and return all ended ones that still have holds."""
        self._query(
            """UPDATE billing_incarnation SET ended_at = clock_timestamp()
               WHERE ended_at IS NULL AND id <> %s
               AND (%s OR expires_at < clock_timestamp() - make_interval(secs => %s))""",
            (but, all_others, grace_seconds),
        )
        rows = self._query(
            """SELECT DISTINCT hold.incarnation_id FROM billing_hold AS hold
               JOIN billing_incarnation AS incarnation ON incarnation.id = hold.incarnation_id
               WHERE incarnation.ended_at IS NOT NULL"""
        )
        return [int(row[0]) for row in rows]

    def find_locked(self, keys: Collection[RowKey]) -> set[RowKey]:
        """Return which accounts and counters somebody else keeps locked at this moment."""
        account_ids = [number for kind, number in keys if kind == "account"]
        counter_ids = [number for kind, number in keys if kind == "counter"]
        scopes = [key for key in keys if key[0] not in ("account", "counter")]
        free = self._query(
            "SELECT id FROM billing_account WHERE id = ANY(%s) FOR NO KEY UPDATE SKIP LOCKED",
            (account_ids,),
        )
        locked = {("account", number) for number in set(account_ids) - {row[0] for row in free}}
        if scopes or counter_ids:
            wanted = (counter_ids, [name for name, _ in scopes], [number for _, number in scopes])
            free_ids = {row[0] for row in self._query(f"{_LOCK_COUNTERS} SKIP LOCKED", wanted)}
            for row in self._query(_FIND_COUNTERS, wanted):
                if row[0] not in free_ids:
                    locked |= {("counter", row[0]), (row[1], row[2])}
        return locked

    def price_rows(self, version_ids: Collection[int]) -> dict[int, Row]:
        """Return price versions by id."""
        rows = self._rows(
            "SELECT * FROM ai_models_priceversion WHERE id = ANY(%s)", (list(version_ids),)
        )
        return {row["id"]: row for row in rows}

    def revenue_ids(self) -> list[int]:
        """Return the ids of the revenue accounts."""
        rows = self._query("SELECT id FROM billing_account WHERE kind = 'revenue' ORDER BY id")
        return [row[0] for row in rows]

    def check_durability(self) -> str | None:
        """Return what makes commits of this database unsafe, or None."""
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            row = self._query("SELECT current_setting(%s)", (name,)).fetchone()
            if row is None or row[0] == "off":
                return f"PostgreSQL runs with {name} = off: a crash would lose money."
        return None

    def orphans(self, incarnation_id: int, limit: int) -> list[Row]:
        """Return holds of one incarnation."""
        return self._rows(
            "SELECT * FROM billing_hold WHERE incarnation_id = %s ORDER BY request_id LIMIT %s",
            (incarnation_id, limit),
        )

    def own_holds(self, incarnation_id: int, older_than_seconds: float) -> list[Row]:
        """Return the holds of one incarnation that are older than so many seconds."""
        return self._rows(
            """SELECT * FROM billing_hold WHERE incarnation_id = %s
               AND placed_at < clock_timestamp() - make_interval(secs => %s)""",
            (incarnation_id, older_than_seconds),
        )

    def checkpoint(self, rows: Sequence[tuple[UUID, str]]) -> None:
        """Note the usage so far on holds."""
        self._query(
            """UPDATE billing_hold AS hold SET checkpoint = new.checkpoint
               FROM unnest(%s::uuid[], %s::text[]) AS new (request_id, checkpoint)
               WHERE hold.request_id = new.request_id""",
            ([row[0] for row in rows], [row[1] for row in rows]),
        )

    def count_refusals(self, rows: Sequence[tuple[int, str, datetime, int]]) -> None:
        """Add to the counters of refused calls."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(
                """INSERT INTO audit_refusalcount AS old (api_key_id, code, minute, count)
                   VALUES (%s, %s, %s, %s) ON CONFLICT (api_key_id, code, minute)
                   DO UPDATE SET count = old.count + EXCLUDED.count""",
                list(rows),
            )

    def make_partitions(self, now: datetime) -> None:
        """Make the audit tables' next partitions."""
        with (
            self._connection.transaction(),
            self._connection.cursor(row_factory=tuple_row) as cursor,
        ):
            ensure_partitions(cursor, now=now)

    def ping(self) -> None:
        """Ask the database for anything."""
        self._query("SELECT 1")

    def abort(self) -> None:
        """Cut the connection under a statement that does not return. For any thread."""
        with suppress(psycopg.Error, OSError):
            descriptor = os.dup(self._connection.fileno())
            with socket.socket(fileno=descriptor) as channel:
                channel.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _query(self, sql: str, params: tuple[object, ...] = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        cursor = self._connection.cursor(row_factory=tuple_row)
        cursor.execute(sql, params)
        return cursor

    def _rows(self, sql: str, params: tuple[object, ...]) -> list[Row]:
        with self._connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall()


def _chain(incarnation_id: int | None, row: tuple[Any, ...] | None) -> ChainState:
    if incarnation_id is None:
        return no_chain()
    if row is None or row[2]:
        raise IncarnationEnded
    return ChainState(incarnation_id, row[0], row[1])


def _json_value(value: object) -> str:
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    raise TypeError(type(value).__name__)
