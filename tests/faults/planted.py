"""Faults that a test plants into a gateway before it serves: `tests.support.serve` calls them.

Each crash ends the process at once, as a kill would, the CRASH_PASS-th time a step is passed.
"""

from __future__ import annotations

import functools
import itertools
import os
import select
import time
from typing import Any, Final

from apps.billing.journal import Journal, JournalFull
from apps.billing.ledger import batch, postgres, sqlite, store
from apps.billing.ledger.commands import Changes, State
from apps.billing.pending import Pace
from apps.billing.writer import LedgerWriter
from apps.proxy import gateway, relay
from apps.proxy.call import Call
from apps.proxy.upstream import Upstream

CRASH_PASS: Final = 5
EXIT_CODE: Final = 9
SHORT_LEASE_SECONDS: Final = 5
BLOCKS: Final = "blocks"
BLOCKED_SECONDS: Final = 5.0
_GUARD: Final = " FOR NO KEY UPDATE"


def short_lease() -> None:
    """Give up on dead gateways after seconds instead of half a minute."""
    pace = Pace(lease=SHORT_LEASE_SECONDS, duty=1.0)
    setattr(gateway, "LedgerWriter", functools.partial(LedgerWriter, pace=pace))  # noqa: B010 (no mypy)


def sleep_by_waiting() -> None:
    """Sleep in a way that libfaketime does not break: under it, `time.sleep` raises EINVAL."""
    setattr(time, "sleep", lambda seconds: select.select([], [], [], seconds))  # noqa: B010


def full_journal() -> None:
    """Give the journal a disk without a byte to spare."""

    def refuse(*_: Any) -> None:
        raise JournalFull("no space left on device")

    setattr(Journal, "append", refuse)  # noqa: B010 (no mypy)


def crash_after_hold() -> None:
    """Die between the commit of a hold and the call to the provider."""
    _crash_after(LedgerWriter, "place")


def crash_after_upstream_headers() -> None:
    """Die when the provider has begun to answer."""
    _crash_after(Upstream, "send")


def crash_before_settle() -> None:
    """Die when the provider's answer is complete and nothing of it is on record."""
    _crash_before(Call, "settle")


def crash_after_settle_before_commit() -> None:
    """Die when the settlement is written and not committed."""
    for engine in (postgres.PostgresEngine, sqlite.SqliteEngine):
        _crash_after_settlement_is_written(engine)


def crash_after_commit_before_response() -> None:
    """Die when the settlement is durable and the client has not been told."""
    _crash_after(LedgerWriter, "resolve")


def no_guard() -> None:
    """Let gateways read balances without locking them, and take their time before they write."""
    postgres._LOCK_ACCOUNTS = postgres._LOCK_ACCOUNTS.replace(_GUARD, "")
    decide = batch.decide

    def decide_slowly(*arguments: Any) -> Any:
        answer = decide(*arguments)
        time.sleep(0.5)
        return answer

    setattr(store, "decide", decide_slowly)  # noqa: B010 (no mypy)


def _crash_after(owner: type, name: str) -> None:
    step, passes = getattr(owner, name), itertools.count(1)

    async def pass_step(*arguments: Any, **options: Any) -> Any:
        answer = await step(*arguments, **options)
        if next(passes) == CRASH_PASS:
            os._exit(EXIT_CODE)
        return answer

    setattr(owner, name, pass_step)


def _crash_before(owner: type, name: str) -> None:
    step, passes = getattr(owner, name), itertools.count(1)

    async def pass_step(*arguments: Any, **options: Any) -> Any:
        if next(passes) == CRASH_PASS:
            os._exit(EXIT_CODE)
        return await step(*arguments, **options)

    setattr(owner, name, pass_step)


def _crash_after_settlement_is_written(engine: Any) -> None:
    write, written = engine.write, 0

    def write_and_count(self: Any, changes: Changes, state: State) -> None:
        nonlocal written
        write(self, changes, state)
        written += len(changes.requests)
        if written >= CRASH_PASS:
            os._exit(EXIT_CODE)

    engine.write = write_and_count


def block_the_loop() -> None:
    """Have calls of models named `…-blocks` keep the event loop to themselves for a while."""
    real = relay.Relay.run

    async def run(self: relay.Relay) -> None:
        if BLOCKS in self._plan.model.name:
            time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251 (that is the fault)
        await real(self)

    relay.Relay.run = run  # type: ignore[method-assign]  # the planted one
