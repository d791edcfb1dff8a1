"""What a running call names stays: it is not on record yet, only its hold is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from django.db import models
from django.utils import timezone

from apps.ai_models.catalogue import ModelNameInUse, change_model
from apps.ai_models.models import PriceVersion, Route
from apps.ai_models.removal import remove_model, remove_route
from apps.ai_models.routes import RouteInUse, change_route
from apps.ai_models.traces import look_for_model, look_for_route
from apps.api_keys.changes import remove_key
from apps.audit.history import Look
from apps.audit.models import Attempt
from apps.billing.models import Hold
from apps.core.ids import new_uuid7, uuid7_lower_bound
from apps.providers.credentials import look_for_key
from apps.providers.models import Provider, ProviderKey
from apps.providers.registration import delete_provider, look_for_provider
from tests.support.calls import record_call
from tests.support.people import make_admin
from tests.support.world import World, hold_detail, make_world

pytestmark = pytest.mark.usefixtures("db")


@pytest.fixture
def world(db: None) -> World:
    """Return one of each that can be called; the model has no price, which would keep it."""
    world = make_world()
    model = type(world.model).objects.create(name="unpriced")
    route = Route.objects.create(model=model, provider=world.provider, upstream_name="u")
    lone = Provider.objects.create(name="lone", base_url="http://127.0.0.1:9/v1")
    ProviderKey.objects.create(provider=lone, sealed_secret="x", last_four="")
    return replace(world, model=model, route=route, provider=lone)


def begin_call(world: World) -> Hold:
    """Write the hold of a call that has begun."""
    return Hold.objects.create(
        request_id=new_uuid7(),
        incarnation_id=1,
        customer_id=world.customer.pk,
        amount_nanos=0,
        legs="[]",
        counters="[]",
        detail=orjson.dumps(hold_detail(world)).decode(),
        placed_at=timezone.now(),
    )


def remove_all(world: World) -> dict[str, bool]:
    """Return what could be deleted."""
    actor = make_admin()
    return {
        "key": remove_key(key_id=world.key.pk, actor=actor, is_by_owner=True),
        "route": remove_route(route=world.route),
        "model": remove_model(model=world.model),
        "provider": delete_provider(provider=world.provider),
    }


def test_what_a_running_call_names_is_not_deleted(world: World) -> None:
    begin_call(world)

    assert remove_all(world) == dict.fromkeys(("key", "route", "model", "provider"), False)


def test_what_running_calls_do_not_name_is_deleted(world: World) -> None:
    hold = begin_call(world)
    detail = orjson.loads(hold.detail)
    for name in ("api_key_id", "route_id", "model_id", "provider_id"):
        detail[name] = int(f"{detail[name]}0")
    # A caller's own text is no column.
    detail["user_agent"] = f'"api_key_id":{world.key.pk},"model_id":{world.model.pk}}}'
    Hold.objects.filter(pk=hold.pk).update(detail=orjson.dumps(detail).decode())

    assert remove_all(world) == dict.fromkeys(("key", "route", "model", "provider"), True)


def test_what_a_running_call_names_keeps_its_name_and_ends(world: World) -> None:
    begin_call(world)

    with pytest.raises(ModelNameInUse):
        change_model(model=world.model, values={"name": "other"})
    with pytest.raises(RouteInUse):
        change_route(route=world.route, values={"provider": make_world().provider})

    assert PriceVersion.objects.filter(model=world.model).count() == 0


def _attempt(world: World, minutes_ago: float) -> None:
    at = timezone.now() - timedelta(minutes=minutes_ago)
    Attempt.objects.create(
        id=uuid7_lower_bound(at),
        request_id=new_uuid7(),
        number=1,
        route_id=world.route.pk,
        provider_id=world.provider.pk,
        provider_name="p",
        provider_key_id=world.provider.keys.get().pk,
        upstream_model="u",
        started_at=at,
        duration_ms=1,
        outcome="ok",
    )


def _call(world: World, minutes_ago: float) -> None:
    record_call(
        model_id=world.model.pk,
        requested_model=world.model.name,
        provider_id=world.provider.pk,
        route_id=world.route.pk,
        started_at=timezone.now() - timedelta(minutes=minutes_ago),
    )


LOOKS: list[tuple[str, Callable[[World], Look], Callable[[World, float], None]]] = [
    ("model", lambda world: look_for_model(world.model), _call),
    ("provider", lambda world: look_for_provider(world.provider), _call),
    ("provider", lambda world: look_for_provider(world.provider), _attempt),
    ("key", lambda world: look_for_key(world.provider.keys.get()), _attempt),
]


@pytest.mark.parametrize(("name", "look", "call"), LOOKS)
def test_a_call_from_a_host_whose_clock_is_behind_is_found(
    world: World,
    name: str,
    look: Callable[[World], Look],
    call: Callable[[World, float], None],
) -> None:
    call(world, 0.7)

    assert look(world).is_found


@pytest.mark.parametrize(("name", "look", "call"), LOOKS)
def test_a_call_between_the_look_and_the_transaction_is_found(
    world: World,
    name: str,
    look: Callable[[World], Look],
    call: Callable[[World, float], None],
) -> None:
    looked = look(world)
    call(world, 0.7)

    assert (looked.is_found, looked.is_called()) == (False, True)


def test_inside_the_transaction_only_what_came_since_is_read(world: World) -> None:
    long_ago = timezone.now() - timedelta(days=1)
    for row in (world.model, world.route):
        kind: type[models.Model] = type(row)
        kind._default_manager.filter(pk=row.pk).update(created_at=long_ago)
        row.refresh_from_db()
    looks = [look_for_model(world.model), look_for_route(world.route)]

    _call(replace(world, provider=world.route.provider), 30)

    assert [look.is_called() for look in looks] == [False, False]
    assert look_for_model(world.model).is_called()
    assert look_for_route(world.route).is_called()
