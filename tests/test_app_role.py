"""The gateway runs under a role that can add to history and neither change nor drop any (C10)."""

# ruff: noqa: S608 (the attacks are SQL, put together here)

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connections

from apps.audit.models import AdminEvent, StoredAnswer
from apps.audit.partitions import PARTITIONED, month_start
from apps.audit.retention import Selection, erase_payloads
from apps.billing.anchors import append_anchor
from apps.billing.ledger import postgres
from apps.billing.ledger.commands import Held, StoredRecord
from apps.billing.ledger.store import flush
from apps.billing.models import Account
from apps.billing.verification import anchors_path, report
from apps.providers.credentials import open_secret
from apps.providers.models import ProviderKey
from apps.users.models import User
from tests.support.databases import Database
from tests.support.people import make_admin, rest_client
from tests.support.postgres import PostgresServer
from tests.support.world import NOW, Gateway, World, make_world

ROLE = "gateway_app"
SCRIPT = (Path(__file__).resolve().parents[1] / "docker" / "app_role.sql").read_text()
HISTORY = [
    "billing_entry",
    "billing_transaction",
    "audit_apirequest",
    "audit_attempt",
    "audit_adminevent",
    "ai_models_priceversion",
]
pytestmark = pytest.mark.postgres


@pytest.fixture
def world(committed_db: Database, data_dir: Path) -> World:
    """A customer who can pay, and an administrator, made by the owner."""
    make_admin(username="root")
    return make_world()


@pytest.fixture
def server(committed_db: Database, world: World) -> PostgresServer:
    """The server, after the script has run, twice."""
    server = committed_db.server
    assert server is not None
    for _ in range(2):
        server.execute(SCRIPT, committed_db.name)
    return server


@pytest.fixture
def role(server: PostgresServer, committed_db: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection under the role."""
    parameters = server.parameters(committed_db.name) | {"user": ROLE}
    with psycopg.connect(**parameters, autocommit=True) as connection:
        yield connection


@pytest.fixture
def as_role(server: PostgresServer) -> Iterator[None]:
    """Have Django use the role."""
    options = connections.settings["default"]
    before = options["USER"]
    connections["default"].close()
    options["USER"] = ROLE
    yield
    connections["default"].close()
    options["USER"] = before


def test_a_call_is_held_and_settled_and_the_ledger_proven_under_the_role(
    role: psycopg.Connection[Any], as_role: None, world: World
) -> None:
    gateway = Gateway(world, postgres.PostgresEngine(role))
    gateway.engine.make_partitions(datetime.now(UTC))
    held = gateway.hold(5_000)
    assert isinstance(held, Held)

    gateway.resolve(held, 3)
    append_anchor(anchors_path(), datetime.now(UTC))

    found = report(is_full=True, anchors_path=anchors_path(), now=datetime.now(UTC))
    wallet = Account.objects.get(pk=world.wallet_id)
    assert (wallet.posted_nanos, wallet.held_nanos) == (9_999_997_000, 0)
    assert (found.is_clean, found.requests, found.anchors) == (True, 1, 1)


def test_where_an_answer_lies_is_written_and_replaced_under_the_role(
    role: psycopg.Connection[Any], as_role: None, world: World
) -> None:
    gateway = Gateway(world, postgres.PostgresEngine(role))
    gateway.engine.make_partitions(datetime.now(UTC))

    for user_id in (7, 8):
        held = gateway.hold(5_000)
        assert isinstance(held, Held)
        stored = StoredRecord((b"\x01" * 32,), 1, 2, user_id, 3, NOW, NOW)
        batch = gateway.batch(resolves=(gateway.resolution(held, 3)._replace(stored=stored),))
        flush(gateway.engine, batch, incarnation_id=gateway.incarnation_id)

    assert list(StoredAnswer.objects.values_list("user_id", flat=True)) == [8]


def test_the_rest_api_changes_things_and_records_them_under_the_role(
    as_role: None, world: World
) -> None:
    client = rest_client(User.objects.get(username="root"))

    answer = client.post(
        "/api/admin/providers/",
        {
            "name": "new",
            "base_url": "https://api.example.com/v1",
            "api_key": "sk-0123456789abcdef",
            "dialect": "openai",
        },
    )

    assert answer.status_code == 201, answer.json()
    assert open_secret(ProviderKey.objects.get(provider__name="new")) == "sk-0123456789abcdef"
    assert AdminEvent.objects.filter(action="provider.created").count() == 1


def test_bodies_are_erased_under_the_role(as_role: None, world: World) -> None:
    done = erase_payloads(Selection(user_id=world.user.pk), reason="test")

    assert done.count == 0


FORBIDDEN = [
    *(f"UPDATE {table} SET id = id" for table in HISTORY),
    *(f"DELETE FROM {table}" for table in HISTORY),
    *(f"TRUNCATE {table} CASCADE" for table in [*HISTORY, "audit_payload", "users_user"]),
    *(f"ALTER TABLE {table} DISABLE TRIGGER ALL" for table in HISTORY),
    *(f"DROP TABLE {table} CASCADE" for table in [*HISTORY, "audit_payload", "users_user"]),
    "UPDATE audit_payload SET salt = ''",
    *(f"DELETE FROM {table}_default" for table in PARTITIONED),
    f"DELETE FROM audit_apirequest_{month_start(datetime.now(UTC)):%Y_%m}",
    f"UPDATE audit_apirequest_{month_start(datetime.now(UTC)):%Y_%m} SET charge_nanos = 0",
    "DELETE FROM django_migrations",
    "CREATE TABLE mine (id int)",
    "CREATE TEMPORARY TABLE mine (id int)",
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RETURN NULL; END $$",
    "DROP FUNCTION refuse_change() CASCADE",
    "ALTER TABLE billing_account DROP CONSTRAINT billing_account_covers_holds",
    "SET session_replication_role = replica",
    "SET ROLE postgres",
    "CREATE ROLE another SUPERUSER",
    "COPY billing_entry TO PROGRAM 'true'",
]


def is_refused(role: psycopg.Connection[Any], statement: str) -> bool:
    try:
        role.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


def test_history_and_what_protects_it_cannot_be_touched_under_the_role(
    role: psycopg.Connection[Any],
) -> None:
    allowed = [statement for statement in FORBIDDEN if not is_refused(role, statement)]

    assert allowed == []


def test_no_table_of_the_gateway_is_forgotten(role: psycopg.Connection[Any]) -> None:
    unreadable = role.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p') AND NOT relispartition "
        "AND NOT has_table_privilege(oid, 'SELECT')"
    ).fetchall()

    assert unreadable == []
