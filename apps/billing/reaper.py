"""Resolves holds that nobody will resolve any more: of dead owners, and of calls that never began.

A dead owner's call is charged by its last checkpoint, never above its hold; without a checkpoint
it is free, and so is its idempotency key. What its provider bills nobody knows. Whoever claims the
hold first decides; a later settlement by the real owner posts only the difference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import orjson

from apps.audit.models import RequestState
from apps.audit.records import request_row
from apps.billing.flushing import Flusher
from apps.billing.ledger.commands import (
    ClaimEnd,
    Held,
    PlaceHold,
    RepeatAnswer,
    Resolve,
    Resolved,
    Row,
)
from apps.billing.ledger.idempotency_keys import HAS_KEY
from apps.billing.ledger.store import Engine
from apps.billing.pricing import PriceIncomplete, charge_nanos, conditions_of, price_of_columns
from apps.core.usage import COUNTS, TOKEN_CLASSES, Usage

REAP_BATCH = 200
# In the detail of a hold: it is one of a quote, and waits so long for its call.
QUOTE_SECONDS = "quote_seconds"

logger = logging.getLogger(__name__)


def resolve_orphan(hold: Row, price_row: Row | None, *, now: datetime) -> Resolve:
    """Return the end of a dead owner's hold, given the row of its price version."""
    detail = orjson.loads(hold["detail"])
    usage = _checkpoint(hold["checkpoint"])
    charge = 0
    if usage.source == "checkpoint" and price_row is not None:
        started_at = datetime.fromisoformat(detail["started_at"])
        conditions = conditions_of(_tier(detail), started_at)
        try:
            price = price_of_columns(price_row)
            full = charge_nanos(usage, price, detail["multiplier_millionths"], conditions)
            charge = min(full, hold["amount_nanos"])
        except PriceIncomplete as error:
            # It must not keep the holds of all the others.
            logger.error("call %s is not charged: %s", hold["request_id"], error)
    return _end(hold, detail, usage, charge, RequestState.INTERRUPTED, "gateway_crashed", now)


def resolve_stranger(hold: Row, *, now: datetime) -> Resolve:
    """Return the void of a hold that its living owner does not know: nothing was sent under it."""
    detail = orjson.loads(hold["detail"])
    return _end(hold, detail, Usage(), 0, RequestState.VOIDED, "hold_abandoned", now)


def spend_quote(hold: Row, *, now: datetime) -> Resolve:
    """Return the end of a hold that was placed with a quote, in favour of the call that it was
    for.
    """
    detail = orjson.loads(hold["detail"])
    end = _end(hold, detail, Usage(), 0, RequestState.VOIDED, "quote_spent", now)
    return end._replace(row={**end.row, "status_code": 200})


def void(hold: PlaceHold, held: Held, *, state: str, error_code: str, now: datetime) -> Resolve:
    """Return the void of a hold whose caller no longer waits for it."""
    started_at: datetime = hold.detail["started_at"]
    row = request_row(
        hold.detail,
        request_id=hold.request_id,
        state=state,
        status_code=499 if state == RequestState.CLIENT_DISCONNECTED else 503,
        error_code=error_code,
        usage=Usage(),
        cost_nanos=0,
        hold_nanos=held.amount_nanos,
        duration_ms=max(0, int((now - started_at).total_seconds() * 1000)),
        service_tier=_tier(hold.detail),
    )
    return Resolve(
        request_id=hold.request_id,
        wallet_id=hold.detail["wallet_id"],
        receivable_id=hold.receivable_id,
        legs=held.legs,
        counters=held.counters,
        charge_nanos=0,
        row=row,
        claim_end=None if hold.claim is None else ClaimEnd(hold.claim, None),
    )


def list_dead(engine: Engine, *, own_id: int, all_others: bool) -> list[int]:
    """End the leases that ran out and return the ended incarnations that still hold money.

    Committed before any of their holds is touched: from then on the owner, should it wake up,
    cannot place another hold under the old lease.
    """
    with engine.transaction():
        return engine.end_expired(but=own_id, all_others=all_others, seen=None)


