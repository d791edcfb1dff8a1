"""Quotas over REST: given, changed, taken back, and read by whom."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from apps.audit.models import AdminEvent
from apps.billing.models import Account, Entry, Transaction
from apps.model_groups.models import ModelGroup
from apps.quotas.models import UserQuota
from apps.users.models import Role, User
from tests.support.admin_events import list_actions
from tests.support.people import make_admin, make_user, rest_client

USD = 10**9
PATH = "/api/admin/quotas/"


def _give(client: APIClient, user: User, group: ModelGroup, total: str = "5") -> dict[str, Any]:
    body = {"user": user.pk, "model_group": group.pk, "total_quota": total}
    answer = client.post(PATH, body)
    assert answer.status_code == 201
    found: dict[str, Any] = answer.json()
    return found


def _use(quota_id: int, *, used: int, held: int) -> None:
    """Write what calls would have used and held."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_account SET posted_nanos = posted_nanos - %s, held_nanos = %s "
            "WHERE id = %s",
            [used, held, UserQuota.objects.get(pk=quota_id).account_id],
        )


def test_a_quota_is_given_and_shown_with_its_use(client: APIClient, group: ModelGroup) -> None:
    user = make_user(username="ada")
    made = _give(client, user, group, "5")
    _use(made["id"], used=USD // 2, held=USD + 1)

    shown = client.get(f"{PATH}{made['id']}/").json()

    assert {name: shown[name] for name in ("user", "user_name", "model_group_name")} == {
        "user": user.pk,
        "user_name": "ada",
        "model_group_name": "group",
    }
    assert [shown[f"{name}_quota"] for name in ("total", "used", "held", "remaining")] == [
        "5",
        "0.5",
        "1.000000001",
        "3.499999999",
    ]
    assert (shown["expires_at"], shown["is_active"]) == (None, True)
    event = AdminEvent.objects.get(action="quota.created")
    assert (event.object_id, event.actor_name) == (str(made["id"]), "root")
    assert event.after is not None
    assert event.after["total_nanos"] == 5 * USD


def test_several_quotas_of_one_user_on_one_group_are_grants_of_their_own(
    client: APIClient, group: ModelGroup
) -> None:
    user = make_user()
    first, second = _give(client, user, group, "5"), _give(client, user, group, "7")

    client.patch(f"{PATH}{first['id']}/", {"total_quota": "1"})

    assert client.get(f"{PATH}{second['id']}/").json()["remaining_quota"] == "7"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"total_quota": "-1"}, "total_quota"),
        ({"total_quota": 1.5}, "total_quota"),
        ({"total_quota": "1000000.1"}, "total_quota"),
        ({"total_quota": None}, "total_quota"),
        ({"user": 999_999}, "user"),
        ({"user": 10**30}, "user"),
        ({"user": "1 OR 1=1"}, "user"),
        ({"model_group": 999_999}, "model_group"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"is_active": None}, "is_active"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "\x00"}, "reason"),
        ({"used_quota": "0"}, "used_quota"),
        ({"remaining_quota": "9"}, "remaining_quota"),
        ({"account": 1}, "account"),
        ({"id": 1}, "id"),
    ],
)
def test_what_is_wrong_about_a_quota_is_named(
    client: APIClient, group: ModelGroup, changes: dict[str, Any], field: str
) -> None:
    body = {"user": make_user().pk, "model_group": group.pk, "total_quota": "5", **changes}

    answer = client.post(PATH, body)

    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert (UserQuota.objects.count(), Transaction.objects.count()) == (0, 0)


def test_a_quota_that_has_expired_is_not_given(client: APIClient, group: ModelGroup) -> None:
    body = {"user": make_user().pk, "model_group": group.pk, "total_quota": "5"}

    answer = client.post(PATH, {**body, "expires_at": "2020-01-01T00:00:00Z"})

    assert (answer.status_code, answer.json()["code"]) == (400, "expiry_passed")
    assert UserQuota.objects.count() == 0


