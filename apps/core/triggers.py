"""SQL of the database triggers that migrations install. No tables of its own.

Three kinds: append-only tables refuse UPDATE, DELETE and TRUNCATE; others refuse that some of their
columns change; configuration tables stamp a version that running gateways poll.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from django.apps.registry import Apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def append_only(vendor: str, table: str, *, may_delete: bool = False) -> list[str]:
    """Return the statements that make `table` refuse changes of its rows.

    `may_delete` leaves DELETE open, for rows that are erased by rule but never edited.
    """
    verbs = ["UPDATE"] if may_delete else ["UPDATE", "DELETE"]
    if vendor == "sqlite":
        return [
            f"""CREATE TRIGGER "{table}_no_{verb.lower()}" BEFORE {verb} ON "{table}"
                BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"""
            for verb in verbs
        ]
    statements = [
        """CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = '23001';
           END $$""",
        f"""CREATE TRIGGER "{table}_append_only" BEFORE {" OR ".join(verbs)} ON "{table}"
            FOR EACH ROW EXECUTE FUNCTION refuse_change()""",
    ]
    if not may_delete:
        statements.append(no_truncate(table))
    return statements


def no_truncate(table: str) -> str:
    """Return the statement that makes `table` refuse TRUNCATE, on PostgreSQL.

    A partition needs it as well: it can be truncated by its own name.
    """
    return f"""CREATE TRIGGER "{table}_no_truncate" BEFORE TRUNCATE ON "{table}"
               FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"""


def drop_no_truncate(table: str) -> str:
    """Return the statement that takes the trigger of `no_truncate` away again."""
    return f'DROP TRIGGER IF EXISTS "{table}_no_truncate" ON "{table}"'


def drop_append_only(vendor: str, table: str, *, may_delete: bool = False) -> list[str]:
    """Return the statements that take the triggers of `append_only` away again."""
    if vendor == "sqlite":
        verbs = ["update"] if may_delete else ["update", "delete"]
        return [f'DROP TRIGGER IF EXISTS "{table}_no_{verb}"' for verb in verbs]
    statements = [f'DROP TRIGGER IF EXISTS "{table}_append_only" ON "{table}"']
    if not may_delete:
        statements.append(drop_no_truncate(table))
    return statements


def fixed_columns(vendor: str, table: str, columns: Sequence[str]) -> list[str]:
    """Return the statements that make `table` refuse changes of what some columns say."""
    changed = _changed(vendor, columns)
    before = f"""BEFORE UPDATE OF {", ".join(map(_quote, columns))} ON "{table}" FOR EACH ROW"""
    text = f"{' and '.join(columns)} of {table} never change"
    if vendor == "sqlite":
        return [
            f"""CREATE TRIGGER "{table}_fixed" {before} WHEN {changed}
                BEGIN SELECT RAISE(ABORT, '{text}'); END"""
        ]
    return [
        """CREATE OR REPLACE FUNCTION refuse_other_value() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = '23001';
           END $$""",
        f"""CREATE TRIGGER "{table}_fixed" {before} WHEN ({changed})
            EXECUTE FUNCTION refuse_other_value('{text}')""",
    ]


def drop_fixed_columns(vendor: str, table: str) -> list[str]:
    """Return the statements that take the trigger of `fixed_columns` away again."""
    where = "" if vendor == "sqlite" else f' ON "{table}"'
    return [f'DROP TRIGGER IF EXISTS "{table}_fixed"{where}']


def stamps_configuration(
    vendor: str, table: str, *, columns: Sequence[str], key: str = "id"
) -> list[str]:
    """Return the statements that record every change of `columns` of `table` as a configuration
    change.

    `key` is the column whose value names the thing that changed. On PostgreSQL the triggers are
    deferred to the commit, so that the one version row is locked late and shortly.
    """
    if vendor == "sqlite":
        return _stamps_on_sqlite(table, columns, key)
    changed = _changed(vendor, columns)
    deferred = "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
    call = f"EXECUTE FUNCTION stamp_configuration('{key}')"
    return [
        f'CREATE CONSTRAINT TRIGGER "{table}_stamp" AFTER INSERT OR DELETE ON "{table}" '
        f"{deferred} {call}",
        f'CREATE CONSTRAINT TRIGGER "{table}_stamp_update" AFTER UPDATE ON "{table}" {deferred} '
        f"WHEN ({changed}) {call}",
    ]


def drop_stamps_configuration(vendor: str, table: str) -> list[str]:
    """Return the statements that take the triggers of `stamps_configuration` away again."""
    if vendor == "sqlite":
        return [
            f'DROP TRIGGER IF EXISTS "{table}_stamp_{verb}"'
            for verb in ("insert", "update", "delete")
        ]
    return [
        f'DROP TRIGGER IF EXISTS "{table}_stamp" ON "{table}"',
        f'DROP TRIGGER IF EXISTS "{table}_stamp_update" ON "{table}"',
    ]


Step = Callable[[Apps, BaseDatabaseSchemaEditor], None]


def stamp_again(
    tables: Mapping[str, Sequence[str]],
) -> Step:
    """Return what puts the triggers of `stamps_configuration` back on tables (by their columns).

    SQLite rebuilds a table for a constraint and loses its triggers. The first operation of a
    migration that does so puts them back when it is undone, and the last one when it is applied,
    wherever configuration is stamped at that time.
    """

    def install(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        database = schema_editor.connection
        if database.vendor != "sqlite" or not _is_stamping(database):
            return
        for table, columns in tables.items():
            statements = drop_stamps_configuration(database.vendor, table)
            statements += stamps_configuration(database.vendor, table, columns=columns)
            for statement in statements:
                schema_editor.execute(statement, None)

    return install


def keep_triggers(*tables: str) -> tuple[Step, Step]:
    """Return the two steps between which tables may be rebuilt on SQLite without losing triggers.

    The first remembers them, the second puts back those that are gone: RunPython(first, second)
    begins a migration and RunPython(second, first) ends it.
    """
    remembered: dict[str, str] = {}

    def remember(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        remembered.clear()
        remembered.update(_find_triggers(schema_editor.connection, tables))

    def restore(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        present = _find_triggers(schema_editor.connection, tables)
        for name, statement in remembered.items():
            if name not in present:
                schema_editor.execute(statement, None)

    return remember, restore


def watch_columns(tables: Mapping[str, Sequence[str]]) -> tuple[Step, Step]:
    """Return the steps that stamp changes of further columns as well, and no more.

    What else the tables' triggers watch stays as it is, in whichever order migrations came.
    """

    def watch(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        for table, columns in tables.items():
            watched = _watched_columns(schema_editor.connection, table)
            _stamp_anew(schema_editor, table, watched | set(columns))

    def forget(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        for table, columns in tables.items():
            watched = _watched_columns(schema_editor.connection, table)
            _stamp_anew(schema_editor, table, watched - set(columns))

    return watch, forget


def _watched_columns(database: BaseDatabaseWrapper, table: str) -> set[str]:
    found = _find_triggers(database, [table]).get(f"{table}_stamp_update", "")
    watched = set(_WATCHED_COLUMN.findall(found))
    if not watched:
        raise LookupError(f"{table} has no trigger that stamps its changes")
    return watched


def _stamp_anew(schema_editor: BaseDatabaseSchemaEditor, table: str, columns: set[str]) -> None:
    vendor = schema_editor.connection.vendor
    statements = drop_stamps_configuration(vendor, table)
    statements += stamps_configuration(vendor, table, columns=sorted(columns))
    for statement in statements:
        schema_editor.execute(statement, None)


# SQLite keeps a trigger as it was written, PostgreSQL without the quotes that are not needed and
# with casts of its own: `(old.name)::text IS DISTINCT FROM …`.
_WATCHED_COLUMN = re.compile(r'\bold\."?(\w+)"?(?:\)::[\w ]+)? IS ', re.IGNORECASE)


def _find_triggers(database: BaseDatabaseWrapper, tables: Sequence[str]) -> dict[str, str]:
    """Return the statements that made the triggers of tables, by the triggers' names."""
    statement = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s"
    if database.vendor == "postgresql":
        statement = (
            "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger "
            "WHERE NOT tgisinternal AND tgrelid = %s::regclass"
        )
    found: dict[str, str] = {}
    with database.cursor() as cursor:
        for table in tables:
            cursor.execute(statement, [table])
            found.update(cursor.fetchall())
    return found


