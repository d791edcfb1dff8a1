"""Databases that do not answer or do not take a row, as operators and bugs bring it about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.support.bench import Stage
from tests.support.databases import Database

# Long enough for anybody who does not wait, short enough that the ledger is not taken for away.
LOCKED_SECONDS = 0.4


class LockedAccounts:
    """Keeps everybody else from writing to the accounts, as a careless migration would."""

    def __init__(self, database: Database) -> None:
        self._connection: Any = database.connect()
        self._is_postgres = database.server is not None

    def __enter__(self) -> None:
        if self._is_postgres:
            self._connection.execute("BEGIN")
            self._connection.execute("LOCK TABLE billing_account IN ACCESS EXCLUSIVE MODE")
        else:
            self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


class BrokenHolds:
    """Has the database refuse the holds of one user, as a broken row would."""

    def __init__(self, database: Database, user_name: str) -> None:
        self._connection: Any = database.connect()
        self._is_postgres = database.server is not None
        self._user_name = user_name

    def __enter__(self) -> None:
        condition = f"""NEW.detail LIKE '%"{self._user_name}"%'"""
        if self._is_postgres:
            self._connection.execute(
                "CREATE FUNCTION refuse_hold() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'broken row'; END $$"
            )
            self._connection.execute(
                "CREATE TRIGGER broken BEFORE INSERT ON billing_hold FOR EACH ROW "
                f"WHEN ({condition}) EXECUTE FUNCTION refuse_hold()"
            )
        else:
            self._connection.execute(
                f"CREATE TRIGGER broken BEFORE INSERT ON billing_hold WHEN {condition} "
                "BEGIN SELECT RAISE(ABORT, 'broken row'); END"
            )

    def __exit__(self, *_: object) -> None:
        if self._is_postgres:
            self._connection.execute("DROP TRIGGER broken ON billing_hold")
            self._connection.execute("DROP FUNCTION refuse_hold()")
        else:
            self._connection.execute("DROP TRIGGER broken")
        self._connection.close()


@contextmanager
def nothing_commits(stage: Stage) -> Iterator[None]:
    """Keep the ledger from committing anything that concerns the caller's wallet."""
    row = f"customer_id = {stage.caller.user.customer_id} AND kind = 'wallet'"
    with closing(stage.bench.database.connect()) as connection:
        if stage.bench.database.server is None:
            connection.execute("BEGIN IMMEDIATE")
        else:
            connection.execute("BEGIN")
            connection.execute(f"SELECT 1 FROM billing_account WHERE {row} FOR UPDATE")  # noqa: S608 (a number)
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
