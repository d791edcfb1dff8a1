"""Rests of routes in the database: what gateways tell each other, and what health checks end.

Everything here blocks. Times are the database's, since the clocks of gateways differ.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import connection
from django.db.models import Q
from django.utils import timezone

from apps.core.pieces import delete_in_pieces
from apps.proxy.circuit import Door
from apps.proxy.models import CircuitRest

# Far more than any installation has in trouble at once.
READ_MAX: Final = 1_000
# How long what is known of checks outlasts the rest.
KEPT: Final = timedelta(hours=1)
# Of those, in one transaction and in one run.
_PRUNED_ROWS: Final = 1_000
_PRUNED_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Rest:
    """A rest that this process decided on; `seconds` are from when it is written."""

    door: Door
    provider_id: int
    reason: str
    seconds: float
    openings: int


@dataclass(frozen=True, slots=True)
class SeenRest:
    """A rest that is in force in the database."""

    door: Door
    began_at: datetime  # tells one rest of a door from the next
    seconds_left: float
    openings: int


def write_rests(*, begun: Sequence[Rest], ended: Collection[Door]) -> None:
    """Write what began here, and end what ended here."""
    if not begun and not ended:
        return
    now = database_now()
    for rest in begun:
        route_id, key_id = rest.door
        CircuitRest.objects.update_or_create(
            route_id=route_id,
            provider_key_id=key_id,
            defaults={
                "provider_id": rest.provider_id,
                "reason": rest.reason,
                "openings": rest.openings,
                "began_at": now,
                "ends_at": now + timedelta(seconds=rest.seconds),
            },
        )
    for route_id, key_id in ended:
        end_rests(Q(route_id=route_id, provider_key_id=key_id), now=now)


def read_rests() -> list[SeenRest]:
    """Return the rests that are in force."""
    rows = list(CircuitRest.objects.order_by("-ends_at")[:READ_MAX])
    if not rows:
        return []
    now = database_now()
    return [
        SeenRest(
            (row.route_id, row.provider_key_id),
            row.began_at,
            (row.ends_at - now).total_seconds(),
            row.openings,
        )
        for row in rows
        if row.ends_at > now
    ]


def end_rests(which: Q, *, now: datetime) -> int:
    """End rests before their time, so that the next call of every gateway is a probe."""
    return CircuitRest.objects.filter(which, ends_at__gt=now).update(ends_at=now)


def prune_rests(*, now: datetime) -> int:
    """Forget rests that ended long ago, some at a time, and return how many there were."""
    rows = CircuitRest.objects.filter(ends_at__lt=now - KEPT).order_by("ends_at")
    return delete_in_pieces(rows, size=_PRUNED_ROWS, rows_max=_PRUNED_MAX)


def database_now() -> datetime:
    """Return the database's clock; SQLite's is this machine's."""
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: tuple[datetime] = cursor.fetchone()
    return found[0]
