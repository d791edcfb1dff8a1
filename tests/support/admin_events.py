"""What is on record of what administrators did."""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.db.models import Model, Q

from apps.audit.models import AdminEvent


def list_actions(*beginnings: str) -> list[str]:
    """Return the actions that begin so, oldest first: all of them but the making of people."""
    wanted = Q()
    for beginning in beginnings:
        wanted |= Q(action__startswith=beginning)
    events = AdminEvent.objects.filter(wanted).exclude(action="user.created").order_by("id")
    return list(events.values_list("action", flat=True))


def list_events(row: Model) -> list[tuple[str, Any, Any]]:
    """Return actions on a row with what was before and after, but for the making of people."""
    found = AdminEvent.objects.filter(object_type=row._meta.label_lower, object_id=str(row.pk))
    rows = found.exclude(action="user.created").order_by("id")
    return [(event.action, event.before, event.after) for event in rows]


def newest_event() -> tuple[str, Any, Any]:
    """Return the last action with what was before and after."""
    event = AdminEvent.objects.latest("id")
    return event.action, event.before, event.after


def break_events() -> None:
    """Make every new admin event fail, as a full disk would."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(
                "CREATE TRIGGER broken BEFORE INSERT ON audit_adminevent "
                "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
            return
        cursor.execute(
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'disk full'; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON audit_adminevent "
            "FOR EACH ROW EXECUTE FUNCTION broken()"
        )
