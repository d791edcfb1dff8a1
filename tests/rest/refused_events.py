"""A database that refuses events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from apps.audit.models import AdminEvent

EVENTS = AdminEvent._meta.db_table


@contextmanager
def refusing(action: str) -> Iterator[None]:
    """Have the database refuse events of one action."""
    sqlite = [
        f"CREATE TRIGGER no_event BEFORE INSERT ON {EVENTS} WHEN NEW.action = '{action}' "
        "BEGIN SELECT RAISE(ABORT, 'events are away'); END",
    ]
    postgres = [
        "CREATE OR REPLACE FUNCTION no_event() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are away'; END $$",
        f"CREATE TRIGGER no_event BEFORE INSERT ON {EVENTS} FOR EACH ROW "
        f"WHEN (NEW.action = '{action}') EXECUTE FUNCTION no_event()",
    ]
    is_sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        for statement in sqlite if is_sqlite else postgres:
            cursor.execute(statement)
        try:
            yield
        finally:
            cursor.execute("DROP TRIGGER no_event" + ("" if is_sqlite else f" ON {EVENTS}"))
