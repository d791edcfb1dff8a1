"""Somebody who owns the database and drops what protects its rows, to see whether it is noticed."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.databases import Database


@dataclass(frozen=True, slots=True)
class Tamper:
    """Runs statements with triggers off, on a test's own database."""

    database: Database

    def run(self, *statements: str) -> None:
        """Run statements as if neither triggers nor checks existed."""
        connection = self.database.connect()
        try:
            if self.database.server is not None:
                connection.execute("SET session_replication_role = replica")
                for name in ("covers_holds", "owes"):
                    connection.execute(
                        "ALTER TABLE billing_account "
                        f"DROP CONSTRAINT IF EXISTS billing_account_{name}"
                    )
            else:
                connection.execute("PRAGMA foreign_keys=OFF")
                connection.execute("PRAGMA ignore_check_constraints=ON")
                names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
                for (name,) in names.fetchall():
                    connection.execute(f'DROP TRIGGER "{name}"')
            for statement in statements:
                connection.execute(statement)
        finally:
            connection.close()
