"""Why a call was charged what it was charged, to the nano, from what is stored of it.

The lines recompute the charge from the stored usage and price (I-26). What else moved money, or
kept it from moving, is an adjustment, so that lines and adjustments together are always what the
ledger took. Where they cannot be brought together the rest is shown as unexplained: that is what
`verify_ledger` looks for. Of a call that was settled late it is what its owner told then that is
explained, and not what others had known.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from apps.ai_models.models import PriceVersion
from apps.audit.models import APIRequest, Attempt, RequestState, UsageSource
from apps.audit.records import Row, stored_usage
from apps.billing.late_records import read_reason
from apps.billing.models import Entry, EntryKind
from apps.billing.pricing import (
    MULTIPLIER_ONE,
    PER_MILLION,
    ChargeLine,
    Price,
    PriceIncomplete,
    conditions_of,
    explain,
    find_terms,
    price_of_columns,
)
from apps.core.price_terms import clock_time
from apps.core.usage import Usage

ENTRIES_MAX: Final = 200

_CHARGED: Final = (EntryKind.CHARGE, EntryKind.EXCESS)
_NOTES: Final = {
    "limited_to_hold": "Estimated usage, the last checkpoint of a lost call, and usage that cannot "
    "be true are never charged above what was held.",
    "late": "The gateway that had lost the call reported later what it cost; the difference to "
    "what had been charged was posted then.",
    "refund": "Given back.",
    "other_attempts": "What attempts cost that led to nothing: the client does not pay for them.",
    "correction": "Another entry that names this call.",
    "price_unknown": "The price that was used cannot be found.",
    "unexplained": "The stored usage and price do not give this amount. Run verify_ledger.",
    "not_posted": "The record says that this was charged, but no entry of the ledger does. Run "
    "verify_ledger.",
}
_TOLD_LATE: Final = (
    "The gateway that had lost this call told its usage later: that counts, and the difference to "
    "what had been charged was posted then."
)
# No verification recomputes a cost: what a provider bills may depend on what is not on record.
_UNEXPLAINED_COST: Final = (
    "The stored usage and the provider's price do not give this amount. verify_ledger compares it "
    "with what the attempts cost, not with the price."
)


@dataclass(frozen=True, slots=True)
class ExplainedLine:
    """One line: so many of an item at a price. Money in nanos.

    One of the three prices is there: of a million, of the request, or of a piece.
    """

    item: str
    count: int
    price_per_million_nanos: int | None
    price_per_request_nanos: int | None
    price_per_piece_nanos: int | None
    terms_factor: int  # by which the terms of the price multiply it, in 1e-12
    multiplier_millionths: int
    amount_nanos: int


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What was added to the lines, or taken from them."""

    kind: str
    amount_nanos: int
    note: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Lines and adjustments; their amounts sum to `total_nanos`."""

    lines: tuple[ExplainedLine, ...]
    adjustments: tuple[Adjustment, ...]
    total_nanos: int
    note: str
    terms: tuple[str, ...] = ()  # what of the price's terms counted


@dataclass(frozen=True, slots=True)
class ExplainedRequest:
    """All that the ledger knows of a call. `cost` is None where the provider's price is unknown."""

    charge: Explanation
    cost: Explanation | None
    entries: tuple[Entry, ...]

    @property
    def late_charges_nanos(self) -> int:
        """Return what was charged beyond what the record says."""
        return _sum_late(self.entries)


def explain_request(row: APIRequest, attempts: Sequence[Attempt] = ()) -> ExplainedRequest:
    """Return why this call cost what it cost, and the entries that say so.

    `attempts` are those of the call, in their order, where its cost is wanted.
    """
    entries = list_entries(row.pk)
    settled = as_settled(row, entries)
    prices = PriceVersion.objects.in_bulk(
        [found for found in (settled.price_version_id, settled.cost_version_id) if found]
    )
    return ExplainedRequest(
        charge=explain_charge(settled, _find_price(prices, settled.price_version_id), entries),
        cost=(
            explain_cost(settled, _find_price(prices, settled.cost_version_id), attempts)
            if settled.cost_version_id is not None
            else None
        ),
        entries=tuple(entries),
    )


