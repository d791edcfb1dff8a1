"""What the ledger can be asked to do, and what it answers. Values only.

All amounts are nano-USD. What each call makes are tuples: frozen dataclasses take three times as
long to make.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

Row = dict[str, Any]
Leg = tuple[int, int]  # account id, nanos
CounterKey = tuple[str, int]  # what a counter counts: scope, and its period if it has one; id
CapScope = Literal["api_key", "user", "user_group", "provider"]
RowKey = tuple[str, int]  # "account" or "counter" and its id, or what a counter counts: scope, id
KeyId = tuple[int, bytes]  # user id, digest of an idempotency key of his


@dataclass(frozen=True, slots=True)
class Cap:
    """The most that one thing may spend, for example an API key: in all, or in one period.

    A provider's counts what its answers are charged. A period is one of `apps.billing.periods`.
    """

    scope: CapScope
    scope_id: int
    cap_nanos: int
    period: str = ""  # empty: in all

    @property
    def key(self) -> CounterKey:
        """Which counter counts what it limits."""
        scope = f"{self.scope}:{self.period}" if self.period else self.scope
        return scope, self.scope_id


class Claim(NamedTuple):
    """An idempotency key that a hold takes with it: no other call is held under it then."""

    user_id: int
    digest: bytes
    fingerprint: bytes  # of what is asked for

    @property
    def key_id(self) -> KeyId:
        """Which key it is."""
        return self.user_id, self.digest


class KeyState(NamedTuple):
    """Who has an idempotency key."""

    request_id: UUID
    fingerprint: bytes
    expires_at: datetime | None  # None while that call runs


class RepeatAnswer(NamedTuple):
    """An answer as it is kept here for those who repeat the call."""

    status_code: int
    headers: str  # JSON [[name, value], …]
    body: bytes | None  # sealed; None: it was not kept


class ClaimEnd(NamedTuple):
    """What becomes of a key when its call ends. Without an answer it is free again."""

    claim: Claim | None  # None where only the hold says that there was one
    answer: RepeatAnswer | None


class PlaceHold(NamedTuple):
    """Reserve the worst case of a call before it is sent.

    `buckets` are account ids in the order in which money is taken, the wallet last. When less than
    `amount_nanos` is there, any amount from `amount_nanos_min` up is reserved instead.

    All of `caps` have to cover the hold. Of `spare_caps` (of providers that may take over) those
    that cover it are counted, too; the others are left out. With `is_whole_at_provider`
    a provider's cap covers all that the others leave, or refuses: another provider may serve the
    call whole.

    A `claim` on an idempotency key that another call has refuses the hold as repeated.

    `spends` ends another hold in the same transaction, so that what that one had reserved is there
    for this one, and for nobody in between. Where it had ended before, this one is refused.
    """

    request_id: UUID
    customer_id: int
    buckets: tuple[int, ...]
    receivable_id: int
    amount_nanos: int
    amount_nanos_min: int
    detail: Row  # the columns of the APIRequest that are known when the call begins
    caps: tuple[Cap, ...] = ()
    spare_caps: tuple[Cap, ...] = ()
    is_whole_at_provider: bool = False
    claim: Claim | None = None
    spends: Resolve | None = None


class Held(NamedTuple):
    """A committed hold. Its owner resolves it exactly once.

    `spares` are those spare caps that count it. Who reads a hold from the database does not know
    them.
    """

    request_id: UUID
    amount_nanos: int
    legs: tuple[Leg, ...]
    counters: tuple[int, ...] = ()
    spares: tuple[Cap, ...] = ()


@dataclass(frozen=True, slots=True)
class HoldRefused:
    """Nothing was reserved: too little money, a spending cap, a debt, an idempotency key that has
    been used, another hold to be spent that has ended, or a row the database refuses.

    `cap` is the first one that does not cover the least, `left_nanos` what it covers, `first` who
    has the key.
    """

    reason: Literal["balance", "cap", "owing", "repeated", "spent", "broken"]
    cap: Cap | None = None
    left_nanos: int = field(default=0, compare=False)
    first: KeyState | None = None


def has_spent(hold: PlaceHold, answer: object) -> bool:
    """Return whether a hold ended the one that it spends, be it placed itself or refused."""
    if hold.spends is None:
        return False
    # What the database refuses to write leaves all as it was.
    is_refused = isinstance(answer, HoldRefused) and answer.reason != "broken"
    return is_refused or isinstance(answer, Held)


@dataclass(frozen=True, slots=True)
class PayloadRecord:
    """The bodies of a call as they are stored."""

    salt: bytes
    request_body: bytes
    response_body: bytes
    is_request_truncated: bool
    is_response_truncated: bool


class StoredRecord(NamedTuple):
    """Where an answer lies that its provider keeps, by what it can be named.

    Each of the digests, of its id and of those of its items, is a row.
    """

    digests: tuple[bytes, ...]
    provider_id: int
    provider_key_id: int
    user_id: int
    model_id: int
    created_at: datetime
    expires_at: datetime


class Resolve(NamedTuple):
    """End a hold: charge what the call cost (0 voids it), release the rest, write the APIRequest.

    `legs` and `counters` are those of the hold; they say which rows to lock before the hold is
    claimed. `claim_end` where it had an idempotency key, `stored` where the provider keeps the
    answer.
    """

    request_id: UUID
    wallet_id: int
    receivable_id: int
    legs: tuple[Leg, ...]
    counters: tuple[int, ...]
    charge_nanos: int
    row: Row
    attempts: tuple[Row, ...] = ()
    payload: PayloadRecord | None = None
    claim_end: ClaimEnd | None = None
    stored: StoredRecord | None = None

    @property
    def held_nanos(self) -> int:
        """What the hold reserved."""
        return sum(nanos for _, nanos in self.legs)

    def size(self) -> int:
        """Return roughly how many bytes this writes."""
        bodies = (
            len(self.payload.request_body) + len(self.payload.response_body) if self.payload else 0
        )
        if self.claim_end is not None and self.claim_end.answer is not None:
            bodies += len(self.claim_end.answer.body or b"")
        if self.stored is not None:
            bodies += 200 * len(self.stored.digests)
        return 1_000 + bodies + 500 * len(self.attempts)


class Resolved(NamedTuple):
    """How a hold ended. `is_first` is False where it had been resolved before; then
    `charged_nanos` is what this call added (a late settlement's difference, or 0).
    """

    request_id: UUID
    charged_nanos: int
    is_first: bool = True


class Line(NamedTuple):
    """One entry of a posting."""

    account_id: int
    kind: str
    amount_nanos: int
    request_id: UUID | None = None
    corrects_id: int | None = None


@dataclass(frozen=True, slots=True)
class Posting:
    """A transaction made by a person or a job. Its lines sum to zero."""

    transaction_id: UUID
    kind: str
    idempotency_key: str
    actor_id: int | None
    actor_name: str
    reason: str
    lines: tuple[Line, ...]


@dataclass(slots=True)
class AccountState:
    """A locked account, as the batch changes it."""

    kind: str
    posted: int
    held: int
    sequence: int
    head: bytes
    is_changed: bool = False

    @property
    def available(self) -> int:
        """What can still be held or spent."""
        return self.posted - self.held


@dataclass(slots=True)
class CounterState:
    """A locked spend counter, as the batch changes it."""

    scope: str
    scope_id: int
    spent: int
    held: int
    is_changed: bool = False


@dataclass(slots=True)
class ChainState:
    """The chain of an incarnation's API requests."""

    incarnation_id: int
    sequence: int
    head: bytes


class RecordedCharge(NamedTuple):
    """What a request that was recorded before has been charged so far."""

    nanos: int
    is_late: bool  # whether that has been topped up late
    provider_id: int | None  # as its row says


@dataclass(slots=True)
class State:
    """What a batch has locked and read."""

    accounts: dict[int, AccountState]
    owing: set[int]  # receivable accounts with a debt
    counters: dict[int, CounterState]
    counter_ids: dict[CounterKey, int]
    chain: ChainState
    claimed: set[UUID]  # holds that this transaction has deleted
    resolved: dict[UUID, RecordedCharge]  # by request
    keys: dict[KeyId, KeyState] = field(default_factory=dict)  # of the batch's claims

    def counter_id(self, cap: Cap) -> int:
        """Return which counter counts what a cap limits."""
        return self.counter_ids[cap.key]


@dataclass(slots=True)
class Changes:
    """What a batch writes, in the order in which the fields stand."""

    transactions: list[Row] = field(default_factory=list)
    entries: list[Row] = field(default_factory=list)
    requests: list[Row] = field(default_factory=list)
    attempts: list[Row] = field(default_factory=list)
    payloads: list[Row] = field(default_factory=list)
    holds: list[Row] = field(default_factory=list)
    keys: list[Row] = field(default_factory=list)  # idempotency keys that are taken
    stored: list[Row] = field(default_factory=list)  # stored answers, each id once
    freed_keys: list[UUID] = field(default_factory=list)  # of these calls, before any is taken
    answered_keys: list[Row] = field(default_factory=list)

    @property
    def has_keys(self) -> bool:
        """Whether an idempotency key is taken, freed or answered."""
        return bool(self.keys or self.freed_keys or self.answered_keys)


@dataclass(frozen=True, slots=True)
class Batch:
    """Settlements and holds that commit together, settlements first."""

    resolves: tuple[Resolve, ...]
    holds: tuple[PlaceHold, ...]
    revenue_id: int
    now: datetime  # on this machine: what the rows say
    # On the database's clock, where there are idempotency keys: their day is the same for all
    # gateways, however wrong the clock of one is. None: `now`.
    keys_now: datetime | None = None

    @property
    def key_time(self) -> datetime:
        """By what keys expire."""
        return self.keys_now or self.now

    @property
    def spent(self) -> tuple[Resolve, ...]:
        """The ends of other holds that its holds spend."""
        return spent_by(self.holds)


def spent_by(holds: Iterable[PlaceHold]) -> tuple[Resolve, ...]:
    """Return the ends of other holds that these spend."""
    return tuple(hold.spends for hold in holds if hold.spends is not None)
