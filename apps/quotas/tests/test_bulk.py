"""Quotas of many users at once: complete, in pieces, and never twice."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from apps.audit.models import AdminEvent
from apps.billing.models import Account, Transaction
from apps.core import pieces
from apps.model_groups.models import ModelGroup
from apps.quotas import bulk
from apps.quotas.allowances import TOTAL_NANOS_MAX, change_quota, create_quota
from apps.quotas.models import RepeatKey, UserQuota
from apps.users.models import User, UserGroup
from tests.support.people import make_user

USD = 10**9
PATH = "/api/admin/quotas/bulk/"
CHANGE_PATH = "/api/admin/quotas/bulk-change/"
KEY = {"Idempotency-Key": "term-1"}


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut calls into pieces of two."""
    monkeypatch.setattr(bulk, "PIECE", 2)
    monkeypatch.setattr(pieces, "PAUSE_SECONDS", 0)


@pytest.mark.usefixtures("_small_pieces")
def test_each_user_gets_a_quota_of_his_own(client: APIClient, group: ModelGroup) -> None:
    users = [make_user() for _ in range(5)]
    body = {
        "users": [user.pk for user in users],
        "model_group": group.pk,
        "total_quota": "2",
        "reason": "term",
    }

    answers = [client.post(PATH, body, headers=KEY) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    made = answers[0].json()["quotas"]
    assert made == answers[1].json()["quotas"]
    assert [row["user"] for row in made] == [user.pk for user in users]
    assert {row["remaining_quota"] for row in made} == {"2"}
    assert Account.objects.get(kind="promotion").posted_nanos == -10 * USD
    assert [row.reason for row in Transaction.objects.all()] == ["term"] * 3
    events = AdminEvent.objects.filter(action="quota.created", reason="term")
    assert set(events.values_list("object_id", flat=True)) == {str(row["id"]) for row in made}


@pytest.mark.usefixtures("_small_pieces")
def test_a_call_that_broke_off_is_completed_and_doubles_nothing(
    client: APIClient, group: ModelGroup
) -> None:
    users = [make_user() for _ in range(5)]
    body = {"users": [user.pk for user in users], "model_group": group.pk, "total_quota": "2"}
    client.post(PATH, body, headers=KEY)
    row = RepeatKey.objects.get()
    # As if the process had died after the second piece.
    UserQuota.objects.filter(pk=row.done[4]).delete()
    row.done = row.done[:4]
    row.save()

    answer = client.post(PATH, body, headers=KEY)

    assert answer.status_code == 201
    assert [quota["user"] for quota in answer.json()["quotas"]] == [user.pk for user in users]
    assert UserQuota.objects.count() == 5


def test_the_active_users_of_a_group_get_a_quota(client: APIClient, group: ModelGroup) -> None:
    staff, nobody = (UserGroup.objects.create(name=name) for name in ("staff", "nobody"))
    users = [make_user(user_group=staff) for _ in range(3)]
    users[2].is_active = False
    users[2].save()
    make_user()
    body = {"model_group": group.pk, "total_quota": "2"}

    answer = client.post(PATH, {**body, "user_group": staff.pk}, headers=KEY)
    empty = client.post(PATH, {**body, "user_group": nobody.pk}, headers={"Idempotency-Key": "2"})

    assert [row["user"] for row in answer.json()["quotas"]] == [users[0].pk, users[1].pk]
    assert (empty.status_code, empty.json()["code"]) == (400, "user_group_empty")


def test_one_key_is_for_one_body(client: APIClient, group: ModelGroup) -> None:
    body = {"users": [make_user().pk], "model_group": group.pk, "total_quota": "2"}
    client.post(PATH, body, headers=KEY)

    other = client.post(PATH, {**body, "users": [make_user().pk]}, headers=KEY)
    without = client.post(PATH, body)

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (without.status_code, without.json()["code"]) == (400, "idempotency_key_required")
    assert UserQuota.objects.count() == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": [1_000_001, 1_000_002]}, "There are no such users: 1000001, 1000002."),
        ({"users": "twice"}, "Named twice: {user}."),
        ({"users": []}, "Ensure this field has at least 1 elements."),
        ({"users": list(range(1, 1_002))}, "Ensure this field has no more than 1000 elements."),
        ({"user_group": 1}, "Name either users or a user_group."),
    ],
)
def test_what_is_wrong_about_the_users_is_named(
    client: APIClient, group: ModelGroup, changes: dict[str, Any], message: str
) -> None:
    user = make_user(user_group=UserGroup.objects.create(pk=1, name="staff"))
    body = {"users": [user.pk], "model_group": group.pk, "total_quota": "2", **changes}
    if body["users"] == "twice":
        body["users"] = [user.pk, user.pk]

    answer = client.post(PATH, body, headers=KEY)

    assert answer.status_code == 400
    assert answer.json() == {"users": [message.format(user=user.pk)]}
    assert UserQuota.objects.count() == 0


