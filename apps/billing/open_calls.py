"""Calls that are running: their holds tell what their records will name."""

from __future__ import annotations

from django.db.models import Q

from apps.billing.models import Hold


def is_call_open(column: str, value: int) -> bool:
    """Return whether a hold's detail has the value in the column.

    Reads all holds, which are as few as calls run at once. The text is exact: the detail is JSON
    without spaces, and a quotation mark inside one of its texts has a backslash before it.
    """
    text = f'"{column}":{value}'
    held = Q(detail__contains=f"{text},") | Q(detail__contains=f"{text}}}")
    return Hold.objects.filter(held).exists()
