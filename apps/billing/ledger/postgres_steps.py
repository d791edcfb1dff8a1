"""The steps of a batch on PostgreSQL, and how they become one statement.

What PostgreSQL does for a statement, and not for a row, is most of what a small batch costs it. So
the steps of a batch go as one statement, each a part of its WITH, and that is its own transaction.

A batch that was decided on what the writer remembers has steps that lock its rows and check that
they are so. They return as many rows as they found as they should be; where that are not all, the
statement divides by zero, which ends the transaction. Of chains the heads are compared, which stand
for all that came before: a database that was restored under a running writer can have the same
numbers again, and another history.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from apps.billing.ledger.commands import (
    AccountState,
    ChainState,
    Changes,
    CounterState,
    KeyId,
    State,
)
from apps.billing.ledger.pipeline import Statement, Text, bytea, digests, integers, uuids

# So many rows are moved by a statement each, which costs less than an array of them. One after the
# other, so that they are locked in their order.
SINGLE_MAX: Final = 2
# A connection keeps the plan of each statement that it has seen.
SHAPES_MAX: Final = 64

_MOVE_ACCOUNT = """UPDATE billing_account SET posted_nanos = $5::bigint, held_nanos = $6::bigint,
        sequence = $7::bigint, head = $8::bytea
    WHERE id = $1::bigint AND posted_nanos = $2::bigint AND held_nanos = $3::bigint
        AND head = $4::bytea RETURNING 1"""
_LOCK_KNOWN_ACCOUNTS = """SELECT 1 FROM (
        SELECT posted_nanos, held_nanos, head FROM billing_account
        WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE) AS locked
    HAVING array_agg(posted_nanos) = $2::bigint[] AND array_agg(held_nanos) = $3::bigint[]
        AND array_agg(head) = $4::bytea[]"""
_UPDATE_ACCOUNTS = """UPDATE billing_account AS account
    SET posted_nanos = new.posted, held_nanos = new.held, sequence = new.sequence, head = new.head
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
        AS new (id, posted, held, sequence, head)
    WHERE account.id = new.id"""
_OWING = """SELECT 1 FROM billing_account
    WHERE id = ANY($1::bigint[]) AND posted_nanos < 0"""
_MOVE_COUNTER = """UPDATE billing_spendcounter
    SET spent_nanos = $4::bigint, held_nanos = $5::bigint
    WHERE id = $1::bigint AND spent_nanos = $2::bigint AND held_nanos = $3::bigint RETURNING 1"""
_LOCK_KNOWN_COUNTERS = """SELECT 1 FROM (
        SELECT spent_nanos, held_nanos FROM billing_spendcounter
        WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE) AS locked
    HAVING array_agg(spent_nanos) = $2::bigint[] AND array_agg(held_nanos) = $3::bigint[]"""
_UPDATE_COUNTERS = """UPDATE billing_spendcounter AS counter
    SET spent_nanos = new.spent, held_nanos = new.held
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS new (id, spent, held)
    WHERE counter.id = new.id"""
_MOVE_CHAIN = """UPDATE billing_incarnation SET sequence = $3::bigint, head = $4::bytea
    WHERE id = $1::bigint AND head = $2::bytea AND ended_at IS NULL RETURNING 1"""
_LOCK_KNOWN_CHAIN = """SELECT 1 FROM billing_incarnation
    WHERE id = $1::bigint AND head = $2::bytea AND ended_at IS NULL FOR NO KEY UPDATE"""
_UPDATE_CHAIN = """UPDATE billing_incarnation SET sequence = $2::bigint, head = $3::bytea
    WHERE id = $1::bigint"""
_CLAIM_HOLD = "DELETE FROM billing_hold WHERE request_id = $1::uuid RETURNING 1"
_CLAIM_HOLDS = "DELETE FROM billing_hold WHERE request_id = ANY($1::uuid[]) RETURNING 1"
_TAKEN_KEYS = """SELECT 1 FROM unnest($1::bigint[], $2::bytea[]) AS wanted (user_id, digest)
    JOIN audit_callkey AS key ON key.user_id = wanted.user_id AND key.digest = wanted.digest"""
_PARAMETER = re.compile(r"\$(\d+)")


class Step(NamedTuple):
    """A part of a batch: SQL without a WITH of its own, its values from $1 on."""

    sql: str
    values: Sequence[Text]
    rows: int | None = None  # how many it has to return; None: it returns nothing


class Merger:
    """Makes one statement of steps, and keeps the text of each shape."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, ...], str] = {}

    def merge(self, steps: Sequence[Step]) -> Statement | None:
        """Return the statement of all steps; None where there are none, and beyond SHAPES_MAX
        shapes.

        Those that return rows run first, in their order, then those that must return none, then the
        others.
        """
        if not steps:
            return None
        shape = tuple([step.sql for step in steps])
        text = self._texts.get(shape)
        if text is None:
            if len(self._texts) >= SHAPES_MAX:
                return None
            text = self._texts[shape] = _merge(steps)
        values = [value for step in steps for value in step.values]
        values.append(b"%d" % sum([step.rows for step in steps if step.rows]))
        return text, values


