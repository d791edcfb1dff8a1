"""Opens the ledger's connections, from Django's database settings or over Django's own
connection.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.billing.ledger import postgres, sqlite
from apps.billing.ledger.commands import Posting
from apps.billing.ledger.store import Engine, post

_PARAMETERS = (
    "dbname",
    "user",
    "password",
    "host",
    "port",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
)


def connect(alias: str = "default") -> Engine:
    """Open a connection of the ledger's own to the database that Django uses."""
    wrapper = connections[alias]
    if wrapper.vendor == "sqlite":
        return sqlite.SqliteEngine(sqlite.connect(wrapper.settings_dict["NAME"]))
    parameters = wrapper.get_connection_params()
    return postgres.PostgresEngine(
        postgres.connect({name: parameters[name] for name in _PARAMETERS if parameters.get(name)}),
        is_own=True,
    )


def post_over(wrapper: BaseDatabaseWrapper, posting: Posting, *, now: datetime) -> None:
    """Write a posting on Django's connection, inside the transaction that is open there.

    Raises Insufficient, and what Django raises where the database fails: so who asked is told that
    the database is away, and Django closes a connection that broke.
    """
    with wrapper.wrap_database_errors:
        post(_over(wrapper), posting, now=now)


def read_clock(wrapper: BaseDatabaseWrapper) -> datetime:
    """Return the time by the database's clock, the same for all hosts; SQLite's is this one's."""
    if wrapper.vendor != "postgresql":
        return datetime.now(UTC)
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment


def _over(wrapper: BaseDatabaseWrapper) -> Engine:
    """Return the ledger's statements on Django's connection, inside the transaction that is open
    there.
    """
    if not wrapper.in_atomic_block:
        raise RuntimeError("Postings run inside transaction.atomic().")
    wrapper.ensure_connection()
    raw = cast(Any, wrapper.connection)  # the driver's own connection, which Django does not type
    return sqlite.SqliteEngine(raw) if wrapper.vendor == "sqlite" else postgres.PostgresEngine(raw)
