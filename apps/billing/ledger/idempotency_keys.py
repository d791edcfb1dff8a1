"""Who has an idempotency key: claims that commit with holds and end with them. Pure.

A claim and its hold are written by one transaction and ended by one, so a key is never taken by a
call that is not on record, and never free while one runs. All claims of a user lock his wallet
first, so of two at once the second sees the first.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from apps.audit.idempotency_keys import KEPT
from apps.billing.ledger.commands import Changes, Claim, KeyState, RepeatAnswer, Resolve, Row, State

# In the detail of a hold: whoever ends it has to end a claim as well.
HAS_KEY: Final = "has_key"


def find_first(claim: Claim, now: datetime, state: State) -> KeyState | None:
    """Return who has a key; nobody has it when its time is up."""
    found = state.keys.get(claim.key_id)
    if found is None or (found.expires_at is not None and found.expires_at <= now):
        return None
    return found


def take_key(claim: Claim, request_id: UUID, now: datetime, state: State, changes: Changes) -> None:
    """Give a key that nobody has to a call that begins."""
    expired = state.keys.get(claim.key_id)
    if expired is not None:
        changes.freed_keys.append(expired.request_id)
    state.keys[claim.key_id] = KeyState(request_id, claim.fingerprint, None)
    changes.keys.append(_row(claim, request_id, now))


def end_claim(resolve: Resolve, now: datetime, state: State, changes: Changes) -> None:
    """Keep the answer of a call that ends, or let its key go."""
    end = resolve.claim_end
    assert end is not None  # noqa: S101 (narrows the type)
    # Holds of this very batch see it.
    mine = next(
        (key for key, found in state.keys.items() if found.request_id == resolve.request_id), None
    )
    if end.answer is None:
        changes.freed_keys.append(resolve.request_id)
        if mine is not None:
            del state.keys[mine]
        return
    changes.answered_keys.append(_answered(resolve.request_id, end.answer, now))
    if mine is not None:
        state.keys[mine] = state.keys[mine]._replace(expires_at=now + KEPT)


def take_back(resolve: Resolve, now: datetime, state: State, changes: Changes) -> bool:
    """Return whether a call is to be charged late; its key is taken back where it was let go.

    Not where another call has it that asks for the same: that one was this one's repeat.
    """
    end = resolve.claim_end
    assert end is not None  # noqa: S101 (narrows the type)
    if end.claim is None or end.answer is None:
        return True
    found = state.keys.get(end.claim.key_id)
    if found is not None and found.request_id != resolve.request_id:
        return found.fingerprint != end.claim.fingerprint
    if found is None:
        changes.keys.append(
            _row(end.claim, resolve.request_id, now)
            | _answered(resolve.request_id, end.answer, now)
        )
    else:
        changes.answered_keys.append(_answered(resolve.request_id, end.answer, now))
    state.keys[end.claim.key_id] = KeyState(resolve.request_id, end.claim.fingerprint, now + KEPT)
    return True


def _row(claim: Claim, request_id: UUID, now: datetime) -> Row:
    return {
        "request_id": request_id,
        "user_id": claim.user_id,
        "digest": claim.digest,
        "fingerprint": claim.fingerprint,
        "status_code": None,
        "headers": "",
        "body": None,
        "created_at": now,
        "expires_at": None,
    }


def _answered(request_id: UUID, answer: RepeatAnswer, now: datetime) -> Row:
    return {
        "request_id": request_id,
        "status_code": answer.status_code,
        "headers": answer.headers,
        "body": answer.body,
        "expires_at": now + KEPT,
    }
