"""An old page of the Django admin changes what was changed in it and undoes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client

from apps.api_keys.changes import change_key
from apps.api_keys.models import APIKey
from apps.audit.models import AdminEvent
from apps.billing.models import Account
from apps.quotas.allowances import change_quota
from apps.quotas.models import UserQuota
from apps.users.changes import change_user
from apps.users.models import User, UserGroup
from tests.support.house import (
    DOLLAR,
    House,
    columns_of,
    page_of,
    read_values,
    send_old,
    send_values,
)

LOST = "This form cannot be sent. Open it again."
# With a part of a second, which the page does not show.
EARLIER = datetime(2100, 1, 1, 12, 30, 15, 250_000, tzinfo=UTC)
LATER = datetime(2101, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_an_old_page_of_a_user_brings_back_nothing(client: Client, house: House) -> None:
    group = UserGroup.objects.create(name="others")
    limits = {"cap_nanos": 5 * DOLLAR, "daily_budget_nanos": DOLLAR, "rpm": 7}
    change_user(user=house.user, actor=house.root, **limits)  # type: ignore[arg-type]  # a dict

    def change_elsewhere() -> None:
        change_user(
            user=house.user, actor=house.root, role="analyst", is_active=False, user_group=group,
            cap_nanos=DOLLAR, daily_budget_nanos=None, monthly_budget_nanos=2 * DOLLAR, rpm=None,
        )  # fmt: skip

    changed = send_old(client, house.user, change_elsewhere, name="Ada L.")

    assert changed == {"name": "Ada L."}
    event = AdminEvent.objects.filter(action="user.changed").latest("id")
    assert (event.before, event.after) == ({"name": "Ada"}, {"name": "Ada L."})


def test_what_is_changed_in_an_old_page_of_a_user_counts(client: Client, house: House) -> None:
    def change_elsewhere() -> None:
        change_user(
            user=house.user, actor=house.root, name="Countess", cap_nanos=DOLLAR, is_active=False
        )

    changed = send_old(
        client, house.user, change_elsewhere, cap_nanos="2.50", role="viewer", user_group=""
    )

    assert changed == {"cap_nanos": 2_500_000_000, "role": "viewer", "user_group_id": None}


def test_an_old_page_of_a_quota_brings_back_nothing(client: Client, house: House) -> None:
    UserQuota.objects.update(expires_at=EARLIER)

    def change_elsewhere() -> None:
        change_quota(
            quota_id=house.quota.pk,
            changes={"total_nanos": 3 * DOLLAR, "is_active": False},
            actor=house.root,
        )

    changed = send_old(
        client, house.quota, change_elsewhere, reason="longer", expires_at_0="2101-02-03",
        expires_at_1="04:05:06",
    )  # fmt: skip

    assert changed.pop("updated_at")
    assert changed == {"expires_at": LATER}
    assert Account.objects.get(kind="promotion").posted_nanos == -3 * DOLLAR


def test_what_is_changed_in_an_old_page_of_a_quota_counts(client: Client, house: House) -> None:
    UserQuota.objects.update(expires_at=EARLIER)

    def change_elsewhere() -> None:
        change_quota(quota_id=house.quota.pk, changes={"total_nanos": 3 * DOLLAR}, actor=house.root)

    changed = send_old(
        client, house.quota, change_elsewhere, reason="less", total="2", is_active=None
    )

    assert changed.pop("updated_at")
    assert changed == {"total_nanos": 2 * DOLLAR, "is_active": False}
    assert Account.objects.get(kind="promotion").posted_nanos == -2 * DOLLAR


KEY_CHANGES: dict[str, Any] = {
    "is_active": False,
    "expires_at": LATER,
    "allowed_models": ["big"],
    "allowed_networks": ["10.0.0.0/8", "2001:db8::/32"],
    "allowed_operations": ["embeddings"],
    "cap_nanos": DOLLAR,
    "rpm": None,
    "payload_mode": "off",
    "cache_seconds": 60,
}
OLD_KEY: dict[str, Any] = {
    "expires_at": EARLIER,
    "allowed_models": ["big", "small"],
    "allowed_operations": ["chat", "models"],
    "cap_nanos": 5 * DOLLAR,
    "rpm": 7,
}


def test_an_old_page_of_a_key_brings_back_nothing(client: Client, house: House) -> None:
    APIKey.objects.update(**OLD_KEY)

    def change_elsewhere() -> None:
        change_key(
            key_id=house.key.pk,
            changes=KEY_CHANGES,  # type: ignore[arg-type]  # a dict
            actor=house.root,
            is_by_owner=False,
        )

    changed = send_old(client, house.key, change_elsewhere, name="laptop")

    assert changed == {"name": "laptop"}
    event = AdminEvent.objects.filter(action="api_key.changed").latest("id")
    assert (event.before, event.after) == ({"name": "main"}, {"name": "laptop"})


def test_what_is_changed_in_an_old_page_of_a_key_counts(client: Client, house: House) -> None:
    APIKey.objects.update(**OLD_KEY)

    def change_elsewhere() -> None:
        change_key(
            key_id=house.key.pk,
            changes={"name": "elsewhere", "rpm": 9, "allowed_operations": ["chat"]},
            actor=house.root,
            is_by_owner=False,
        )

    changed = send_old(
        client, house.key, change_elsewhere, expires_at_0="", expires_at_1="",
        allowed_models="small\r\n", allowed_networks="10.0.0.7", allowed_operations=["models"],
        cap_nanos="1", payload_mode="off", cache_seconds="60", is_active=None,
    )  # fmt: skip

    assert changed.pop("locked_at")
    assert changed == {
        "expires_at": None,
        "allowed_models": ["small"],
        "allowed_networks": ["10.0.0.7"],
        "allowed_operations": ["models"],
        "cap_nanos": DOLLAR,
        "payload_mode": "off",
        "cache_seconds": 60,
        "is_active": False,
    }


def test_a_page_that_is_sent_as_it_was_shown_changes_nothing(client: Client, house: House) -> None:
    APIKey.objects.update(**OLD_KEY)
    UserQuota.objects.update(expires_at=EARLIER)
    User.objects.filter(pk=house.user.pk).update(cap_nanos=1, monthly_budget_nanos=10**15)
    count = AdminEvent.objects.count()

    changed = [
        send_old(client, house.user, lambda: None),
        send_old(client, house.quota, lambda: None, reason="nothing"),
        send_old(client, house.key, lambda: None),
    ]

    assert changed == [{}, {}, {}]
    assert AdminEvent.objects.count() == count


def test_what_was_shown_outlasts_an_answer_with_errors(client: Client, house: House) -> None:
    APIKey.objects.update(**OLD_KEY)
    page = page_of(APIKey, "change", house.key.pk)
    values = read_values(client.get(page))
    APIKey.objects.update(cap_nanos=None, allowed_models=[])

    wrong = send_values(
        client, page, values, rpm="many", expires_at_0="2101-02-03", expires_at_1="04:05:06",
        allowed_operations=None,
    )  # fmt: skip
    send_values(client, page, read_values(wrong), rpm="9")

    key = APIKey.objects.get(pk=house.key.pk)
    assert (key.rpm, key.expires_at, key.allowed_operations) == (9, LATER, [])
    assert (key.cap_nanos, key.allowed_models) == (None, [])


@pytest.mark.parametrize("shown", [None, "", "nonsense", "of another row"])
def test_a_page_that_does_not_say_what_it_showed_is_not_obeyed(
    client: Client, house: House, shown: Any
) -> None:
    page = page_of(User, "change", house.user.pk)
    other = read_values(client.get(page_of(User, "change", house.root.pk)))
    sent = other["as_shown"] if shown == "of another row" else shown
    values = read_values(client.get(page))

    answer = send_values(client, page, values, as_shown=sent, name="Ada L.")

    assert answer.context["adminform"].form.non_field_errors() == [LOST]
    assert columns_of(house.user)["name"] == "Ada"
