"""Configuration is stamped at every step of migrations, back and forth.

On SQLite only: it loses the triggers of a table that it rebuilds.
"""

from __future__ import annotations

import importlib

import pytest
from django.db import IntegrityError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from apps.ai_models.models import AIModel, PriceVersion
from apps.proxy.models import ConfigurationVersion
from tests.support.databases import Database

STAMPING = ("proxy", "0002_stamp_configuration")
OURS = (
    *("ai_models", "api_keys", "audit", "billing", "model_groups"),
    *("providers", "proxy", "quotas", "users"),
)
WATCHED: tuple[str, ...] = tuple(
    importlib.import_module(f"apps.proxy.migrations.{STAMPING[1]}").WATCHED
)
ENDINGS = ("_stamp_insert", "_stamp_update", "_stamp_delete")
pytestmark = pytest.mark.sqlite


def find_unstamped() -> list[str]:
    """Return the watched tables that lack one of their triggers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'")
        found = set(cursor.fetchall())
    return [table for table in WATCHED if any((table, table + end) not in found for end in ENDINGS)]


def list_later() -> list[tuple[str, str]]:
    """Return our migrations that can be undone while configuration is stamped, in order."""
    graph = MigrationExecutor(connection).loader.graph
    needed = set(graph.forwards_plan(STAMPING))
    found = [
        key
        for leaf in graph.leaf_nodes()
        for key in graph.forwards_plan(leaf)
        if key[0] in OURS and key not in needed
    ]
    return list(dict.fromkeys(found))


def go_to(app: str, name: str | None) -> None:
    MigrationExecutor(connection).migrate([(app, name)])


def test_no_step_back_or_forth_loses_a_stamp(committed_db: Database) -> None:
    later = list_later()
    unstamped = {}

    for app, name in reversed(later):
        parents = MigrationExecutor(connection).loader.graph.node_map[(app, name)].parents
        go_to(app, next((parent.key[1] for parent in parents if parent.key[0] == app), None))
        unstamped[f"back over {app}.{name}"] = find_unstamped()
    for app, name in later:
        go_to(app, name)
        unstamped[f"forth over {app}.{name}"] = find_unstamped()

    assert ("users", "0003_spending_caps") in later
    assert {step: tables for step, tables in unstamped.items() if tables} == {}
    before = ConfigurationVersion.objects.get().version
    model = AIModel.objects.create(name="m")
    assert ConfigurationVersion.objects.get().version == before + 1
    price = PriceVersion.objects.create(model=model, effective_at=timezone.now(), minimum_nanos=5)
    with pytest.raises(IntegrityError, match="append-only"):
        PriceVersion.objects.filter(pk=price.pk).update(terms={})
    with pytest.raises(IntegrityError, match="append-only"):
        PriceVersion.objects.filter(pk=price.pk).delete()
