"""Which encryption keys are still needed: for provider keys, and for the signatures of anchors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from django.conf import settings

from apps.core.crypto import key_id, parse_encryption_keys
from apps.providers.rotation import count_keys_in_use

_LINE_BYTES_MAX: Final = 4 << 20


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


def _count_signatures(path: Path) -> Counter[str]:
    """Return key id → lines of the anchor file signed with it."""
    counts: Counter[str] = Counter()
    if not path.exists():
        return counts
    with path.open("rb") as file:
        while line := file.readline(_LINE_BYTES_MAX):
            try:
                counts[str(orjson.loads(line)["key"])] += 1
            except (orjson.JSONDecodeError, KeyError, TypeError):
                continue  # A torn or damaged line; verify_ledger reports it.
    return counts