def list_silent(engine: Engine, *, wait: Callable[[], None]) -> list[int]:
    """Do as `list_dead` does, and leave the leases that are renewed while `wait` takes its time.

    For who cannot know since when the database has been there: after an outage all have run out,
    those of the living, too.
    """
    expired = engine.list_expired()
    if expired:
        wait()
    with engine.transaction():
        return engine.end_expired(but=0, all_others=False, seen=expired)


def resolve_dead(engine: Engine, incarnation_id: int, *, now: datetime) -> list[Resolve]:
    """Return the ends of at most REAP_BATCH holds of a dead incarnation."""
    holds = engine.orphans(incarnation_id, REAP_BATCH)
    details = [orjson.loads(hold["detail"]) for hold in holds]
    prices = engine.price_rows({detail["price_version_id"] for detail in details})
    return [
        resolve_orphan(hold, prices.get(detail["price_version_id"]), now=now)
        for hold, detail in zip(holds, details, strict=True)
    ]


def resolve_all(
    engine: Engine,
    flusher: Flusher,
    dead: Sequence[int],
    *,
    now: datetime,
    between: Callable[[], None] | None = None,
) -> int:
    """Resolve the holds of dead incarnations and return how many.

    `now` only stamps their rows; `between` is called after each batch. What the database does
    not take is left for the next time.
    """
    resolved = 0
    for incarnation_id in dead:
        while ends := resolve_dead(engine, incarnation_id, now=now):
            outcomes, _ = flusher.flush(ends, [])
            done = sum(isinstance(outcome, Resolved) for outcome in outcomes)
            resolved += done
            logger.warning("resolved %d holds of dead incarnation %d", done, incarnation_id)
            if done < len(ends):
                break
            if between is not None:
                between()
    return resolved


def _checkpoint(text: str | None) -> Usage:
    if not text:
        return Usage()
    counts: dict[str, Any] = orjson.loads(text)
    names = (*TOKEN_CLASSES, *COUNTS)
    return Usage(**{name: counts.get(name, 0) for name in names}, source="checkpoint")


def _tier(detail: Row) -> str:
    """Return the service tier that a call asked for. Holds of older gateways name none."""
    return str(detail.get("service_tier", ""))


def _end(
    hold: Row, detail: Row, usage: Usage, charge: int, state: str, error_code: str, now: datetime
) -> Resolve:
    started_at = datetime.fromisoformat(detail["started_at"])
    # The call of a quote's hold comes under a hold of its own.
    is_unsent = state == RequestState.VOIDED or QUOTE_SECONDS in detail
    row = request_row(
        detail,
        request_id=hold["request_id"],
        state=state,
        status_code=499 if state == RequestState.INTERRUPTED else 503,
        error_code=error_code,
        usage=usage,
        cost_nanos=0 if is_unsent else None,
        hold_nanos=hold["amount_nanos"],
        duration_ms=max(0, int((now - started_at).total_seconds() * 1000)),
        service_tier=_tier(detail),
    )
    return Resolve(
        request_id=hold["request_id"],
        wallet_id=detail["wallet_id"],
        receivable_id=detail["receivable_id"],
        legs=tuple((leg[0], leg[1]) for leg in orjson.loads(hold["legs"])),
        counters=tuple(orjson.loads(hold["counters"])),
        charge_nanos=charge,
        row=row,
        claim_end=_claim_end(charge, row["status_code"]) if detail.get(HAS_KEY) else None,
    )


def _claim_end(charge: int, status_code: int) -> ClaimEnd:
    """Let a key go that has cost nothing; what was charged is not made a second time."""
    return ClaimEnd(None, RepeatAnswer(status_code, "[]", None) if charge else None)


def held_of(row: Row) -> Held:
    """Return the answer that a hold's row stands for."""
    return Held(
        request_id=row["request_id"],
        amount_nanos=row["amount_nanos"],
        legs=tuple((leg[0], leg[1]) for leg in orjson.loads(row["legs"])),
        counters=tuple(orjson.loads(row["counters"])),
    )
