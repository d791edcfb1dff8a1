"""The ledger's statements on SQLite, over a connection of the writer's own.

`BEGIN IMMEDIATE` takes the one write lock first, so everything read afterwards stays true until the
commit. Values are stored in the forms in which Django reads them.

Over 400 lines because it is one engine's side of `Engine`, statement by statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from apps.billing.ledger.commands import (
    AccountState,
    ChainState,
    Changes,
    CounterState,
    KeyId,
    KeyState,
    RecordedCharge,
    Row,
    RowKey,
    State,
)
from apps.billing.ledger.store import (
    ENDS_OF_INSERTS,
    SWEPT_MAX,
    TABLES,
    IncarnationEnded,
    SteadyClock,
    no_chain,
    tables_of,
)

_BUSY_SECONDS = 10.0
# How many rows one INSERT takes. Each statement gives the interpreter away and has to get it back,
# which beside a busy event loop takes longer than to write a row.
_ROWS_MAX = 16
_STATEMENTS_KEPT = 256  # for eight tables, with up to _ROWS_MAX rows each
_READ = """SELECT
    (SELECT json_group_array(json_array(id, kind, posted_nanos, held_nanos, sequence, hex(head)))
        FROM billing_account WHERE id IN (SELECT value FROM json_each(?))),
    (SELECT json_group_array(id) FROM billing_account
        WHERE posted_nanos < 0 AND id IN (SELECT value FROM json_each(?))),
    (SELECT json_array(sequence, hex(head), ended_at IS NOT NULL)
        FROM billing_incarnation WHERE id = ?),
    (SELECT json_group_array(request_id) FROM billing_hold
        WHERE request_id IN (SELECT value FROM json_each(?)))"""
_RESOLVED = """SELECT request.id, COALESCE((SELECT -SUM(amount_nanos) FROM billing_entry AS entry
        WHERE entry.request_id = request.id AND entry.kind IN ('charge', 'excess', 'late')), 0),
        EXISTS (SELECT 1 FROM billing_entry AS entry
            WHERE entry.request_id = request.id AND entry.kind = 'late'),
        request.provider_id
    FROM audit_apirequest AS request WHERE request.id IN (SELECT value FROM json_each(?))"""

_SWEEP_COUNTERS = """DELETE FROM billing_spendcounter WHERE id IN (
    SELECT id FROM billing_spendcounter WHERE instr(scope, ':') > 0 AND held_nanos = 0
        AND substr(scope, instr(scope, ':') + 1) < ? ORDER BY id LIMIT ?)"""
_ANSWER_KEY = """UPDATE audit_callkey SET status_code = ?, headers = ?, body = ?, expires_at = ?
    WHERE request_id = ?"""


def connect(path: str | Path) -> sqlite3.Connection:
    """Open the writer's own connection: durable commits, explicit transactions."""
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        timeout=_BUSY_SECONDS,
        check_same_thread=False,
        cached_statements=_STATEMENTS_KEPT,
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    # REPLACE deletes past the triggers that refuse it otherwise.
    connection.execute("PRAGMA recursive_triggers=ON")
    return connection


