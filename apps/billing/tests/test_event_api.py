"""Tests of admin events and counts of refusals over REST."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from apps.audit.models import AdminEvent, RefusalCount
from apps.users.models import Role
from tests.support.people import PASSWORD, make_admin, make_user, rest_client

EVENTS = "/api/admin/events/"
REFUSALS = "/api/admin/refusals/"
MINUTE = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def _event(**values: Any) -> AdminEvent:
    defaults: dict[str, Any] = {
        "actor_id": 500,
        "actor_name": "ada",
        "action": "provider.created",
        "object_type": "providers.provider",
        "object_id": "3",
        "object_name": "somewhere",
        "before": None,
        "after": {"weight": 1},
        "reason": "100% sure",
        "ip_address": "10.1.2.3",
        "user_agent": "tests",
    }
    return AdminEvent.objects.create(**{**defaults, **values})


def _find(client: APIClient, query: str) -> list[int]:
    answer = client.get(f"{EVENTS}?{query}")
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def test_an_event_is_shown_whole(client: APIClient) -> None:
    event = _event(before={"weight": 0, "names": ["a", None]})

    listed = client.get(f"{EVENTS}?actor=500").json()
    shown = client.get(f"{EVENTS}{event.pk}/").json()

    assert set(listed) == {"next", "previous", "results"}
    assert listed["results"] == [shown]
    assert set(shown) == {field.attname for field in AdminEvent._meta.concrete_fields}
    assert (shown["before"], shown["after"]) == ({"weight": 0, "names": ["a", None]}, {"weight": 1})
    assert client.get(f"{EVENTS}999999999/").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "actor=500", "action=provider.created", "action=provider.", "action=provi.,&actor=500",
        "object_type=providers.provider", "object_type=providers.provider&object_id=3",
        "address=10.1.2.3", "address=10.0.0.0/9", "search=SOMEWH", "search=100%25 sure",
        "search=ada",
    ],
)  # fmt: skip
def test_events_are_found(client: APIClient, query: str) -> None:
    wanted = _event()
    _event(
        actor_id=None, actor_name="system", action="provider_key.created", object_type="x",
        object_id="30", object_name="else", reason="100 sure", ip_address="10.200.0.1",
    )  # fmt: skip

    expected = [] if "provi.," in query else [wanted.pk]

    assert _find(client, query) == expected


def test_events_are_found_by_time(client: APIClient) -> None:
    before, event = timezone.now(), _event()
    after = timezone.now()
    times = [moment.isoformat().replace("+", "%2B") for moment in (before, after)]

    assert event.pk in _find(client, f"created_after={times[0]}&created_before={times[1]}")
    assert event.pk not in _find(client, f"created_after={times[1]}")
    assert event.pk not in _find(client, f"created_before={times[0]}")


def test_events_are_paged_while_more_are_written(client: APIClient) -> None:
    made = [_event().pk for _ in range(5)]

    first = client.get(f"{EVENTS}?actor=500&page_size=2").json()
    _event()
    second = client.get(first["next"]).json()
    third = client.get(second["next"]).json()

    seen = [row["id"] for page in (first, second, third) for row in page["results"]]
    assert seen == made[::-1]


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "query",
    [
        "actor=x", "actor=99999999999999999999", "created_after=noon", "address=x", "search=%00",
        "action=%00", "ordering=id", "actor__password=a", "object_id=" + "1" * 65, "page=1",
        "created_before=9999-12-31T23:59:59-14:00", "actor=1&actor=2",
    ],
)  # fmt: skip
def test_a_bad_filter_of_events_is_refused_by_name(client: APIClient, query: str) -> None:
    answer = client.get(f"{EVENTS}?{query}")

    assert (answer.status_code, list(answer.json())) == (400, [query.partition("=")[0]])


def test_sign_ins_and_denied_access_are_among_the_events(client: APIClient) -> None:
    user = make_user(password=PASSWORD)
    for password in ("wrong", PASSWORD):
        body = {"username": user.username, "password": password}
        APIClient().post("/api/auth/login/", body)
    rest_client(user).get(EVENTS)

    actions = [row["action"] for row in client.get(EVENTS).json()["results"]]

    assert actions[:3] == ["access.denied", "sign_in.succeeded", "sign_in.failed"]
    assert len(_find(client, "action=sign_in.")) == 2


@pytest.mark.parametrize(
    ("role", "events", "refusals"),
    [(Role.USER, 403, 403), (Role.VIEWER, 403, 200), (Role.ANALYST, 200, 200), (None, 401, 401)],
)
def test_roles_read_and_nobody_writes(
    db: None, role: Role | None, events: int, refusals: int
) -> None:
    client = rest_client(make_user(role=role)) if role else APIClient()
    event = _event()

    assert client.get(EVENTS).status_code == events
    assert client.get(f"{EVENTS}{event.pk}/").status_code == events
    assert client.get(REFUSALS).status_code == refusals
    assert client.get(f"{REFUSALS}sum/").status_code == refusals
    if role is not None:
        admin = rest_client(make_admin())
        for path in (EVENTS, f"{EVENTS}{event.pk}/", REFUSALS, f"{REFUSALS}sum/"):
            for method in ("post", "put", "patch", "delete"):
                assert getattr(admin, method)(path, {}).status_code == 405


@pytest.mark.parametrize("rows", [1, 5])
def test_lists_take_the_same_queries_whatever_their_length(
    client: APIClient, django_assert_num_queries: DjangoAssertNumQueries, rows: int
) -> None:
    for number in range(rows):
        _event()
        RefusalCount.objects.create(api_key_id=number, code="x", minute=MINUTE, count=1)

    for path in (EVENTS, REFUSALS, f"{REFUSALS}sum/"):
        with django_assert_num_queries(2):
            assert client.get(path).status_code == 200


def test_refusals_are_listed_and_summed(client: APIClient) -> None:
    for key, code, minute, count in (
        (0, "invalid_api_key", 0, 5),
        (3, "rate_limit_exceeded", 0, 7),
        (3, "rate_limit_exceeded", 1, 8),
        (4, "model_not_found", 1, 1),
    ):
        RefusalCount.objects.create(
            api_key_id=key, code=code, minute=MINUTE.replace(minute=minute), count=count
        )

    listed = client.get(REFUSALS).json()["results"]
    sums = client.get(f"{REFUSALS}sum/?minute_after=2026-11-20").json()

    assert [(row["api_key_id"], row["code"], row["count"]) for row in listed] == [
        (4, "model_not_found", 1),
        (3, "rate_limit_exceeded", 8),
        (3, "rate_limit_exceeded", 7),
        (0, "invalid_api_key", 5),
    ]
    assert listed[1]["minute"] == "2026-11-20T12:01:00Z"
    assert sums == {
        "total": 21,
        "codes": [
            {"code": "rate_limit_exceeded", "count": 15},
            {"code": "invalid_api_key", "count": 5},
            {"code": "model_not_found", "count": 1},
        ],
    }
    for query, total in (
        ("minute_after=2026-11-20&api_key=3", 15),
        ("minute_after=2026-11-20&api_key=0", 5),
        ("minute_after=2026-11-20&code=model_not_found,invalid_api_key", 6),
        ("minute_after=2026-11-20T12:01:00Z", 9),
        ("minute_before=2026-11-20T12:01:00Z", 12),
    ):
        assert client.get(f"{REFUSALS}sum/?{query}").json()["total"] == total, query
    assert client.get(f"{REFUSALS}?nothing=1").status_code == 400
    assert client.get(f"{REFUSALS}sum/?nothing=1").status_code == 400


@pytest.mark.postgres
@pytest.mark.usefixtures("db")
def test_actions_that_begin_alike_are_found_by_their_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN SELECT * FROM audit_adminevent WHERE action LIKE 'provider.%'")
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "audit_event_action" in plan


def test_without_a_beginning_refusals_of_31_days_are_summed_and_listed_from_all_times(
    client: APIClient,
) -> None:
    now = timezone.now()
    for days, count in ((0, 1), (30.9, 2), (31.1, 4), (61.9, 8), (62.1, 16)):
        RefusalCount.objects.create(
            api_key_id=1, code="x", minute=now - timedelta(days=days), count=count
        )

    def total(**query: str) -> int:
        return int(client.get(f"{REFUSALS}sum/", query).json()["total"])

    assert total() == 3
    assert total(minute_before=(now - timedelta(days=31)).isoformat()) == 12
    assert total(minute_after=(now - timedelta(days=400)).isoformat()) == 31
    assert total(minute_before="1970-01-02T00:00:00Z") == 0
    assert len(client.get(REFUSALS).json()["results"]) == 5
