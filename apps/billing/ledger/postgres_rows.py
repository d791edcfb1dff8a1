"""How rows get into PostgreSQL.

One row, as a batch of one call has in each table, goes as parameters: to read it out of JSON takes
the database as long as to insert it. More go as JSON, one parameter a table, so that the statement
stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import orjson

from apps.billing.ledger.commands import Row
from apps.billing.ledger.pipeline import Text
from apps.billing.ledger.postgres_steps import Step
from apps.billing.ledger.store import ENDS_OF_INSERTS, TABLES

# A hold's age is measured on the database's clock, so that clock sets it.
_SET_BY_DATABASE: Final = {"placed_at": "clock_timestamp()"}
# A charge and the revenue: the entries of one call.
_ENTRIES: Final = "billing_entry"
_ENTRIES_AS_VALUES: Final = 2
# Types whose text PostgreSQL reads (of bytes, ours).
_PLAIN: Final = {str, int, bool, type(None), bytes, datetime, UUID}
# Of several rows PostgreSQL does not tell the types of parameters by the columns they are for.
_ENTRY_TYPES: Final = {
    "transaction_id": "uuid",
    "account_id": "bigint",
    "request_id": "uuid",
    "kind": "text",
    "amount_nanos": "bigint",
    "sequence": "bigint",
    "balance_after_nanos": "bigint",
    "corrects_id": "bigint",
    "hash": "bytea",
}


def insert(table: str, rows: Sequence[Row], *, as_values: bool = True) -> Step:
    """Return the step that inserts rows into one of TABLES; `as_values`: as parameters if they are
    as few as those of one call.
    """
    if as_values and len(rows) <= (_ENTRIES_AS_VALUES if table == _ENTRIES else 1):
        sql, get = _insert_values(table, len(rows))
        values = _as_texts([value for row in rows for value in get(row)])
        if values is not None:
            return Step(sql, values)
    return Step(_INSERT_JSON[table], (as_json(rows),))


def as_json(rows: Sequence[Row]) -> bytes:
    """Return rows as `json_populate_recordset` reads them."""
    return orjson.dumps(rows, default=_json_value)


@lru_cache
def _insert_values(table: str, count: int) -> tuple[str, Callable[[Row], tuple[Any, ...]]]:
    """Return the INSERT of so many rows, and what takes its values out of one of them."""
    columns = TABLES[table]
    sent = [name for name in columns if name not in _SET_BY_DATABASE]
    types = _ENTRY_TYPES if count > 1 else {}
    lines = []
    number = 0
    for _ in range(count):
        values = []
        for name in columns:
            if name in _SET_BY_DATABASE:
                values.append(_SET_BY_DATABASE[name])
                continue
            number += 1
            values.append(f"${number}::{types[name]}" if types else f"${number}")
        lines.append(f"({', '.join(values)})")
    return f"{_beginning(table)} VALUES {', '.join(lines)} {_end(table)}", itemgetter(*sent)


def _insert_json(table: str) -> str:
    values = ", ".join(_SET_BY_DATABASE.get(name, name) for name in TABLES[table])
    source = f"json_populate_recordset(NULL::{table}, $1::json)"
    return f"{_beginning(table)} SELECT {values} FROM {source} {_end(table)}"  # noqa: S608 (constants)


def _beginning(table: str) -> str:
    return f"INSERT INTO {table} ({', '.join(TABLES[table])})"


def _end(table: str) -> str:
    return ENDS_OF_INSERTS.get(table, "")


_INSERT_JSON: Final = {table: _insert_json(table) for table in TABLES}


def _as_texts(values: Sequence[object]) -> list[Text] | None:
    """Return values as PostgreSQL reads them; None where JSON has to tell what they are worth: of
    types that have another text here, and of zero bytes, at which libpq would cut a text.
    """
    if not {type(value) for value in values} <= _PLAIN:
        values = [value.value if isinstance(value, Enum) else value for value in values]
        if not {type(value) for value in values} <= _PLAIN:
            return None
    shown = [_hex(value) if type(value) is bytes else value for value in values]
    # All at once: fifty columns one by one take three times as long.
    texts = ("%s\0" * len(shown) % tuple(shown)).encode().split(b"\0")
    if len(texts) != len(shown) + 1:
        return None
    return [None if value is None else text for value, text in zip(shown, texts[:-1], strict=True)]


def _json_value(value: object) -> str:
    if isinstance(value, bytes):
        return _hex(value)
    raise TypeError(type(value).__name__)


def _hex(value: bytes) -> str:
    return f"\\x{value.hex()}"
