"""Indexes that migrations add to tables which are large and in use. No tables here."""

from __future__ import annotations

from typing import Any, Final

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# The connection's own limits are for requests, not for reading a table of years.
_BUILD_HOURS_MAX: Final = 12
_WAIT_HOURS_MAX: Final = 8  # for transactions that were there before, of a backup for example


class AddIndexWhileServing(migrations.AddIndex):
    """Adds an index without keeping anybody from writing, where the database can.

    PostgreSQL builds it concurrently, which partitioned tables do not allow; SQLite holds its one
    write lock. The migration has `atomic = False`; what an interrupted run left is built again.
    """

    atomic = False

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: Any,
        to_state: Any,
    ) -> None:
        """Build the index."""
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        name = schema_editor.quote_name(self.index.name)
        if schema_editor.connection.vendor != "postgresql":
            schema_editor.execute(f"DROP INDEX IF EXISTS {name}", None)
            schema_editor.add_index(model, self.index)
            return
        with _PatientStatements(schema_editor):
            schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}", None)
            schema_editor.execute(self.index.create_sql(model, schema_editor, concurrently=True))

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: Any,
        to_state: Any,
    ) -> None:
        """Drop the index."""
        model = from_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        is_concurrent = schema_editor.connection.vendor == "postgresql"
        name = schema_editor.quote_name(self.index.name)
        if not is_concurrent:
            schema_editor.execute(f"DROP INDEX IF EXISTS {name}", None)
            return
        with _PatientStatements(schema_editor):
            schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}", None)


class _PatientStatements:
    """Lets statements of this connection take longer for a while."""

    def __init__(self, schema_editor: BaseDatabaseSchemaEditor) -> None:
        self._schema_editor = schema_editor

    def __enter__(self) -> None:
        self._schema_editor.execute(f"SET statement_timeout = '{_BUILD_HOURS_MAX}h'", None)
        self._schema_editor.execute(f"SET lock_timeout = '{_WAIT_HOURS_MAX}h'", None)

    def __exit__(self, *error: object) -> None:
        for name in ("statement_timeout", "lock_timeout"):
            self._schema_editor.execute(f"RESET {name}", None)