def list_entries(request_id: UUID) -> list[Entry]:
    """Return the entries that name a call, oldest first."""
    rows = Entry.objects.filter(request_id=request_id).select_related("account", "transaction")
    return list(rows.order_by("id")[:ENTRIES_MAX])


def as_settled(row: APIRequest, entries: Sequence[Entry]) -> APIRequest:
    """Return the record as its owner would have written it, where he came late and told: a copy,
    which is not to be saved.
    """
    told = _find_told(entries)
    if told is None:
        return row
    found = copy(row)
    for name, value in told.items():
        setattr(found, name, value)
    found.charge_nanos += _sum_late(entries)
    return found


def explain_charge(row: APIRequest, price: Price | None, entries: Sequence[Entry]) -> Explanation:
    """Return the lines of a charge, and what made the ledger take something else.

    `row` is what `as_settled` returns.
    """
    is_told = _find_told(entries) is not None
    kinds = (*_CHARGED, EntryKind.LATE) if is_told else _CHARGED
    tier = row.service_tier
    lines, adjustments = _lines(row, price, row.multiplier_millionths, row.charge_nanos, tier)
    computed = sum(line.amount_nanos for line in lines)
    if computed != row.charge_nanos and not adjustments:
        is_limited = _is_limited_to_hold(row) and row.charge_nanos == min(computed, row.hold_nanos)
        kind = "limited_to_hold" if is_limited else "unexplained"
        adjustments.append(_adjust(kind, row.charge_nanos - computed))
    charged = -sum(entry.amount_nanos for entry in entries if entry.kind in kinds)
    if charged != row.charge_nanos:
        adjustments.append(_adjust("not_posted", charged - row.charge_nanos))
    for entry in entries:
        if entry.kind not in kinds:
            kind = entry.kind if entry.kind in _NOTES else "correction"
            adjustments.append(_adjust(kind, -entry.amount_nanos))
    total = -sum(entry.amount_nanos for entry in entries)
    terms = _terms(row, price, tier)
    note = _TOLD_LATE if is_told else _note(row)
    return Explanation(tuple(lines), tuple(adjustments), total, note, terms)


def explain_cost(
    row: APIRequest, price: Price | None, attempts: Sequence[Attempt] = ()
) -> Explanation:
    """Return the lines of what providers bill for a call: for its answer, and for attempts that
    led to nothing.
    """
    total = row.cost_nanos or 0
    # The last attempt is the one whose usage is the call's.
    others = attempts if row.usage_source == UsageSource.NONE else attempts[:-1]
    lost = sum(attempt.cost_nanos or 0 for attempt in others)
    tier = _billed_tier(row, price, total - lost)
    lines, adjustments = _lines(row, price, MULTIPLIER_ONE, total - lost, tier)
    computed = sum(line.amount_nanos for line in lines)
    if computed != total - lost and not adjustments:
        rest = Adjustment("unexplained", total - lost - computed, _UNEXPLAINED_COST)
        adjustments.append(rest)
    if lost:
        adjustments.append(_adjust("other_attempts", lost))
    return Explanation(tuple(lines), tuple(adjustments), total, "", _terms(row, price, tier))


def _billed_tier(row: APIRequest, price: Price | None, cost_nanos: int) -> str:
    """Return the service tier at which a provider billed a call.

    The record has the one that the client was charged by; a provider that served another bills
    that, and it is the one at which its price comes to the cost.
    """
    if price is not None and price.terms is not None:
        named = (tier.name for tier in price.terms.service_tiers)
        for tier in (row.service_tier, "", *named):
            lines, _ = _lines(row, price, MULTIPLIER_ONE, cost_nanos, tier)
            if sum(line.amount_nanos for line in lines) == cost_nanos:
                return tier
    return row.service_tier