def alone(step: Step) -> Statement:
    """Return a step as a statement of its own."""
    if step.rows is None:
        return step.sql, step.values
    return _merge([step]), [*step.values, b"%d" % step.rows]


def _merge(steps: Sequence[Step]) -> str:
    parts = []
    counted = []
    conditions = []
    count = 0
    for number, step in enumerate(steps):
        parts.append(f"step_{number} AS ({_shift(step.sql, count)})")
        count += len(step.values)
        if step.rows:
            counted.append(f"SELECT FROM step_{number}")
        elif step.rows == 0:
            conditions.append(f"NOT EXISTS (SELECT FROM step_{number})")
    together = " UNION ALL ".join(counted)
    found = f"SELECT count(*) FROM ({together}) AS found" if counted else "0"  # noqa: S608 (constants)
    conditions.insert(0, f"({found}) = ${count + 1}::bigint")
    return f"WITH {', '.join(parts)} SELECT 1 / ({' AND '.join(conditions)})::int"


def _shift(sql: str, by: int) -> str:
    """Return the SQL of a step with its parameters behind those of the steps before it."""
    return _PARAMETER.sub(lambda found: f"${int(found[1]) + by}", sql) if by else sql


class Guess(NamedTuple):
    """What a batch is decided on without having read it. Taken before anything is decided: that
    changes a State.
    """

    accounts: Mapping[int, tuple[int, int, bytes]]  # by id: posted, held, head
    counters: Mapping[int, tuple[int, int]]  # by id: spent, held
    chain: tuple[int, bytes]  # incarnation, head
    receivable_ids: Sequence[int]
    hold_ids: Sequence[UUID]
    key_ids: Sequence[KeyId]

    @classmethod
    def of(
        cls,
        state: State,
        receivable_ids: Sequence[int],
        hold_ids: Sequence[UUID],
        key_ids: Sequence[KeyId],
    ) -> Guess:
        """Return what a state says."""
        return cls(
            {key: (one.posted, one.held, one.head) for key, one in state.accounts.items()},
            {key: (one.spent, one.held) for key, one in state.counters.items()},
            (state.chain.incarnation_id, state.chain.head),
            receivable_ids,
            hold_ids,
            key_ids,
        )

    def list_checks(self) -> Iterator[Step]:
        """Yield what locks all rows in their order and checks them, and claims the holds."""
        if self.accounts:
            yield _lock_accounts(self.accounts)
        if self.counters:
            yield _lock_counters(self.counters)
        incarnation_id, head = self.chain
        yield Step(_LOCK_KNOWN_CHAIN, (b"%d" % incarnation_id, bytea(head)), 1)
        yield from self._list_claims()

    def list_moves(self, state: State, changes: Changes) -> Iterator[Step]:
        """Yield the same with the changed balances and the chain's new head in it."""
        yield from _move_accounts(self.accounts, state.accounts)
        yield from _move_counters(self.counters, state.counters)
        incarnation_id, head = self.chain
        values = (b"%d" % incarnation_id, bytea(head))
        if changes.requests:
            link = (b"%d" % state.chain.sequence, bytea(state.chain.head))
            yield Step(_MOVE_CHAIN, (*values, *link), 1)
        else:
            yield Step(_LOCK_KNOWN_CHAIN, values, 1)
        yield from self._list_claims()

    def _list_claims(self) -> Iterator[Step]:
        if len(self.hold_ids) == 1:
            yield Step(_CLAIM_HOLD, (self.hold_ids[0].hex.encode(),), 1)
        elif self.hold_ids:
            yield Step(_CLAIM_HOLDS, (uuids(self.hold_ids),), len(self.hold_ids))
        if self.receivable_ids:
            yield Step(_OWING, (integers(self.receivable_ids),), 0)
        if self.key_ids:
            users = integers(user_id for user_id, _ in self.key_ids)
            yield Step(_TAKEN_KEYS, (users, digests(found for _, found in self.key_ids)), 0)


