"""Somebody who owns the database and drops what protects its rows, to see whether it is noticed."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.databases import Database


@dataclass(frozen=True, slots=True)
class Tamper:
    """Runs statements with triggers off, on a test's own database."""

    database: Database

    def run(self, *statements: str) -> None:
        """Run statements as if no trigger existed."""
        connection = self.database.connect()
        try:
            if self.database.server is not None:
                connection.execute("SET session_replication_role = replica")
            else:
                connection.execute("PRAGMA foreign_keys=OFF")
                names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
                for (name,) in names.fetchall():
                    connection.execute(f'DROP TRIGGER "{name}"')
            for statement in statements:
                connection.execute(statement)
        finally:
            connection.close()

    def drop_checks(self) -> None:
        """Take the accounts' CHECK constraints away."""
        connection = self.database.connect()
        try:
            if self.database.server is not None:
                for name in ("covers_holds", "owes"):
                    connection.execute(
                        f"ALTER TABLE billing_account DROP CONSTRAINT billing_account_{name}"
                    )
            else:
                _drop_checks_of_sqlite(connection)
        finally:
            connection.close()


def _drop_checks_of_sqlite(connection: object) -> None:
    """SQLite cannot drop a constraint, but a connection can be told not to mind them."""
    raise NotImplementedError
