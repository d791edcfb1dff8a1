"""Sessions do not pile up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.users.models import Session
from apps.users.tasks import prune_sessions
from tests.support.people import make_user


@pytest.mark.django_db
def test_sessions_that_ended_long_ago_are_removed_and_others_stay() -> None:
    user = make_user()
    now = timezone.now()
    common = {"user": user, "refresh_id": "r", "auth_hash": "a", "ip_address": "", "user_agent": ""}
    Session.objects.create(expires_at=now - timedelta(days=31), **common)
    kept = Session.objects.create(expires_at=now - timedelta(days=29), **common)

    removed = prune_sessions()

    assert removed == 1
    assert list(Session.objects.all()) == [kept]
