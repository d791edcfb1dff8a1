"""Which encryption keys are still needed: for provider keys, and for the signatures of anchors.

An anchor of an old key needs it until a line of the first key vouches for it (see `anchors`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.db import transaction

from apps.audit.events import record_event
from apps.billing.anchor_checks import read_promises
from apps.billing.anchors import append_anchor, read_anchors
from apps.billing.findings import Finding, Findings
from apps.billing.strangers import Strangers
from apps.core.crypto import key_id, parse_encryption_keys
from apps.providers.rotation import count_keys_in_use, first_key_id


class AnchorsUnsound(Exception):
    """The anchors cannot be vouched for: something is wrong with them. Nothing was written."""

    def __init__(self, first: Finding, count: int) -> None:
        super().__init__(
            f"The anchors do not verify ({count} findings, the first: {first}), so no line vouches "
            "for them and the keys that signed them stay needed. Run verify_ledger --full."
        )


@dataclass(frozen=True, slots=True)
class KeyUse:
    """One encryption key and what depends on it. `place` counts from 0, None: not at hand."""

    key: str
    place: int | None
    provider_keys: int
    anchors: int


def list_key_uses(anchors: Path) -> list[KeyUse]:
    """Return every encryption key that is at hand or depended on, those at hand first."""
    at_hand = [key_id(key) for key in parse_encryption_keys(settings.ENCRYPTION_KEY)]
    sealed, signed = count_keys_in_use(), _count_signatures(anchors)
    strangers = sorted((sealed.keys() | signed.keys()) - set(at_hand))
    return [
        KeyUse(name, at_hand.index(name) if name in at_hand else None, sealed[name], signed[name])
        for name in [*dict.fromkeys(at_hand), *strangers]
    ]


def vouch_for_anchors(path: Path, *, now: datetime) -> int:
    """Sign with the first key that the anchors are sound, where one needs another key.

    Return the number of the last line that is vouched for, 0 where none needs it. Verifies all of
    them before, with all keys at hand: what an unknown key signed is never vouched for by the way.
    Raises AnchorsUnsound, and AnchorsBusy.
    """
    if not _count_signatures(path).keys() - {first_key_id()}:
        return 0
    findings = Findings()
    promises = read_promises(path, findings, is_looked_up=False)
    if findings.items:
        raise AnchorsUnsound(findings.items[0], len(findings.items) + findings.omitted)
    number, digest = promises.last
    append_anchor(path, now, vouched=promises.last)
    with transaction.atomic():
        record_event(
            actor=None,
            action="anchors.vouched",
            subject=None,
            after={"encryption_key": first_key_id(), "last": number, "digest": digest.hex()},
            reason="rotate_encryption_key",
        )
    return number


def _count_signatures(path: Path) -> Counter[str]:
    """Return key id → lines of the anchor file that would not be believed without it."""
    first = parse_encryption_keys(settings.ENCRYPTION_KEY)[0]
    counts: Counter[str] = Counter()
    strangers = Strangers()
    for anchor in read_anchors(path, keys=[first]):
        if anchor.key == key_id(first):
            counts[anchor.key] += 1
        for run in strangers.take(anchor):
            counts[run.key] += run.lines
    for run in strangers.end():
        counts[run.key] += run.lines
    return counts
