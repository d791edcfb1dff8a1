"""What proves the ledger, as far as it is known without verifying anew: the last verifications, how
far the chains are verified, and the last anchor.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from django.db import transaction
from django.db.models import Count, Q, QuerySet, Sum

from apps.billing.anchors import NOTE, LastAnchor, find_last_anchor
from apps.billing.full_runs import find_full_run
from apps.billing.models import Account, Incarnation, Verification, VerifiedHead
from apps.billing.verification import Report

FINDINGS_TEXT_MAX: Final = 2_000
# Verifications of what is new that found nothing are kept for this long; all others for ever.
CLEAN_DAYS: Final = 30
# How often the schedule verifies everything.
FULL_PERIOD: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Chains:
    """How far the chains of one kind are verified."""

    chains: int  # that have a link
    links: int
    verified_links: int

    @property
    def unverified_links(self) -> int:
        """Return the links that came after the last clean verification."""
        return max(0, self.links - self.verified_links)


@dataclass(frozen=True, slots=True)
class AnchorNote:
    """What the database remembers of the last anchor."""

    number: int
    digest: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known. `anchor` is None where this process cannot read the anchor file."""

    last: Verification | None
    last_full: Verification | None
    accounts: Chains
    requests: Chains
    anchor: LastAnchor | None
    anchor_note: AnchorNote | None

    @property
    def is_anchor_noted(self) -> bool | None:
        """Return whether the file goes on to where the database remembers it; None where one of
        them is missing.
        """
        if self.anchor is None or self.anchor_note is None:
            return None
        # One line may have come after the note was read.
        return self.anchor_note.digest in (self.anchor.digest, self.anchor.previous)


def record_verification(
    report: Report,
    *,
    started_by: Literal["schedule", "command"],
    started_at: datetime,
    finished_at: datetime,
) -> Verification:
    """Note what a verification found, and forget old ones that found nothing."""
    text = "\n".join(str(finding) for finding in report.findings)
    with transaction.atomic():
        Verification.objects.filter(
            is_full=False, finding_count=0, finished_at__lt=finished_at - timedelta(days=CLEAN_DAYS)
        ).delete()
        return Verification.objects.create(
            started_at=started_at,
            finished_at=finished_at,
            is_full=report.is_full,
            started_by=started_by,
            entries=report.entries,
            requests=report.requests,
            anchors=report.anchors,
            finding_count=len(report.findings) + report.omitted,
            findings=text.replace("\x00", "")[:FINDINGS_TEXT_MAX],
        )


def is_full_due(now: datetime) -> bool:
    """Return whether the schedule has not verified everything for a day.

    Not counted by whoever schedules, who forgets it when he starts anew. Both have to know of a
    run: the database, which all workers share, and DATA_DIR, which it cannot write.
    """
    began_after = now - FULL_PERIOD
    own = find_full_run()
    # One of the future tells of a clock that was ahead, and nothing about today.
    if own is None or not began_after < own <= now:
        return True
    return not Verification.objects.filter(
        is_full=True, started_by="schedule", started_at__gt=began_after, started_at__lte=now
    ).exists()


def read_proof(anchors_path: Path) -> Proof:
    """Return what is known now."""
    verified = dict(
        VerifiedHead.objects.filter(chain__in=["account", "incarnation"])
        .values("chain")
        .annotate(links=Sum("sequence"))
        .order_by()
        .values_list("chain", "links")
    )
    # Before the file, which only grows.
    note = VerifiedHead.objects.filter(chain=NOTE, chain_id=0).first()
    anchor = find_last_anchor(anchors_path)
    return Proof(
        last=Verification.objects.order_by("-pk").first(),
        last_full=Verification.objects.filter(is_full=True).order_by("-pk").first(),
        accounts=_chains(Account.objects.all(), int(verified.get("account", 0))),
        requests=_chains(Incarnation.objects.all(), int(verified.get("incarnation", 0))),
        anchor=anchor,
        anchor_note=AnchorNote(note.sequence, bytes(note.head), note.verified_at) if note else None,
    )


def _chains(owners: QuerySet[Account] | QuerySet[Incarnation], verified_links: int) -> Chains:
    found = owners.aggregate(
        chains=Count("pk", filter=Q(sequence__gt=0)), links=Sum("sequence", default=0)
    )
    return Chains(found["chains"], int(found["links"]), verified_links)