def _is_stamping(database: BaseDatabaseWrapper) -> bool:
    """Return whether the version that triggers stamp is there: a row, made with the triggers."""
    with database.cursor() as cursor:
        if "proxy_configurationversion" not in database.introspection.table_names(cursor):
            return False
        cursor.execute("SELECT COUNT(*) FROM proxy_configurationversion")
        return bool(cursor.fetchone()[0])


def _stamps_on_sqlite(table: str, columns: Sequence[str], key: str) -> list[str]:
    def body(row: str) -> str:
        return (
            "UPDATE proxy_configurationversion SET version = version + 1 WHERE id = 1; "  # noqa: S608 (names of tables and columns, from migrations)
            "INSERT INTO proxy_configurationchange (version, table_name, row_key) "
            f"SELECT version, '{table}', {row}.{_quote(key)} "
            "FROM proxy_configurationversion WHERE id = 1;"
        )

    changed = _changed("sqlite", columns)
    return [
        f'CREATE TRIGGER "{table}_stamp_insert" AFTER INSERT ON "{table}" BEGIN {body("NEW")} END',
        f'CREATE TRIGGER "{table}_stamp_update" AFTER UPDATE ON "{table}" WHEN {changed} '
        f"BEGIN {body('NEW')} END",
        f'CREATE TRIGGER "{table}_stamp_delete" AFTER DELETE ON "{table}" BEGIN {body("OLD")} END',
    ]


def _changed(vendor: str, columns: Sequence[str]) -> str:
    differs = "IS NOT" if vendor == "sqlite" else "IS DISTINCT FROM"
    return " OR ".join(f"OLD.{_quote(c)} {differs} NEW.{_quote(c)}" for c in columns)


def _quote(name: str) -> str:
    return f'"{name}"'
