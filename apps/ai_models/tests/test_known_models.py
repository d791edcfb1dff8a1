"""Tests of known models: the file, looking through it, and importing from it."""

from __future__ import annotations

import json
import runpy
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from apps.ai_models.catalogue import create_model
from apps.ai_models.known_models import load_known_models
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.audit.models import AdminEvent
from apps.core.money import format_usd, parse_usd
from apps.core.usage import TOKEN_CLASSES
from apps.providers.models import Provider
from apps.users.models import Role
from tests.support.admin_events import list_actions
from tests.support.people import make_user, rest_client

ROOT = Path(__file__).parents[3]
FILE = ROOT / "apps" / "ai_models" / "known_models.json"
PATH = "/api/admin/known-models/"
IMPORT = f"{PATH}import/"
NOTES = {"deprecated", "other_fees", "tiered", "time_of_day"}


def test_the_file_is_what_the_script_makes() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_catalogue.py"))
    text = FILE.read_text(encoding="utf-8")
    as_of = date.fromisoformat(json.loads(text)["source"]["as_of"])

    assert script["render"](script["build"](as_of)) == text
    assert len(text.encode()) < 1_000_000


def test_every_known_model_can_be_imported() -> None:
    known = load_known_models()
    keys = [(model.provider, model.model) for model in known.models]

    assert keys == sorted(set(keys))
    assert {provider for provider, _ in keys} == set(known.providers)
    assert known.source["version"] == "0.2.3"
    for model in known.models:
        assert {"input", "output"} <= model.prices.keys() <= {*TOKEN_CLASSES, "request"}
        for text in model.prices.values():
            assert format_usd(parse_usd(text)) == text
            assert 0 <= parse_usd(text) <= 10**15
        assert model.context_length is None or 0 < model.context_length < 10**8
        assert set(model.notes) <= NOTES
        assert 0 < len(model.model) <= 200
        assert model.model.isprintable()
        assert not any(character.isspace() for character in model.model)


def test_known_models_are_looked_through(
    client: APIClient, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    create_model(name="gpt-4o")

    # The session with its user; which of them exist.
    with django_assert_num_queries(2):
        page = client.get(f"{PATH}?provider=openai&search=GPT-4O&page_size=200").json()
    shown = {row["model"]: row for row in page["results"]}

    assert set(page) == {"count", "next", "previous", "results"}
    assert {row["provider"] for row in page["results"]} == {"openai"}
    assert shown["gpt-4o"] == {
        "provider": "openai",
        "provider_name": "OpenAI",
        "model": "gpt-4o",
        "name": "gpt 4o",
        "context_length": 128_000,
        "prices": {"input": "2.5", "cache_read": "1.25", "output": "10"},
        "notes": ["other_fees"],
        "is_in_catalogue": True,
    }
    assert shown["gpt-4o-mini"]["is_in_catalogue"] is False
    assert client.get(f"{PATH}?search=%25").json()["count"] == 0
    assert len(client.get(f"{PATH}?page=2&page_size=3").json()["results"]) == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("provider=nowhere", "provider"),
        ("vendor=openai", "vendor"),
        ("ordering=model", "ordering"),
        ("search=" + "x" * 201, "search"),
    ],
)
def test_what_is_no_filter_is_refused(client: APIClient, query: str, field: str) -> None:
    answer = client.get(f"{PATH}?{query}")

    assert (answer.status_code, list(answer.json())) == (400, [field])


