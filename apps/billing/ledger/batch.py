"""What a batch changes: pure decisions on locked rows.

Settlements go before holds, so that money released here can be held here; what a hold spends is
released when it is its turn. A settlement takes from the hold's legs in the order in which they
were taken; what exceeds the hold comes from the wallet's available money, then becomes a debt on
the receivable account. Every charge ends as revenue, one entry for the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import orjson

from apps.billing.chains import entry_hash, request_hash, transaction_digest
from apps.billing.late_records import write_reason
from apps.billing.ledger.commands import (
    AccountState,
    Batch,
    Cap,
    Changes,
    CounterState,
    Held,
    HoldRefused,
    Line,
    PlaceHold,
    Posting,
    RecordedCharge,
    Resolve,
    Resolved,
    State,
)
from apps.billing.ledger.idempotency_keys import HAS_KEY, end_claim, find_first, take_back, take_key
from apps.billing.ledger.stored import latest_by_id, rows_of
from apps.core.ids import new_uuid7


class Unbalanced(AssertionError):
    """A transaction's lines do not sum to zero: a bug, never committed."""


class Insufficient(Exception):
    """A posting would take more from an account than is available there."""


class Poster:
    """Appends the entries of one transaction to locked accounts."""

    def __init__(self, posting: Posting, now: datetime, state: State, changes: Changes) -> None:
        self._state = state
        self._changes = changes
        self._transaction_id = posting.transaction_id
        self._digest = transaction_digest(
            transaction_id=posting.transaction_id,
            kind=posting.kind,
            idempotency_key=posting.idempotency_key,
            actor_id=posting.actor_id,
            actor_name=posting.actor_name,
            reason=posting.reason,
            created_at=now,
        )
        self._sum = 0
        changes.transactions.append(
            {
                "id": posting.transaction_id,
                "kind": posting.kind,
                "idempotency_key": posting.idempotency_key,
                "actor_id": posting.actor_id,
                "actor_name": posting.actor_name,
                "reason": posting.reason,
                "created_at": now,
            }
        )

    def add(self, line: Line) -> None:
        """Append one entry and move its account's balance."""
        account = self._state.accounts[line.account_id]
        account.posted += line.amount_nanos
        account.sequence += 1
        account.head = entry_hash(
            account.head,
            account_id=line.account_id,
            sequence=account.sequence,
            kind=line.kind,
            amount_nanos=line.amount_nanos,
            balance_after_nanos=account.posted,
            request_id=line.request_id,
            corrects_id=line.corrects_id,
            digest=self._digest,
        )
        account.is_changed = True
        if account.kind == "receivable" and account.posted < 0:
            self._state.owing.add(line.account_id)  # Holds of this very batch see the debt.
        self._sum += line.amount_nanos
        self._changes.entries.append(
            {
                "transaction_id": self._transaction_id,
                "account_id": line.account_id,
                "request_id": line.request_id,
                "kind": line.kind,
                "amount_nanos": line.amount_nanos,
                "sequence": account.sequence,
                "balance_after_nanos": account.posted,
                "corrects_id": line.corrects_id,
                "hash": account.head,
            }
        )

    def close(self) -> None:
        """Check that the entries sum to zero. Raises Unbalanced."""
        if self._sum != 0:
            raise Unbalanced(f"transaction {self._transaction_id} is off by {self._sum} nanos")


def decide(batch: Batch, state: State) -> tuple[Changes, list[Resolved], list[Held | HoldRefused]]:
    """Return what the batch changes and the answer to each command, in order.

    Changes `state` in place: it is what the accounts will be when the batch has committed.
    """
    changes = Changes()
    resolved = _decide_resolves(batch.resolves, batch, state, changes)
    held = [_decide_hold(hold, batch, state, changes) for hold in batch.holds]
    if changes.stored:
        changes.stored = latest_by_id(changes.stored)
    return changes, resolved, held


def decide_posting(posting: Posting, now: datetime, state: State) -> Changes:
    """Return what a posting changes. Raises Insufficient where an account does not cover its
    line.
    """
    changes = Changes()
    poster = Poster(posting, now, state, changes)
    for line in posting.lines:
        account = state.accounts[line.account_id]
        is_guarded = line.amount_nanos < 0 and account.kind in ("wallet", "quota")
        if is_guarded and account.available + line.amount_nanos < 0:
            raise Insufficient
        poster.add(line)
    poster.close()
    return changes


