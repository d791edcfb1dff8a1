"""Proves the ledger from its tables: sums, chains, holds, charges, and the anchors outside.

Each check reads one consistent view while the gateway goes on, a walk of everything one for every
span of its chains, and none is kept for longer. A verification looks at what no earlier one found
clean, or at everything (`is_full`). It changes nothing but its own notes (VerifiedHead): of each
chain that was clean, and where everything was verified only if all was.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import transaction

from apps.billing.added_checks import run_added_checks
from apps.billing.anchor_checks import AnchorMemory, check_anchors, read_promises
from apps.billing.attempt_checks import check_attempts
from apps.billing.chain_walks import Head, Walk, walk_entries, walk_requests
from apps.billing.findings import FINDINGS_MAX, Finding, Findings, one_view
from apps.billing.models import VerifiedHead
from apps.billing.new_rows import EVERYTHING, list_spans
from apps.billing.sum_checks import (
    check_accounts,
    check_holds,
    check_requests,
    check_transactions,
)

_HEADS_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification looked at and found."""

    is_full: bool
    entries: int  # links verified in the accounts' chains
    requests: int  # links verified in the incarnations' chains
    anchors: int  # lines of the anchor file
    findings: tuple[Finding, ...]
    omitted: int  # findings beyond the bound
    orphaned_holds: int  # of owners that are dead for too long

    @property
    def is_clean(self) -> bool:
        """Whether all is as it must be."""
        return not self.findings


def anchors_path() -> Path:
    """Return where this deployment keeps its anchors."""
    return Path(settings.DATA_DIR) / "anchors" / "anchors.jsonl"


def report(
    *,
    is_full: bool,
    anchors_path: Path,
    now: datetime,
    is_just_restored: bool = False,
    memory: AnchorMemory | None = None,
) -> Report:
    """Verify the ledger and return what was seen and found.

    Without `memory` all anchors are read, also where only what is new is verified. `now` judges
    leases on SQLite; PostgreSQL has a clock of its own. Holds of dead owners are no findings where
    the ledger was just restored.
    """
    findings = Findings(is_just_restored=is_just_restored)
    # Before the view: an anchor written after it names rows that the view does not show yet.
    promises = read_promises(anchors_path, findings, memory=memory, is_full=is_full)
    # The chains first: what is noted of them has also been seen by all checks that follow.
    entries, requests = Walk(), Walk()
    for within in list_spans("account") if is_full else [EVERYTHING]:
        with one_view():
            entries.add(walk_entries(findings, is_full=is_full, within=within))
    for within in list_spans("incarnation") if is_full else [EVERYTHING]:
        with one_view():
            requests.add(walk_requests(findings, is_full=is_full, within=within))
    with one_view():
        check_transactions(findings, is_full=is_full)
    with one_view():
        check_accounts(findings)
        check_holds(findings, now=now)
    with one_view():
        check_requests(findings, is_full=is_full)
    if is_full:
        with one_view():
            check_attempts(findings)
        run_added_checks(findings)
    with one_view():
        check_anchors(promises, findings)
    _note(_list_clean(entries.moved + requests.moved, findings, is_full=is_full), now)
    return Report(
        is_full=is_full,
        entries=entries.links,
        requests=requests.links,
        anchors=promises.lines,
        findings=tuple(findings.items),
        omitted=findings.omitted,
        orphaned_holds=findings.orphaned_holds,
    )


def _list_clean(heads: list[Head], findings: Findings, *, is_full: bool) -> list[Head]:
    """Return the heads of chains of which nothing was found.

    A chain with a finding is walked again by the next run, the others are not. Where findings may
    have been left out nothing is known of any chain.
    """
    if (is_full and findings.count) or findings.count >= FINDINGS_MAX:
        return []
    return [head for head in heads if (head.chain, head.chain_id) not in findings.doubted]


def _note(heads: list[Head], now: datetime) -> None:
    for start in range(0, len(heads), _HEADS_BATCH):
        part = heads[start : start + _HEADS_BATCH]
        # A run that began after this one has come further: a full one takes long.
        noted = {
            (chain, chain_id): sequence
            for chain, chain_id, sequence in VerifiedHead.objects.filter(
                chain__in=["account", "incarnation"],
                chain_id__in=[head.chain_id for head in part],
            ).values_list("chain", "chain_id", "sequence")
        }
        with transaction.atomic():
            VerifiedHead.objects.bulk_create(
                [
                    VerifiedHead(
                        chain=head.chain,
                        chain_id=head.chain_id,
                        sequence=head.sequence,
                        head=head.head,
                        verified_at=now,
                    )
                    for head in part
                    if head.sequence >= noted.get((head.chain, head.chain_id), 0)
                ],
                update_conflicts=True,
                unique_fields=["chain", "chain_id"],
                update_fields=["sequence", "head", "verified_at"],
            )
