"""Tests that nothing about models, routes and groups changes without its event (I-71)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from django.db import connection
from rest_framework.test import APIClient

from apps.ai_models.catalogue import create_model, ensure_route
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.model_groups.groups import create_group
from apps.model_groups.models import ModelGroup
from apps.providers.models import Provider

CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "models", {"name": "new", "prices": {"input": "1"}}),
    ("POST", "models", {"name": "big", "prices": {"input": "1"}}),
    ("PUT", "models/{model}", {"name": "huge"}),
    ("PATCH", "models/{model}", {"input_price_per_1k": "1"}),
    ("PATCH", "models/{model}", {"provider": "{other}"}),
    ("DELETE", "models/{model}", {}),
    ("DELETE", "models/{unpriced}", {}),
    ("POST", "models/{model}/prices", {"prices": {"input": "1"}}),
    ("POST", "routes", {"model": "{model}", "provider": "{other}"}),
    ("PATCH", "routes/{route}", {"weight": 9}),
    ("PATCH", "routes/{route}", {"cost_prices": {"input": "1"}}),
    ("POST", "routes/{route}/costs", {"prices": {"input": "1"}}),
    ("DELETE", "routes/{route}", {}),
    ("POST", "model-groups", {"name": "new", "models": ["{model}"]}),
    ("PUT", "model-groups/{group}", {"name": "all", "models": []}),
    ("PATCH", "model-groups/{group}", {"multiplier": "2"}),
    ("DELETE", "model-groups/{group}", {}),
    ("POST", "known-models/import", {"models": [{"provider": "openai", "model": "gpt-4o"}]}),
]


class EventsAreAway(Exception):
    """The table of events cannot be written."""


def _refuse_events(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
    if sql.startswith('INSERT INTO "audit_adminevent"'):
        raise EventsAreAway
    return execute(sql, *rest)


def _everything() -> list[Any]:
    links = (ModelGroup.models.through, ModelGroup.user_groups.through)
    tables = (AIModel, Route, PriceVersion, ModelGroup, *links)
    return [list(table._default_manager.order_by("pk").values()) for table in tables]


def _fill(value: Any, ids: dict[str, int]) -> Any:
    if isinstance(value, dict):
        return {name: _fill(inner, ids) for name, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, ids) for inner in value]
    return ids.get(value.strip("{}"), value) if isinstance(value, str) else value


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_a_change_whose_event_cannot_be_written_is_none(
    client: APIClient, method: str, path: str, body: dict[str, Any]
) -> None:
    here, other = (
        Provider.objects.create(name=name, base_url="https://api.example.com/v1")
        for name in ("here", "other")
    )
    model = create_model(name="big", prices={"input": 1, "output": 2})
    unpriced = create_model(name="unpriced", provider=here)
    ids = {
        "other": other.pk,
        "model": model.pk,
        "unpriced": unpriced.pk,
        "route": ensure_route(model=model, provider=here).pk,
        "group": create_group(name="all", models=[model, unpriced]).pk,
    }
    path = f"/api/admin/{path.format(**ids)}/"
    sent = orjson.dumps(_fill(body, ids)).decode()
    before = _everything()

    with connection.execute_wrapper(_refuse_events), pytest.raises(EventsAreAway):
        client.generic(method, path, sent, content_type="application/json")
    unchanged = _everything()
    answer = client.generic(method, path, sent, content_type="application/json")

    assert unchanged == before
    assert answer.status_code < 300 or answer.json()["code"] == "archived_instead"
    assert _everything() != before
