"""What was never used but is too old to be sure of that in time stays: it is only deactivated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.ai_models.models import AIModel, Route
from apps.ai_models.removal import remove_model, remove_route
from apps.audit.models import AdminEvent
from apps.providers.credentials import delete_key, is_used
from apps.providers.models import Provider, ProviderKey
from apps.providers.registration import delete_provider
from tests.support.databases import Database
from tests.support.people import make_admin, rest_client

# Nothing ends a statement of SQLite's.
pytestmark = pytest.mark.postgres


@pytest.fixture
def key(committed_db: Database) -> ProviderKey:
    """Return the key of a provider without routes."""
    provider = Provider.objects.create(name="old", base_url="http://127.0.0.1:9/v1")
    return ProviderKey.objects.create(provider=provider, sealed_secret="x", last_four="")


@pytest.fixture
def route(key: ProviderKey) -> Route:
    """Return a route that never cost anything, of a model without a price."""
    model = AIModel.objects.create(name="unpriced")
    return Route.objects.create(model=model, provider=key.provider, upstream_name="u")


@pytest.fixture
def endless(committed_db: Database, key: ProviderKey, route: Route) -> Iterator[None]:
    """Have no statement that reads attempts return before its time is over."""
    with closing(committed_db.connect()) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE audit_attempt IN ACCESS EXCLUSIVE MODE")
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '500ms'")
        yield
        other.execute("ROLLBACK")


def events() -> list[str]:
    return list(AdminEvent.objects.order_by("pk").values_list("action", flat=True))


def test_a_key_is_deactivated(endless: None, key: ProviderKey) -> None:
    deleted = delete_key(key=key)

    key.refresh_from_db()
    assert (deleted, key.is_active) == (False, False)
    assert events() == ["provider_key.deactivated"]


def test_a_provider_is_deactivated(endless: None, key: ProviderKey, route: Route) -> None:
    Route.objects.filter(pk=route.pk).delete()

    deleted = delete_provider(provider=key.provider)

    key.provider.refresh_from_db()
    assert (deleted, key.provider.is_active) == (False, False)
    assert events() == ["provider.deactivated"]


def test_a_route_is_deactivated(endless: None, route: Route) -> None:
    deleted = remove_route(route=route)

    route.refresh_from_db()
    assert (deleted, route.is_active) == (False, False)
    assert events() == ["route.deactivated"]


def test_a_model_is_deactivated_after_the_first_route_that_takes_so_long(
    endless: None, route: Route
) -> None:
    Route.objects.create(model=route.model, provider=route.provider, upstream_name="v")

    with CaptureQueriesContext(connection) as queries:
        deleted = remove_model(model=route.model)

    route.model.refresh_from_db()
    assert (deleted, route.model.is_active) == (False, False)
    assert events() == ["model.deactivated"]
    assert len([query for query in queries if "audit_attempt" in query["sql"]]) == 1


def test_the_transaction_around_goes_on(endless: None, key: ProviderKey) -> None:
    with transaction.atomic():
        used = is_used(key)
        name = Provider.objects.get(pk=key.provider_id).name

    assert (used, name) == (True, "old")


def test_the_answer_is_409(endless: None, key: ProviderKey) -> None:
    client = rest_client(make_admin(username="root"))

    answer = client.delete(f"/api/admin/providers/{key.provider_id}/keys/{key.pk}/")

    assert (answer.status_code, answer.json()["code"]) == (409, "archived_instead")


def test_the_django_admin_says_so(endless: None, key: ProviderKey, route: Route) -> None:
    Route.objects.filter(pk=route.pk).delete()
    browser = Client()
    browser.force_login(make_admin(username="root"))

    answer = browser.post(
        f"/admin/providers/provider/{key.provider_id}/delete/", {"post": "yes"}, follow=True
    )

    assert "cannot be deleted" in answer.content.decode()
    assert Provider.objects.filter(pk=key.provider_id, is_active=True).exists()
