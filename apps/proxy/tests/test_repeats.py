"""Who has an idempotency key, as far as the database tells."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from uuid import UUID

import pytest

from apps.audit.models import CallKey
from apps.billing.ledger.commands import Claim, KeyState
from apps.core.ids import new_uuid7
from apps.proxy import repeats

pytestmark = pytest.mark.usefixtures("committed_db")
CLAIM = Claim(7, b"d" * 32, b"f" * 32)


def make_key(expires_at: datetime | None) -> UUID:
    request_id = new_uuid7()
    CallKey.objects.create(
        request_id=request_id,
        user_id=CLAIM.user_id,
        digest=CLAIM.digest,
        fingerprint=CLAIM.fingerprint,
        created_at=datetime.now(UTC),
        expires_at=expires_at,
    )
    return request_id


class TwoDaysAhead(datetime):
    """The clock of a machine that is wrong."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> TwoDaysAhead:
        return super().now(tz) + timedelta(days=2)


def test_a_key_is_kept_for_its_time_by_the_database_s_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expires_at = datetime.now(UTC) + timedelta(minutes=1)
    first = make_key(expires_at)
    monkeypatch.setattr(repeats, "datetime", TwoDaysAhead, raising=False)

    assert repeats._find_first(CLAIM) == KeyState(first, CLAIM.fingerprint, expires_at)


def test_a_key_whose_time_is_up_is_free() -> None:
    make_key(datetime.now(UTC) - timedelta(minutes=1))

    assert repeats._find_first(CLAIM) is None


def test_a_key_whose_call_runs_is_taken() -> None:
    first = make_key(None)

    assert repeats._find_first(CLAIM) == KeyState(first, CLAIM.fingerprint, None)
