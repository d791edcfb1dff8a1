"""Statements that lock what a batch was decided on, and check that it is so.

Each returns 1, or divides by zero, which ends the transaction. Of chains the heads are compared,
which stand for all that came before: a database that was restored under a running writer can have
the same numbers again, and another history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from apps.billing.ledger.commands import KeyId, State
from apps.billing.ledger.pipeline import Statement, digests, integers, uuids

_CHECK_ACCOUNTS = """SELECT 1 / COALESCE(array_agg(posted_nanos) = $2::bigint[]
        AND array_agg(held_nanos) = $3::bigint[]
        AND array_agg(head) = $4::bytea[], FALSE)::int
    FROM (SELECT posted_nanos, held_nanos, head FROM billing_account
        WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE) AS locked"""
_CHECK_OWING = """SELECT 1 / (count(*) = 0)::int FROM billing_account
    WHERE id = ANY($1::bigint[]) AND posted_nanos < 0"""
_CHECK_COUNTERS = """SELECT 1 / COALESCE(array_agg(spent_nanos) = $2::bigint[]
        AND array_agg(held_nanos) = $3::bigint[], FALSE)::int
    FROM (SELECT spent_nanos, held_nanos FROM billing_spendcounter
        WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE) AS locked"""
_CHECK_CHAIN = """SELECT 1 / (count(*) = 1)::int
    FROM (SELECT 1 FROM billing_incarnation WHERE id = $1::bigint AND head = $2::bytea
        AND ended_at IS NULL FOR NO KEY UPDATE) AS locked"""
_CHECK_HOLDS = """WITH claimed AS (
        DELETE FROM billing_hold WHERE request_id = ANY($1::uuid[]) RETURNING 1)
    SELECT 1 / (count(*) = $2::bigint)::int FROM claimed"""
_CHECK_KEYS = """SELECT 1 / (count(*) = 0)::int
    FROM unnest($1::bigint[], $2::bytea[]) AS wanted (user_id, digest)
    JOIN audit_callkey AS key ON key.user_id = wanted.user_id AND key.digest = wanted.digest"""


def list_checks(
    state: State,
    receivable_ids: Sequence[int],
    hold_ids: Sequence[UUID],
    key_ids: Sequence[KeyId],
) -> Iterator[Statement]:
    """Yield what locks the rows of a batch in their order and checks that they are as in `state`.

    To be taken before anything is decided: that changes `state`.
    """
    if state.accounts:
        accounts = state.accounts.values()
        yield (
            _CHECK_ACCOUNTS,
            (
                integers(state.accounts),
                integers(account.posted for account in accounts),
                integers(account.held for account in accounts),
                digests(account.head for account in accounts),
            ),
        )
    if receivable_ids:
        yield _CHECK_OWING, (integers(receivable_ids),)
    if state.counters:
        counters = state.counters.values()
        yield (
            _CHECK_COUNTERS,
            (
                integers(state.counters),
                integers(counter.spent for counter in counters),
                integers(counter.held for counter in counters),
            ),
        )
    chain = state.chain
    yield _CHECK_CHAIN, (b"%d" % chain.incarnation_id, b"\\x" + chain.head.hex().encode())
    if hold_ids:
        yield _CHECK_HOLDS, (uuids(hold_ids), b"%d" % len(hold_ids))
    if key_ids:
        users = integers(user_id for user_id, _ in key_ids)
        yield _CHECK_KEYS, (users, digests(found for _, found in key_ids))
