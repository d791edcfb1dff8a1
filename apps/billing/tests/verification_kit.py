"""What tests of the verification share: a ledger with a bit of everything, and what is found."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from apps.billing.findings import Finding
from apps.billing.ledger.commands import Cap, Held
from apps.billing.ledger.store import Engine
from apps.billing.verification import report
from tests.support.world import DOLLAR, Gateway, make_quota, make_world, top_up


def make_busy_gateway(connect: Callable[[], Engine]) -> Gateway:
    """Return a gateway that has settled three calls, one of them in debt, and has an open hold."""
    world = make_world(wallet_nanos=1_000)
    quota_id = make_quota(world, 300)
    gateway = Gateway(world, connect())
    for nanos, tokens in ((500, 1), (200, 0)):
        held = gateway.hold(nanos, quotas=(quota_id,), caps=(Cap("api_key", world.key.pk, DOLLAR),))
        assert isinstance(held, Held)
        gateway.resolve(held, tokens)
    top_up(world, 2_000)
    gateway.hold(700, caps=(Cap("api_key", world.key.pk, DOLLAR),))
    return gateway


def find(*, is_full: bool = True, anchors_path: Path = Path("/nonexistent")) -> list[Finding]:
    return list(report(is_full=is_full, anchors_path=anchors_path, now=datetime.now(UTC)).findings)
