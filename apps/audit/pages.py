"""Pages of recorded calls that stay complete while calls are recorded.

A page begins after the last row of the one before, by start and id together. A count of rows that
started at the same moment, as other cursors keep it, would be off as soon as one more is recorded.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.audit.models import APIRequest
from apps.core.pages import CursorPages, is_moment_of_cursor

Position = tuple[datetime, uuid.UUID]


def older_than(rows: QuerySet[Any], position: Position | None) -> QuerySet[Any]:
    """Return the calls after a position, newest first."""
    ordered = rows.order_by("-started_at", "-id")
    if position is None:
        return ordered
    at, key = position
    # The first condition says nothing new, but an index can use it.
    return ordered.filter(started_at__lte=at).filter(Q(started_at__lt=at) | Q(id__lt=key))


def _newer_than(rows: QuerySet[Any], position: Position) -> QuerySet[Any]:
    at, key = position
    found = rows.filter(started_at__gte=at).filter(Q(started_at__gt=at) | Q(id__gt=key))
    return found.order_by("started_at", "id")


class CallPages(CursorPages):
    """Pages of recorded calls, the newest first: {next, previous, results}."""

    ordering = ("-started_at", "-id")

    def is_position(self, text: str) -> bool:
        """Return whether this is a moment with an id."""
        return _parse(text) is not None

    def paginate_queryset(
        self, queryset: Any, request: Request, view: APIView | None = None
    ) -> list[Any]:
        """Return the rows of the page that the cursor asks for."""
        self.request = request
        self.base_url = request.build_absolute_uri()
        size = self.get_page_size(request)
        cursor = self.decode_cursor(request)
        position = _parse(str(cursor.position)) if cursor and cursor.position else None
        is_backwards = position is not None and bool(cursor and cursor.reverse)
        if position is not None and is_backwards:
            found = list(_newer_than(queryset, position)[: size + 1])
        else:
            found = list(older_than(queryset, position)[: size + 1])
        has_more = len(found) > size
        self.rows = found[:size]
        if is_backwards:
            self.rows.reverse()
        # The page that the cursor came from lies on the other side.
        self.has_next = bool(self.rows) and (is_backwards or has_more)
        self.has_previous = bool(self.rows) and (has_more if is_backwards else position is not None)
        return self.rows

    def get_next_link(self) -> str | None:
        """Return where older rows are."""
        return self._link(self.rows[-1], is_reverse=False) if self.has_next else None

    def get_previous_link(self) -> str | None:
        """Return where newer rows are."""
        return self._link(self.rows[0], is_reverse=True) if self.has_previous else None

    def _link(self, row: APIRequest, *, is_reverse: bool) -> str:
        text = f"{row.started_at.isoformat()}_{row.pk.hex}"
        # The package takes any position and says that it takes numbers.
        position: Any = text
        return self.encode_cursor(Cursor(offset=0, reverse=is_reverse, position=position))


def _parse(text: str) -> Position:
    """Return the position in a cursor; a forged one is refused before it gets into a query."""
    moment, _, key = text.partition("_")
    try:
        at, found = parse_datetime(moment), uuid.UUID(key)
    except ValueError as error:
        raise NotFound("Invalid cursor.") from error
    if at is None or not is_moment_of_cursor(at):
        raise NotFound("Invalid cursor.")
    return at, found
