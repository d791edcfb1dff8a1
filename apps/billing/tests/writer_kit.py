"""For tests of the ledger writer: calls of a world, and a database that can be made to fail."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async

from apps.audit.records import DETAIL_COLUMNS
from apps.billing.flushing import Flusher
from apps.billing.journal import Journal
from apps.billing.ledger.commands import Held, PlaceHold, Resolve
from apps.billing.ledger.store import Engine
from apps.billing.pending import Pace
from apps.billing.writer import LedgerWriter
from apps.core.ids import new_uuid7
from tests.support.processes import until
from tests.support.world import Gateway, World, request_row

WAIT_SECONDS = 20.0
# What the database takes in no hold.
NO_CUSTOMER: dict[str, Any] = {"customer_id": None}
# Short where a test waits for it, long where it must not come in between.
PACE = Pace(hold=5.0, journal_after=5.0, hang=10.0, duty=0.1, stranger=60.0)


def hold_of(world: World, nanos: int = 1_000, **detail: Any) -> PlaceHold:
    """Return the hold of a new call, with all that its row will need."""
    request_id = new_uuid7()
    row = request_row(world, request_id)
    return PlaceHold(
        request_id=request_id,
        customer_id=world.customer.pk,
        buckets=(world.wallet_id,),
        receivable_id=world.receivable_id,
        amount_nanos=nanos,
        amount_nanos_min=nanos,
        detail={
            **{name: row[name] for name in DETAIL_COLUMNS},
            "wallet_id": world.wallet_id,
            "receivable_id": world.receivable_id,
            **detail,
        },
    )


def resolve_of(world: World, held: Held, tokens: int = 0, **row: Any) -> Resolve:
    """Return the end of a call that cost `tokens` input tokens, 1000 nanos each."""
    columns: dict[str, Any] = {"input_tokens": tokens, "hold_nanos": held.amount_nanos}
    if not tokens:
        columns |= {"state": "voided", "usage_source": "none"}
    return Resolve(
        request_id=held.request_id,
        wallet_id=world.wallet_id,
        receivable_id=world.receivable_id,
        legs=held.legs,
        counters=held.counters,
        charge_nanos=tokens * 1_000,
        row=request_row(world, held.request_id, **(columns | row)),
    )


@dataclass(slots=True)
class Switch:
    """Says how a database behaves: whoever connects through it meets what is set here."""

    connect: Callable[[], Engine]
    is_down: bool = False
    breaks_before_commit: int = 0  # how many transactions more
    breaks_after_commit: int = 0
    breaks_at_once: int = 0  # how many of the next connections break as soon as they are used
    refuses_connections: int = 0  # how many more
    failures: list[Exception] = field(default_factory=list)  # of the next transactions
    failing: set[str] = field(default_factory=set)  # what the engine can no longer do
    commits: int = 0  # transactions with writes, since the last reset
    gate: threading.Event = field(default_factory=threading.Event)  # transactions wait for it
    engines: list[FailingEngine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def open(self) -> Engine:
        """Connect, if the database is there."""
        if self.is_down or self.refuses_connections:
            self.refuses_connections -= bool(self.refuses_connections)
            raise sqlite3.OperationalError("unable to open database file")
        engine = FailingEngine(self, self.connect())
        self.engines.append(engine)
        return engine

    def check(self) -> None:
        """Raise what a driver raises where the database is away."""
        if self.is_down:
            raise sqlite3.OperationalError("disk I/O error")


class FailingEngine:
    """A real engine behind a switch."""

    def __init__(self, switch: Switch, engine: Engine) -> None:
        self._switch = switch
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        if name not in ("close", "abort", "name"):
            self._switch.check()
        if name == "renew" and self._switch.breaks_at_once:
            self._switch.breaks_at_once -= 1
            raise sqlite3.OperationalError("broke at once")
        if name in self._switch.failing:
            raise sqlite3.OperationalError(f"no such table: {name}")
        return getattr(self._engine, name)

    def transaction(self) -> AbstractContextManager[None]:
        """Open a transaction of the real engine and fail where the switch says so."""
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        switch = self._switch
        switch.gate.wait(WAIT_SECONDS)
        switch.check()
        with self._engine.transaction():
            yield
            if switch.breaks_before_commit:
                switch.breaks_before_commit -= 1
                raise sqlite3.OperationalError("broke before the commit")
            if switch.failures:
                raise switch.failures.pop(0)
        switch.commits += 1
        if switch.breaks_after_commit:
            switch.breaks_after_commit -= 1
            raise sqlite3.OperationalError("broke after the commit")


@asynccontextmanager
async def running(
    connect: Callable[[], Engine], folder: Path, *, pace: Pace = PACE, **options: Any
) -> AsyncIterator[LedgerWriter]:
    """Run a writer that is connected, and stop it."""
    if "journal" not in options:
        options["journal"] = Journal(folder)
    writer = LedgerWriter(connect=connect, is_only_owner=False, pace=pace, **options)
    writer.start()
    try:
        await until(lambda: writer.is_available)
        yield writer
    finally:
        await writer.stop()


async def place(writer: LedgerWriter, world: World, nanos: int = 1_000) -> Held:
    """Return a hold that the writer has placed."""
    answer = await writer.place(hold_of(world, nanos))
    assert isinstance(answer, Held)
    return answer


def flusher_of(gateway: Gateway) -> Flusher:
    """Return what writes for a gateway."""
    flusher = Flusher(gateway.engine)
    flusher.use_lease(gateway.incarnation_id)
    return flusher


async def until_stored(read: Callable[[], Any], expected: object) -> None:
    """Return as soon as a reading of the database equals `expected`; else fail with what it is."""
    deadline = time.monotonic() + WAIT_SECONDS
    found = await in_thread(read)()
    while found != expected and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        found = await in_thread(read)()
    assert found == expected


in_thread = sync_to_async


def account(account_id: int) -> tuple[int, int]:
    """Return what an account has and what of it is held."""
    from apps.billing.models import Account

    found = Account.objects.get(pk=account_id)
    return found.posted_nanos, found.held_nanos


def ends() -> list[tuple[str, int]]:
    """Return state and charge of every recorded call, in the order of their settlement."""
    from apps.audit.models import APIRequest

    rows = APIRequest.objects.order_by("incarnation_id", "sequence")
    return [(row.state, row.charge_nanos) for row in rows]


def open_holds() -> set[UUID]:
    """Return the calls that have a hold."""
    from apps.billing.models import Hold

    return set(Hold.objects.values_list("request_id", flat=True))