def _decide_resolves(
    resolves: Sequence[Resolve], batch: Batch, state: State, changes: Changes
) -> list[Resolved]:
    answers: list[Resolved] = []
    settlement: Poster | None = None
    revenue = 0
    for resolve in resolves:
        if resolve.stored is not None:
            # Also where others have ended the hold: the provider keeps the answer all the same.
            changes.stored.extend(rows_of(resolve.stored))
        if resolve.request_id in state.resolved:
            answers.append(_settle_late(resolve, batch, state, changes))
            continue
        state.resolved[resolve.request_id] = RecordedCharge(
            resolve.charge_nanos, is_late=False, provider_id=resolve.row["provider_id"]
        )
        if resolve.request_id in state.claimed:
            _release(resolve, state)
        if resolve.charge_nanos:
            settlement = settlement or _open_settlement(batch.now, state, changes)
            for line in _charge_lines(resolve, state):
                settlement.add(line)
            revenue += resolve.charge_nanos
        if resolve.claim_end is not None:
            end_claim(resolve, batch.key_time, state, changes)
        _record(resolve, batch.now, state, changes)
        answers.append(Resolved(resolve.request_id, resolve.charge_nanos))
    if settlement is not None:
        settlement.add(Line(batch.revenue_id, "revenue", revenue))
        settlement.close()
    return answers


def _open_settlement(now: datetime, state: State, changes: Changes) -> Poster:
    transaction_id = new_uuid7()
    posting = Posting(
        transaction_id, "settlement", f"settlement:{transaction_id}", None, "", "", ()
    )
    return Poster(posting, now, state, changes)


def _release(resolve: Resolve, state: State) -> None:
    for account_id, nanos in resolve.legs:
        account = state.accounts[account_id]
        account.held -= nanos
        account.is_changed = True
    for counter in _counters_of(resolve, state):
        counter.held -= resolve.held_nanos
        counter.is_changed = True
    _count(resolve, resolve.charge_nanos, resolve.row["provider_id"], state)


def _count(resolve: Resolve, nanos: int, provider_id: int | None, state: State) -> None:
    """Add a charge to the counters of a hold; of its providers to the one that answered."""
    for counter in _counters_of(resolve, state):
        if counter.scope != "provider" or counter.scope_id == provider_id:
            counter.spent += nanos
            counter.is_changed = True


def _counters_of(resolve: Resolve, state: State) -> Iterator[CounterState]:
    """Yield the counters of a hold. One of a period that is long over may have been deleted."""
    for counter_id in resolve.counters:
        counter = state.counters.get(counter_id)
        if counter is not None:
            yield counter


def _charge_lines(resolve: Resolve, state: State) -> list[Line]:
    """Split a charge over the hold's legs, then the wallet, then the debt.

    A hold that is gone without a record (it never happens while one database is kept) counts as
    empty.
    """
    lines: list[Line] = []
    left = resolve.charge_nanos
    taken_from_wallet = 0
    for account_id, nanos in resolve.legs if resolve.request_id in state.claimed else ():
        part = min(nanos, left)
        if part:
            lines.append(Line(account_id, "charge", -part, resolve.request_id))
            left -= part
            taken_from_wallet += part if account_id == resolve.wallet_id else 0
    if left:
        available = state.accounts[resolve.wallet_id].available - taken_from_wallet
        lines += _beyond(resolve, "excess", left, available)
    return lines


def _beyond(resolve: Resolve, kind: str, nanos: int, available: int) -> list[Line]:
    from_wallet = max(0, min(nanos, available))
    lines = []
    if from_wallet:
        lines.append(Line(resolve.wallet_id, kind, -from_wallet, resolve.request_id))
    if nanos > from_wallet:
        lines.append(Line(resolve.receivable_id, kind, from_wallet - nanos, resolve.request_id))
    return lines


def _settle_late(resolve: Resolve, batch: Batch, state: State, changes: Changes) -> Resolved:
    """Post what a call cost beyond what was charged when somebody else resolved its hold, once.

    Its attempts are written with it; its record stays as it is, so what that lacks is told by the
    transaction, and its bodies, whose digest no record has, are not kept. Nothing where its repeat
    has its idempotency key meanwhile: a key pays for one.
    """
    recorded = state.resolved[resolve.request_id]
    difference = resolve.charge_nanos - recorded.nanos
    if difference <= 0 or recorded.is_late:
        return Resolved(resolve.request_id, 0, is_first=False)
    if resolve.claim_end is not None and not take_back(resolve, batch.key_time, state, changes):
        return Resolved(resolve.request_id, 0, is_first=False)
    key = f"late:{resolve.request_id}"
    reason = write_reason(resolve.request_id, resolve.row)
    posting = Posting(new_uuid7(), "late_settlement", key, None, "", reason, ())
    poster = Poster(posting, batch.now, state, changes)
    available = state.accounts[resolve.wallet_id].available
    for line in _beyond(resolve, "late", difference, available):
        poster.add(line)
    poster.add(Line(batch.revenue_id, "revenue", difference))
    poster.close()
    state.resolved[resolve.request_id] = recorded._replace(nanos=resolve.charge_nanos, is_late=True)
    changes.attempts.extend(resolve.attempts)
    # The difference counts for the provider that the record names.
    _count(resolve, difference, recorded.provider_id, state)
    return Resolved(resolve.request_id, difference, is_first=False)