def test_a_total_goes_down_to_what_is_used_and_held_and_no_further(
    client: APIClient, group: ModelGroup
) -> None:
    quota_id = _give(client, make_user(), group, "5")["id"]
    _use(quota_id, used=2 * USD, held=USD)

    below = client.patch(f"{PATH}{quota_id}/", {"total_quota": "2.999999999"})
    down = client.patch(f"{PATH}{quota_id}/", {"total_quota": "3", "reason": "less"})

    assert (below.status_code, below.json()["code"]) == (409, "total_below_use")
    assert (down.status_code, down.json()["remaining_quota"]) == (200, "0")
    event = AdminEvent.objects.get(action="quota.changed")
    assert (event.before, event.after, event.reason) == (
        {"total_nanos": 5 * USD},
        {"total_nanos": 3 * USD},
        "less",
    )
    assert Entry.objects.filter(account__kind="quota").count() == 2


def test_a_change_keeps_what_it_does_not_name(client: APIClient, group: ModelGroup) -> None:
    user = make_user()
    quota_id = _give(client, user, group, "5")["id"]
    named = {"user": user.pk, "model_group": group.pk}

    client.patch(f"{PATH}{quota_id}/", {"expires_at": "2027-01-01T00:00:00Z", "is_active": False})
    put = client.put(f"{PATH}{quota_id}/", {**named, "total_quota": "6"})
    same = client.put(f"{PATH}{quota_id}/", {**named, "total_quota": "6"})
    missing = client.put(f"{PATH}{quota_id}/", {"total_quota": "6"})

    assert (put.status_code, put.json()) == (200, same.json())
    assert (put.json()["is_active"], put.json()["expires_at"]) == (False, "2027-01-01T00:00:00Z")
    assert (missing.status_code, list(missing.json())) == (400, ["user", "model_group"])
    assert list_actions("quota.") == ["quota.created", "quota.changed", "quota.changed"]


@pytest.mark.parametrize("field", ["user", "model_group"])
def test_a_quota_stays_where_it_is(client: APIClient, group: ModelGroup, field: str) -> None:
    quota_id = _give(client, make_user(), group)["id"]

    answer = client.patch(f"{PATH}{quota_id}/", {field: 999_999, "total_quota": "9"})

    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert UserQuota.objects.get().total_nanos == 5 * USD


def test_a_funded_quota_is_ended_and_what_remains_goes_back(
    client: APIClient, group: ModelGroup
) -> None:
    quota_id = _give(client, make_user(), group, "5")["id"]
    _use(quota_id, used=0, held=USD)

    answers = [client.delete(f"{PATH}{quota_id}/") for _ in range(2)]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (409, "archived_instead")
    ] * 2
    shown = client.get(f"{PATH}{quota_id}/").json()
    assert [shown[f"{name}_quota"] for name in ("total", "used", "held", "remaining")] == [
        "1",
        "0",
        "1",
        "0",
    ]
    assert shown["is_active"] is False
    assert Account.objects.get(kind="promotion").posted_nanos == -USD
    assert list_actions("quota.") == ["quota.created", "quota.deactivated"]


def test_a_quota_that_never_had_money_is_deleted(client: APIClient, group: ModelGroup) -> None:
    quota_id = _give(client, make_user(), group, "0")["id"]

    answer = client.delete(f"{PATH}{quota_id}/")

    assert answer.status_code == 204
    assert client.get(f"{PATH}{quota_id}/").status_code == 404
    assert client.delete(f"{PATH}{quota_id}/").status_code == 404
    assert list_actions("quota.") == ["quota.created", "quota.deleted"]
    assert not Account.objects.filter(kind="quota").exists()


def test_a_repeated_call_is_carried_out_once(client: APIClient, group: ModelGroup) -> None:
    body = {"user": make_user().pk, "model_group": group.pk, "total_quota": "5"}
    headers = {"Idempotency-Key": "k1"}

    made = [client.post(PATH, body, headers=headers) for _ in range(2)]
    other = client.post(PATH, {**body, "total_quota": "6"}, headers=headers)
    path = f"{PATH}{made[0].json()['id']}/"
    changed = [client.patch(path, {"total_quota": "9"}, headers=headers) for _ in range(2)]
    client.patch(path, {"total_quota": "4"})
    late = client.patch(path, {"total_quota": "9"}, headers=headers)

    assert [answer.status_code for answer in made] == [201, 201]
    assert made[0].json() == made[1].json()
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert changed[0].json() == changed[1].json()
    assert (late.status_code, late.json()["total_quota"]) == (200, "4")
    assert UserQuota.objects.count() == 1
    assert Transaction.objects.count() == 3


