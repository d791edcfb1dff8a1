"""The database as one file and back: SQLite by its online copy, PostgreSQL by its own programs.

A dump is as of one moment and keeps nobody from writing. Passwords reach PostgreSQL's programs
through their environment, never through their arguments, which everybody on the machine can read.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from django.db import connection, transaction
from psycopg.conninfo import make_conninfo

from apps.core.crypto import redact
from apps.core.folders import sync_folder

_PAGES_AT_ONCE: Final = 2_000
_PROGRAM_HOURS_MAX: Final = 6
_COMPLAINT_LENGTH_MAX: Final = 2_000
_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}
_TABLES: Final = {
    "sqlite": "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'",
    "postgresql": "SELECT COUNT(*) FROM pg_class WHERE relkind IN ('r', 'p') "
    "AND relnamespace = current_schema()::regnamespace",
}
_MIGRATIONS: Final = "SELECT app, name FROM django_migrations ORDER BY id"


class DumpFailed(Exception):
    """The database could not be copied out or in."""


@dataclass(frozen=True, slots=True)
class DatabaseMoment:
    """One moment of the database, held open. `name` is PostgreSQL's name of it."""

    migrations: dict[str, list[str]]
    server: str
    source: sqlite3.Connection | None = None
    name: str = ""

    def write(self, target: Path, *, pg_bin: Path | None) -> None:
        """Write the database as of then into a new file. Raises DumpFailed."""
        if self.source is not None:
            _copy_sqlite(self.source, target)
        else:
            _run(
                _get_program("pg_dump", pg_bin),
                *("--format=custom", "--compress=1", "--no-owner", "--no-privileges"),
                *("--no-password", f"--snapshot={self.name}", f"--file={target}"),
            )


@contextmanager
def open_moment(*, pg_bin: Path | None) -> Iterator[DatabaseMoment]:
    """Hold one moment of the database open. Raises DumpFailed."""
    if connection.vendor == "sqlite":
        # A connection of its own: what Django's has open must not decide what is seen.
        path = Path(connection.settings_dict["NAME"]).absolute()
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as source:
            source.isolation_level = None
            # As Django's own: a database without tables is told in one line.
            with connection.wrap_database_errors:
                source.execute("BEGIN DEFERRED")
                rows = source.execute(_MIGRATIONS).fetchall()
            yield DatabaseMoment(_by_app(rows), sqlite3.sqlite_version, source=source)
        return
    _get_program("pg_dump", pg_bin)
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute(
            f"SET LOCAL idle_in_transaction_session_timeout = '{_PROGRAM_HOURS_MAX + 1}h'"
        )
        cursor.execute(_MIGRATIONS)
        rows = cursor.fetchall()
        cursor.execute("SELECT pg_export_snapshot(), current_setting('server_version')")
        name, server = cursor.fetchone()
        yield DatabaseMoment(_by_app(rows), server, name=name)


def count_tables() -> int:
    """Return how many tables the database has; a new one has none."""
    with connection.cursor() as cursor:
        cursor.execute(_TABLES[connection.vendor])
        return int(cursor.fetchone()[0])


def load(source: Path, *, pg_bin: Path | None) -> None:
    """Make the empty database what `source` holds, all or nothing. Raises DumpFailed."""
    if connection.vendor == "sqlite":
        _load_sqlite(source, Path(connection.settings_dict["NAME"]))
        return
    name = str(connection.get_connection_params()["dbname"])
    _run(
        _get_program("pg_restore", pg_bin),
        *("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"),
        *("--no-password", f"--dbname={make_conninfo(dbname=name)}", str(source)),
    )


def check_tools(*, pg_bin: Path | None) -> None:
    """Refuse early where a restore would lack its program. Raises DumpFailed."""
    if connection.vendor == "postgresql":
        _get_program("pg_restore", pg_bin)


def _by_app(rows: list[tuple[str, str]]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for app, name in rows:
        found[app].append(name)
    return dict(found)


def _copy_sqlite(source: sqlite3.Connection, target: Path) -> None:
    """Copy page by page inside the open read transaction: writers go on and change nothing in it.

    The copy is checked, so that damage is found while the original is still there.
    """
    target.touch(mode=0o600)
    try:
        with closing(sqlite3.connect(target)) as copy:
            source.backup(copy, pages=_PAGES_AT_ONCE)
            # One file, without a journal beside it.
            copy.execute("PRAGMA journal_mode=DELETE")
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise DumpFailed(f"The database cannot be copied: {error}.") from error
    if verdict != "ok":
        raise DumpFailed(f"The database is damaged: {verdict}.")


def _load_sqlite(source: Path, target: Path) -> None:
    """Put a file in the place of an empty database that nobody serves."""
    connection.close()
    with Path(f"{target}.gateway-lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DumpFailed("A gateway uses this database: stop it first.") from error
        aside = Path(f"{target}.restoring")
        aside.unlink(missing_ok=True)
        aside.touch(mode=0o600)
        with source.open("rb") as data, aside.open("wb") as file:
            shutil.copyfileobj(data, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        for suffix in ("-wal", "-shm"):
            Path(f"{target}{suffix}").unlink(missing_ok=True)
        aside.replace(target)
    sync_folder(target.parent)


def _get_program(name: str, pg_bin: Path | None) -> Path:
    found = shutil.which(name, path=None if pg_bin is None else str(pg_bin))
    if found is None:
        place = "on the PATH" if pg_bin is None else f"in {pg_bin}"
        raise DumpFailed(
            f"{name} is not {place}. Install PostgreSQL's client programs of the server's version "
            "(Debian: postgresql-client), or name their folder with --pg-bin."
        )
    return Path(found)


def _run(program: Path, *arguments: str) -> None:
    parameters = connection.get_connection_params()
    variables = {
        variable: str(parameters[name])
        for name, variable in _VARIABLES.items()
        if parameters.get(name)
    }
    try:
        # Nothing else of our environment: it holds secrets that these programs need not see.
        ended = subprocess.run(  # noqa: S603 (a program of PostgreSQL, found by its name)
            [str(program), *arguments],
            env={**variables, "LC_ALL": "C", "PGCONNECT_TIMEOUT": "5"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROGRAM_HOURS_MAX * 3_600,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DumpFailed(f"{program.name} failed: {type(error).__name__}.") from error
    if ended.returncode:
        complaint = redact(ended.stderr.decode(errors="replace").strip())
        password = variables.get("PGPASSWORD")
        if password:
            complaint = complaint.replace(password, "[redacted]")
        raise DumpFailed(f"{program.name} failed: {complaint[-_COMPLAINT_LENGTH_MAX:]}")
