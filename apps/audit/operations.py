"""Migration operations for tables that grow: made in partitions, widened without a rebuild."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import migrations

from apps.audit.partitions import PARTITIONED


class CreatePartitionedModel(migrations.CreateModel):
    """Creates the table, range-partitioned on its UUIDv7 key with a default partition on
    PostgreSQL.
    """

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Create the table of this operation's model."""
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        table = model._meta.db_table
        sql, params = schema_editor.table_sql(model)
        schema_editor.execute(f"{sql} PARTITION BY RANGE ({PARTITIONED[table]})", params or None)
        schema_editor.execute(f'CREATE TABLE "{table}_default" PARTITION OF "{table}" DEFAULT')
        schema_editor.deferred_sql.extend(schema_editor._model_indexes_sql(model))


class AddTextColumn(migrations.AddField):
    """Adds a text column that is empty in all rows there are, at once however many there are.

    Django would copy the whole table on SQLite for it, and lose the triggers of the old one.
    """

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Add the column."""
        if schema_editor.connection.vendor != "sqlite":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        table, column, type_ = self._column(app_label, schema_editor, to_state)
        schema_editor.execute(
            f'ALTER TABLE "{table}" ADD COLUMN "{column}" {type_} DEFAULT \'\' NOT NULL'
        )

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Take the column away again."""
        if schema_editor.connection.vendor != "sqlite":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
            return
        table, column, _ = self._column(app_label, schema_editor, from_state)
        schema_editor.execute(f'ALTER TABLE "{table}" DROP COLUMN "{column}"')

    def _column(self, app_label: str, schema_editor: Any, state: Any) -> tuple[str, str, str]:
        model = state.apps.get_model(app_label, self.model_name)
        field = model._meta.get_field(self.name)
        return model._meta.db_table, field.column, field.db_type(schema_editor.connection)


def make_first_partitions(apps: Any, schema_editor: Any) -> None:
    """Make the partitions of this month and the next ones, on PostgreSQL."""
    from apps.audit.partitions import ensure_partitions

    if schema_editor.connection.vendor == "postgresql":
        with schema_editor.connection.cursor() as cursor:
            ensure_partitions(cursor, now=datetime.now(UTC))
