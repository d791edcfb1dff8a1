"""The test databases themselves: a mistake there would let other tests touch the wrong data."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection, connections

from apps.billing.ledger.store import Engine
from apps.billing.models import Account, Incarnation
from apps.users.models import Customer
from tests.support.databases import Database, SecondConnection, WrongDatabase
from tests.support.environment import remove_abandoned, session_directory

OPERATOR_ACCOUNTS = 19


@pytest.mark.parametrize("attempt", [1, 2])
def test_what_a_test_with_db_writes_is_gone_in_the_next(db: None, attempt: int) -> None:
    Customer.objects.create(name="left behind")

    assert Customer.objects.count() == 1
    assert Account.objects.count() == OPERATOR_ACCOUNTS


@pytest.mark.parametrize("attempt", [1, 2])
def test_each_test_that_commits_has_a_database_of_its_own(
    committed_db: Database, attempt: int
) -> None:
    Customer.objects.create(name="committed")

    assert Customer.objects.count() == 1
    assert Account.objects.count() == OPERATOR_ACCOUNTS


def test_the_ledger_and_django_see_the_same_committed_database(
    ledger_connect: Callable[[], Engine],
) -> None:
    engine = ledger_connect()

    incarnation_id = engine.open_incarnation(kind="gateway", host="a", pid=1, lease_seconds=30)

    assert Incarnation.objects.get().pk == incarnation_id


def test_the_engine_is_the_one_that_was_asked_for(engine_name: str, db: None) -> None:
    assert connection.vendor == {"sqlite": "sqlite", "postgres": "postgresql"}[engine_name]


def test_durability_is_on(committed_db: Database) -> None:
    found = committed_db.connect_ledger()
    raw = committed_db.connect()
    question = "PRAGMA journal_mode" if committed_db.server is None else "SHOW fsync"
    answer = raw.execute(question).fetchone()
    raw.close()
    found.close()

    assert answer == (("wal",) if committed_db.server is None else ("on",))


async def test_a_coroutine_that_uses_another_thread_is_told_to_commit(db: None) -> None:
    with pytest.raises(SecondConnection):
        await sync_to_async(Customer.objects.count)()


async def test_a_coroutine_may_use_a_committed_database(committed_db: Database) -> None:
    await sync_to_async(Customer.objects.create)(name="committed")

    assert await sync_to_async(Customer.objects.count)() == 1


def test_a_database_that_the_session_did_not_make_is_refused(
    committed_db: Database, engine_name: str, tmp_path: Path
) -> None:
    options = connections["default"].settings_dict
    foreign = str(tmp_path / "foreign.sqlite3") if engine_name == "sqlite" else "postgres"
    connections["default"].close()
    before = options["NAME"]
    options["NAME"] = foreign

    with pytest.raises(WrongDatabase):
        Customer.objects.count()

    options["NAME"] = before


def test_settings_and_data_stay_inside_the_session() -> None:
    assert session_directory() in Path(settings.DATA_DIR).parents


def test_only_what_a_killed_session_left_behind_is_removed(tmp_path: Path) -> None:
    for name in ("auditing-tests-dead", "auditing-tests-lives", "auditing-tests-starts", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "alive.lock").touch()
        if name != "auditing-tests-starts":
            os.utime(tmp_path / name / "alive.lock", (1, 1))

    with (tmp_path / "auditing-tests-lives" / "alive.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_abandoned(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "auditing-tests-lives", "auditing-tests-starts", "other",
    ]  # fmt: skip


def test_a_real_redis_answers(redis_url: str) -> None:
    import redis

    client = redis.Redis.from_url(redis_url)
    answer = client.ping()
    client.close()

    assert answer is True
