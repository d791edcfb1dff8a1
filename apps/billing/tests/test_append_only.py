"""History cannot be changed: not by the ORM, not by SQL, not by deleting what it is about."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from uuid import UUID

import pytest
from django.db import DatabaseError, connection, models, transaction
from django.db.models import ProtectedError

from apps.ai_models.models import AIModel, PriceVersion
from apps.audit.models import AdminEvent, APIRequest, Attempt, Payload
from apps.billing.ledger import sqlite
from apps.billing.ledger.batch import Unbalanced
from apps.billing.ledger.commands import Held, Line
from apps.billing.models import Account, Entry, Transaction
from apps.core.ids import new_uuid7
from tests.support.databases import Database
from tests.support.world import NOW, Gateway, World, django_engine, make_world, post_lines

APPEND_ONLY: dict[type[models.Model], str] = {
    Entry: "amount_nanos",
    Transaction: "reason",
    APIRequest: "charge_nanos",
    Attempt: "outcome",
    AdminEvent: "reason",
    PriceVersion: "input_nanos",
}
NEVER_EDITED: dict[type[models.Model], str] = APPEND_ONLY | {Payload: "request_body"}


@pytest.fixture
def world(db: None) -> World:
    """A world in which every append-only table has rows."""
    world = make_world()
    gateway = Gateway(world, django_engine())
    held = gateway.hold(2_000)
    assert isinstance(held, Held)
    gateway.resolve(held, 1)
    Attempt.objects.create(
        request_id=held.request_id,
        number=1,
        route_id=world.route.pk,
        provider_id=world.provider.pk,
        provider_name=world.provider.name,
        provider_key_id=1,
        upstream_model="upstream",
        started_at=NOW,
        duration_ms=1,
        outcome="answered",
        error_text="",
        upstream_request_id="",
    )
    Payload.objects.create(
        request_id=held.request_id,
        salt=b"0" * 16,
        request_body=b"",
        response_body=b"",
        is_request_truncated=False,
        is_response_truncated=False,
    )
    AdminEvent.objects.create(
        actor_name="root",
        action="user.update",
        object_type="user",
        object_id="1",
        object_name="user",
        reason="because",
        ip_address="127.0.0.1",
        user_agent="",
    )
    return world


def refused(act: Callable[[], object]) -> str:
    """Return what the database says when it refuses."""
    with pytest.raises(DatabaseError) as error, transaction.atomic():
        act()
    return str(error.value)


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def table(model: type[models.Model]) -> str:
    return model._meta.db_table


@pytest.mark.parametrize("model", NEVER_EDITED, ids=lambda model: model.__name__)
def test_update_is_refused(world: World, model: type[models.Model]) -> None:
    name = NEVER_EDITED[model]
    row = model._default_manager.first()
    assert row is not None

    by_query_set = refused(lambda: model._default_manager.update(**{name: getattr(row, name)}))
    by_save = refused(row.save)
    by_sql = refused(lambda: execute(f"UPDATE {table(model)} SET {name} = {name}"))  # noqa: S608 (constants)

    assert "append-only" in by_query_set
    assert "append-only" in by_save
    assert "append-only" in by_sql


@pytest.mark.parametrize("model", APPEND_ONLY, ids=lambda model: model.__name__)
def test_delete_is_refused(world: World, model: type[models.Model]) -> None:
    count = model._default_manager.count()

    by_sql = refused(lambda: execute(f"DELETE FROM {table(model)}"))  # noqa: S608 (constants)
    with pytest.raises((DatabaseError, ProtectedError)), transaction.atomic():
        model._default_manager.all().delete()

    assert "append-only" in by_sql
    assert model._default_manager.count() == count


@pytest.mark.sqlite  # PostgreSQL has no REPLACE.
@pytest.mark.parametrize("model", APPEND_ONLY, ids=lambda model: model.__name__)
def test_replacing_a_row_by_itself_is_refused(world: World, model: type[models.Model]) -> None:
    before = list(model._default_manager.order_by("pk").values())
    assert before

    by_sql = refused(lambda: execute(f"REPLACE INTO {table(model)} SELECT * FROM {table(model)}"))  # noqa: S608 (constants)

    assert "append-only" in by_sql
    assert list(model._default_manager.order_by("pk").values()) == before


@pytest.mark.sqlite  # PostgreSQL has no REPLACE.
def test_the_ledger_s_connection_cannot_replace_rows_either(committed_db: Database) -> None:
    make_world()
    names = [table(Entry), table(Transaction), table(PriceVersion)]
    counts = [Entry.objects.count(), Transaction.objects.count(), PriceVersion.objects.count()]

    with closing(sqlite.connect(committed_db.name)) as ledger:
        for name in names:
            with pytest.raises(sqlite3.IntegrityError, match=f"{name} is append-only"):
                ledger.execute(f"REPLACE INTO {name} SELECT * FROM {name}")  # noqa: S608 (constants)

    assert counts == [2, 1, 1]
    assert [model.objects.count() for model in (Entry, Transaction, PriceVersion)] == counts


@pytest.mark.postgres
@pytest.mark.parametrize("model", APPEND_ONLY, ids=lambda model: model.__name__)
def test_truncate_is_refused(committed_db: Database, model: type[models.Model]) -> None:
    by_sql = refused(lambda: execute(f"TRUNCATE {table(model)} CASCADE"))

    assert "append-only" in by_sql


@pytest.mark.postgres
def test_a_partition_refuses_what_its_table_refuses(world: World) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT tableoid::regclass::text FROM audit_apirequest")
        ((partition,),) = cursor.fetchall()

    assert partition != "audit_apirequest"
    assert "append-only" in refused(lambda: execute(f"UPDATE {partition} SET state = state"))  # noqa: S608 (no input)
    assert "append-only" in refused(lambda: execute(f"DELETE FROM {partition}"))  # noqa: S608 (no input)


def test_a_payload_may_be_erased_as_a_whole(world: World) -> None:
    Payload.objects.all().delete()

    assert Payload.objects.count() == 0
    assert APIRequest.objects.count() == 1


def test_the_ledger_refuses_a_transaction_that_does_not_sum_to_zero(world: World) -> None:
    before = Entry.objects.count()

    with pytest.raises(Unbalanced), transaction.atomic():
        post_lines(
            "adjustment",
            Line(world.wallet_id, "credit", 2),
            Line(world.clearing_id, "debit", -1),
        )

    assert Entry.objects.count() == before
    assert Account.objects.get(pk=world.wallet_id).posted_nanos == 9_999_999_000


@pytest.mark.postgres
@pytest.mark.parametrize("amounts", [(1,), (2, -1)], ids=str)
def test_the_database_refuses_entries_that_do_not_sum_to_zero(
    world: World, amounts: tuple[int, ...]
) -> None:
    transaction_id = Transaction.objects.create(
        kind="adjustment", idempotency_key="raw", actor_name="", reason="", created_at=NOW
    ).pk

    text = refused(lambda: insert_entries(world, transaction_id, amounts))

    assert "do not sum to zero" in text


@pytest.mark.postgres
def test_the_database_takes_entries_that_sum_to_zero(world: World) -> None:
    transaction_id = Transaction.objects.create(
        kind="adjustment", idempotency_key="raw", actor_name="", reason="", created_at=NOW
    ).pk
    before = Entry.objects.count()

    insert_entries(world, transaction_id, (1, -1))

    assert Entry.objects.count() == before + 2


def insert_entries(world: World, transaction_id: UUID, amounts: tuple[int, ...]) -> None:
    Entry.objects.bulk_create(
        Entry(
            transaction_id=transaction_id,
            account_id=world.wallet_id,
            kind="credit",
            amount_nanos=amount,
            sequence=100 + number,
            balance_after_nanos=0,
            hash=b"",
        )
        for number, amount in enumerate(amounts)
    )


@pytest.mark.parametrize(
    ("posted", "held"), [(-1, 0), (0, 1), (5, -1)], ids=["below zero", "held more", "held less"]
)
def test_the_database_keeps_wallets_from_falling_below_what_they_hold(
    world: World, posted: int, held: int
) -> None:
    statement = (
        f"UPDATE billing_account SET posted_nanos = {posted}, held_nanos = {held} "  # noqa: S608 (numbers)
        f"WHERE id = {world.wallet_id}"
    )

    assert "billing_account_covers_holds" in refused(lambda: execute(statement))


def test_a_debt_is_never_positive(world: World) -> None:
    statement = f"UPDATE billing_account SET posted_nanos = 1 WHERE id = {world.receivable_id}"  # noqa: S608 (numbers)

    assert "billing_account_owes" in refused(lambda: execute(statement))


@pytest.mark.parametrize(
    "change", ["customer_id = NULL", "customer_id = customer_id + 1", "kind = 'quota'"]
)
def test_an_account_keeps_its_owner_and_its_kind(world: World, change: str) -> None:
    make_world()
    before = Account.objects.values().get(pk=world.wallet_id)
    statement = f"UPDATE billing_account SET {change} WHERE id = {world.wallet_id}"  # noqa: S608 (constants)

    assert "customer_id and kind of billing_account never change" in refused(
        lambda: execute(statement)
    )

    assert Account.objects.values().get(pk=world.wallet_id) == before


def test_an_account_may_get_another_name(world: World) -> None:
    account = Account.objects.get(pk=world.wallet_id)
    account.name = "another"

    account.save()

    assert Account.objects.get(pk=world.wallet_id).name == "another"


def test_who_has_accounts_cannot_be_deleted(world: World) -> None:
    with pytest.raises(ProtectedError):
        world.customer.delete()
    with pytest.raises(ProtectedError):
        Account.objects.filter(pk=world.wallet_id).delete()


def test_deleting_what_a_request_was_about_leaves_the_request_as_it_was(world: World) -> None:
    before = APIRequest.objects.values().get()
    entries = list(Entry.objects.values().order_by("pk"))

    world.key.delete()
    world.group.delete()
    world.user.delete()
    stray = AIModel.objects.create(name="never priced")
    stray.delete()

    assert APIRequest.objects.values().get() == before
    assert list(Entry.objects.values().order_by("pk")) == entries


def test_a_request_can_be_recorded_only_once(world: World) -> None:
    row = APIRequest.objects.values().get()

    refused(lambda: APIRequest.objects.create(**row))

    assert APIRequest.objects.count() == 1


def test_two_transactions_cannot_have_one_cause(world: World) -> None:
    def create() -> None:
        Transaction.objects.create(
            id=new_uuid7(),
            kind="adjustment",
            idempotency_key="same",
            actor_name="",
            reason="",
            created_at=NOW,
        )

    create()

    assert "idempotency_key" in refused(create)
