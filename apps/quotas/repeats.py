"""Calls that may come twice: the same idempotency key is carried out once.

The row of a key is locked while its call does a piece of work, in the same transaction: two calls
with one key at once take turns, and one that broke off is completed by the next with its key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from apps.core.domain_errors import DomainError
from apps.quotas.models import RepeatKey

KEY_LENGTH_MAX: Final = 255


class RepeatKeyReused(DomainError):
    """The same key came again with another body."""

    status_code = 422
    code = "idempotency_key_reused"
    message = "This idempotency key was used with another body."


class RepeatKeyMalformed(DomainError):
    """The key is too long or holds what cannot be printed."""

    code = "invalid_idempotency_key"
    message = f"An idempotency key is 1 to {KEY_LENGTH_MAX} printable ASCII characters."


class RepeatKeyMissing(DomainError):
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


def find_repeat(*, header: str | None, action: str, actor_id: int, body: Any) -> Repeat | None:
    """Return what an Idempotency-Key header says, None without one. Raises RepeatKeyMalformed."""
    if header is None:
        return None
    if not (0 < len(header) <= KEY_LENGTH_MAX and header.isascii() and header.isprintable()):
        raise RepeatKeyMalformed
    key = hashlib.sha256(header.encode()).hexdigest()
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return Repeat(f"{action}:{actor_id}:{key}", hashlib.sha256(text.encode()).hexdigest())


def claim(repeat: Repeat, subjects: Sequence[int]) -> RepeatKey:
    """Return the row of this key, locked until the transaction ends; a new one the first time.

    Raises RepeatKeyReused.
    """
    made, _ = RepeatKey.objects.get_or_create(
        key=repeat.key, defaults={"digest": repeat.digest, "subjects": list(subjects)}
    )
    row = RepeatKey.objects.select_for_update().get(pk=made.pk)
    if row.digest != repeat.digest:
        raise RepeatKeyReused
    return row
