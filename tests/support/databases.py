"""Databases for tests: one migrated template for a session and engine, copies of it for tests.

Tables are never emptied between tests, because append-only triggers forbid it: a test either rolls
back (`db`) or has a copy to itself (`committed_db`).
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

from django.core.management import call_command
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from apps.billing.ledger import postgres, sqlite
from apps.billing.ledger.store import Engine
from tests.support.environment import is_in_memory, session_directory, session_lock, worker_name
from tests.support.postgres import PostgresServer, session_server

_TEMPLATE = "template_auditing"


class SecondConnection(Exception):
    """A test that rolls back opened another connection, which would commit for real."""


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database. `name` is a file's path on SQLite."""

    engine: str  # sqlite or postgres
    name: str
    server: PostgresServer | None = None

    @property
    def url(self) -> str:
        """The DATABASE_URL for processes that are to use it."""
        return self.server.url(self.name) if self.server else f"sqlite:///{self.name}"

    def connect_ledger(self) -> Engine:
        """Return a ledger engine with a connection of its own. The caller closes it."""
        if self.server is None:
            return sqlite.SqliteEngine(sqlite.connect(self.name))
        return postgres.PostgresEngine(
            postgres.connect(self.server.parameters(self.name)), is_own=True
        )

    def connect(self) -> Any:
        """Return a plain DB-API connection in autocommit mode. The caller closes it."""
        if self.server is None:
            return sqlite3.connect(
                self.name, isolation_level=None, timeout=10, check_same_thread=False
            )
        import psycopg

        return psycopg.connect(**self.server.parameters(self.name), autocommit=True)


class WrongDatabase(Exception):
    """Django is connected to, or opens, a database that the test session did not make."""


class TestDatabases:
    """Makes, selects and drops the databases of one process of a test session."""

    __test__ = False

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self._numbers = itertools.count(1)
        self._made: set[str] = set()
        self._opened: WeakSet[BaseDatabaseWrapper] = WeakSet()
        self._rolling_back_in: threading.Thread | None = None
        self._server: PostgresServer | None = None
        connection_created.connect(self._note_connection, weak=False)

    def clone(self, name: str | None = None) -> Database:
        """Return a fresh copy of the template."""
        template = self._template()
        name = name or f"test_{worker_name()}_{next(self._numbers)}"
        path = session_directory() / f"{name}.sqlite3"
        self._made.add(name if template.server else str(path))
        if template.server is None:
            shutil.copyfile(template.name, path)
            return Database("sqlite", str(path))
        template.server.execute(
            f'CREATE DATABASE "{name}" TEMPLATE "{template.name}" STRATEGY {_copy_strategy()}'
        )
        return Database("postgres", name, template.server)

    def adopt(self, database: Database) -> None:
        """Allow a database that a test has made on a server of its own."""
        self._made.add(database.name)

    def migrate_on(self, server: PostgresServer, name: str) -> Database:
        """Return a migrated database on a server that a test has for itself."""
        server.execute(f'CREATE DATABASE "{name}"')
        database = Database("postgres", name, server)
        self.adopt(database)
        with self.selected(database):
            call_command("migrate", interactive=False, verbosity=0)
        return database

    def drop(self, database: Database) -> None:
        """Remove a copy, whoever is still connected to it."""
        if database.server is not None:
            database.server.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)')
            return
        for suffix in ("", "-wal", "-shm"):
            Path(database.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def selected(self, database: Database) -> Iterator[None]:
        """Have Django, in all threads of this process, use a database for a while."""
        self.close_connections()
        options = connections.settings["default"]
        before = {name: options[name] for name in ("NAME", "HOST", "PORT", "USER")}
        options.update(_django_options(database))
        try:
            self._check_selected(database)
            yield
        finally:
            self.close_connections()
            options.update(before)

    @contextmanager
    def rolling_back(self) -> Iterator[None]:
        """Refuse connections of other threads while a test rolls back what it does."""
        self._rolling_back_in = threading.current_thread()
        try:
            yield
        finally:
            self._rolling_back_in = None

    def close_connections(self) -> None:
        """Close what any thread of this process has opened through Django."""
        for wrapper in list(self._opened):
            wrapper.inc_thread_sharing()
            try:
                wrapper.close()
            finally:
                wrapper.dec_thread_sharing()
        self._opened.clear()

    def _check_selected(self, database: Database) -> None:
        """Refuse to go on where Django would use any other database, for example a developer's."""
        used = connections["default"].settings_dict["NAME"]
        if used != database.name:
            raise WrongDatabase(f"Django would use {used} instead of {database.name}.")

    def _note_connection(
        self, sender: object, connection: BaseDatabaseWrapper, **_: object
    ) -> None:
        self._opened.add(connection)
        if connection.settings_dict["NAME"] not in self._made:
            connection.close()
            raise WrongDatabase(
                f"{connection.settings_dict['NAME']} is not a database of this session."
            )
        if self._rolling_back_in not in (None, threading.current_thread()):
            connection.close()
            raise SecondConnection(
                "A test with the fixture `db` used the database from another thread, which would "
                "see nothing of the test's transaction and commit for real. Use `committed_db`."
            )

    def _template(self) -> Database:
        with session_lock("databases"):
            template = self._describe_template()
            self._made.add(template.name)
            marker = session_directory() / "template-is-ready"
            if not marker.exists():
                if template.server is not None:
                    template.server.execute(f'CREATE DATABASE "{template.name}"')
                with self.selected(template):
                    call_command("migrate", interactive=False, verbosity=0)
                if template.server is None:
                    _fold_journal(template.name)
                marker.touch()
        return template

    def _describe_template(self) -> Database:
        if self.engine == "sqlite":
            return Database("sqlite", str(session_directory() / f"{_TEMPLATE}.sqlite3"))
        if self._server is None:
            self._server = session_server()
        return Database("postgres", _TEMPLATE, self._server)


def _django_options(database: Database) -> dict[str, Any]:
    if database.server is None:
        return {"NAME": database.name, "HOST": "", "PORT": "", "USER": ""}
    parameters = database.server.parameters(database.name)
    return {
        "NAME": database.name,
        "HOST": parameters["host"],
        "PORT": str(parameters["port"]),
        "USER": parameters["user"],
    }


def _copy_strategy() -> str:
    """Return the quicker way: files are copied at once, but then must have been written."""
    return "FILE_COPY" if is_in_memory() else "WAL_LOG"


def _fold_journal(path: str) -> None:
    """Bring all pages into the one file that is copied."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
