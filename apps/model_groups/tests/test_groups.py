"""Tests of model groups: the domain, and over REST."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from apps.ai_models.catalogue import create_model
from apps.ai_models.models import AIModel
from apps.audit.models import AdminEvent
from apps.model_groups.groups import GroupExists, MemberGone, change_group, create_group
from apps.model_groups.models import ModelGroup
from apps.users.models import Role, UserGroup
from tests.support.databases import Database
from tests.support.people import make_user, rest_client
from tests.support.world import make_quota, make_world

PATH = "/api/admin/model-groups/"


def _events() -> list[AdminEvent]:
    return list(AdminEvent.objects.filter(action__startswith="model_group.").order_by("id"))


def test_a_group_is_made_and_shown(client: APIClient) -> None:
    model, staff = create_model(name="big"), UserGroup.objects.create(name="staff")
    body = {
        "name": "all",
        "models": [model.pk, model.pk],
        "user_groups": [staff.pk],
        "multiplier": "0.5",
        "is_active": False,
    }

    made = client.post(PATH, body)

    assert made.status_code == 201
    assert {**made.json(), "id": 0, "created_at": ""} == {
        "id": 0,
        "name": "all",
        "description": "",
        "models": [model.pk],
        "user_groups": [staff.pk],
        "is_public": False,
        "is_active": False,
        "multiplier": "0.5",
        "created_at": "",
    }
    assert client.get(f"{PATH}{made.json()['id']}/").json() == made.json()
    (event,) = _events()
    assert event.after is not None
    assert (event.after["models"], event.after["user_groups"]) == ([model.pk], [staff.pk])


def test_members_are_replaced_and_on_record(client: APIClient) -> None:
    first, second = create_model(name="a"), create_model(name="b")
    staff = UserGroup.objects.create(name="staff")
    group = create_group(name="all", models=[first], description="kept")
    path = f"{PATH}{group.pk}/"

    put = client.put(path, {"name": "all", "models": [second.pk], "user_groups": [staff.pk]})
    patched = client.patch(path, {"multiplier": "2"})
    nothing = client.patch(path, {"models": [second.pk], "multiplier": "2.0"})
    emptied = client.patch(path, {"models": [], "name": "none"})

    assert [answer.status_code for answer in (put, patched, nothing, emptied)] == [200] * 4
    assert (put.json()["models"], put.json()["user_groups"]) == ([second.pk], [staff.pk])
    assert emptied.json() == {**patched.json(), "models": [], "name": "none"}
    assert emptied.json()["description"] == "kept"
    assert [(event.action, event.before, event.after) for event in _events()[1:]] == [
        (
            "model_group.changed",
            {"models": [first.pk], "user_groups": []},
            {"models": [second.pk], "user_groups": [staff.pk]},
        ),
        (
            "model_group.changed",
            {"multiplier_millionths": 1_000_000},
            {"multiplier_millionths": 2_000_000},
        ),
        (
            "model_group.changed",
            {"name": "all", "models": [second.pk]},
            {"name": "none", "models": []},
        ),
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"models": [999_999]}, "models"),
        ({"user_groups": [999_999]}, "user_groups"),
        ({"models": [2**70]}, "models"),
        ({"models": ["x"]}, "models"),
        ({"models": None}, "models"),
        ({"models": [1] * 1_001}, "models"),
        ({"multiplier": "1001"}, "multiplier"),
        ({"multiplier": "0.0000001"}, "multiplier"),
        ({"multiplier_millionths": 1}, "multiplier_millionths"),
        ({"name": "other"}, "name"),
        ({"name": "\x00"}, "name"),
        ({"quotas": []}, "quotas"),
        ({"users": [1]}, "users"),
        ({"id": 1}, "id"),
        ({"created_at": "2020-01-01T00:00:00Z"}, "created_at"),
    ],
)
def test_what_cannot_be_set_changes_nothing(
    client: APIClient, body: dict[str, Any], field: str
) -> None:
    create_group(name="other")
    group = create_group(name="all")

    answer = client.patch(f"{PATH}{group.pk}/", body)

    assert (answer.status_code, list(answer.json())) == (400, [field])
    group.refresh_from_db()
    assert (group.name, group.multiplier_millionths, len(_events())) == ("all", 1_000_000, 2)


@pytest.mark.usefixtures("db")
def test_what_is_gone_meanwhile_changes_nothing() -> None:
    model = create_model(name="big")
    group = create_group(name="all", models=[model])
    create_group(name="other")
    ghost = create_model(name="ghost")
    AIModel.objects.filter(pk=ghost.pk).delete()

    with pytest.raises(MemberGone):
        change_group(group=group, values={"is_public": True}, models=[model, ghost])
    with pytest.raises(GroupExists):
        change_group(group=group, values={"name": "other"}, models=[])
    with pytest.raises(GroupExists):
        create_group(name="other")

    group.refresh_from_db()
    assert (group.name, group.is_public, list(group.models.all())) == ("all", False, [model])
    assert len(_events()) == 2


def test_a_group_with_quotas_is_deactivated(client: APIClient) -> None:
    # Quotas lie above model groups, so the row is written without their model.
    world = make_world()
    account = make_quota(world, 0)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO quotas_userquota (user_id, model_group_id, account_id, total_nanos,"
            " is_active, created_at, updated_at) VALUES (%s, %s, %s, 0, %s, %s, %s)",
            [
                world.user.pk,
                world.group.pk,
                account,
                True,
                world.group.created_at,
                world.group.created_at,
            ],
        )
    unused = create_group(name="unused", models=[world.model])

    first, second = (client.delete(f"{PATH}{world.group.pk}/") for _ in range(2))
    gone, missing = (client.delete(f"{PATH}{unused.pk}/") for _ in range(2))

    assert (first.status_code, first.json()["code"]) == (409, "archived_instead")
    assert (second.status_code, gone.status_code, missing.status_code) == (409, 204, 404)
    world.group.refresh_from_db()
    assert world.group.is_active is False
    assert [event.action for event in _events()[1:]] == [
        "model_group.deactivated",
        "model_group.deleted",
    ]
    before = _events()[-1].before
    assert before is not None
    assert before["models"] == [world.model.pk]


def test_the_list_is_filtered(client: APIClient) -> None:
    model, staff = create_model(name="big"), UserGroup.objects.create(name="staff")
    create_group(name="a", models=[model], is_public=True)
    create_group(name="b", models=[model], user_groups=[staff], is_active=False)
    create_group(name="c", description="50%")

    def names(query: str) -> list[str]:
        return [row["name"] for row in client.get(f"{PATH}?{query}").json()["results"]]

    assert names("ordering=-name") == ["c", "b", "a"]
    assert (names("name=a"), names("is_public=true")) == (["a"], ["a"])
    assert names("is_active=false") == ["b"]
    assert (names(f"model={model.pk}"), names(f"user_group={staff.pk}")) == (["a", "b"], ["b"])
    assert names("search=%25") == ["c"]


def test_who_reads_may_not_write(db: None) -> None:
    group = create_group(name="all")
    path = f"{PATH}{group.pk}/"

    for role, status_code in ((Role.USER, 403), (Role.VIEWER, 200), (Role.ANALYST, 200)):
        other = rest_client(make_user(role=role))
        assert [other.get(PATH).status_code, other.get(path).status_code] == [status_code] * 2
        assert [
            other.post(PATH, {"name": "x"}).status_code,
            other.put(path, {"name": "x"}).status_code,
            other.patch(path, {"is_public": True}).status_code,
            other.delete(path).status_code,
        ] == [403] * 4
    group.refresh_from_db()
    assert (group.name, group.is_public, ModelGroup.objects.count()) == ("all", False, 1)


def test_two_editors_at_once_are_both_on_record(committed_db: Database) -> None:
    models = [create_model(name=f"model{number}") for number in range(8)]
    group = create_group(name="all")
    barrier = threading.Barrier(len(models))

    def edit(model: AIModel) -> None:
        barrier.wait(10)
        change_group(group=group, values={}, models=[model])
        connection.close()

    threads = [threading.Thread(target=edit, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    events = _events()[1:]
    changes = [(event.before, event.after) for event in events]
    assert len(changes) == len(models)
    # Each change begins where the one before it ended.
    for (_, ended), (began, _) in itertools.pairwise(changes):
        assert began == ended
    last = changes[-1][1]
    assert last is not None
    assert last["models"] == list(group.models.values_list("pk", flat=True))
    assert ModelGroup.objects.count() == 1
