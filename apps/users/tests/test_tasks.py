"""Sessions do not pile up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.users.models import Session
from apps.users.tasks import prune_sessions
from tests.support.people import make_user


@pytest.mark.django_db
def test_sessions_that_ended_long_ago_are_removed_and_others_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("apps.users.tasks.PRUNED_ROWS", 2)
    user = make_user()
    now = timezone.now()
    common = {"user": user, "refresh_id": "r", "auth_hash": "a", "ip_address": "", "user_agent": ""}
    for _ in range(3):
        Session.objects.create(expires_at=now - timedelta(days=31), **common)
    kept = Session.objects.create(expires_at=now - timedelta(days=29), **common)

    removed = prune_sessions()

    assert removed == 3
    assert list(Session.objects.all()) == [kept]
