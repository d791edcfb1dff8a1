"""The ledger's statements on PostgreSQL, over a synchronous psycopg connection.

A batch costs two round trips: one begins, locks and reads, one writes and commits. Where all of its
rows are remembered it is a single statement, which checks that they are so.

Over 400 lines because it is one engine's side of `Engine`, statement by statement.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row, tuple_row

from apps.audit.partitions import ensure_partitions
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
from apps.billing.ledger.memory import Memory, StaleMemory
from apps.billing.ledger.pipeline import (
    Pipeline,
    Result,
    Statement,
    digest,
    digests,
    integer,
    integers,
    labels,
    text,
    uuid,
    uuids,
)
from apps.billing.ledger.postgres_rows import as_json, insert
from apps.billing.ledger.postgres_steps import Guess, Merger, Step, alone, list_updates
from apps.billing.ledger.store import (
    SWEPT_MAX,
    IncarnationEnded,
    SteadyClock,
    no_chain,
    tables_of,
)

_LOCK_ACCOUNTS = """SELECT id, kind, posted_nanos, held_nanos, sequence, head FROM billing_account
    WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE"""
_OWING = "SELECT id FROM billing_account WHERE id = ANY($1::bigint[]) AND posted_nanos < 0"
# Before any counter is locked, and in one order, so that who waits here has none that others need.
_MAKE_COUNTERS = """INSERT INTO billing_spendcounter (scope, scope_id, spent_nanos, held_nanos)
    SELECT scope, scope_id, 0, 0 FROM unnest($1::text[], $2::bigint[]) AS wanted (scope, scope_id)
    WHERE NOT EXISTS (SELECT 1 FROM billing_spendcounter AS counter
        WHERE counter.scope = wanted.scope AND counter.scope_id = wanted.scope_id)
    ORDER BY scope, scope_id ON CONFLICT (scope, scope_id) DO NOTHING"""
# One array of ids: an OR of two ways to find them would read the whole table.
_FIND_COUNTERS = """SELECT id, scope, scope_id, spent_nanos, held_nanos FROM billing_spendcounter
    WHERE id = ANY($1::bigint[] || ARRAY(
        SELECT counter.id FROM unnest($2::text[], $3::bigint[]) AS wanted (scope, scope_id)
        JOIN billing_spendcounter AS counter
            ON counter.scope = wanted.scope AND counter.scope_id = wanted.scope_id))
    ORDER BY id"""
_LOCK_COUNTERS = f"{_FIND_COUNTERS} FOR NO KEY UPDATE"
_LOCK_CHAIN = """SELECT sequence, head, ended_at IS NOT NULL FROM billing_incarnation
    WHERE id = $1::bigint FOR NO KEY UPDATE"""
_CLAIM_HOLDS = "DELETE FROM billing_hold WHERE request_id = ANY($1::uuid[]) RETURNING request_id"
_RESOLVED = """SELECT request.id, COALESCE((SELECT -SUM(amount_nanos) FROM billing_entry AS entry
        WHERE entry.request_id = request.id AND entry.kind IN ('charge', 'excess', 'late')), 0),
        EXISTS (SELECT 1 FROM billing_entry AS entry
            WHERE entry.request_id = request.id AND entry.kind = 'late'),
        request.provider_id
    FROM audit_apirequest AS request WHERE request.id = ANY($1::uuid[])"""
_FIND_KEYS = """SELECT key.user_id, key.digest, key.request_id, key.fingerprint,
        to_char(key.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00')
    FROM unnest($1::bigint[], $2::bytea[]) AS wanted (user_id, digest)
    JOIN audit_callkey AS key ON key.user_id = wanted.user_id AND key.digest = wanted.digest"""
_FREE_KEYS = "DELETE FROM audit_callkey WHERE request_id = ANY($1::uuid[])"
_ANSWER_KEYS = """UPDATE audit_callkey AS key SET status_code = new.status_code,
        headers = new.headers, body = new.body, expires_at = new.expires_at
    FROM json_populate_recordset(NULL::audit_callkey, $1::json) AS new
    WHERE key.request_id = new.request_id"""
_SWEEP_COUNTERS = """DELETE FROM billing_spendcounter WHERE id IN (
    SELECT id FROM billing_spendcounter WHERE strpos(scope, ':') > 0 AND held_nanos = 0
        AND split_part(scope, ':', 2) COLLATE "C"
            < to_char((clock_timestamp() - %s) AT TIME ZONE 'UTC', 'YYYY-MM-DD')
    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)"""
_BEGIN: Statement = ("BEGIN", ())
_COMMIT: Statement = ("COMMIT", ())
_WRONG_GUESSES = (psycopg.DataError, psycopg.IntegrityError)  # a division by zero, or a constraint


def connect(dsn: dict[str, Any]) -> psycopg.Connection[Any]:
    """Open the writer's own connection: bounded waits, and statements that are planned once.

    All it runs in a batch finds rows by their keys, however many there are: planning that anew for
    each batch took as long as to lock the rows.
    """
    return psycopg.connect(
        **dsn,
        autocommit=True,
        prepare_threshold=None,  # after an error psycopg would drop the pipeline's statements, too
        connect_timeout=2,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=15_000,
        options="-c lock_timeout=1s -c statement_timeout=10s "
        "-c idle_in_transaction_session_timeout=15s -c application_name=ledger_writer "
        "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off",
    )


class PostgresEngine:
    """The ledger's statements on one psycopg connection."""

    name = "postgresql"

    def __init__(self, connection: psycopg.Connection[Any], *, is_own: bool = False) -> None:
        """`is_own`: nobody else uses the connection."""
        self._connection = connection
        self._pipeline = Pipeline(connection, prepares=is_own)
        self._is_batching = False
        self._waiting: list[Statement] = []  # go with the next round trip
        # Of a connection that others use, too, nobody says what has committed.
        self._memory = Memory() if is_own else None
        self._has_guessed = False
        self._guess: Guess | None = None  # still to be checked
        self._merger = Merger()
        self._written: State | None = None  # what the open transaction leaves
        self._clock: SteadyClock | None = None  # the database's, once it was asked for

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Open a write transaction (nothing inside one that is open: the outer one decides)."""
        is_idle = self._connection.info.transaction_status == TransactionStatus.IDLE
        if self._is_batching or not is_idle or not self._connection.autocommit:
            yield
            return
        self._is_batching = True
        self._has_guessed = False
        self._written = None
        self._waiting = [_BEGIN]
        try:
            yield
            self._commit()
            self._remember()
        except BaseException as error:
            self._roll_back()
            if self._memory is not None:
                self._memory.forget()
                # Balances that were not as they were remembered may break a constraint, too.
                if self._has_guessed and isinstance(error, _WRONG_GUESSES):
                    self._memory.note_guess(is_right=False)
                    raise StaleMemory from None
            raise
        finally:
            self._is_batching = False
            self._waiting = []
            self._guess = None

    def _commit(self) -> None:
        is_unsent = self._waiting[:1] == [_BEGIN] and self._guess is None
        if not is_unsent or len(self._waiting) > 2:
            self._run([_COMMIT])
        elif len(self._waiting) == 2:  # A statement alone is a transaction by itself.
            self._waiting = self._waiting[1:]
            self._run([])

    def _remember(self) -> None:
        """Remember the rows of the transaction that has just committed."""
        if self._memory is None or self._written is None:
            return
        self._memory.keep(self._written)
        if self._has_guessed:
            self._memory.note_guess(is_right=True)

    def _run(self, statements: Sequence[Statement]) -> list[Result]:
        """Run what waits and these statements in one round trip; return the results of these."""
        waiting, self._waiting = self._waiting, []
        guess, self._guess = self._guess, None
        if guess is not None:  # Something is asked before it was decided what to write.
            waiting += map(alone, guess.list_checks())
        return self._pipeline.run([*waiting, *statements])[len(waiting) :]

    def _roll_back(self) -> None:
        self._waiting = []
        if self._connection.closed:
            return
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            with suppress(psycopg.Error):  # What made us roll back says more.
                self._pipeline.run([("ROLLBACK", ())])

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
        """Lock and read all that a batch needs, and delete the holds that it claims.

        Idempotency keys are read after the accounts are locked. What is remembered is not read: it
        is locked and checked with what is sent next. Then the transaction raises StaleMemory where
        it is not so.
        """
        if self._memory is not None and self._is_batching and incarnation_id is not None:
            state = self._memory.recall(
                account_ids=account_ids,
                scopes=scopes,
                counter_ids=counter_ids,
                incarnation_id=incarnation_id,
                hold_ids=hold_ids,
            )
            if state is not None:
                self._has_guessed = True
                self._guess = Guess.of(state, receivable_ids, hold_ids, key_ids)
                return state
        wanted = (labels(scope for scope, _ in scopes), integers(number for _, number in scopes))
        statements: dict[str, Statement] = {}
        if account_ids:
            statements["accounts"] = (_LOCK_ACCOUNTS, (integers(account_ids),))
        if receivable_ids:
            statements["owing"] = (_OWING, (integers(receivable_ids),))
        if scopes:
            statements["make"] = (_MAKE_COUNTERS, wanted)
        if scopes or counter_ids:
            statements["counters"] = (_LOCK_COUNTERS, (integers(counter_ids), *wanted))
        if incarnation_id is not None:
            statements["chain"] = (_LOCK_CHAIN, (b"%d" % incarnation_id,))
        hexes = {hold_id.hex: hold_id for hold_id in hold_ids}
        if hold_ids:
            statements["claimed"] = (_CLAIM_HOLDS, (labels(hexes),))
        if key_ids:
            users = integers(user_id for user_id, _ in key_ids)
            statements["keys"] = (_FIND_KEYS, (users, digests(found for _, found in key_ids)))
        results = self._run(list(statements.values())) if statements else []
        found = {
            name: [
                [result.get_value(row, column) for column in range(result.nfields)]
                for row in range(result.ntuples)
            ]
            for name, result in zip(statements, results, strict=True)
        }
        counters = [
            (integer(row[0]), text(row[1]), integer(row[2]), integer(row[3]), integer(row[4]))
            for row in found.get("counters", ())
        ]
        return State(
            accounts={
                integer(row[0]): AccountState(
                    text(row[1]), integer(row[2]), integer(row[3]), integer(row[4]), digest(row[5])
                )
                for row in found.get("accounts", ())
            },
            owing={integer(row[0]) for row in found.get("owing", ())},
            counters={row[0]: CounterState(*row[1:]) for row in counters},
            counter_ids={(row[1], row[2]): row[0] for row in counters},
            chain=_chain(incarnation_id, found.get("chain", [])),
            claimed={hexes[text(row[0]).replace("-", "")] for row in found.get("claimed", ())},
            resolved={},
            keys=dict(map(_key, found.get("keys", ()))),
        )

    def read_resolved(self, request_ids: Sequence[UUID]) -> dict[UUID, RecordedCharge]:
        """Return what recorded requests were charged so far."""
        (result,) = self._run([(_RESOLVED, (uuids(request_ids),))])
        charges = {}
        for row in range(result.ntuples):
            provider_id = result.get_value(row, 3)
            charges[uuid(result.get_value(row, 0))] = RecordedCharge(
                integer(result.get_value(row, 1)),
                result.get_value(row, 2) == b"t",
                None if provider_id is None else int(provider_id),
            )
        return charges

    def write(self, changes: Changes, state: State) -> None:
        """Write the rows and the changed balances, in our own transaction with its commit."""
        guess, self._guess = self._guess, None
        rows = list(_list_rows(changes))
        updates = list(list_updates(state, changes))
        if not self._is_batching:
            if updates or rows:
                self._run([alone(step) for step in (*updates, *rows)])
            return
        self._written = state
        moves = updates if guess is None else list(guess.list_moves(state, changes))
        # What has an idempotency key is looked up once the accounts are locked, and what is freed
        # is taken again: each of these has to see what the step before it has done.
        has_keys = changes.has_keys or (guess is not None and guess.key_ids)
        merged = None if has_keys else self._merger.merge([*moves, *rows])
        if merged is not None:
            self._waiting.append(merged)
            return
        # Nobody may be taken for owing what this batch itself has him owe.
        checks = () if guess is None else guess.list_checks()
        self._waiting += [alone(step) for step in (*checks, *updates, *rows)]

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

    def list_expired(self) -> dict[int, datetime]:
        """Return the leases that ran out and were not ended, and when each was renewed last."""
        rows = self._query(
            """SELECT id, renewed_at FROM billing_incarnation
               WHERE ended_at IS NULL AND expires_at < clock_timestamp()"""
        )
        return {int(row[0]): row[1] for row in rows}

    def end_expired(
        self, *, but: int, all_others: bool, seen: Mapping[int, datetime] | None
    ) -> list[int]:
        """End leases that ran out and return all ended ones that still have holds.

        With `seen` only those, as far as they have not been renewed since.
        """
        self._query(
            """UPDATE billing_incarnation SET ended_at = clock_timestamp()
               WHERE ended_at IS NULL AND id <> %s
               AND (%s OR expires_at < clock_timestamp())
               AND (%s OR (id, renewed_at) IN (
                   SELECT * FROM unnest(%s::bigint[], %s::timestamptz[])))""",
            (but, all_others, seen is None, list(seen or {}), list((seen or {}).values())),
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
            wanted = (
                integers(counter_ids),
                labels(name for name, _ in scopes),
                integers(number for _, number in scopes),
            )
            free_rows, rows = self._run(
                [(f"{_LOCK_COUNTERS} SKIP LOCKED", wanted), (_FIND_COUNTERS, wanted)]
            )
            free_ids = {integer(free_rows.get_value(row, 0)) for row in range(free_rows.ntuples)}
            for row in range(rows.ntuples):
                number = integer(rows.get_value(row, 0))
                if number not in free_ids:
                    scope = text(rows.get_value(row, 1))
                    locked |= {("counter", number), (scope, integer(rows.get_value(row, 2)))}
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

    def sweep_counters(self, kept: timedelta) -> int:
        """Delete counters of days and months that began longer ago and hold nothing; return how
        many.

        At most SWEPT_MAX. By the database's clock: a host's may be wrong.
        """
        return self._query(_SWEEP_COUNTERS, (kept, SWEPT_MAX)).rowcount

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

    def now(self) -> datetime:
        """Return the time by the database's clock, which is read once."""
        if self._clock is None:
            self._clock = SteadyClock(self.ask_time())
        return self._clock.tell()

    def ask_time(self) -> datetime:
        """Return what the database's clock says at this moment."""
        row = self._query("SELECT clock_timestamp()").fetchone()
        assert row is not None  # noqa: S101 (it always is a row)
        told: datetime = row[0]
        return told

    def _query(self, sql: str, params: tuple[object, ...] = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        self._send_waiting()
        cursor = self._connection.cursor(row_factory=tuple_row)
        cursor.execute(sql, params)
        return cursor

    def _rows(self, sql: str, params: tuple[object, ...]) -> list[Row]:
        self._send_waiting()
        with self._connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(sql, params)
            return cursor.fetchall()

    def _send_waiting(self) -> None:
        """Have a statement that goes another way stand in the same transaction."""
        if self._waiting or self._guess is not None:
            self._run([])


def _chain(incarnation_id: int | None, rows: list[list[bytes | None]]) -> ChainState:
    if incarnation_id is None:
        return no_chain()
    if not rows or rows[0][2] == b"t":
        raise IncarnationEnded
    return ChainState(incarnation_id, integer(rows[0][0]), digest(rows[0][1]))


def _key(row: list[bytes | None]) -> tuple[KeyId, KeyState]:
    expires_at = None if row[4] is None else datetime.fromisoformat(text(row[4]))
    state = KeyState(uuid(row[2]), digest(row[3]), expires_at)
    return (integer(row[0]), digest(row[1])), state


def _list_rows(changes: Changes) -> Iterator[Step]:
    """Yield what writes the rows of a batch, in an order in which each finds what it needs."""
    if changes.freed_keys:
        yield Step(_FREE_KEYS, (uuids(changes.freed_keys),))
    # Of more calls, tables with one row and with many would come in every combination.
    is_one_call = len(changes.requests) + len(changes.holds) <= 1
    for table, _, rows in tables_of(changes):
        yield insert(table, rows, as_values=is_one_call)
    if changes.answered_keys:
        yield Step(_ANSWER_KEYS, (as_json(changes.answered_keys),))
