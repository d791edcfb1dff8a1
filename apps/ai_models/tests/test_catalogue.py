"""Tests of the catalogue."""

from __future__ import annotations

import pytest

from apps.ai_models.catalogue import (
    ModelExists,
    PriceOutOfRange,
    UnknownTokenClass,
    create_model,
    ensure_route,
    put_model,
    set_price,
)
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.audit.models import AdminEvent
from apps.providers.models import Provider

pytestmark = pytest.mark.usefixtures("db")


def _provider() -> Provider:
    return Provider.objects.create(
        name="somewhere", base_url="https://api.example.com/v1", priority=3, weight=5
    )


def test_a_model_comes_with_its_route_and_price() -> None:
    model = create_model(
        name="big",
        provider=_provider(),
        upstream_name="big-2026",
        prices={"input": 2_500_000_000, "output": 10_000_000_000},
        request_nanos=7,
    )

    route, price = Route.objects.get(model=model), PriceVersion.objects.get(model=model)
    assert (route.upstream_name, route.priority, route.weight) == ("big-2026", 3, 5)
    assert price.prices() == {"input": 2_500_000_000, "output": 10_000_000_000}
    assert price.request_nanos == 7
    assert list(AdminEvent.objects.order_by("id").values_list("action", flat=True)) == [
        "model.created",
        "route.created",
        "price.created",
    ]


def test_a_name_is_taken_once() -> None:
    create_model(name="big")

    with pytest.raises(ModelExists):
        create_model(name="big")


def test_a_route_is_made_once() -> None:
    model, provider = create_model(name="big"), _provider()

    first = ensure_route(model=model, provider=provider)
    second = ensure_route(model=model, provider=provider, upstream_name="big")

    assert first == second
    assert Route.objects.count() == 1


def test_a_new_price_is_a_new_version() -> None:
    model = create_model(name="big", prices={"input": 1})

    set_price(model=model, prices={"input": 2})

    assert list(PriceVersion.objects.order_by("id").values_list("input_nanos", flat=True)) == [1, 2]


@pytest.mark.parametrize("nanos", [-1, 10**15 + 1])
def test_a_price_out_of_range_makes_nothing(nanos: int) -> None:
    with pytest.raises(PriceOutOfRange):
        create_model(name="big", prices={"input": nanos})
    assert (AIModel.objects.count(), AdminEvent.objects.count()) == (0, 0)


def test_a_price_for_what_is_not_counted_makes_nothing() -> None:
    with pytest.raises(UnknownTokenClass):
        create_model(name="big", prices={"inputs": 1})
    assert AIModel.objects.count() == 0


def test_putting_a_known_model_changes_it_and_adds_a_price() -> None:
    model = create_model(name="big", prices={"input": 1}, context_length=1_000)

    same, is_new = put_model(name="big", values={"display_name": "Big"}, prices={"input": 2})

    assert (same.pk, is_new) == (model.pk, False)
    assert (same.display_name, same.context_length) == ("Big", 1_000)
    assert PriceVersion.objects.count() == 2
    changed = AdminEvent.objects.get(action="model.changed")
    assert (changed.before, changed.after) == ({"display_name": ""}, {"display_name": "Big"})