def _lines(
    row: APIRequest,
    price: Price | None,
    multiplier_millionths: int,
    total_nanos: int,
    service_tier: str,
) -> tuple[list[ExplainedLine], list[Adjustment]]:
    """Return the lines of the stored usage, or why there are none."""
    try:
        usage = usage_of(row)
    except ValueError:
        return [], [_adjust("unexplained", total_nanos)] if total_nanos else []
    if usage.source == "none":
        return [], []
    try:
        if price is None:
            raise PriceIncomplete
        conditions = conditions_of(service_tier, row.started_at)
        found = explain(usage, price, multiplier_millionths, conditions)
    except PriceIncomplete:
        return [], [_adjust("price_unknown", total_nanos)] if total_nanos else []
    return [_line(line, multiplier_millionths) for line in found], []


def _line(line: ChargeLine, multiplier_millionths: int) -> ExplainedLine:
    is_per_million = line.item in PER_MILLION
    is_request = line.item in ("request", "minimum")
    return ExplainedLine(
        item=line.item,
        count=line.count,
        price_per_million_nanos=line.price_nanos if is_per_million else None,
        price_per_request_nanos=line.price_nanos if is_request else None,
        price_per_piece_nanos=None if is_per_million or is_request else line.price_nanos,
        terms_factor=line.factor,
        multiplier_millionths=multiplier_millionths,
        amount_nanos=line.amount_nanos,
    )


def _terms(row: APIRequest, price: Price | None, service_tier: str) -> tuple[str, ...]:
    """Return in words which terms of the price counted."""
    usage = usage_of(row)
    if price is None or price.terms is None or usage.source == "none":
        return ()
    conditions = conditions_of(service_tier, row.started_at)
    context, service, window = find_terms(usage, price, conditions)
    found = []
    if context is not None:
        found.append(f"more than {context.above_input_tokens} input tokens")
    if service is not None:
        found.append(f"service tier {service.name}")
    if window is not None:
        begin, end = clock_time(window.from_minute), clock_time(window.to_minute)
        found.append(f"from {begin} to {end} UTC")
    return tuple(found)


def usage_of(row: APIRequest) -> Usage:
    """Return the stored usage of a call."""
    return stored_usage(vars(row))


def _is_limited_to_hold(row: APIRequest) -> bool:
    return row.usage_source != UsageSource.REPORTED or row.is_usage_suspect


def _find_told(entries: Sequence[Entry]) -> Row | None:
    """Return the columns that a late settlement among these entries tells, if any does."""
    late = next((entry for entry in entries if entry.kind == EntryKind.LATE), None)
    return None if late is None else read_reason(late.transaction.reason)


def _sum_late(entries: Sequence[Entry]) -> int:
    return -sum(entry.amount_nanos for entry in entries if entry.kind == EntryKind.LATE)


def _adjust(kind: str, amount_nanos: int) -> Adjustment:
    return Adjustment(kind, amount_nanos, _NOTES[kind])


def _find_price(prices: dict[int, PriceVersion], version_id: int | None) -> Price | None:
    row = prices.get(version_id) if version_id is not None else None
    if row is None:
        return None
    return price_of_columns(vars(row))


def _note(row: APIRequest) -> str:
    if row.usage_source == UsageSource.NONE and row.state == RequestState.INTERRUPTED:
        return (
            "The gateway was lost before it had noted what this call produced: the hold was given "
            "back whole."
        )
    if row.usage_source == UsageSource.NONE:
        return "Nothing was produced for this call: the hold was given back whole."
    if row.usage_source == UsageSource.CHECKPOINT:
        return "The gateway was lost during this call: the last checkpoint of its usage counts."
    if row.usage_source == UsageSource.ESTIMATED and row.is_usage_suspect:
        return (
            "What the provider reported cannot be true: the gateway estimated the usage from what "
            "went through."
        )
    if row.usage_source == UsageSource.ESTIMATED:
        return "The provider reported no usage: the gateway estimated it from what went through."
    if row.is_usage_suspect:
        return "The usage that the provider reported contradicts itself."
    if row.charge_nanos > row.hold_nanos:
        return (
            "The provider reported more than was held: the rest came from the wallet, or is owed."
        )
    return ""
