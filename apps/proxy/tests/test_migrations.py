"""Configuration is stamped at every step of migrations, back and forth.

On SQLite only: it loses the triggers of a table that it rebuilds.
"""

from __future__ import annotations

import importlib
from collections.abc import Set
from typing import Final

import pytest
from django.db import IntegrityError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.state import ProjectState
from django.utils import timezone

from apps.ai_models.models import AIModel, PriceVersion
from apps.proxy.models import ConfigurationVersion
from tests.support.databases import Database

Key = tuple[str, str]  # an app and the name of a migration

STAMPING: Final = ("proxy", "0002_stamp_configuration")
STAMPING_RULES: Final = ("risk", "0002_stamp_rules")
OURS: Final = (
    *("ai_models", "api_keys", "audit", "billing", "model_groups"),
    *("providers", "proxy", "quotas", "risk", "users"),
)
WATCHED: Final[tuple[str, ...]] = tuple(
    importlib.import_module(f"apps.proxy.migrations.{STAMPING[1]}").WATCHED
)
ENDINGS: Final = ("_stamp_insert", "_stamp_update", "_stamp_delete")
pytestmark = pytest.mark.sqlite


def find_unstamped(applied: Set[Key]) -> list[str]:
    """Return the watched tables that lack one of their triggers."""
    watched = (*WATCHED, "risk_riskrule") if STAMPING_RULES in applied else WATCHED
    with connection.cursor() as cursor:
        cursor.execute("SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'")
        found = set(cursor.fetchall())
    return [table for table in watched if any((table, table + end) not in found for end in ENDINGS)]


def split(executor: MigrationExecutor) -> tuple[list[Key], list[Key]]:
    """Return all migrations, each after those it needs.

    The second list is what of ours can be undone while configuration is stamped.
    """
    graph = executor.loader.graph
    needed = set(graph.forwards_plan(STAMPING))
    found = dict.fromkeys(key for leaf in graph.leaf_nodes() for key in graph.forwards_plan(leaf))
    later = [key for key in found if key[0] in OURS and key not in needed]
    return [key for key in found if key not in later], later


def test_no_step_back_or_forth_loses_a_stamp(committed_db: Database) -> None:
    executor = MigrationExecutor(connection)
    nodes = executor.loader.graph.nodes
    earlier, later = split(executor)
    state = ProjectState(real_apps=executor.loader.unmigrated_apps)
    for key in earlier:
        state = nodes[key].mutate_state(state, preserve=False)
    assert state.apps.ready  # Made once here: those of later states are changed copies of these.
    before = {}
    for key in later:
        before[key] = state
        state = nodes[key].mutate_state(state)
    applied = {*earlier, *later}
    unstamped = {}

    for key in reversed(later):
        executor.unapply_migration(before[key], nodes[key])
        applied.remove(key)
        unstamped["back over", key] = find_unstamped(applied)
    state = before[later[0]]
    for key in later:
        state = executor.apply_migration(state, nodes[key])
        applied.add(key)
        unstamped["forth over", key] = find_unstamped(applied)

    assert STAMPING_RULES in later
    assert ("users", "0003_spending_caps") in later
    assert {step: tables for step, tables in unstamped.items() if tables} == {}
    version = ConfigurationVersion.objects.get().version
    model = AIModel.objects.create(name="m")
    assert ConfigurationVersion.objects.get().version == version + 1
    price = PriceVersion.objects.create(model=model, effective_at=timezone.now(), minimum_nanos=5)
    with pytest.raises(IntegrityError, match="append-only"):
        PriceVersion.objects.filter(pk=price.pk).update(terms={})
    with pytest.raises(IntegrityError, match="append-only"):
        PriceVersion.objects.filter(pk=price.pk).delete()