def list_updates(state: State, changes: Changes) -> Iterator[Step]:
    """Yield what writes the changed balances of rows that are locked, and the chain's new head."""
    accounts = [(key, account) for key, account in state.accounts.items() if account.is_changed]
    if accounts:
        yield _update_accounts(accounts)
    counters = [(key, counter) for key, counter in state.counters.items() if counter.is_changed]
    if counters:
        yield _update_counters(counters)
    if changes.requests:
        yield _update_chain(state.chain)


def _move_accounts(
    known: Mapping[int, tuple[int, int, bytes]], accounts: Mapping[int, AccountState]
) -> Iterator[Step]:
    changed = [(key, account) for key, account in accounts.items() if account.is_changed]
    if len(changed) == len(known) <= SINGLE_MAX:
        for key, account in changed:
            posted, held, head = known[key]
            values = (
                b"%d" % key,
                b"%d" % posted,
                b"%d" % held,
                bytea(head),
                b"%d" % account.posted,
                b"%d" % account.held,
                b"%d" % account.sequence,
                bytea(account.head),
            )
            yield Step(_MOVE_ACCOUNT, values, 1)
        return
    yield _lock_accounts(known)
    if changed:
        yield _update_accounts(changed)


def _move_counters(
    known: Mapping[int, tuple[int, int]], counters: Mapping[int, CounterState]
) -> Iterator[Step]:
    changed = [(key, counter) for key, counter in counters.items() if counter.is_changed]
    if len(changed) == len(known) <= SINGLE_MAX:
        for key, counter in changed:
            numbers = (key, *known[key], counter.spent, counter.held)
            yield Step(_MOVE_COUNTER, [b"%d" % number for number in numbers], 1)
        return
    yield _lock_counters(known)
    if changed:
        yield _update_counters(changed)


def _lock_accounts(known: Mapping[int, tuple[int, int, bytes]]) -> Step:
    columns = (
        integers(known),
        integers(posted for posted, _, _ in known.values()),
        integers(held for _, held, _ in known.values()),
        digests(head for _, _, head in known.values()),
    )
    return Step(_LOCK_KNOWN_ACCOUNTS, columns, 1)


def _lock_counters(known: Mapping[int, tuple[int, int]]) -> Step:
    columns = (
        integers(known),
        integers(spent for spent, _ in known.values()),
        integers(held for _, held in known.values()),
    )
    return Step(_LOCK_KNOWN_COUNTERS, columns, 1)


def _update_accounts(changed: Sequence[tuple[int, AccountState]]) -> Step:
    columns = (
        integers(key for key, _ in changed),
        integers(account.posted for _, account in changed),
        integers(account.held for _, account in changed),
        integers(account.sequence for _, account in changed),
        digests(account.head for _, account in changed),
    )
    return Step(_UPDATE_ACCOUNTS, columns)


def _update_counters(changed: Sequence[tuple[int, CounterState]]) -> Step:
    columns = (
        integers(key for key, _ in changed),
        integers(counter.spent for _, counter in changed),
        integers(counter.held for _, counter in changed),
    )
    return Step(_UPDATE_COUNTERS, columns)


def _update_chain(chain: ChainState) -> Step:
    values = (b"%d" % chain.incarnation_id, b"%d" % chain.sequence, bytea(chain.head))
    return Step(_UPDATE_CHAIN, values)
