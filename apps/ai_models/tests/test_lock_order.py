"""Whoever makes routes locks provider, model and route in this order, so that all queue up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from apps.ai_models.catalogue import change_model, create_model, ensure_route
from apps.ai_models.models import AIModel, Route
from apps.ai_models.routes import create_route
from apps.providers.models import Provider
from tests.support.databases import Database
from tests.support.processes import wait_until

pytestmark = pytest.mark.postgres

Act = Callable[[AIModel, Provider], object]


def _waiting() -> int:
    with connection.cursor() as cursor:
        # A transaction would see the same for ever.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        return int(cursor.fetchone()[0])


def _change(model: AIModel, provider: Provider) -> object:
    return change_model(model=model, values={}, provider=provider, upstream_name="changed")


def _ensure(model: AIModel, provider: Provider) -> object:
    return ensure_route(model=model, provider=provider, upstream_name="made")


@pytest.mark.parametrize("act", [_change, _ensure])
def test_two_that_make_routes_at_once_do_not_wait_for_each_other(
    committed_db: Database, act: Act
) -> None:
    provider = Provider.objects.create(name="p", base_url="https://api.example.com/v1")
    model = create_model(name="big")

    def run(function: Act) -> None:
        try:
            function(model, provider)
        finally:
            connection.close()

    def create(model: AIModel, provider: Provider) -> object:
        return create_route(model=model, provider=provider, upstream_name="made")

    with ThreadPoolExecutor(2) as threads:
        with transaction.atomic():
            Provider.objects.select_for_update().get(pk=provider.pk)
            first = threads.submit(run, create)
            wait_until(lambda: _waiting() == 1, timeout_seconds=20, what="the first to wait")
            second = threads.submit(run, act)
            wait_until(lambda: _waiting() == 2, timeout_seconds=20, what="the second to wait")
        assert (first.exception(), second.exception()) == (None, None)

    assert Route.objects.filter(upstream_name="made").count() == 1
