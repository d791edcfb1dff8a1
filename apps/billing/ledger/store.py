"""One transaction of the ledger on one database connection: read and lock, decide, write.

The order in which rows are locked is the same everywhere: accounts by id, counters by id, the
incarnation, then holds. Engines differ only in the statements of `Engine`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from apps.billing.chains import ADDED_FIELDS, REQUEST_FIELDS
from apps.billing.ledger.batch import decide, decide_posting
from apps.billing.ledger.commands import (
    Batch,
    ChainState,
    Changes,
    Held,
    HoldRefused,
    KeyId,
    PlaceHold,
    Posting,
    RecordedCharge,
    Resolve,
    Resolved,
    Row,
    RowKey,
    State,
)
from apps.billing.ledger.memory import StaleMemory


class IncarnationEnded(Exception):
    """This process was taken for dead and its holds were resolved by others: it needs a new
    lease.
    """


class SteadyClock:
    """A time that was read once, and is carried on by a clock that nobody sets."""

    __slots__ = ("_read_at", "_since")

    def __init__(self, read_at: datetime) -> None:
        self._read_at = read_at
        self._since = time.monotonic()

    def tell(self) -> datetime:
        """Return the time."""
        return self._read_at + timedelta(seconds=time.monotonic() - self._since)


class Engine(Protocol):
    """The statements that differ between databases. All run on one connection."""

    name: str

    def transaction(self) -> AbstractContextManager[object]:
        """Open a write transaction that commits at the end, or rolls back on an exception."""

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

        Idempotency keys are read after the accounts are locked.
        """

    def read_resolved(self, request_ids: Sequence[UUID]) -> dict[UUID, RecordedCharge]:
        """Return what recorded requests were charged so far."""

    def write(self, changes: Changes, state: State) -> None:
        """Write the rows and the changed balances."""

    def open_incarnation(self, *, kind: str, host: str, pid: int, lease_seconds: int) -> int: ...
    def renew(self, incarnation_id: int, lease_seconds: int) -> bool: ...
    def end(self, incarnation_id: int) -> None: ...
    def list_expired(self) -> dict[int, datetime]: ...
    def end_expired(
        self, *, but: int, all_others: bool, seen: Mapping[int, datetime] | None
    ) -> list[int]: ...
    def find_locked(self, keys: Collection[RowKey]) -> set[RowKey]: ...
    def price_rows(self, version_ids: Collection[int]) -> dict[int, Row]: ...
    def revenue_ids(self) -> list[int]: ...
    def check_durability(self) -> str | None: ...
    def orphans(self, incarnation_id: int, limit: int) -> list[Row]: ...
    def own_holds(self, incarnation_id: int, older_than_seconds: float) -> list[Row]: ...
    def checkpoint(self, rows: Sequence[tuple[UUID, str]]) -> None: ...
    def count_refusals(self, rows: Sequence[tuple[int, str, datetime, int]]) -> None: ...
    def make_partitions(self, now: datetime) -> None: ...
    def sweep_counters(self, kept: timedelta) -> int: ...
    def ping(self) -> None: ...
    def now(self) -> datetime: ...
    def ask_time(self) -> datetime: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


def flush(
    engine: Engine, batch: Batch, *, incarnation_id: int
) -> tuple[list[Resolved], list[Held | HoldRefused]]:
    """Commit a batch and return the answer to each command, in order.

    Raises IncarnationEnded where holds are to be placed under a lease that others have ended;
    what the database raises passes through, and nothing has been committed then (unless the
    connection broke while it committed).
    """
    try:
        return _flush(engine, batch, incarnation_id)
    except StaleMemory:  # It remembers nothing any more, so now it reads.
        return _flush(engine, batch, incarnation_id)


def _flush(
    engine: Engine, batch: Batch, incarnation_id: int
) -> tuple[list[Resolved], list[Held | HoldRefused]]:
    with engine.transaction():
        ends = (*batch.resolves, *batch.spent)
        state = _lock(engine, ends, batch.holds, batch.revenue_id, incarnation_id)
        changes, resolved, held = decide(batch, state)
        engine.write(changes, state)
    return resolved, held


def post(engine: Engine, posting: Posting, *, now: datetime) -> None:
    """Write a posting inside the caller's transaction. Raises Insufficient."""
    account_ids = sorted({line.account_id for line in posting.lines})
    state = engine.lock(
        account_ids=account_ids,
        receivable_ids=(),
        scopes=(),
        counter_ids=(),
        incarnation_id=None,
        hold_ids=(),
    )
    engine.write(decide_posting(posting, now, state), state)


