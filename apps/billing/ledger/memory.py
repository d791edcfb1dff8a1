"""What a writer remembers of the rows that it wrote last. Pure.

They are mostly still as it left them. A batch that touches nothing else is decided on what is
remembered, and the statements that lock its rows check that they are so: one round trip to the
database and not two. Where they are not, nothing commits, and the batch is read and decided anew.

Bounds: REMEMBERED_MAX accounts and as many counters. After a wrong guess so many batches are read
as have been wrong lately, doubled each time up to PAUSE_MAX, so that processes with the same
customers do not pay for guessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from apps.billing.ledger.commands import AccountState, ChainState, CounterState, State

REMEMBERED_MAX: Final = 20_000
PAUSE_MAX: Final = 64


class StaleMemory(Exception):
    """A batch was decided on rows that others have changed. Nothing was committed."""


class Memory:
    """The rows of one writer, as its last transactions left them."""

    def __init__(self) -> None:
        self._accounts: dict[int, AccountState] = {}
        self._counters: dict[int, CounterState] = {}
        self._counter_ids: dict[tuple[str, int], int] = {}
        self._chain: ChainState | None = None
        self._pause = 0  # how many batches are read after the next wrong guess
        self._left = 0  # how many are still to be read

    def recall(
        self,
        *,
        account_ids: Sequence[int],
        scopes: Sequence[tuple[str, int]],
        counter_ids: Sequence[int],
        incarnation_id: int,
        hold_ids: Sequence[UUID],
    ) -> State | None:
        """Return what a batch needs as if it had been read, None where it has to be.

        It assumes that nobody owes, that no idempotency key is taken, and that all holds are there.
        """
        if self._left:
            self._left -= 1
            return None
        chain = self._chain
        if chain is None or chain.incarnation_id != incarnation_id:
            return None
        try:
            accounts = {key: self._accounts[key] for key in account_ids}
            found = {scope: self._counter_ids[scope] for scope in scopes}
            wanted = sorted({*counter_ids, *found.values()})
            counters = {key: self._counters[key] for key in wanted}
        except KeyError:
            return None
        for account in accounts.values():
            account.is_changed = False
        for counter in counters.values():
            counter.is_changed = False
        return State(
            accounts=accounts,
            owing=set(),
            counters=counters,
            counter_ids=found,
            chain=chain,
            claimed=set(hold_ids),
            resolved={},
        )

    def keep(self, state: State) -> None:
        """Remember what a transaction that has committed left."""
        if len(self._accounts) + len(state.accounts) > REMEMBERED_MAX:
            self._accounts.clear()
        if len(self._counters) + len(state.counters) > REMEMBERED_MAX:
            self._counters.clear()
            self._counter_ids.clear()
        self._accounts.update(state.accounts)
        self._counters.update(state.counters)
        for key, counter in state.counters.items():
            self._counter_ids[counter.scope, counter.scope_id] = key
        if state.chain.incarnation_id:
            self._chain = state.chain

    def note_guess(self, *, is_right: bool) -> None:
        """Guess more or less often from now on."""
        if is_right:
            self._pause //= 2
        else:
            self._pause = min(PAUSE_MAX, 2 * self._pause or 1)
            self._left = self._pause

    def forget(self) -> None:
        """Remember nothing: whatever was decided may not have committed."""
        self._accounts.clear()
        self._counters.clear()
        self._counter_ids.clear()
        self._chain = None
