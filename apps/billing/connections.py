"""Opens the ledger's connections, from Django's database settings or over Django's own
connection.
"""

from __future__ import annotations

from typing import Any, cast

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from apps.billing.ledger import postgres, sqlite
from apps.billing.ledger.store import Engine

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


def over(wrapper: BaseDatabaseWrapper) -> Engine:
    """Return the ledger's statements on Django's connection, inside the transaction that is open
    there.
    """
    if not wrapper.in_atomic_block:
        raise RuntimeError("Postings run inside transaction.atomic().")
    wrapper.ensure_connection()
    raw = cast(Any, wrapper.connection)  # the driver's own connection, which Django does not type
    return sqlite.SqliteEngine(raw) if wrapper.vendor == "sqlite" else postgres.PostgresEngine(raw)