def _lock(
    engine: Engine,
    resolves: Sequence[Resolve],
    holds: Sequence[PlaceHold],
    revenue_id: int,
    incarnation_id: int,
) -> State:
    accounts: set[int] = set()
    for resolve in resolves:
        accounts.update(account_id for account_id, _ in resolve.legs)
        if resolve.charge_nanos > resolve.held_nanos:
            accounts.update((resolve.wallet_id, resolve.receivable_id))
    if any(resolve.charge_nanos for resolve in resolves):
        accounts.add(revenue_id)
    for hold in holds:
        accounts.update(hold.buckets)
    hold_ids = [resolve.request_id for resolve in resolves]
    state = engine.lock(
        account_ids=sorted(accounts),
        receivable_ids=sorted({hold.receivable_id for hold in holds}),
        scopes=sorted({cap.key for hold in holds for cap in (*hold.caps, *hold.spare_caps)}),
        counter_ids=sorted({counter for resolve in resolves for counter in resolve.counters}),
        incarnation_id=incarnation_id,
        hold_ids=hold_ids,
        key_ids=[hold.claim.key_id for hold in holds if hold.claim is not None],
    )
    missing = [request_id for request_id in hold_ids if request_id not in state.claimed]
    if missing or len(set(hold_ids)) < len(hold_ids):
        state.resolved = engine.read_resolved(missing)
        _lock_for_late(engine, resolves, revenue_id, state)
    return state


def _lock_for_late(
    engine: Engine, resolves: Sequence[Resolve], revenue_id: int, state: State
) -> None:
    """Lock the accounts that a charge without its hold falls on.

    Rare. They come after rows with higher ids here, so two gateways may deadlock; the database then
    ends one of the two and the batch is tried again.
    """
    wanted: set[int] = set()
    key_ids: list[KeyId] = []
    seen: set[UUID] = set()
    for resolve in resolves:
        is_late = resolve.request_id not in state.claimed or resolve.request_id in seen
        if is_late and resolve.charge_nanos:
            wanted.update((resolve.wallet_id, resolve.receivable_id, revenue_id))
            end = resolve.claim_end
            if end is not None and end.claim is not None:
                key_ids.append(end.claim.key_id)
        seen.add(resolve.request_id)
    more = engine.lock(
        account_ids=sorted(wanted - state.accounts.keys()),
        receivable_ids=(),
        scopes=(),
        counter_ids=(),
        incarnation_id=None,
        hold_ids=(),
        key_ids=key_ids,
    )
    state.accounts.update(more.accounts)
    state.keys.update(more.keys)


def no_chain() -> ChainState:
    """Return the chain of a transaction that records no API requests."""
    return ChainState(0, 0, b"")


# How many counters one sweep deletes: on SQLite all calls wait for it.
SWEPT_MAX: Final = 1_000

# Table → columns, in the order in which a batch writes them.
TABLES: dict[str, tuple[str, ...]] = {
    "billing_transaction": (
        "id", "kind", "idempotency_key", "actor_id", "actor_name", "reason", "created_at",
    ),
    "billing_entry": (
        "transaction_id", "account_id", "request_id", "kind", "amount_nanos", "sequence",
        "balance_after_nanos", "corrects_id", "hash",
    ),
    "audit_apirequest": (*REQUEST_FIELDS, *ADDED_FIELDS, "hash"),
    "audit_attempt": (
        "id", "request_id", "number", "route_id", "provider_id", "provider_name", "provider_key_id",
        "upstream_model", "started_at", "duration_ms", "status_code", "outcome", "error_text",
        "upstream_request_id", "changes", "cost_nanos",
    ),
    "audit_payload": (
        "request_id", "salt", "request_body", "response_body", "is_request_truncated",
        "is_response_truncated",
    ),
    "billing_hold": (
        "request_id", "incarnation_id", "customer_id", "amount_nanos", "legs", "counters", "detail",
        "checkpoint", "placed_at",
    ),
    "audit_callkey": (
        "request_id", "user_id", "digest", "fingerprint", "status_code", "headers", "body",
        "created_at", "expires_at",
    ),
    "audit_storedanswer": (
        "digest", "provider_id", "provider_key_id", "user_id", "model_id", "created_at",
        "expires_at",
    ),
}  # fmt: skip

# Table → what ends its INSERT. Rows of other tables are new, or their transaction fails.
ENDS_OF_INSERTS: dict[str, str] = {
    "audit_storedanswer": """ON CONFLICT (digest, provider_id) DO UPDATE
        SET provider_key_id = excluded.provider_key_id, user_id = excluded.user_id,
            model_id = excluded.model_id, created_at = excluded.created_at,
            expires_at = excluded.expires_at
        WHERE audit_storedanswer.created_at <= excluded.created_at""",
}


def tables_of(changes: Changes) -> Iterable[tuple[str, tuple[str, ...], list[dict[str, Any]]]]:
    """Yield table, columns and rows for every table that has rows to insert."""
    groups = (
        changes.transactions,
        changes.entries,
        changes.requests,
        changes.attempts,
        changes.payloads,
        changes.holds,
        changes.keys,
        changes.stored,
    )
    for (table, columns), rows in zip(TABLES.items(), groups, strict=True):
        if rows:
            yield table, columns, rows
