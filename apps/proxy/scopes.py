"""What limits a thing, by the name under which its use is counted. Pure."""

from __future__ import annotations

from apps.billing.ledger.commands import Cap, CapScope
from apps.quotas.limits import Scope


def scope_of(name: str, rpm: int | None, tpm: int | None, concurrency: int | None) -> Scope | None:
    """Return what limits a thing, None where nothing does."""
    if rpm is None and tpm is None and concurrency is None:
        return None
    return Scope(name, rpm, tpm, concurrency)


def cap_of(scope: CapScope, scope_id: int, nanos: int | None) -> Cap | None:
    """Return what a thing may spend in all, None where it may spend anything."""
    return None if nanos is None else Cap(scope, scope_id, nanos)
