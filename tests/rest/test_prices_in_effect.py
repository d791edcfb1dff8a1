"""Tests that the price which REST shows is the one by which the gateway charges."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.ai_models.catalogue import create_model, ensure_route, set_price
from apps.ai_models.prices import find_version
from apps.providers.models import Provider
from apps.proxy.loader import load_snapshot
from tests.support.people import make_admin, rest_client

pytestmark = pytest.mark.usefixtures("db")


def test_of_versions_from_one_moment_the_gateway_takes_the_last_one() -> None:
    model = create_model(name="big", prices={"input": 1, "output": 1})
    soon = timezone.now() + timedelta(days=1)
    set_price(model=model, prices={"input": 2, "output": 2}, effective_at=soon)
    set_price(model=model, prices={"input": 3, "output": 3}, effective_at=soon)
    # Made last, counts first: the moment decides before the order of making.
    set_price(model=model, prices={"input": 4, "output": 4})

    history = load_snapshot().catalogue.models["big"].prices

    charged = [history.at(at) for at in (timezone.now(), soon, soon + timedelta(days=9))]
    shown = [
        find_version(at=at, model=model) for at in (timezone.now(), soon, soon + timedelta(days=9))
    ]
    assert [price and price.input for price in charged] == [4, 3, 3]
    assert [price and price.id for price in charged] == [row and row.pk for row in shown]


def test_a_replaced_cost_counts_for_the_gateway_too() -> None:
    provider = Provider.objects.create(name="p", base_url="https://api.example.com/v1")
    model = create_model(name="big", prices={"input": 1, "output": 1})
    route = ensure_route(model=model, provider=provider)
    client = rest_client(make_admin())
    soon = timezone.now() + timedelta(days=1)
    path = f"/api/admin/routes/{route.pk}/costs/"

    for price in ("1", "2"):
        body = {"prices": {"input": price}, "effective_at": soon.isoformat()}
        assert client.post(path, body).status_code == 201

    (loaded,) = load_snapshot().catalogue.models["big"].routes
    cost = loaded.costs.at(soon)
    assert cost is not None
    assert (cost.input, loaded.costs.at(timezone.now())) == (2_000_000_000, None)
