"""Calls that may come twice: the same idempotency key is carried out once.

The row of a key is locked while its call does a piece of work, in the same transaction: two calls
with one key at once take turns, and one that broke off is completed by the next with its key. After
KEPT a key is forgotten: the same one is a new call then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from apps.core.domain_errors import DomainError
from apps.core.idempotency_keys import IdempotencyKeyReused
from apps.core.pieces import leave_to_others
from apps.quotas.models import RepeatKey

# Far longer than any client repeats a call.
KEPT: Final = timedelta(days=90)
# A row may name thousands of users.
PRUNE_ROWS: Final = 50
_PRUNE_PIECES_MAX: Final = 2_000


class IdempotencyKeyMissing(DomainError):
    """A call that may break off halfway came without a key."""

    code = "idempotency_key_required"
    message = "Send an Idempotency-Key header: with it this call can be repeated safely."


class ResultGone(DomainError):
    """What the first call made has been deleted since."""

    status_code = 409
    code = "idempotent_result_unavailable"
    message = "What the first call with this idempotency key made has been deleted."


@dataclass(frozen=True, slots=True)
class Repeat:
    """A key, made unique by caller and action, and the digest of the body that came with it."""

    key: str
    digest: str


def make_repeat(*, given: str, action: str, actor_id: int, body: Any) -> Repeat:
    """Return what an idempotency key stands for in one action of one caller."""
    key = hashlib.sha256(given.encode()).hexdigest()
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return Repeat(f"{action}:{actor_id}:{key}", hashlib.sha256(text.encode()).hexdigest())


def find_claimed(repeat: Repeat) -> RepeatKey | None:
    """Return the row of a key that came before, None for a new one. Raises IdempotencyKeyReused."""
    row = RepeatKey.objects.filter(key=repeat.key).first()
    if row is not None and row.digest != repeat.digest:
        raise IdempotencyKeyReused
    return row


def claim(repeat: Repeat, subjects: Sequence[int]) -> RepeatKey:
    """Return the row of this key, locked until the transaction ends; a new one the first time.

    Raises IdempotencyKeyReused.
    """
    # A key that is forgotten while this waits for its row is new the second time.
    row = _lock(repeat, subjects) or _lock(repeat, subjects)
    if row is None:
        raise RepeatKey.DoesNotExist
    if row.digest != repeat.digest:
        raise IdempotencyKeyReused
    return row


def _lock(repeat: Repeat, subjects: Sequence[int]) -> RepeatKey | None:
    made, _ = RepeatKey.objects.get_or_create(
        key=repeat.key, defaults={"digest": repeat.digest, "subjects": list(subjects)}
    )
    return RepeatKey.objects.select_for_update().filter(pk=made.pk).first()


def prune(*, now: datetime) -> int:
    """Delete the keys that are older than KEPT, some at a time, and return how many there were."""
    deleted = 0
    for _ in range(_PRUNE_PIECES_MAX):
        # In the order in which they came: the table is never read far.
        rows = RepeatKey.objects.filter(created_at__lt=now - KEPT).order_by("pk")[:PRUNE_ROWS]
        keys = list(rows.values_list("pk", flat=True))
        if not keys:
            break
        deleted += RepeatKey.objects.filter(pk__in=keys).delete()[0]
        leave_to_others()
    return deleted
