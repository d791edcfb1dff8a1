"""How long lists are cut into pages: numbered for configuration, by cursor for what grows."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination, PageNumberPagination
from rest_framework.request import Request

PAGE_SIZE: Final = 50
PAGE_SIZE_MAX: Final = 200
_ID_MAX: Final = 2**63 - 1


class NumberedPages(PageNumberPagination):
    """Pages of configuration lists: {count, next, previous, results}."""

    page_size = PAGE_SIZE
    max_page_size = PAGE_SIZE_MAX
    page_size_query_param = "page_size"


class _CursorPages(CursorPagination):
    """Pages that stay stable while rows arrive: {next, previous, results}."""

    page_size = PAGE_SIZE
    max_page_size = PAGE_SIZE_MAX
    page_size_query_param = "page_size"

    def is_position(self, text: str) -> bool:
        """Return whether `text` can be compared with the column that the pages go by."""
        raise NotImplementedError

    def decode_cursor(self, request: Request) -> Any:
        """Return the cursor; a forged one is refused here, before it gets into a query."""
        cursor = super().decode_cursor(request)
        position = getattr(cursor, "position", None)
        try:
            is_readable = position is None or self.is_position(position)
        except ValueError:
            is_readable = False
        if not is_readable:
            raise NotFound("Invalid cursor.")
        return cursor


class NewestCallsFirst(_CursorPages):
    """Pages of recorded calls, by the moment they began."""

    ordering = ("-started_at", "-id")

    def is_position(self, text: str) -> bool:
        """Return whether this is a moment."""
        return parse_datetime(text) is not None


class NewestNumbersFirst(_CursorPages):
    """Pages of rows with whole numbers for ids, the newest first."""

    ordering = ("-id",)

    def is_position(self, text: str) -> bool:
        """Return whether this is an id."""
        return text.isascii() and text.isdigit() and int(text) <= _ID_MAX


class NewestIdsFirst(_CursorPages):
    """Pages of rows with time-ordered UUIDs for ids, the newest first."""

    ordering = ("-id",)

    def is_position(self, text: str) -> bool:
        """Return whether this is an id."""
        return bool(uuid.UUID(text))