@pytest.mark.usefixtures("_small_pieces")
def test_quotas_change_together_and_once(client: APIClient, group: ModelGroup) -> None:
    user = make_user()
    quotas = [create_quota(user=user, model_group=group, total_nanos=n * USD) for n in range(5)]
    body = {
        "quotas": [quota.pk for quota in quotas],
        "add": "1.5",
        "is_active": False,
        "expires_at": "2027-01-01T00:00:00Z",
    }

    answers = [client.post(CHANGE_PATH, body, headers=KEY) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    rows = answers[1].json()["quotas"]
    assert [row["total_quota"] for row in rows] == ["1.5", "2.5", "3.5", "4.5", "5.5"]
    assert [row["remaining_quota"] for row in rows] == ["1.5", "2.5", "3.5", "4.5", "5.5"]
    assert {(row["is_active"], row["expires_at"]) for row in rows} == {
        (False, "2027-01-01T00:00:00Z")
    }
    assert AdminEvent.objects.filter(action="quota.changed").count() == 5


@pytest.mark.parametrize(
    ("changes", "status_code"),
    [
        ({}, 400),
        ({"add": "-1"}, 400),
        ({"add": "1000000"}, 400),
        ({"quotas": [999_999], "add": "1"}, 400),
        ({"quotas": None, "add": "1"}, 400),
        ({"total_quota": "1"}, 400),
        ({"user": 1, "add": "1"}, 400),
    ],
)
def test_a_refused_change_of_many_changes_none(
    client: APIClient, group: ModelGroup, changes: dict[str, Any], status_code: int
) -> None:
    user = make_user()
    quotas = [create_quota(user=user, model_group=group, total_nanos=USD) for _ in range(2)]

    answer = client.post(
        CHANGE_PATH, {"quotas": [quota.pk for quota in quotas], **changes}, headers=KEY
    )

    assert answer.status_code == status_code
    assert list(UserQuota.objects.values_list("total_nanos", flat=True)) == [USD, USD]
    assert RepeatKey.objects.count() == 0


def _break_off_after(count: int) -> list[int]:
    """Leave the call's key as if the process had died so far; return the quotas that came later."""
    row = RepeatKey.objects.get()
    later: list[int] = row.done[count:]
    row.done = row.done[:count]
    row.save()
    return later


@pytest.mark.usefixtures("_small_pieces")
def test_a_user_deleted_meanwhile_does_not_keep_a_call_from_its_end(
    client: APIClient, group: ModelGroup
) -> None:
    users = [make_user() for _ in range(5)]
    body = {"users": [user.pk for user in users], "model_group": group.pk, "total_quota": "0"}
    client.post(PATH, body, headers=KEY)
    for quota_id in _break_off_after(2):
        client.delete(f"/api/admin/quotas/{quota_id}/")
    assert client.delete(f"/api/admin/users/{users[4].pk}/").status_code == 204

    answers = [client.post(PATH, body, headers=KEY) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert [row["user"] for row in answers[0].json()["quotas"]] == [user.pk for user in users[:4]]
    assert answers[0].json() == answers[1].json()
    assert UserQuota.objects.count() == 4


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("is_group_deleted", [False, True])
def test_a_group_emptied_meanwhile_does_not_keep_a_call_from_its_end(
    client: APIClient, group: ModelGroup, is_group_deleted: bool
) -> None:
    staff = UserGroup.objects.create(name="staff")
    users = [make_user(user_group=staff) for _ in range(3)]
    body = {"user_group": staff.pk, "model_group": group.pk, "total_quota": "0"}
    client.post(PATH, body, headers=KEY)
    for quota_id in _break_off_after(2):
        client.delete(f"/api/admin/quotas/{quota_id}/")
    User.objects.filter(user_group=staff).update(is_active=False, user_group=None)
    if is_group_deleted:
        staff.delete()

    answer = client.post(PATH, body, headers=KEY)

    assert answer.status_code == 201
    assert [row["user"] for row in answer.json()["quotas"]] == [user.pk for user in users]


@pytest.mark.usefixtures("_small_pieces")
def test_a_quota_deleted_meanwhile_does_not_keep_a_call_from_its_end(
    client: APIClient, group: ModelGroup
) -> None:
    quotas = [create_quota(user=make_user(), model_group=group, total_nanos=0) for _ in range(3)]
    body = {"quotas": [quota.pk for quota in quotas], "is_active": False}
    client.post(CHANGE_PATH, body, headers=KEY)
    for quota_id in _break_off_after(2):
        client.delete(f"/api/admin/quotas/{quota_id}/")

    answer = client.post(CHANGE_PATH, body, headers=KEY)

    assert answer.status_code == 200
    assert [row["id"] for row in answer.json()["quotas"]] == [quotas[0].pk, quotas[1].pk]


@pytest.mark.usefixtures("_small_pieces")
def test_what_the_last_piece_would_refuse_is_refused_before_the_first(
    client: APIClient, group: ModelGroup
) -> None:
    totals = [USD, USD, USD, TOTAL_NANOS_MAX]
    quotas = [
        create_quota(user=make_user(), model_group=group, total_nanos=total) for total in totals
    ]
    body = {"quotas": [quota.pk for quota in quotas], "add": "1"}

    answer = client.post(CHANGE_PATH, body, headers=KEY)

    assert answer.status_code == 400
    assert answer.json() == {
        "code": "total_out_of_range",
        "detail": f"Quota {quotas[3].pk}: The total must be from 0 to 1000000 USD.",
    }
    assert list(UserQuota.objects.order_by("pk").values_list("total_nanos", flat=True)) == totals
    assert RepeatKey.objects.count() == 0


@pytest.mark.usefixtures("_small_pieces")
def test_a_refusal_halfway_says_what_is_done_and_the_same_call_goes_on(
    client: APIClient, group: ModelGroup
) -> None:
    quotas = [create_quota(user=make_user(), model_group=group, total_nanos=USD) for _ in range(4)]
    ids = [quota.pk for quota in quotas]
    body = {"quotas": ids, "add": "1"}
    client.post(CHANGE_PATH, body, headers=KEY)
    for quota_id in _break_off_after(2):
        change_quota(quota_id=quota_id, changes={"total_nanos": USD}, actor=None)
    # Changed by somebody else after the second piece had been checked.
    change_quota(quota_id=ids[3], changes={"total_nanos": TOTAL_NANOS_MAX}, actor=None)

    refused = [client.post(CHANGE_PATH, body, headers=KEY) for _ in range(2)]
    change_quota(quota_id=ids[3], changes={"total_nanos": 5 * USD}, actor=None)
    answer = client.post(CHANGE_PATH, body, headers=KEY)

    assert [one.status_code for one in refused] == [409, 409]
    assert refused[0].json() == refused[1].json()
    assert refused[0].json()["code"] == "stopped_halfway"
    assert refused[0].json()["done"] == ids[:2]
    assert "2 are left: The total must be from 0 to 1000000 USD." in refused[0].json()["detail"]
    assert [row["total_quota"] for row in answer.json()["quotas"]] == ["2", "2", "2", "6"]
