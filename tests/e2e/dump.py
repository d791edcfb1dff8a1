"""Everything that a database holds, as bytes: where a secret must not be."""

from __future__ import annotations

from typing import Any

import zstandard

from tests.support.databases import Database

BODIES_BYTES_MAX = 1 << 20


def find_text(database: Database, text: str) -> set[str]:
    """Return the columns (`table.column`) in which a text stands, compressed or not."""
    wanted = text.encode()
    connection: Any = database.connect()
    try:
        return {
            f"{table}.{column}"
            for table in _list_tables(connection, database)
            for column, value in _list_values(connection, table)
            if wanted in _clear(value)
        }
    finally:
        connection.close()


def _list_tables(connection: Any, database: Database) -> list[str]:
    query = (
        "SELECT name FROM sqlite_master WHERE type = 'table'"
        if database.server is None
        else "SELECT relname FROM pg_class WHERE relkind = 'r' "
        "AND relnamespace = 'public'::regnamespace"
    )
    return [name for (name,) in connection.execute(query).fetchall()]


def _list_values(connection: Any, table: str) -> list[tuple[str, Any]]:
    cursor = connection.execute(f'SELECT * FROM "{table}"')  # noqa: S608 (names out of the catalogue)
    columns = [column[0] for column in cursor.description]
    return [pair for row in cursor.fetchall() for pair in zip(columns, row, strict=True)]


def _clear(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        return str(value).encode("utf-8", "surrogatepass")
    raw = bytes(value)
    try:
        return zstandard.ZstdDecompressor().decompress(raw, max_output_size=BODIES_BYTES_MAX)
    except zstandard.ZstdError:
        return raw
