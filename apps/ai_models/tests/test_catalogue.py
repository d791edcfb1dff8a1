"""Tests of the catalogue."""

from __future__ import annotations

import itertools

import pytest

from apps.ai_models.catalogue import (
    ModelExists,
    change_model,
    change_price,
    create_model,
    ensure_route,
    put_model,
    set_price,
)
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.ai_models.prices import Price, PriceChange, PriceOutOfRange, UnknownTokenClass
from apps.audit.models import AdminEvent
from apps.providers.models import Provider
from tests.support.databases import Database
from tests.support.races import at_once

THREADS = 6


def _provider() -> Provider:
    return Provider.objects.create(
        name="somewhere", base_url="https://api.example.com/v1", priority=3, weight=5
    )


@pytest.mark.usefixtures("db")
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


@pytest.mark.usefixtures("db")
def test_a_name_is_taken_once() -> None:
    create_model(name="big")

    with pytest.raises(ModelExists):
        create_model(name="big")


@pytest.mark.usefixtures("db")
def test_a_route_is_made_once() -> None:
    model, provider = create_model(name="big"), _provider()

    first = ensure_route(model=model, provider=provider)
    second = ensure_route(model=model, provider=provider, upstream_name="big")

    assert first == second
    assert Route.objects.count() == 1


@pytest.mark.usefixtures("db")
def test_a_new_price_is_a_new_version() -> None:
    model = create_model(name="big", prices={"input": 1})

    set_price(model=model, prices={"input": 2})

    assert list(PriceVersion.objects.order_by("id").values_list("input_nanos", flat=True)) == [1, 2]


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("nanos", [-1, 10**15 + 1])
def test_a_price_out_of_range_makes_nothing(nanos: int) -> None:
    with pytest.raises(PriceOutOfRange):
        create_model(name="big", prices={"input": nanos})
    assert (AIModel.objects.count(), AdminEvent.objects.count()) == (0, 0)


@pytest.mark.usefixtures("db")
def test_a_price_for_what_is_not_counted_makes_nothing() -> None:
    with pytest.raises(UnknownTokenClass):
        create_model(name="big", prices={"inputs": 1})
    assert AIModel.objects.count() == 0


@pytest.mark.usefixtures("db")
def test_putting_a_known_model_changes_it_and_adds_a_price() -> None:
    model = create_model(name="big", prices={"input": 1}, context_length=1_000)

    same, is_new = put_model(
        name="big",
        values={"display_name": "Big"},
        price=PriceChange(whole=Price({"input": 2})),
    )

    assert (same.pk, is_new) == (model.pk, False)
    assert (same.display_name, same.context_length) == ("Big", 1_000)
    assert PriceVersion.objects.count() == 2
    changed = AdminEvent.objects.get(action="model.changed")
    assert (changed.before, changed.after) == ({"display_name": ""}, {"display_name": "Big"})


@pytest.mark.usefixtures("db")
def test_what_is_equal_in_python_or_in_an_event_is_written_where_it_differs() -> None:
    model = create_model(name="big", description="x" * 3_000, capabilities={"vision": True})

    change_model(model=model, values={"description": "x" * 2_999 + "y"})
    change_model(model=model, values={"capabilities": {"vision": 1}})
    change_model(model=model, values={"capabilities": {"vision": 1}})

    model.refresh_from_db()
    assert model.description == "x" * 2_999 + "y"
    assert model.capabilities["vision"] is not True
    events = AdminEvent.objects.filter(action="model.changed").order_by("id")
    assert [list(event.after or {}) for event in events] == [["description"], ["capabilities"]]


def test_editors_at_once_are_all_on_record(committed_db: Database) -> None:
    model = create_model(name="big")

    at_once(THREADS, lambda number: change_model(model=model, values={"position": number + 1}))

    events = AdminEvent.objects.filter(action="model.changed").order_by("id")
    changes = [(event.before, event.after) for event in events]
    assert len(changes) == THREADS
    # Each change begins where the one before it ended.
    assert changes[0][0] == {"position": 0}
    for (_, ended), (began, _) in itertools.pairwise(changes):
        assert began == ended
    assert changes[-1][1] == {"position": AIModel.objects.get().position}


def test_changes_of_one_class_at_once_lose_none(committed_db: Database) -> None:
    model = create_model(name="big", prices={"input": 100, "output": 100})
    names = ("input", "output", "cache_read", "reasoning", "audio_in", "audio_out")

    at_once(
        THREADS,
        lambda number: change_price(
            model=model, change=PriceChange(classes={names[number]: number + 1})
        ),
    )

    newest = PriceVersion.objects.latest("effective_at", "id")
    assert newest.prices() == {name: number for number, name in enumerate(names, start=1)}
    assert PriceVersion.objects.count() == THREADS + 1


def test_a_name_that_many_take_at_once_makes_one_model(committed_db: Database) -> None:
    answers: list[bool | None] = []

    def put(number: int) -> None:
        try:
            answers.append(put_model(name="big", values={"position": number})[1])
        except ModelExists:
            answers.append(None)

    at_once(THREADS, put)

    assert len(answers) == THREADS
    assert answers.count(True) == 1
    assert (AIModel.objects.count(), AdminEvent.objects.filter(action="model.created").count()) == (
        1,
        1,
    )
