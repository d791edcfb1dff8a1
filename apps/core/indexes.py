"""Indexes that migrations add to tables which are large and in use. No tables here."""

from __future__ import annotations

from typing import Any, Final

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation

# The connection's own limits are for requests, not for reading a table of years.
_LIMITS: Final = {
    "statement_timeout": "12h",
    "lock_timeout": "8h",  # for transactions that were there before, of a backup for example
}


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


class AddIndexPatiently(migrations.AddIndex):
    """Adds an index that locks out writers while it is built, however long that takes.

    How long it waits for those before it stays bounded, as others wait behind it meanwhile.
    """

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: Any,
        to_state: Any,
    ) -> None:
        """Build the index."""
        with _PatientStatements(schema_editor, "statement_timeout"):
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class AddBlockRangeIndex(Operation):
    """Adds an index of block ranges to a partitioned table while it is written, on PostgreSQL.

    For columns that grow with the rows, such as the time of their writing: it takes no room and
    next to no time to keep. SQLite has nothing like it, and the models do not know of it. The
    migration has `atomic = False`; what an interrupted run left is built again.
    """

    reversible = True
    atomic = False

    def __init__(self, table: str, column: str, name: str) -> None:
        self.table = table
        self.column = column
        self.name = name

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no model."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: Any,
        to_state: Any,
    ) -> None:
        """Build the index: of the table as a whole empty, then of each partition."""
        if schema_editor.connection.vendor != "postgresql":
            return
        on = f'USING brin ("{self.column}") WITH (pages_per_range = 32, autosummarize = on)'
        schema_editor.execute(f'DROP INDEX IF EXISTS "{self.name}"', None)
        # A partition that is attached from now on gets its own by itself.
        schema_editor.execute(f'CREATE INDEX "{self.name}" ON ONLY "{self.table}" {on}', None)
        for partition in self._list_without(schema_editor):
            own = f"{partition}_{self.column}_brin"
            with _PatientStatements(schema_editor):
                schema_editor.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{own}"', None)
                schema_editor.execute(
                    f'CREATE INDEX CONCURRENTLY "{own}" ON "{partition}" {on}', None
                )
            schema_editor.execute(f'ALTER INDEX "{self.name}" ATTACH PARTITION "{own}"', None)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: Any,
        to_state: Any,
    ) -> None:
        """Drop the index, which takes no time."""
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f'DROP INDEX IF EXISTS "{self.name}"', None)

    def describe(self) -> str:
        """Say what is done."""
        return f"Add block ranges of {self.column} to {self.table}"

    def _list_without(self, schema_editor: BaseDatabaseSchemaEditor) -> list[str]:
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(
                """SELECT part.relname FROM pg_inherits JOIN pg_class part ON part.oid = inhrelid
                   WHERE inhparent = to_regclass(%s) AND NOT EXISTS (
                       SELECT 1 FROM pg_index JOIN pg_inherits own ON own.inhrelid = indexrelid
                       WHERE indrelid = part.oid AND own.inhparent = to_regclass(%s))
                   ORDER BY part.relname""",
                (self.table, self.name),
            )
            return [name for (name,) in cursor.fetchall()]


class _PatientStatements:
    """Lets statements of this connection take longer for a while, where they are bounded."""

    def __init__(
        self,
        schema_editor: BaseDatabaseSchemaEditor,
        *limits: str,
    ) -> None:
        self._schema_editor = schema_editor
        is_bounded = schema_editor.connection.vendor == "postgresql"
        self._limits = (limits or tuple(_LIMITS)) if is_bounded else ()

    def __enter__(self) -> None:
        for name in self._limits:
            self._schema_editor.execute(f"SET {name} = '{_LIMITS[name]}'", None)

    def __exit__(self, *error: object) -> None:
        if error[0] is not None and self._schema_editor.connection.in_atomic_block:
            return  # The transaction that is rolled back takes it along.
        for name in self._limits:
            self._schema_editor.execute(f"RESET {name}", None)
