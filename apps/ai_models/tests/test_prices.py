"""Tests of prices as values, of their versions, and of capabilities."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from apps.ai_models.capabilities import CapabilitiesRefused, check_capabilities
from apps.ai_models.catalogue import (
    EffectiveInPast,
    WholePriceNeeded,
    add_price,
    change_price,
    create_model,
    set_price,
)
from apps.ai_models.models import PriceVersion
from apps.ai_models.prices import (
    PRICE_NANOS_MAX,
    Price,
    PriceChange,
    find_version,
    format_per_1k,
    list_versions,
    parse_per_1k,
    state_of,
)
from apps.ai_models.routes import create_route
from apps.audit.models import AdminEvent
from apps.core.money import InvalidAmount, format_usd
from apps.providers.models import Provider
from tests.support.cases import for_all


@given(st.integers(0, PRICE_NANOS_MAX))
def test_a_price_per_thousand_is_the_one_per_million_exactly(nanos: int) -> None:
    text = format_per_1k(nanos)

    assert parse_per_1k(text) == nanos
    assert Decimal(text) * 1_000 == Decimal(format_usd(nanos))


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("0.0025", 2_500_000_000),
        ("0.000000000001", 1),
        ("1000", 10**15),
        ("2.5E-3", 2_500_000_000),
        ("0", 0),
        (1, 10**12),
    ],
)
def test_prices_per_thousand_are_read_exactly(text: Any, nanos: int) -> None:
    assert parse_per_1k(text) == nanos


@for_all(
    "text",
    [
        "0.0000000000001", "1e-13", "1000.000000000001", "-1", "-0.1", "+1", "1,5", "", " 1", "NaN",
        "Infinity", "1e999", "١", "9" * 41, 0.0025, True, None, [], 10**30, -1,
    ],
)  # fmt: skip
def test_what_is_no_price_per_thousand_is_refused(text: Any) -> None:
    with pytest.raises(InvalidAmount):
        parse_per_1k(text)


def test_a_change_of_one_class_keeps_the_others() -> None:
    old = Price({"input": 1, "cache_read": 2, "output": 3}, request_nanos=4)

    assert PriceChange(classes={"input": 9}).of(old) == Price(
        {"input": 9, "cache_read": 2, "output": 3}, request_nanos=4
    )
    assert PriceChange(whole=Price({"input": 9})).of(old) == Price({"input": 9})


@pytest.mark.usefixtures("db")
def test_the_same_price_again_makes_no_version() -> None:
    model = create_model(name="big", prices={"input": 1, "output": 2}, request_nanos=3)
    events = AdminEvent.objects.count()

    same = change_price(model=model, change=PriceChange(whole=Price({"output": 2, "input": 1}, 3)))
    also = change_price(model=model, change=PriceChange(classes={"output": 2}))

    assert (same, also) == (None, None)
    assert (PriceVersion.objects.count(), AdminEvent.objects.count()) == (1, events)


@pytest.mark.usefixtures("db")
def test_a_price_never_counts_from_the_past() -> None:
    model = create_model(name="big", prices={"input": 1})
    before = timezone.now()

    with pytest.raises(EffectiveInPast):
        set_price(
            model=model, prices={"input": 2}, effective_at=timezone.now() - timedelta(seconds=90)
        )
    slow_clock = set_price(
        model=model, prices={"input": 3}, effective_at=timezone.now() - timedelta(seconds=30)
    )

    assert slow_clock.effective_at >= before
    assert list(model.price_versions.order_by("id").values_list("input_nanos", flat=True)) == [1, 3]


@pytest.mark.usefixtures("db")
def test_an_event_tells_the_price_before_and_after() -> None:
    model = create_model(name="big", prices={"input": 1, "output": 2})

    add_price(model=model, change=PriceChange(classes={"input": 5}))

    event = AdminEvent.objects.latest("id")
    assert event.action == "price.created"
    assert event.before is not None
    assert event.after is not None
    assert (event.before["input_nanos"], event.after["input_nanos"]) == (1, 5)
    assert (event.before["output_nanos"], event.after["output_nanos"]) == (2, 2)


@pytest.mark.usefixtures("db")
def test_a_later_version_of_the_same_moment_takes_the_place_of_an_earlier_one() -> None:
    model = create_model(name="big", prices={"input": 1})
    soon = timezone.now() + timedelta(days=1)
    set_price(model=model, prices={"input": 2}, effective_at=soon)
    set_price(model=model, prices={"input": 3}, effective_at=soon)
    set_price(model=model, prices={"input": 3}, effective_at=soon + timedelta(1))
    now = timezone.now()

    current = find_version(at=now, model=model)
    assert current is not None
    states = [
        (version.input_nanos, state_of(version, current_id=current.pk, now=now))
        for version in list_versions(model=model)
    ]

    assert states == [(3, "future"), (3, "future"), (2, "superseded"), (1, "current")]
    at_soon = find_version(at=soon, model=model)
    assert at_soon is not None
    assert at_soon.input_nanos == 3


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("whose", ["model", "route"])
@pytest.mark.parametrize("price", [100, 200])
def test_the_last_price_set_counts_although_another_clock_was_ahead(
    monkeypatch: pytest.MonkeyPatch, whose: str, price: int
) -> None:
    model = create_model(name="big")
    provider = Provider.objects.create(name="p", base_url="https://api.example.com/v1")
    route = create_route(model=model, provider=provider)
    owner: Any = {"model": model} if whose == "model" else {"route": route}
    set_price(**owner, prices={"input": 100})
    ahead = timezone.now() + timedelta(seconds=30)
    with monkeypatch.context() as clock:
        clock.setattr(timezone, "now", lambda: ahead)
        set_price(**owner, prices={"input": 999})

    change_price(**owner, change=PriceChange(whole=Price({"input": price})))

    seen = [find_version(at=ahead + timedelta(seconds=s), **owner) for s in (0, 1, 86_400)]
    assert [version and version.input_nanos for version in seen] == [price, price, price]


@pytest.mark.usefixtures("db")
def test_a_price_that_was_given_a_moment_is_not_waited_for() -> None:
    model = create_model(name="big")
    soon = timezone.now() + timedelta(seconds=100)
    set_price(model=model, prices={"input": 2}, effective_at=soon)

    set_price(model=model, prices={"input": 1})

    seen = [find_version(at=moment, model=model) for moment in (timezone.now(), soon)]
    assert [version and version.input_nanos for version in seen] == [1, 2]


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("change", [PriceChange(classes={"input": 2}), PriceChange()])
def test_a_later_price_is_given_whole(change: PriceChange) -> None:
    model = create_model(name="big", prices={"input": 1, "output": 4})

    with pytest.raises(WholePriceNeeded):
        add_price(model=model, change=change, effective_at=timezone.now() + timedelta(days=1))

    assert PriceVersion.objects.count() == 1


@pytest.mark.usefixtures("db")
def test_what_counted_once_is_past() -> None:
    model = create_model(name="big", prices={"input": 1})
    set_price(model=model, prices={"input": 2})
    now = timezone.now()

    states = [
        state_of(version, current_id=version.pk if version.input_nanos == 2 else None, now=now)
        for version in list_versions(model=model)
    ]

    assert states == ["current", "past"]
    assert find_version(at=datetime(2020, 1, 1, tzinfo=UTC), model=model) is None


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"vision": True, "modalities": ["text", "image"], "limits": {"images": 10, "share": 0.5}},
        {"a": {"b": {"c": {"d": None}}}},
    ],
)
def test_capabilities_are_a_small_object(value: dict[str, Any]) -> None:
    assert check_capabilities(value) == value


@for_all(
    "value",
    [
        [], "text", None, 1, True,
        {"a": {"b": {"c": {"d": {}}}}},
        {"a": [[[[]]]]},
        {"a": [0] * 200},
        {"a": "x" * 8_192},
        {"a": "\x00"}, {"\x00": 1}, {"a": "\ud800"}, {"a": float("inf")}, {"a": 2**63},
    ],
)  # fmt: skip
def test_what_no_database_could_keep_is_no_capability(value: Any) -> None:
    with pytest.raises(CapabilitiesRefused):
        check_capabilities(value)