class SqliteEngine:
    """The ledger's statements on one sqlite3 connection."""

    name = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # It is the only clock there is; being set while this process runs changes nothing.
        self._clock = SteadyClock(datetime.now(UTC))

    def now(self) -> datetime:
        """Return the time, as it was when this began and has passed since."""
        return self._clock.tell()

    def ask_time(self) -> datetime:
        """Return what the clock says at this moment, set or not."""
        return datetime.now(UTC)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Open a write transaction (nothing inside one that is open: the outer one decides)."""
        if self._is_in_transaction():
            yield
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._is_in_transaction():
                self._connection.execute("ROLLBACK")
            raise

    def _is_in_transaction(self) -> bool:
        return self._connection.in_transaction

    def lock(
        self,
        *,
        account_ids: Sequence[int],
        receivable_ids: Sequence[int],
        scopes: Sequence[tuple[str, int]],
        counter_ids: Sequence[int],
        incarnation_id: int | None,
        hold_ids: Sequence[UUID],
        key_ids: Sequence[KeyId] = (),
    ) -> State:
        """Read all that a batch needs, and delete the holds that it claims."""
        counters = self._lock_counters(scopes, counter_ids) if scopes or counter_ids else []
        hexes = {hold_id.hex: hold_id for hold_id in hold_ids}
        wanted = (_array(account_ids), _array(receivable_ids), incarnation_id, _array(hexes))
        accounts, owing, chain, claimed = (
            orjson.loads(found or "null")
            for found in self._connection.execute(_READ, wanted).fetchone()
        )
        if claimed:
            self._connection.execute(
                "DELETE FROM billing_hold WHERE request_id IN (SELECT value FROM json_each(?))",
                (_array(claimed),),
            )
        return State(
            accounts={
                row[0]: AccountState(row[1], row[2], row[3], row[4], bytes.fromhex(row[5]))
                for row in accounts
            },
            owing=set(owing),
            counters={row[0]: CounterState(*row[1:]) for row in counters},
            counter_ids={(row[1], row[2]): row[0] for row in counters},
            chain=_chain(incarnation_id, chain),
            claimed={hexes[request_id] for request_id in claimed},
            resolved={},
            keys=dict(self._find_keys(key_ids)),
        )

    def _find_keys(self, key_ids: Sequence[KeyId]) -> Iterator[tuple[KeyId, KeyState]]:
        for key_id in key_ids:
            row = self._connection.execute(
                "SELECT request_id, fingerprint, expires_at FROM audit_callkey "
                "WHERE user_id = ? AND digest = ?",
                key_id,
            ).fetchone()
            if row is not None:
                expires_at = None if row[2] is None else datetime.fromisoformat(f"{row[2]}+00:00")
                yield key_id, KeyState(UUID(row[0]), row[1], expires_at)

    def _lock_counters(
        self, scopes: Sequence[tuple[str, int]], counter_ids: Sequence[int]
    ) -> list[tuple[Any, ...]]:
        self._connection.executemany(
            "INSERT INTO billing_spendcounter (scope, scope_id, spent_nanos, held_nanos) "
            "VALUES (?, ?, 0, 0) ON CONFLICT (scope, scope_id) DO NOTHING",
            scopes,
        )
        select = "SELECT id, scope, scope_id, spent_nanos, held_nanos FROM billing_spendcounter"
        rows = self._connection.execute(
            f"{select} WHERE id IN (SELECT value FROM json_each(?))",  # noqa: S608 (constants)
            (_array(counter_ids),),
        ).fetchall()
        for scope, scope_id in scopes:
            rows += self._connection.execute(
                f"{select} WHERE scope = ? AND scope_id = ?",
                (scope, scope_id),
            ).fetchall()
        return rows

    def read_resolved(self, request_ids: Sequence[UUID]) -> dict[UUID, RecordedCharge]:
        """Return what recorded requests were charged so far."""
        rows = self._connection.execute(
            _RESOLVED, (_array([request_id.hex for request_id in request_ids]),)
        )
        return {UUID(row[0]): RecordedCharge(row[1], bool(row[2]), row[3]) for row in rows}

    def write(self, changes: Changes, state: State) -> None:
        """Write the rows and the changed balances."""
        many = self._connection.executemany
        if changes.freed_keys:
            freed = [(request_id.hex,) for request_id in changes.freed_keys]
            many("DELETE FROM audit_callkey WHERE request_id = ?", freed)
        if changes.holds:
            # By the clock to which `own_holds` compares them: the host's may be set meanwhile.
            placed_at = self.now()
            for hold in changes.holds:
                hold["placed_at"] = placed_at
        for table, _, rows in tables_of(changes):
            for start in range(0, len(rows), _ROWS_MAX):
                part = rows[start : start + _ROWS_MAX]
                values = [value for row in part for value in _sql_values(table, row)]
                self._connection.execute(_insert(table, len(part)), values)
        if changes.answered_keys:
            many(_ANSWER_KEY, [_answer_values(row) for row in changes.answered_keys])
        many(
            "UPDATE billing_account SET posted_nanos = ?, held_nanos = ?, sequence = ?, head = ? "
            "WHERE id = ?",
            [
                (account.posted, account.held, account.sequence, account.head, key)
                for key, account in state.accounts.items()
                if account.is_changed
            ],
        )
        many(
            "UPDATE billing_spendcounter SET spent_nanos = ?, held_nanos = ? WHERE id = ?",
            [
                (counter.spent, counter.held, key)
                for key, counter in state.counters.items()
                if counter.is_changed
            ],
        )
        if changes.requests:
            self._connection.execute(
                "UPDATE billing_incarnation SET sequence = ?, head = ? WHERE id = ?",
                (state.chain.sequence, state.chain.head, state.chain.incarnation_id),
            )

    def open_incarnation(self, *, kind: str, host: str, pid: int, lease_seconds: int) -> int:
        """Insert a lease and return its id."""
        now = datetime.now(UTC)
        cursor = self._connection.execute(
            "INSERT INTO billing_incarnation (kind, host, pid, started_at, renewed_at, expires_at, "
            "sequence, head) VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
            (
                kind,
                host,
                pid,
                _text(now),
                _text(now),
                _text(now + timedelta(seconds=lease_seconds)),
                b"",
            ),
        )
        return int(cursor.lastrowid or 0)

    def renew(self, incarnation_id: int, lease_seconds: int) -> bool:
        """Extend a lease and return whether it is still ours."""
        now = datetime.now(UTC)
        cursor = self._connection.execute(
            "UPDATE billing_incarnation SET renewed_at = ?, expires_at = ? "
            "WHERE id = ? AND ended_at IS NULL",
            (_text(now), _text(now + timedelta(seconds=lease_seconds)), incarnation_id),
        )
        return cursor.rowcount == 1

    def end(self, incarnation_id: int) -> None:
        """Mark a lease as ended."""
        self._connection.execute(
            "UPDATE billing_incarnation SET ended_at = ? WHERE id = ? AND ended_at IS NULL",
            (_text(datetime.now(UTC)), incarnation_id),
        )

    def list_expired(self) -> dict[int, datetime]:
        """Return nothing: no clock says who is dead, see `end_expired`."""
        return {}

    def end_expired(
        self, *, but: int, all_others: bool, seen: Mapping[int, datetime] | None
    ) -> list[int]:
        """End the other leases and return all ended ones that still have holds.

        Clocks play no part: who holds the gateway's lock file is the only living owner, so it
        passes `all_others`; nobody else ends leases on SQLite.
        """
        if all_others:
            self._connection.execute(
                "UPDATE billing_incarnation SET ended_at = ? WHERE ended_at IS NULL AND id <> ?",
                (_text(datetime.now(UTC)), but),
            )
        rows = self._connection.execute(
            "SELECT DISTINCT hold.incarnation_id FROM billing_hold AS hold "
            "JOIN billing_incarnation AS incarnation ON incarnation.id = hold.incarnation_id "
            "WHERE incarnation.ended_at IS NOT NULL"
        )
        return [row[0] for row in rows]

    def find_locked(self, keys: Collection[RowKey]) -> set[RowKey]:
        """Return nothing: SQLite locks the database, not rows."""
        return set()

    def price_rows(self, version_ids: Collection[int]) -> dict[int, Row]:
        """Return price versions by id."""
        cursor = self._connection.execute(
            "SELECT * FROM ai_models_priceversion WHERE id IN (SELECT value FROM json_each(?))",
            (_array(version_ids),),
        )
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
        return {row["id"]: row for row in rows}

    def revenue_ids(self) -> list[int]:
        """Return the ids of the revenue accounts."""
        rows = self._connection.execute(
            "SELECT id FROM billing_account WHERE kind = 'revenue' ORDER BY id"
        )
        return [row[0] for row in rows]

    def check_durability(self) -> str | None:
        """Return what makes commits of this database unsafe, or None."""
        (level,) = self._connection.execute("PRAGMA synchronous").fetchone()
        return None if level >= 2 else "SQLite runs with synchronous below FULL."

    def orphans(self, incarnation_id: int, limit: int) -> list[Row]:
        """Return holds of one incarnation."""
        return self._holds(
            "incarnation_id = ? ORDER BY request_id LIMIT ?", (incarnation_id, limit)
        )

    def own_holds(self, incarnation_id: int, older_than_seconds: float) -> list[Row]:
        """Return the holds of one incarnation that are older than so many seconds."""
        before = self.now() - timedelta(seconds=older_than_seconds)
        return self._holds("incarnation_id = ? AND placed_at < ?", (incarnation_id, _text(before)))

    def checkpoint(self, rows: Sequence[tuple[UUID, str]]) -> None:
        """Note the usage so far on holds."""
        with self.transaction():
            self._connection.executemany(
                "UPDATE billing_hold SET checkpoint = ? WHERE request_id = ?",
                [(text, request_id.hex) for request_id, text in rows],
            )

    def count_refusals(self, rows: Sequence[tuple[int, str, datetime, int]]) -> None:
        """Add to the counters of refused calls."""
        with self.transaction():
            self._connection.executemany(
                "INSERT INTO audit_refusalcount (api_key_id, code, minute, count) "
                "VALUES (?, ?, ?, ?) ON CONFLICT (api_key_id, code, minute) "
                "DO UPDATE SET count = count + excluded.count",
                [(key, code, _text(minute), count) for key, code, minute, count in rows],
            )

    def make_partitions(self, now: datetime) -> None:
        """Do nothing: SQLite has no partitions."""

    def sweep_counters(self, kept: timedelta) -> int:
        """Delete counters of days and months that began longer ago and hold nothing; return how
        many.

        At most SWEPT_MAX.
        """
        before = (datetime.now(UTC) - kept).date().isoformat()
        with self.transaction():
            return self._connection.execute(_SWEEP_COUNTERS, (before, SWEPT_MAX)).rowcount

    def ping(self) -> None:
        """Ask the database for anything."""
        self._connection.execute("SELECT 1")

    def abort(self) -> None:
        """Do nothing: there is no connection that could be cut."""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _holds(self, condition: str, params: tuple[object, ...]) -> list[Row]:
        columns = TABLES["billing_hold"]
        cursor = self._connection.execute(
            f"SELECT {', '.join(columns)} FROM billing_hold WHERE {condition}",  # noqa: S608 (constants)
            params,
        )
        rows = [dict(zip(columns, row, strict=True)) for row in cursor]
        for row in rows:
            row["request_id"] = UUID(row["request_id"])
        return rows


def _chain(incarnation_id: int | None, row: list[Any] | None) -> ChainState:
    if incarnation_id is None:
        return no_chain()
    if row is None or row[2]:
        raise IncarnationEnded
    return ChainState(incarnation_id, row[0], bytes.fromhex(row[1]))


def _array(values: Iterable[object]) -> str:
    return orjson.dumps(list(values)).decode()


@lru_cache(maxsize=_STATEMENTS_KEPT)
def _insert(table: str, rows: int) -> str:
    columns = TABLES[table]
    row = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) "  # noqa: S608 (constants)
        f"VALUES {', '.join([row] * rows)} {ENDS_OF_INSERTS.get(table, '')}"
    )


def _answer_values(row: Row) -> tuple[Any, ...]:
    expires_at, request_id = _text(row["expires_at"]), row["request_id"].hex
    return row["status_code"], row["headers"], row["body"], expires_at, request_id


def _sql_values(table: str, row: Row) -> list[Any]:
    """Return the values of a row in the order of its columns, as Django stores them."""
    get, ids, moments = _LAYOUTS[table]
    values = list(get(row))
    for place in ids:
        if values[place] is not None:
            values[place] = values[place].hex
    for place in moments:
        if values[place] is not None:
            values[place] = _text(values[place])
    return values


def _text(at: datetime) -> str:
    """Return a moment as Django stores it on SQLite: UTC, no zone, microseconds unless zero."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return at.isoformat(sep=" ")[:-6]


def _places(columns: tuple[str, ...], names: frozenset[str]) -> tuple[int, ...]:
    return tuple(place for place, name in enumerate(columns) if name in names)


# Of each table how to read a row, and where ids and moments stand in it.
_LAYOUTS = {
    table: (
        itemgetter(*columns),
        _places(columns, frozenset({"id", "request_id", "transaction_id"})),
        _places(
            columns,
            frozenset({"created_at", "expires_at", "placed_at", "settled_at", "started_at"}),
        ),
    )
    for table, columns in TABLES.items()
}
