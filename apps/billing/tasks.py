"""Periodic work of the ledger that no gateway has to be alive for. Scheduled in
`auditing.celery`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from datetime import UTC, datetime
from functools import partial

from celery import shared_task
from django.conf import settings
from django.db import connection

from apps.billing import reaper
from apps.billing.anchor_checks import AnchorMemory
from apps.billing.anchors import append_anchor
from apps.billing.connections import connect
from apps.billing.flushing import Flusher
from apps.billing.full_runs import note_full_run
from apps.billing.idempotency_keys import end_orphaned_keys as end_orphans
from apps.billing.ledger.store import Engine
from apps.billing.proof import is_full_due, record_verification
from apps.billing.proposals import expire_adjustments as expire
from apps.billing.sole_runs import Kind, sole_run
from apps.billing.verification import anchors_path, report

LEASE_SECONDS = 120
# Longer than gateways need to renew their leases when the database is back: they try to connect
# every quarter of a second, for two seconds each time.
GRACE_SECONDS = 15

logger = logging.getLogger(__name__)

# Of this worker: its first verification reads all anchors, later ones what is new.
_anchor_memory = AnchorMemory()


@shared_task(name="billing.anchor_heads")
def anchor_heads() -> None:
    """Sign the heads of all chains and append them to the anchor file."""
    append_anchor(settings.DATA_DIR / "anchors" / "anchors.jsonl", now=datetime.now(UTC))


@shared_task(name="billing.reap")
def reap() -> int:
    """Resolve the holds of gateways whose lease ran out and return how many there were.

    On SQLite the only gateway does this itself when it starts.
    """
    if connection.vendor == "sqlite":
        return 0
    engine = connect()
    try:
        dead = reaper.list_silent(engine, wait=partial(_give_time, engine))
        if not dead:
            return 0
        flusher = Flusher(engine)
        lease = engine.open_incarnation(
            kind="worker", host=socket.gethostname(), pid=os.getpid(), lease_seconds=LEASE_SECONDS
        )
        flusher.use_lease(lease)
        resolved = reaper.resolve_all(engine, flusher, dead, now=datetime.now(UTC))
        flusher.end_lease()
        return resolved
    finally:
        engine.close()


def _give_time(engine: Engine) -> None:
    """Let GRACE_SECONDS pass in which the database answers. Raises what the database raises."""
    for _ in range(GRACE_SECONDS):
        time.sleep(1.0)
        engine.ping()


@shared_task(name="billing.end_orphaned_keys")
def end_orphaned_keys() -> int:
    """End claims on idempotency keys that were left over and return how many there were."""
    ended = end_orphans(now=datetime.now(UTC))
    if ended:
        logger.warning("%d idempotency keys had no hold any more", ended)
    return ended


@shared_task(name="billing.expire_adjustments")
def expire_adjustments() -> int:
    """End adjustments that waited too long for a second administrator; return how many."""
    return expire()


@shared_task(name="billing.verify_recent")
def verify_recent() -> int:
    """Verify what is new in the ledger, log every finding and return their number."""
    return _verify("recent")


@shared_task(name="billing.verify_full")
def verify_full() -> int:
    """Verify the whole ledger if that is due, log every finding and return their number."""
    return _verify("full")


def _verify(kind: Kind) -> int:
    with sole_run(kind) as is_ours:
        started_at = datetime.now(UTC)
        # Else another worker, or an earlier run, is at it.
        if not is_ours or (kind == "full" and not is_full_due(started_at)):
            return 0
        found = report(
            is_full=kind == "full",
            anchors_path=anchors_path(),
            now=started_at,
            memory=_anchor_memory,
        )
        for finding in found.findings:
            logger.critical("the ledger is off: %s", finding)
        record_verification(
            found, started_by="schedule", started_at=started_at, finished_at=datetime.now(UTC)
        )
        if kind == "full":
            note_full_run(started_at)
        return len(found.findings)
