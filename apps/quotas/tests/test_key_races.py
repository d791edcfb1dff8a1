"""Many changes of one user's keys at once, each on a connection of its own."""

from __future__ import annotations

import pytest

from apps.api_keys import changes as key_changes
from apps.api_keys.models import APIKey
from tests.support.people import make_user, rest_client
from tests.support.races import CROWD, at_once

pytestmark = pytest.mark.usefixtures("committed_db")


def test_eight_new_keys_at_once_stay_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_changes, "ACTIVE_KEYS_MAX", 3)
    client = rest_client(make_user())

    codes = at_once(
        CROWD, lambda number: client.post("/api/user/keys/", {"name": f"{number}"}).status_code
    )

    assert sorted(codes) == [201] * 3 + [409] * (CROWD - 3)
    assert APIKey.objects.count() == 3


def test_eight_refreshes_at_once_leave_one_default_key() -> None:
    client = rest_client(make_user())

    codes = at_once(CROWD, lambda number: client.post("/api/auth/refresh-key/").status_code)

    assert codes == [200] * CROWD
    assert APIKey.objects.filter(is_active=True).count() == 1
    assert APIKey.objects.filter(is_default=True, is_active=True).count() == 1
    assert APIKey.objects.count() == CROWD
