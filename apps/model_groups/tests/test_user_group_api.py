"""Tests of user groups over REST."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from apps.audit.models import AdminEvent
from apps.model_groups.models import ModelGroup
from apps.users.models import Role, UserGroup
from tests.support.people import make_user, rest_client

PATH = "/api/admin/user-groups/"
FIELDS = {
    "id", "name", "description", "multiplier", "model_groups", "rpm", "tpm", "concurrency", "cap",
    "daily_budget", "monthly_budget", "user_count", "created_at",
}  # fmt: skip
SMUGGLED = (
    "id", "pk", "created_at", "user_count", "users", "multiplier_millionths", "cap_nanos", "role",
    "is_staff", "balance", "posted", "held", "quota", "used", "group", "user", "owner", "status",
    "amount", "price", "is_active", "models",
)  # fmt: skip


def _events() -> list[tuple[str, Any, Any]]:
    rows = AdminEvent.objects.filter(object_type="users.usergroup").order_by("id")
    return [(row.action, row.before, row.after) for row in rows]


def test_a_group_is_made_changed_and_deleted_on_record(client: APIClient) -> None:
    first, second = (ModelGroup.objects.create(name=name) for name in ("small", "big"))
    body = {
        "name": "staff", "description": "us", "multiplier": "0.8", "model_groups": [first.pk],
        "rpm": 60, "tpm": None, "concurrency": 0, "cap": "100",
        "daily_budget": "2.5", "monthly_budget": None,
    }  # fmt: skip

    made = client.post(PATH, body)
    path = f"{PATH}{made.json()['id']}/"
    shown = client.get(path)
    changed = client.patch(path, {"model_groups": [second.pk, first.pk], "cap": None, "rpm": 60})
    replaced = client.put(path, {"name": "people"})
    deleted = client.delete(path)

    statuses = [answer.status_code for answer in (made, shown, changed, replaced, deleted)]
    assert statuses == [201, 200, 200, 200, 204]
    assert set(made.json()) == FIELDS
    assert {name: made.json()[name] for name in body} == body
    assert (made.json()["user_count"], made.json()) == (0, shown.json())
    assert changed.json()["model_groups"] == [first.pk, second.pk]
    assert (replaced.json()["name"], replaced.json()["multiplier"]) == ("people", "0.8")
    events = _events()
    assert [action for action, _, _ in events] == [
        "user_group.created", "user_group.changed", "user_group.changed", "user_group.deleted",
    ]  # fmt: skip
    assert events[0][2]["model_groups"] == [first.pk]
    assert events[1][1:] == (
        {"cap_nanos": 100_000_000_000, "model_groups": [first.pk]},
        {"cap_nanos": None, "model_groups": [first.pk, second.pk]},
    )
    assert events[2][1:] == ({"name": "staff"}, {"name": "people"})
    assert events[3][1]["model_groups"] == [first.pk, second.pk]
    assert not UserGroup.objects.exists()


def test_a_group_with_users_stays(client: APIClient) -> None:
    group = UserGroup.objects.create(name="staff")
    make_user(user_group=group)
    make_user(user_group=group)

    answer = client.delete(f"{PATH}{group.pk}/")

    assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
    assert client.get(f"{PATH}{group.pk}/").json()["user_count"] == 2
    assert _events() == []


def test_what_changes_nothing_is_not_on_record(client: APIClient) -> None:
    group = UserGroup.objects.create(name="staff")

    assert client.patch(
        f"{PATH}{group.pk}/", {"name": "staff", "model_groups": []}
    ).status_code == (200)
    assert _events() == []


def test_viewers_and_analysts_read_and_do_not_write(db: None) -> None:
    group = UserGroup.objects.create(name="staff", cap_nanos=10**9)
    path = f"{PATH}{group.pk}/"
    caps = {Role.VIEWER: None, Role.ANALYST: "1"}

    for role, cap in caps.items():
        client = rest_client(make_user(role=role))
        assert client.get(path).json()["cap"] == cap
        assert client.get(PATH).json()["results"] == [client.get(path).json()]
        writes = (client.post(PATH, {}), client.patch(path, {}), client.delete(path))
        assert {answer.status_code for answer in writes} == {403}
    assert rest_client(make_user()).get(PATH).status_code == 403


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "taken"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"multiplier": "1000.1"}, "multiplier"),
        ({"multiplier": "-1"}, "multiplier"),
        ({"multiplier": 0.5}, "multiplier"),
        ({"multiplier": "0.0000001"}, "multiplier"),
        ({"model_groups": [999_999]}, "model_groups"),
        ({"model_groups": list(range(1, 1_002))}, "model_groups"),
        ({"model_groups": [2**63]}, "model_groups"),
        ({"model_groups": None}, "model_groups"),
        ({"rpm": -1}, "rpm"),
        ({"tpm": 2**31}, "tpm"),
        ({"concurrency": "many"}, "concurrency"),
        ({"cap": "-1"}, "cap"),
        ({"cap": "9000001"}, "cap"),
        ({"daily_budget": "-1"}, "daily_budget"),
        ({"monthly_budget": 1.5}, "monthly_budget"),
    ],
)
def test_what_is_wrong_about_a_group_is_named(
    client: APIClient, changes: dict[str, Any], field: str
) -> None:
    UserGroup.objects.create(name="taken")
    group = UserGroup.objects.create(name="staff")

    made = client.post(PATH, {"name": "new", **changes})
    changed = client.patch(f"{PATH}{group.pk}/", changes)

    assert (made.status_code, list(made.json())) == (400, [field])
    assert (changed.status_code, list(changed.json())) == (400, [field])
    assert UserGroup.objects.count() == 2


def test_nothing_is_smuggled_into_a_group(client: APIClient) -> None:
    group = UserGroup.objects.create(name="staff")

    for field in SMUGGLED:
        body = {"name": "staff2", field: 1}
        path = f"{PATH}{group.pk}/"
        for answer in (client.post(PATH, body), client.put(path, body), client.patch(path, body)):
            assert (answer.status_code, answer.json()) == (400, {field: ["Unknown field."]})

    assert list(UserGroup.objects.values_list("name", flat=True)) == ["staff"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["a_b", "axb", "zoo"]),
        ("?search=_", ["a_b"]),
        ("?search=KEEPERS", ["zoo"]),
        ("?name=zoo", ["zoo"]),
        ("?ordering=-name&page_size=1", ["zoo"]),
        ("?ordering=created_at", ["zoo", "axb", "a_b"]),
    ],
)
def test_groups_are_found(client: APIClient, query: str, names: list[str]) -> None:
    for name, description in (("zoo", "keepers"), ("axb", ""), ("a_b", "")):
        UserGroup.objects.create(name=name, description=description)

    answer = client.get(PATH + query)

    assert [row["name"] for row in answer.json()["results"]] == names


@pytest.mark.parametrize(
    "query", ["?ordering=users__password", "?users__email=x", "?multiplier=1", "?search=%00"]
)
def test_what_cannot_be_filtered_by_is_refused(client: APIClient, query: str) -> None:
    assert client.get(PATH + query).status_code == 400
