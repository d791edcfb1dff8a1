"""What providers bill for the attempts of a call, in nanos. Pure.

The client pays once, for the answer; a provider may bill an attempt that led to nothing, too. An
attempt's cost is None where nobody told it: a wait that was given up, an answer that was cut off
before it said anything about usage.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from apps.audit.records import Row
from apps.billing.pricing import (
    MULTIPLIER_ONE,
    USUAL,
    Conditions,
    PriceIncomplete,
    charge_nanos,
    conditions_of,
)
from apps.core.price_terms import tier_name
from apps.core.usage import Usage
from apps.proxy.snapshot import Route


def cost_nanos(
    usage: Usage,
    route: Route,
    conditions: Conditions,
    started_at: datetime,
    *,
    served: str | None = None,
) -> int | None:
    """Return what the route's provider bills for `usage`, None where its price is not known.

    It is where nobody has told all of it: the call ends all the same. `served` is the service tier
    that the provider says it served: it bills that one, whatever the client is charged by.
    """
    if usage.source == "none":
        return 0
    price = route.costs.at(started_at)
    if price is None:
        return None
    at = USUAL
    if price.terms is not None:
        tier = "" if served is None else tier_name(served)
        is_named = served is not None and (not tier or price.terms.find_service(tier) is not None)
        at = conditions_of(tier if is_named else conditions.service_tier, started_at)
    try:
        return charge_nanos(usage, price, MULTIPLIER_ONE, at)
    except PriceIncomplete:
        return None


def sum_up(attempts: Sequence[Row], own_nanos: int | None, *, is_known: bool) -> int | None:
    """Return what all attempts of a call cost, and note in the last one what it did.

    `is_known`: that one was answered, or told its usage. What others cost that did not tell is
    left out; None where the price of the answer is not known.
    """
    if not attempts:
        return own_nanos
    if is_known:
        attempts[-1]["cost_nanos"] = own_nanos
    if own_nanos is None:
        return None
    return sum(attempt["cost_nanos"] or 0 for attempt in attempts)
