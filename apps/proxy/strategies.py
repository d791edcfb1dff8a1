"""How the routes of one priority are ordered for a call. Pure.

The priority always comes first. Inside one, a sticky key counts before the model's strategy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Final

from apps.billing.pricing import (
    MULTIPLIER_ONE,
    PriceIncomplete,
    conditions_of,
    worst_case_nanos,
)
from apps.proxy.admission import Plan
from apps.proxy.latency import Latencies
from apps.proxy.snapshot import Route
from apps.proxy.stickiness import rank_by_key

# One call in so many goes by weight alone, so that a route that became quick is noticed.
EXPLORING_SHARE: Final = 0.02

Rank = Callable[[Route], float]


def find_rank(
    plan: Plan,
    *,
    sticky_key: bytes | None,
    latencies: Latencies,
    draw_at: float,
    started_at: datetime,
    now: float,
) -> Rank | None:
    """Return what orders routes, lowest first; None where weights alone do.

    `started_at` says which costs count, `now` is monotonic.
    """
    if sticky_key is not None:
        key = sticky_key
        return lambda route: rank_by_key(key, route.id, route.weight)
    strategy = plan.model.strategy
    if strategy == "least_cost":
        return lambda route: cost_bound(plan, route, started_at)
    if strategy == "least_latency" and draw_at >= EXPLORING_SHARE:
        is_stream = plan.request.is_stream
        return lambda route: latencies.rank(route.id, is_stream, now)
    return None


def cost_bound(plan: Plan, route: Route, moment: datetime) -> float:
    """Return the most that the provider bills for the call in the service tier that it asks for,
    infinity where that is not known.
    """
    price = route.costs.at(moment)
    if price is None:
        return math.inf
    try:
        return worst_case_nanos(
            plan.input_bound,
            (plan.output_bound + plan.request.beside_bound) * plan.request.choices,
            price,
            MULTIPLIER_ONE,
            is_text_only=plan.is_text_only,
            conditions=conditions_of(plan.request.service_tier, moment),
            count_bounds=plan.count_bounds,
            # The hold has to cover both; which is cheaper is told by what was asked for.
            is_served_as_asked=True,
        )
    except PriceIncomplete:
        return math.inf