def _record(resolve: Resolve, now: datetime, state: State, changes: Changes) -> None:
    chain = state.chain
    chain.sequence += 1
    row = {
        **resolve.row,
        "charge_nanos": resolve.charge_nanos,
        "settled_at": now,
        "incarnation_id": chain.incarnation_id,
        "sequence": chain.sequence,
    }
    chain.head = request_hash(chain.head, row)
    row["hash"] = chain.head
    changes.requests.append(row)
    changes.attempts.extend(resolve.attempts)
    if resolve.payload is not None:
        payload = resolve.payload
        changes.payloads.append(
            {
                "request_id": resolve.request_id,
                "salt": payload.salt,
                "request_body": payload.request_body,
                "response_body": payload.response_body,
                "is_request_truncated": payload.is_request_truncated,
                "is_response_truncated": payload.is_response_truncated,
            }
        )


def _decide_hold(
    hold: PlaceHold, batch: Batch, state: State, changes: Changes
) -> Held | HoldRefused:
    if hold.spends is not None:
        # Not before: a hold that comes earlier in the batch must not get what is released here.
        (end,) = _decide_resolves((hold.spends,), batch, state, changes)
        if not end.is_first:
            return HoldRefused("spent")
    now = batch.now
    first = None if hold.claim is None else find_first(hold.claim, batch.key_time, state)
    if first is not None:
        return HoldRefused("repeated", first=first)
    if hold.receivable_id in state.owing:
        return HoldRefused("owing")
    # A quota may have been deleted since its caller read of it: its account is as good as empty.
    buckets = {
        account_id: state.accounts[account_id]
        for account_id in hold.buckets
        if account_id in state.accounts
    }
    amount = min(hold.amount_nanos, sum(max(0, bucket.available) for bucket in buckets.values()))
    if not buckets or amount < hold.amount_nanos_min:
        return HoldRefused("balance")
    for cap in hold.caps:
        left = _left(cap, state)
        is_whole = hold.is_whole_at_provider and cap.scope == "provider"
        if left < (amount if is_whole else hold.amount_nanos_min):
            return HoldRefused("cap", cap, left)
        amount = min(amount, left)
    # Nothing was changed up to here: a refusal leaves every level as it was.
    spares = tuple(cap for cap in hold.spare_caps if _left(cap, state) >= amount)
    counters = [state.counter_id(cap) for cap in (*hold.caps, *spares)]
    for counter_id in counters:
        state.counters[counter_id].held += amount
        state.counters[counter_id].is_changed = True
    legs = _take(buckets, amount)
    detail = hold.detail
    if hold.claim is not None:
        take_key(hold.claim, hold.request_id, batch.key_time, state, changes)
        detail = {**detail, HAS_KEY: True}
    changes.holds.append(
        {
            "request_id": hold.request_id,
            "incarnation_id": state.chain.incarnation_id,
            "customer_id": hold.customer_id,
            "amount_nanos": amount,
            "legs": orjson.dumps(legs).decode(),
            "counters": orjson.dumps(counters).decode(),
            "detail": orjson.dumps(detail).decode(),
            "checkpoint": None,
            "placed_at": now,
        }
    )
    return Held(hold.request_id, amount, tuple(legs), tuple(counters), spares)


def _left(cap: Cap, state: State) -> int:
    """Return what may still be held under a cap."""
    counter = state.counters[state.counter_id(cap)]
    return cap.cap_nanos - counter.spent - counter.held


def _take(buckets: Mapping[int, AccountState], amount: int) -> list[tuple[int, int]]:
    """Hold an amount, of the first buckets first, and return account id and part of each."""
    legs = []
    left = amount
    for account_id, bucket in buckets.items():
        part = max(0, min(bucket.available, left))
        if part:
            bucket.held += part
            bucket.is_changed = True
            legs.append((account_id, part))
            left -= part
    return legs