def test_the_key_of_a_put_is_not_that_of_a_patch(client: APIClient, group: ModelGroup) -> None:
    user = make_user()
    path = f"{PATH}{_give(client, user, group)['id']}/"
    body = {"user": user.pk, "model_group": group.pk, "total_quota": "9"}
    headers = {"Idempotency-Key": "k1"}

    answers = [
        client.put(path, body, headers=headers),
        client.patch(path, {"total_quota": "4"}, headers=headers),
    ]

    assert [(answer.status_code, answer.json()["total_quota"]) for answer in answers] == [
        (200, "9"),
        (200, "4"),
    ]


def test_the_key_of_a_deleted_quota_makes_no_other(client: APIClient, group: ModelGroup) -> None:
    body = {"user": make_user().pk, "model_group": group.pk, "total_quota": "0"}
    headers = {"Idempotency-Key": "k1"}
    made = client.post(PATH, body, headers=headers).json()["id"]
    client.delete(f"{PATH}{made}/")

    answer = client.post(PATH, body, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (409, "idempotent_result_unavailable")
    assert UserQuota.objects.count() == 0


def test_keys_of_different_callers_do_not_meet(client: APIClient, group: ModelGroup) -> None:
    body = {"user": make_user().pk, "model_group": group.pk, "total_quota": "5"}
    headers = {"Idempotency-Key": "k1"}
    other = rest_client(make_admin())

    answers = [who.post(PATH, body, headers=headers) for who in (client, other)]

    assert answers[0].json()["id"] != answers[1].json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "ключ"])
def test_a_malformed_key_is_refused(client: APIClient, group: ModelGroup, key: str) -> None:
    body = {"user": make_user().pk, "model_group": group.pk, "total_quota": "5"}

    answer = client.post(PATH, body, HTTP_IDEMPOTENCY_KEY=key)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")
    assert UserQuota.objects.count() == 0


@pytest.mark.parametrize("role", [Role.USER, Role.VIEWER, Role.ANALYST])
def test_who_may_read_may_not_write(client: APIClient, group: ModelGroup, role: str) -> None:
    quota_id = _give(client, make_user(), group)["id"]
    other = rest_client(make_user(role=role))
    paths = (PATH, f"{PATH}{quota_id}/")

    assert [other.get(path).status_code for path in paths] == [
        200 if role == Role.ANALYST else 403
    ] * 2
    assert [
        other.generic(method, path, "{}", content_type="application/json").status_code
        for method, path in (
            ("POST", PATH),
            ("PUT", paths[1]),
            ("PATCH", paths[1]),
            ("DELETE", paths[1]),
            ("POST", f"{PATH}bulk/"),
            ("POST", f"{PATH}bulk-change/"),
        )
    ] == [403] * 6
    assert list_actions("quota.") == ["quota.created"]


def test_one_sees_one_s_own_quotas_only(client: APIClient, group: ModelGroup) -> None:
    ada, bob = make_user(), make_user()
    mine = _give(client, ada, group, "5")["id"]
    _give(client, bob, group, "6")
    own = rest_client(ada)

    listed = own.get("/api/user/quotas/").json()

    assert [(row["id"], row["remaining_quota"]) for row in listed["results"]] == [(mine, "5")]
    assert not {"user", "user_name", "account"} & listed["results"][0].keys()
    assert own.get(f"/api/user/quotas/?user={bob.pk}").status_code == 400


def test_nothing_changes_where_its_event_cannot_be_written(
    client: APIClient, group: ModelGroup
) -> None:
    quota_id = _give(client, make_user(), group, "5")["id"]
    client.raise_request_exception = False
    body = {"user": make_user().pk, "model_group": group.pk, "total_quota": "5"}
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_adminevent RENAME TO away")

    answers = [
        client.post(PATH, body),
        client.patch(f"{PATH}{quota_id}/", {"total_quota": "9"}),
        client.delete(f"{PATH}{quota_id}/"),
        client.post(
            f"{PATH}bulk-change/",
            {"quotas": [quota_id], "add": "1"},
            headers={"Idempotency-Key": "k"},
        ),
    ]

    assert [answer.status_code // 100 for answer in answers] == [5] * 4
    assert [(row.pk, row.total_nanos, row.is_active) for row in UserQuota.objects.all()] == [
        (quota_id, 5 * USD, True)
    ]
    assert Transaction.objects.count() == 1