def test_models_are_imported_with_prices_and_routes(client: APIClient) -> None:
    provider = Provider.objects.create(
        name="somewhere", base_url="https://api.example.com/v1", priority=3, weight=5
    )
    body = {
        "models": [
            {"provider": "openai", "model": "gpt-4o"},
            {"provider": "openai", "model": "gpt-4o-mini", "name": "mini"},
        ],
        "route_provider": provider.pk,
    }

    first, second = client.post(IMPORT, body), client.post(IMPORT, body)

    model = AIModel.objects.get(name="mini")
    route, price = model.routes.get(), PriceVersion.objects.get(model=model)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["results"][1] == {
        "provider": "openai",
        "model": "gpt-4o-mini",
        "name": "mini",
        "status": "created",
        "id": model.pk,
        "assumed": ["max_output_tokens"],
    }
    assert [row["assumed"] for row in second.json()["results"]] == [[], []]
    assert [row["status"] for row in second.json()["results"]] == ["exists", "exists"]
    assert (route.upstream_name, route.priority, route.weight) == ("gpt-4o-mini", 3, 5)
    assert price.prices() == {
        "input": 150_000_000,
        "cache_read": 75_000_000,
        "output": 600_000_000,
    }
    assert list_actions() == ["model.imported", "model.imported"]
    event = AdminEvent.objects.latest("id")
    assert event.after is not None
    assert (event.object_id, event.after["price"]["input_nanos"]) == (str(model.pk), 150_000_000)
    assert event.after["route"]["provider_id"] == provider.pk


def test_what_the_list_does_not_tell_is_assumed_and_said(client: APIClient) -> None:
    known = next(model for model in load_known_models().models if model.context_length is None)

    answer = client.post(IMPORT, {"models": [{"provider": known.provider, "model": known.model}]})

    (made,) = answer.json()["results"]
    model = AIModel.objects.get(pk=made["id"])
    assert made["assumed"] == ["context_length", "max_output_tokens"]
    assert (model.context_length, model.max_output_tokens) == (128_000, 16_384)


def test_what_exists_is_left_as_it_is(client: APIClient) -> None:
    create_model(name="gpt-4o", prices={"input": 1}, display_name="Mine")
    choice = {"provider": "openai", "model": "gpt-4o"}
    other = {"provider": "openai", "model": "gpt-4o-mini", "name": "new"}
    provider = Provider.objects.create(name="p", base_url="https://api.example.com/v1")

    answer = client.post(
        IMPORT,
        {"models": [choice, other, {**choice, "name": "new"}], "route_provider": provider.pk},
    )

    results = answer.json()["results"]
    assert [row["status"] for row in results] == ["exists", "created", "exists"]
    assert results[1]["id"] == results[2]["id"]
    kept = AIModel.objects.get(name="gpt-4o")
    assert (kept.display_name, kept.price_versions.get().input_nanos) == ("Mine", 1)
    assert list(Route.objects.values_list("model__name", flat=True)) == ["new"]


GPT = {"provider": "openai", "model": "gpt-4o"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"models": []}, "models"),
        ({}, "models"),
        ({"models": [{"provider": "openai", "model": "nothing"}]}, "models"),
        ({"models": [{**GPT, "prices": {}}]}, "models"),
        ({"models": [{**GPT, "name": "a b"}]}, "models"),
        ({"models": [{"provider": "openai"}]}, "models"),
        ({"models": [GPT] * 501}, "models"),
        ({"models": [GPT], "route_provider": 999_999}, "route_provider"),
        ({"models": [GPT], "price": "1"}, "price"),
    ],
)
def test_an_import_that_cannot_be_makes_nothing(
    client: APIClient, body: dict[str, Any], field: str
) -> None:
    answer = client.post(IMPORT, body)

    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert (AIModel.objects.count(), list_actions()) == (0, [])


def test_an_import_takes_few_queries(
    client: APIClient, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    known = [model for model in load_known_models().models if model.provider == "openai"][:20]
    body = {"models": [{"provider": model.provider, "model": model.model} for model in known]}

    # The session; a transaction and a savepoint in it, of two queries each; names; models; prices;
    # an event for each.
    with django_assert_num_queries(8 + 20):
        answer = client.post(IMPORT, body)

    assert {row["status"] for row in answer.json()["results"]} == {"created"}


def test_only_administrators_import(db: None) -> None:
    for role, status_code in ((Role.USER, 403), (Role.VIEWER, 200), (Role.ANALYST, 200)):
        other = rest_client(make_user(role=role))
        assert other.get(PATH).status_code == status_code
        assert other.post(IMPORT, {}).status_code == 403
