"""Tests of routes and their costs over REST."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.utils import timezone
from rest_framework.test import APIClient

from apps.ai_models.catalogue import create_model
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.audit.models import AdminEvent, Attempt
from apps.core.ids import new_uuid7
from apps.providers.models import Provider
from apps.users.models import Role
from tests.support.admin_events import list_actions
from tests.support.calls import record_call
from tests.support.people import make_user, rest_client

PATH = "/api/admin/routes/"


@pytest.fixture
def ends(db: None) -> tuple[AIModel, Provider]:
    """Return a model and a provider."""
    provider = Provider.objects.create(
        name="somewhere", base_url="https://api.example.com/v1", priority=3, weight=5
    )
    return create_model(name="big"), provider


def _make(ends: tuple[AIModel, Provider], **values: Any) -> Route:
    model, provider = ends
    return Route.objects.create(model=model, provider=provider, **{"upstream_name": "u", **values})


def test_a_route_is_made_with_defaults_and_costs(
    client: APIClient, ends: tuple[AIModel, Provider]
) -> None:
    model, provider = ends
    body = {
        "model": model.pk,
        "provider": provider.pk,
        "max_tokens_parameter": "max_tokens",
        "cost_prices": {"input": "2", "output": "8"},
    }

    made = client.post(PATH, body)
    twice = client.post(PATH, body)

    assert made.status_code == 201
    assert {**made.json(), "id": 0, "created_at": ""} == {
        "id": 0,
        "model": model.pk,
        "model_name": "big",
        "provider": provider.pk,
        "provider_name": "somewhere",
        "upstream_name": "big",
        "priority": 3,
        "weight": 5,
        "max_tokens_parameter": "max_tokens",
        "overrides": {},
        "is_active": True,
        "cost_prices": {"input": "2", "output": "8"},
        "created_at": "",
    }
    assert client.get(f"{PATH}{made.json()['id']}/").json() == made.json()
    assert (twice.status_code, twice.json()["code"]) == (409, "route_exists")
    assert (Route.objects.count(), PriceVersion.objects.count()) == (1, 1)
    assert list_actions("route", "price") == ["route.created", "price.created"]


def test_a_route_is_changed_and_its_costs_get_versions(
    client: APIClient, ends: tuple[AIModel, Provider]
) -> None:
    route = _make(ends)
    other = create_model(name="other")
    path = f"{PATH}{route.pk}/"

    changed = client.put(
        path,
        {
            "model": other.pk,
            "provider": route.provider_id,
            "weight": 0,
            "cost_prices": {"input": "1"},
        },
    )
    same = client.patch(path, {"weight": 0, "cost_prices": {"input": "1.0"}})
    costlier = client.patch(path, {"cost_prices": {"input": "2"}})
    incomplete = client.put(path, {"weight": 1})

    assert (changed.status_code, same.status_code, costlier.status_code) == (200, 200, 200)
    assert (changed.json()["model"], changed.json()["upstream_name"]) == (other.pk, "u")
    assert costlier.json()["cost_prices"] == {"input": "2"}
    assert (incomplete.status_code, set(incomplete.json())) == (400, {"model", "provider"})
    assert list_actions("route", "price") == ["route.changed", "price.created", "price.created"]


def test_a_route_says_how_it_asks_for_a_maximum_or_leaves_it_to_the_address(
    client: APIClient, ends: tuple[AIModel, Provider]
) -> None:
    model, provider = ends

    made = client.post(PATH, {"model": model.pk, "provider": provider.pk}).json()
    path = f"{PATH}{made['id']}/"
    named = client.patch(path, {"max_tokens_parameter": "max_tokens"}).json()
    left = client.patch(path, {"max_tokens_parameter": ""})

    shown = [made, named, left.json()]
    assert [row["max_tokens_parameter"] for row in shown] == ["", "max_tokens", ""]
    assert left.status_code == 200


def test_routes_that_kept_the_former_default_ask_as_their_vendors_want_it(
    ends: tuple[AIModel, Provider],
) -> None:
    step = import_module("apps.ai_models.migrations.0008_maximum_by_address")
    _make(ends, max_tokens_parameter="max_completion_tokens")
    mistral = Provider.objects.create(name="mistral", base_url="https://api.mistral.ai/v1")
    for name in ("max_completion_tokens", "max_new", ""):
        _make((ends[0], mistral), upstream_name=f"u{name}", max_tokens_parameter=name)

    step.name_what_is_taken(apps, None)

    asked = Route.objects.order_by("id").values_list("max_tokens_parameter", flat=True)
    assert list(asked) == ["max_completion_tokens", "max_tokens", "max_new", ""]


def test_overrides_are_replaced_as_a_whole_and_on_record(
    client: APIClient, ends: tuple[AIModel, Provider]
) -> None:
    route = _make(ends, overrides={"parameters": {"set": {"seed": 7}}})
    path = f"{PATH}{route.pk}/"

    changed = client.patch(path, {"overrides": {"headers": {"set": {"X-Team": "a"}}}})
    emptied = client.patch(path, {"overrides": {"parameters": {"set": {}}}})

    assert changed.json()["overrides"] == {"headers": {"set": {"x-team": "a"}}}
    assert emptied.json()["overrides"] == {}
    event = AdminEvent.objects.filter(action="route.changed").earliest("id")
    assert event.before == {"overrides": {"parameters": {"set": {"seed": 7}}}}
    assert event.after == {"overrides": {"headers": {"set": {"x-team": "a"}}}}


@pytest.mark.parametrize(
    "overrides",
    [
        {"parameters": {"set": {"max_tokens": 1}}},
        {"parameters": {"rename": {"user": "model"}}},
        {"headers": {"set": {"authorization": "x"}}},
        {"headers": {"set": {"x-a": "1\r\nhost: x"}}},
        [],
        None,
    ],
)
def test_overrides_that_touch_money_or_the_way_are_refused(
    client: APIClient, ends: tuple[AIModel, Provider], overrides: Any
) -> None:
    route = _make(ends)

    answer = client.patch(f"{PATH}{route.pk}/", {"overrides": overrides})

    assert (answer.status_code, list(answer.json())) == (400, ["overrides"])
    route.refresh_from_db()
    assert route.overrides == {}
    assert list_actions("route", "price") == []


def test_viewers_do_not_see_overrides(ends: tuple[AIModel, Provider]) -> None:
    route = _make(ends, overrides={"parameters": {"set": {"seed": 7}}})
    viewer = rest_client(make_user(username="viewer", role=Role.VIEWER))

    assert viewer.get(f"{PATH}{route.pk}/").json()["overrides"] is None


def test_two_routes_cannot_become_one(client: APIClient, ends: tuple[AIModel, Provider]) -> None:
    _make(ends, upstream_name="a")
    second = _make(ends, upstream_name="b")

    answer = client.patch(f"{PATH}{second.pk}/", {"upstream_name": "a"})

    assert (answer.status_code, answer.json()["code"]) == (409, "route_exists")
    assert list_actions("route", "price") == []


@pytest.mark.parametrize("history", ["call", "attempt", "cost"])
def test_a_used_route_keeps_its_ends_and_is_only_deactivated(
    client: APIClient, ends: tuple[AIModel, Provider], history: str
) -> None:
    route = _make(ends)
    other = create_model(name="other")
    if history == "call":
        record_call(requested_model="big", provider_id=route.provider_id, route_id=route.pk)
    elif history == "attempt":
        Attempt.objects.create(
            request_id=new_uuid7(),
            number=1,
            route_id=route.pk,
            provider_id=route.provider_id,
            provider_name="somewhere",
            provider_key_id=1,
            upstream_model="u",
            started_at=timezone.now(),
            duration_ms=1,
            outcome="timeout",
        )
    else:
        PriceVersion.objects.create(route=route, effective_at=timezone.now(), input_nanos=1)

    moved = client.patch(f"{PATH}{route.pk}/", {"model": other.pk})
    first, second = (client.delete(f"{PATH}{route.pk}/") for _ in range(2))

    assert (moved.status_code, moved.json()["code"]) == (409, "route_in_use")
    assert (first.status_code, first.json()["code"]) == (409, "archived_instead")
    assert second.status_code == 409
    route.refresh_from_db()
    assert (route.model_id, route.is_active) == (ends[0].pk, False)
    assert list_actions("route", "price") == ["route.deactivated"]


def test_an_unused_route_goes(client: APIClient, ends: tuple[AIModel, Provider]) -> None:
    route = _make(ends)

    assert client.delete(f"{PATH}{route.pk}/").status_code == 204
    assert client.delete(f"{PATH}{route.pk}/").status_code == 404
    assert (Route.objects.count(), list_actions("route", "price")) == (0, ["route.deleted"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": 999_999}, "model"),
        ({"provider": None}, "provider"),
        ({"weight": -1}, "weight"),
        ({"priority": 2**31}, "priority"),
        ({"upstream_name": ""}, "upstream_name"),
        ({"max_tokens_parameter": "a b"}, "max_tokens_parameter"),
        ({"cost_prices": {"inputs": "1"}}, "cost_prices"),
        ({"cost_prices": {"input": "1000001"}}, "cost_prices"),
        ({"prices": {"input": "1"}}, "prices"),
        ({"cost": "1"}, "cost"),
        ({"model_id": 1}, "model_id"),
        ({"created_at": "2020-01-01T00:00:00Z"}, "created_at"),
    ],
)
def test_what_cannot_be_set_changes_nothing(
    client: APIClient, ends: tuple[AIModel, Provider], body: dict[str, Any], field: str
) -> None:
    route = _make(ends)
    before = Route.objects.values().get()

    answer = client.patch(f"{PATH}{route.pk}/", body)

    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert (Route.objects.values().get(), PriceVersion.objects.count()) == (before, 0)


def test_costs_have_a_history_with_a_future(
    client: APIClient, ends: tuple[AIModel, Provider]
) -> None:
    path = f"{PATH}{_make(ends).pk}/costs/"
    soon = (timezone.now() + timedelta(days=1)).isoformat()

    now = client.post(path, {"prices": {"input": "1", "output": "4"}})
    future = client.post(path, {"prices": {"input": "2"}, "effective_at": soon})
    past = client.post(path, {"prices": {"input": "2"}, "effective_at": "2026-01-01T00:00:00Z"})
    listed = client.get(path).json()["results"]

    assert (now.status_code, future.status_code) == (201, 201)
    assert (past.status_code, past.json()["code"]) == (400, "effective_in_past")
    assert [(row["state"], row["prices"]) for row in listed] == [
        ("future", {"input": "2"}),
        ("current", {"input": "1", "output": "4"}),
    ]


def test_the_list_is_filtered(client: APIClient, ends: tuple[AIModel, Provider]) -> None:
    first = _make(ends)
    second = _make((create_model(name="small"), ends[1]), upstream_name="v_1", is_active=False)

    def ids(query: str) -> list[int]:
        return [row["id"] for row in client.get(f"{PATH}?{query}").json()["results"]]

    assert ids("") == [first.pk, second.pk]
    assert ids("ordering=-model__name") == [second.pk, first.pk]
    assert ids(f"model={ends[0].pk}") == [first.pk]
    assert ids(f"provider={ends[1].pk}") == [first.pk, second.pk]
    assert ids("is_active=false") == [second.pk]
    assert (ids("search=V_"), ids("search=v%25")) == ([second.pk], [])


def test_viewers_do_not_see_costs(db: None, ends: tuple[AIModel, Provider]) -> None:
    route = _make(ends)
    PriceVersion.objects.create(route=route, effective_at=timezone.now(), input_nanos=10**9)
    paths = [PATH, f"{PATH}{route.pk}/", f"{PATH}{route.pk}/costs/"]
    seen = {}

    for role in (Role.USER, Role.VIEWER, Role.ANALYST):
        other = rest_client(make_user(role=role))
        answers = [other.get(path) for path in paths]
        seen[role] = [answer.status_code for answer in answers]
        if role == Role.VIEWER:
            assert answers[0].json()["results"][0]["cost_prices"] is None
            assert answers[1].json()["cost_prices"] is None
        if role == Role.ANALYST:
            assert answers[1].json()["cost_prices"] == {"input": "1"}
        assert [
            other.post(paths[0], {}).status_code,
            other.put(paths[1], {}).status_code,
            other.patch(paths[1], {}).status_code,
            other.delete(paths[1]).status_code,
            other.post(paths[2], {}).status_code,
        ] == [403] * 5

    assert seen == {
        Role.USER: [403, 403, 403],
        Role.VIEWER: [200, 200, 403],
        Role.ANALYST: [200, 200, 200],
    }
