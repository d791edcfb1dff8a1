"""What the failure of an attempt means for its route."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from apps.core.errors import GatewayError
from apps.proxy.snapshot import Route

if TYPE_CHECKING:
    from apps.proxy.gateway import Gateway

# What says nothing about whether the route works.
BLAMELESS_ROWS: Final = frozenset({"E40", "E45"})

logger = logging.getLogger(__name__)


def blame(gateway: Gateway, route: Route, error: GatewayError) -> None:
    """Count a failed attempt against its route, where the route is to blame."""
    if error.row in BLAMELESS_ROWS:
        gateway.circuits.succeed(route.id)
    elif error.row == "E37":
        gateway.circuits.abandon(route.id)  # Our own limit: it was not asked.
    elif error.row == "E43":
        gateway.circuits.rest(route.id, gateway.monotonic(), error.retry_after or 1)
    else:
        count_failure(gateway, route, error.code)


def count_failure(gateway: Gateway, route: Route, code: str) -> None:
    """Count a failure of a route, and say so where it is one too many."""
    seconds = gateway.circuits.fail(route.id, gateway.monotonic())
    if seconds:
        logger.warning(
            "route %d to provider %s rests for %d s: %s",
            route.id,
            route.provider.name,
            seconds,
            code,
        )
