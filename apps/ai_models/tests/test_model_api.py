"""Tests of models and their prices over REST.

Over 400 lines because each field of a model and of a price is tried in the same catalogue.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from apps.ai_models.catalogue import create_model, ensure_route
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.audit.models import AdminEvent
from apps.providers.models import Provider
from apps.users.models import Role
from tests.support.admin_events import list_actions
from tests.support.calls import record_call
from tests.support.people import make_user, rest_client

PATH = "/api/admin/models/"
PRICES = {"input": 2_500_000_000, "output": 10_000_000_000}


@pytest.fixture
def provider(db: None) -> Provider:
    """Return a provider."""
    return Provider.objects.create(name="somewhere", base_url="https://api.example.com/v1")


def test_a_model_shows_everything_about_it(client: APIClient, provider: Provider) -> None:
    body = {
        "name": "big",
        "description": "The big one.",
        "image_tokens_max": 0,
        "capabilities": {"vision": True},
        "position": 3,
        "provider": provider.pk,
        "prices": {"input": "2.5", "output": "10", "request": "0.001"},
        "input_price_per_1k": "0.0025",
    }

    made = client.post(PATH, body)
    shown = client.get(f"{PATH}{made.json()['id']}").json()

    assert made.status_code == 201
    assert shown == made.json()
    assert (shown["capabilities"], shown["position"], shown["image_tokens_max"]) == (
        {"vision": True},
        3,
        0,
    )
    assert shown["prices"] == {"input": "2.5", "output": "10", "request": "0.001"}
    assert (shown["input_price_per_1k"], shown["output_price_per_1k"]) == ("0.0025", "0.01")
    assert shown["is_priced"] is True
    assert shown["routes"][0]["upstream_name"] == "big"
    assert shown["model_groups"] == []


TERMS = {
    "context_tiers": [{"above_input_tokens": 200_000, "prices": {"input": "5", "output": "15"}}],
    "service_tiers": [
        {"name": "flex", "multiplier": "0.5"},
        {"name": "priority", "prices": {"input": "6", "web_search": "0.02"}},
    ],
    "windows": [{"from_time": "16:30", "to_time": "00:30", "multiplier": "0.75"}],
}
WHOLE = {
    "input": "2.5",
    "output": "10",
    "image": "0.04",
    "second": "0.0001",
    "character": "15",
    "web_search": "0.01",
    "tool_call": "0.0025",
    "request": "0.001",
    "minimum": "0.002",
    "terms": TERMS,
}


def test_a_price_with_all_that_it_may_hold_is_read_back_as_it_was_set(client: APIClient) -> None:
    made = client.post(PATH, {"name": "big", "prices": WHOLE})
    again = client.post(PATH, {"name": "big", "prices": WHOLE})
    alone = client.patch(f"{PATH}{made.json()['id']}/", {"input_price_per_1k": "0.003"})

    assert (made.status_code, made.json()["prices"]) == (201, WHOLE)
    assert again.status_code == 200
    # What changes one class keeps all else, the terms too.
    assert alone.json()["prices"] == WHOLE | {"input": "3"}
    versions = list(PriceVersion.objects.order_by("id").values_list("input_nanos", "terms"))
    stored = {
        "context_tiers": [
            {
                "above_input_tokens": 200_000,
                "amounts": {"input": 5_000_000_000, "output": 15_000_000_000},
            }
        ],
        "service_tiers": [
            {"name": "flex", "multiplier_millionths": 500_000},
            {"name": "priority", "amounts": {"input": 6_000_000_000, "web_search": 20_000_000}},
        ],
        "windows": [{"from_minute": 990, "to_minute": 30, "multiplier_millionths": 750_000}],
    }
    assert versions == [(2_500_000_000, stored), (3_000_000_000, stored)]


@pytest.mark.parametrize(
    "terms",
    [
        [],
        {"tiers": []},
        {"context_tiers": [{"above_input_tokens": 5}]},
        {"context_tiers": [{"above_input_tokens": 5, "prices": {"inputs": "5"}}]},
        {"context_tiers": [{"above_input_tokens": 5, "prices": {"input": "-5"}}]},
        {"context_tiers": [{"above_input_tokens": 5, "prices": {}}]},
        {"service_tiers": [{"name": "auto"}]},
        {"service_tiers": [{"name": f"t{number}"} for number in range(9)]},
        {"windows": [{"from_time": "24:00", "to_time": "01:00"}]},
        {"windows": [{"from_time": "01:00", "to_time": "01:00"}]},
        {"windows": [{"from_time": "01:00"}]},
        {"windows": [{"from_time": "01:00", "to_time": "02:00", "multiplier": "1001"}]},
        # A longer request would cost less.
        {"context_tiers": [{"above_input_tokens": 5, "prices": {"input": "2"}}]},
    ],
)
def test_terms_that_cannot_be_used_are_refused_and_nothing_is_made(
    client: APIClient, terms: object
) -> None:
    prices = {"input": "2.5", "output": "10", "terms": terms}

    refused = client.post(PATH, {"name": "big", "prices": prices})

    assert refused.status_code == 400
    assert (AIModel.objects.count(), PriceVersion.objects.count()) == (0, 0)


def test_fields_that_are_left_out_keep_their_values(client: APIClient, provider: Provider) -> None:
    model = create_model(name="big", prices=PRICES, display_name="Big", position=2)

    put = client.put(f"{PATH}{model.pk}/", {"name": "huge", "provider": provider.pk})
    patched = client.patch(f"{PATH}{model.pk}/", {"is_active": False})
    nothing = client.patch(f"{PATH}{model.pk}/", {"is_active": False})
    nameless = client.put(f"{PATH}{model.pk}/", {"is_active": True})

    assert (put.status_code, patched.status_code, nothing.status_code) == (200, 200, 200)
    assert (patched.json()["name"], patched.json()["display_name"]) == ("huge", "Big")
    assert (patched.json()["position"], patched.json()["is_active"]) == (2, False)
    assert patched.json()["prices"] == {"input": "2.5", "output": "10"}
    assert (nameless.status_code, list(nameless.json())) == (400, ["name"])
    assert list_actions()[2:] == ["model.changed", "route.created", "model.changed"]


def test_a_price_per_thousand_changes_its_class_only(client: APIClient) -> None:
    model = create_model(name="big", prices={**PRICES, "cache_read": 5}, request_nanos=7)

    answer = client.patch(f"{PATH}{model.pk}/", {"input_price_per_1k": "0.003"})

    assert answer.json()["prices"] == {
        "input": "3",
        "cache_read": "0.000000005",
        "output": "10",
        "request": "0.000000007",
    }
    assert PriceVersion.objects.count() == 2


def test_prices_are_the_whole_price_and_a_version_only_if_they_differ(client: APIClient) -> None:
    model = create_model(name="big", prices=PRICES)
    path = f"{PATH}{model.pk}/"

    same = client.put(path, {"name": "big", "prices": {"input": "2.50", "output": "10.0"}})
    less = client.patch(path, {"prices": {"input": "2.5"}})
    none = client.patch(path, {"prices": {}})

    assert same.json()["prices"] == {"input": "2.5", "output": "10"}
    assert (less.json()["prices"], less.json()["is_priced"]) == ({"input": "2.5"}, False)
    assert less.json()["output_price_per_1k"] is None
    assert none.json()["prices"] == {}
    assert PriceVersion.objects.count() == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"input_price_per_1k": "0.0000000000001"}, "input_price_per_1k"),
        ({"input_price_per_1k": "-1"}, "input_price_per_1k"),
        ({"input_price_per_1k": 0.5}, "input_price_per_1k"),
        ({"output_price_per_1k": None}, "output_price_per_1k"),
        ({"prices": {"input": "2"}, "input_price_per_1k": "0.003"}, "input_price_per_1k"),
        ({"prices": {"input": "2"}, "output_price_per_1k": "0.003"}, "output_price_per_1k"),
        ({"prices": None}, "prices"),
        ({"capabilities": []}, "capabilities"),
        ({"capabilities": {"a": "\x00"}}, "capabilities"),
        ({"position": 2**31}, "position"),
        ({"image_tokens_max": -1}, "image_tokens_max"),
        ({"provider": 2**70}, "provider"),
        ({"provider": True}, "provider"),
        ({"description": "\x00"}, "description"),
        ({"name": "bi\u2028g"}, "name"),
        ({"created_at": "2020-01-01T00:00:00Z"}, "created_at"),
        ({"id": 1}, "id"),
        ({"price": "1"}, "price"),
        ({"model_groups": [1]}, "model_groups"),
        ({"routes": []}, "routes"),
        ({"is_priced": True}, "is_priced"),
        ({"price_versions": []}, "price_versions"),
    ],
)
def test_what_cannot_be_set_changes_nothing(
    client: APIClient, body: dict[str, Any], field: str
) -> None:
    model = create_model(name="big", prices=PRICES)
    before = AIModel.objects.values().get()

    answer = client.patch(f"{PATH}{model.pk}/", body)

    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert AIModel.objects.values().get() == before
    assert PriceVersion.objects.count() == 1


def test_the_name_of_a_called_model_stays(client: APIClient) -> None:
    model = create_model(name="big", prices=PRICES)
    create_model(name="small")
    record_call(model_id=model.pk, requested_model="big", started_at=timezone.now())

    renamed = client.patch(f"{PATH}{model.pk}/", {"name": "huge", "position": 5})
    taken = client.patch(f"{PATH}{model.pk}/", {"name": "small"})
    same = client.put(f"{PATH}{model.pk}/", {"name": "big"})

    assert (renamed.status_code, renamed.json()["code"]) == (409, "model_name_in_use")
    assert (taken.status_code, taken.json()["code"]) == (409, "model_exists")
    assert same.status_code == 200
    model.refresh_from_db()
    assert (model.name, model.position) == ("big", 0)


@pytest.mark.parametrize("history", ["price", "call", "cost", "routed call"])
def test_a_model_with_history_is_deactivated(
    client: APIClient, provider: Provider, history: str
) -> None:
    model = create_model(name="big", prices=PRICES if history == "price" else None)
    route = ensure_route(model=model, provider=provider)
    if history == "call":
        record_call(model_id=model.pk, requested_model="big", started_at=timezone.now())
    elif history == "routed call":
        record_call(model_id=0, requested_model="big", route_id=route.pk, provider_id=provider.pk)
    elif history == "cost":
        PriceVersion.objects.create(route=route, effective_at=timezone.now(), input_nanos=1)

    first, second = (client.delete(f"{PATH}{model.pk}/") for _ in range(2))

    assert (first.status_code, first.json()["code"]) == (409, "archived_instead")
    assert second.status_code == 409
    model.refresh_from_db()
    assert model.is_active is False
    assert list_actions().count("model.deactivated") == 1


def test_a_model_without_history_goes_with_its_routes(
    client: APIClient, provider: Provider
) -> None:
    model = create_model(name="big", provider=provider)
    group = client.post("/api/admin/model-groups/", {"name": "all", "models": [model.pk]}).json()

    answer = client.delete(f"{PATH}{model.pk}/")

    assert answer.status_code == 204
    assert (AIModel.objects.count(), Route.objects.count()) == (0, 0)
    assert list_actions()[-2:] == ["route.deleted", "model.deleted"]
    before = AdminEvent.objects.latest("id").before
    assert before is not None
    assert (before["name"], before["model_groups"]) == ("big", [group["id"]])
    assert client.delete(f"{PATH}{model.pk}/").status_code == 404


def test_prices_have_a_history_with_a_future(client: APIClient) -> None:
    model = create_model(name="big", prices=PRICES)
    path = f"{PATH}{model.pk}/prices/"
    soon = (timezone.now() + timedelta(days=1)).isoformat()

    first = client.post(path, {"prices": {"input": "2", "output": "8"}, "effective_at": soon})
    again = client.post(path, {"prices": {"input": "1", "output": "8"}, "effective_at": soon})
    part = client.post(path, {"input_price_per_1k": "0.002", "effective_at": soon})
    now = client.post(path, {"prices": {"input": "3", "output": "12"}})
    listed = client.get(path).json()

    assert [answer.status_code for answer in (first, again, now)] == [201, 201, 201]
    assert (part.status_code, part.json()["code"]) == (400, "whole_price_needed")
    assert (first.json()["state"], now.json()["state"]) == ("future", "current")
    assert (again.json()["upcoming"], now.json()["upcoming"]) == (
        [],
        [
            {
                "id": again.json()["id"],
                "effective_at": again.json()["effective_at"],
                "prices": {"input": "1", "output": "8"},
            }
        ],
    )
    assert listed["count"] == 4
    assert [(row["state"], row["prices"]["input"]) for row in listed["results"]] == [
        ("future", "1"),
        ("superseded", "2"),
        ("current", "3"),
        ("past", "2.5"),
    ]
    assert listed["results"][0]["prices"] == {"input": "1", "output": "8"}
    assert listed["results"][0]["output_price_per_1k"] == "0.008"
    assert client.get(f"{PATH}{model.pk}/").json()["prices"] == {"input": "3", "output": "12"}


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (
            {"prices": {"input": "1"}, "effective_at": "2026-01-01T00:00:00Z"},
            {
                "detail": "A price cannot count from a moment in the past.",
                "code": "effective_in_past",
            },
        ),
        (
            {"prices": {"input": "1"}, "effective_at": "9999-12-31T23:59:59Z"},
            {"effective_at": ["At most ten years ahead."]},
        ),
        ({"effective_at": None}, {"effective_at": ["This field may not be null."]}),
        ({}, {"prices": ["This field is required."]}),
        ({"prices": {"input": "1"}, "model": 1}, {"model": ["Unknown field."]}),
        ({"prices": {"input": "1"}, "state": "current"}, {"state": ["Unknown field."]}),
    ],
)
def test_a_price_that_cannot_be_is_refused(
    client: APIClient, body: dict[str, Any], answer: dict[str, Any]
) -> None:
    model = create_model(name="big")

    got = client.post(f"{PATH}{model.pk}/prices/", body)

    assert (got.status_code, got.json()) == (400, answer)
    assert PriceVersion.objects.count() == 0


def test_the_list_is_filtered_and_ordered(client: APIClient, provider: Provider) -> None:
    big = create_model(name="big", display_name="100%", prices=PRICES, position=2)
    small = create_model(name="small", provider=provider, prices={"input": 1}, is_active=False)
    tiny = create_model(name="tiny", provider=provider, description="a_b", position=1)
    ensure_route(model=small, provider=provider, upstream_name="other")
    PriceVersion.objects.create(
        model=tiny, effective_at=timezone.now() + timedelta(1), input_nanos=1, output_nanos=1
    )
    group = client.post("/api/admin/model-groups/", {"name": "g", "models": [tiny.pk, big.pk]})

    def names(query: str) -> list[str]:
        return [row["name"] for row in client.get(f"{PATH}?{query}").json()["results"]]

    assert names("") == ["small", "tiny", "big"]
    assert names("ordering=-name") == ["tiny", "small", "big"]
    assert names("name=big") == ["big"]
    assert names("is_active=false") == ["small"]
    assert names(f"provider={provider.pk},999") == ["small", "tiny"]
    assert names(f"model_group={group.json()['id']}") == ["tiny", "big"]
    assert (names("is_priced=true"), names("is_priced=false")) == (["big"], ["small", "tiny"])
    assert (names("search=%25"), names("search=A_B"), names("search=axb")) == (
        ["big"],
        ["tiny"],
        [],
    )


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "query",
    [
        "ordering=password",
        "ordering=routes__provider__base_url",
        "name__startswith=b",
        "fields=id",
        "provider=x",
        "provider=99999999999999999999",
        "is_priced=maybe",
        "routes__provider__keys__sealed_secret__startswith=a",
    ],
)
def test_what_is_no_filter_is_refused(client: APIClient, query: str) -> None:
    for path in (PATH, "/api/admin/routes/", "/api/admin/model-groups/"):
        assert client.get(f"{path}?{query}").status_code == 400


def test_who_reads_may_not_write(db: None) -> None:
    model = create_model(name="big", prices=PRICES)
    paths = [PATH, f"{PATH}{model.pk}/", f"{PATH}{model.pk}/prices/"]

    for role, status_code in ((Role.USER, 403), (Role.VIEWER, 200), (Role.ANALYST, 200)):
        other = rest_client(make_user(role=role))
        assert [other.get(path).status_code for path in paths] == [status_code] * 3
        assert [
            other.post(paths[0], {"name": "x"}).status_code,
            other.put(paths[1], {"name": "x"}).status_code,
            other.patch(paths[1], {}).status_code,
            other.delete(paths[1]).status_code,
            other.post(paths[2], {"prices": {}}).status_code,
        ] == [403] * 5
    assert AIModel.objects.values_list("name", "is_active").get() == ("big", True)


def test_how_a_model_routes_is_set_and_filtered(client: APIClient) -> None:
    made = client.post(PATH, {"name": "quick", "strategy": "least_latency", "is_sticky": True})
    plain = client.post(PATH, {"name": "plain"})
    changed = client.patch(f"{PATH}{made.json()['id']}/", {"strategy": "least_cost"})
    wrong = client.patch(f"{PATH}{made.json()['id']}/", {"strategy": "dearest"})

    assert (made.json()["strategy"], made.json()["is_sticky"]) == ("least_latency", True)
    assert (plain.json()["strategy"], plain.json()["is_sticky"]) == ("priority", False)
    assert (changed.json()["strategy"], changed.json()["is_sticky"]) == ("least_cost", True)
    assert (wrong.status_code, list(wrong.json())) == (400, ["strategy"])
    for query, name in ({"strategy": "least_cost"}, "quick"), ({"is_sticky": "false"}, "plain"):
        assert [row["name"] for row in client.get(PATH, query).json()["results"]] == [name]
