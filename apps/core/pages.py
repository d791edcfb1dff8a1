"""How long lists are cut into pages: numbered for configuration, by cursor for what grows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import CursorPagination, PageNumberPagination
from rest_framework.request import Request

PAGE_SIZE: Final = 50
PAGE_SIZE_MAX: Final = 200
_ID_MAX: Final = 2**63 - 1
_DIGITS_MAX: Final = 9
_PARAMETERS: Final = ("page", "page_size", "cursor")
# A moment near either end of the calendar cannot be brought to another time zone.
_YEARS: Final = range(1970, 9999)


class NumberedPages(PageNumberPagination):
    """Pages of configuration lists: {count, next, previous, results}."""

    page_size = PAGE_SIZE
    max_page_size = PAGE_SIZE_MAX
    page_size_query_param = "page_size"

    def get_page_size(self, request: Request) -> int:
        """Return the wanted size."""
        return _read_size(request)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Return the parameters with their bounds."""
        return _bounded(super().get_schema_operation_parameters(view))


class CursorPages(CursorPagination, ABC):
    """Pages that stay stable while rows arrive: {next, previous, results}."""

    page_size = PAGE_SIZE
    max_page_size = PAGE_SIZE_MAX
    page_size_query_param = "page_size"

    def get_page_size(self, request: Request) -> int:
        """Return the wanted size."""
        return _read_size(request)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Return the parameters with their bounds."""
        return _bounded(super().get_schema_operation_parameters(view))

    @abstractmethod
    def is_position(self, text: str) -> bool:
        """Return whether `text` can be compared with the column that the pages go by."""

    def decode_cursor(self, request: Request) -> Any:
        """Return the cursor; a forged one is refused here, before it gets into a query."""
        if request.query_params.get(self.cursor_query_param) == "":
            raise NotFound("Invalid cursor.")
        cursor = super().decode_cursor(request)
        position = getattr(cursor, "position", None)
        try:
            is_readable = position is None or self.is_position(position)
        except ValueError:
            is_readable = False
        if not is_readable:
            raise NotFound("Invalid cursor.")
        return cursor


def _read_size(request: Request) -> int:
    repeated = [name for name in _PARAMETERS if len(request.query_params.getlist(name)) > 1]
    if repeated:
        raise ValidationError({name: ["Given more than once."] for name in repeated})
    text = request.query_params.get("page_size")
    if text is None:
        return PAGE_SIZE
    size = int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else 0
    if not 1 <= size <= PAGE_SIZE_MAX:
        raise ValidationError({"page_size": [f"Enter a number from 1 to {PAGE_SIZE_MAX}."]})
    return size


def _bounded(parameters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    bounds = {
        "page_size": {"minimum": 1, "maximum": PAGE_SIZE_MAX, "default": PAGE_SIZE},
        "page": {"minimum": 1},
    }
    for parameter in parameters:
        parameter["schema"].update(bounds.get(parameter["name"], {}))
    return parameters


def is_moment_of_cursor(moment: datetime) -> bool:
    """Return whether a cursor of ours can hold this: a moment in UTC, not near the calendar's ends.

    PostgreSQL does not take every offset there is.
    """
    return moment.utcoffset() == timedelta(0) and moment.year in _YEARS


class NewestCallsFirst(CursorPages):
    """Pages of recorded calls, by the moment they began."""

    ordering = ("-started_at", "-id")

    def is_position(self, text: str) -> bool:
        """Return whether this is a moment."""
        moment = parse_datetime(text)
        return moment is not None and is_moment_of_cursor(moment)


class NewestNumbersFirst(CursorPages):
    """Pages of rows with whole numbers for ids, the newest first."""

    ordering = ("-id",)

    def is_position(self, text: str) -> bool:
        """Return whether this is an id."""
        return text.isascii() and text.isdigit() and int(text) <= _ID_MAX
