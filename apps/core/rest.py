"""What all REST views share: pages, error answers, strict serializers, money as decimal strings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.db.models import ProtectedError
from django.http import Http404
from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.exceptions import APIException, NotAuthenticated, NotFound, ValidationError
from rest_framework.pagination import CursorPagination, PageNumberPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import set_rollback

from apps.core.domain_errors import find_refusal
from apps.core.money import InvalidAmount, format_usd, parse_usd

PAGE_SIZE: Final = 50
PAGE_SIZE_MAX: Final = 200
_MILLIONTHS_DIGITS: Final = 6


class NumberedPages(PageNumberPagination):
    """Pages of configuration lists: {count, next, previous, results}."""

    page_size = PAGE_SIZE
    max_page_size = PAGE_SIZE_MAX
    page_size_query_param = "page_size"


class NewestFirst(CursorPagination):
    """Pages of calls that stay stable while new ones arrive: {next, previous, results}."""

    page_size = PAGE_SIZE
    max_page_size = PAGE_SIZE_MAX
    page_size_query_param = "page_size"
    ordering = ("-started_at", "-id")

    def decode_cursor(self, request: Request) -> Any:
        """Return the cursor; a forged one is refused here, before it gets into a query."""
        cursor = super().decode_cursor(request)
        position = getattr(cursor, "position", None)
        try:
            is_readable = position is None or parse_datetime(position) is not None
        except ValueError:
            is_readable = False
        if not is_readable:
            raise NotFound("Invalid cursor.")
        return cursor


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know: a misspelt or smuggled field is never just dropped."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values."""
        if isinstance(data, Mapping):
            known = {name for name, field in self.fields.items() if not field.read_only}
            unknown = [str(name)[:100] for name in data if name not in known]
            if unknown:
                raise ValidationError(
                    {name: ["Unknown field."] for name in unknown[:20]}, code="unknown_field"
                )
        return super().to_internal_value(data)


@extend_schema_field({"type": "string", "format": "decimal", "example": "9.99"})
class USDField(serializers.Field[int, Any, str, int]):
    """An amount: a decimal string of US dollars outside, integer nanos inside."""

    default_error_messages = {
        "negative": "An amount must not be negative.",
        "too_large": "An amount must not exceed {nanos_max} USD.",
    }

    def __init__(
        self,
        *,
        is_signed: bool = False,
        nanos_max: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Refuse negative amounts unless `is_signed`, and amounts beyond `nanos_max`."""
        self.is_signed = is_signed
        self.nanos_max = nanos_max
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> int:
        """Return nanos."""
        try:
            nanos = parse_usd(data)
        except InvalidAmount as error:
            raise ValidationError(str(error), code="invalid_amount") from error
        if nanos < 0 and not self.is_signed:
            self.fail("negative")
        if self.nanos_max is not None and abs(nanos) > self.nanos_max:
            self.fail("too_large", nanos_max=format_usd(self.nanos_max))
        return nanos

    def to_representation(self, value: int) -> str:
        """Return the decimal string."""
        return format_usd(value)


@extend_schema_field({"type": "string", "format": "decimal", "example": "1"})
class MultiplierField(serializers.Field[int, Any, str, int]):
    """A multiplier: a decimal string outside, integer millionths inside. Read only."""

    def to_representation(self, value: int) -> str:
        """Return the decimal string."""
        return format_multiplier(value)


def format_multiplier(millionths: int) -> str:
    """Return a multiplier as the shortest exact decimal string."""
    whole, fraction = divmod(millionths, 10**_MILLIONTHS_DIGITS)
    return f"{whole}.{fraction:06d}".rstrip("0").rstrip(".")


def actor_of(request: Request) -> AbstractBaseUser:
    """Return who calls. Only for views behind a permission that wants a user."""
    if not isinstance(request.user, AbstractBaseUser):
        raise NotAuthenticated
    return request.user


def answer_exception(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer for an exception, None for one that nobody expected.

    Field errors are {field: [messages]}, everything else is {"detail", "code"}.
    """
    refusal = find_refusal(exc)
    if refusal is not None:
        set_rollback()
        return _answer(
            refusal.status_code,
            refusal.message,
            refusal.code,
            retry_after=refusal.retry_after_seconds,
        )
    if isinstance(exc, Http404):
        return _answer(status.HTTP_404_NOT_FOUND, "Not found.", "not_found")
    if isinstance(exc, PermissionDenied):
        return _answer(status.HTTP_403_FORBIDDEN, "You may not do this.", "permission_denied")
    if isinstance(exc, ProtectedError):
        set_rollback()
        return _answer(status.HTTP_409_CONFLICT, "This is still in use.", "in_use")
    if not isinstance(exc, APIException):
        return None
    set_rollback()
    if isinstance(exc, ValidationError) and isinstance(exc.detail, dict):
        return Response(exc.detail, status=exc.status_code)
    wait = getattr(exc, "wait", None)
    answer = _answer(
        exc.status_code,
        _first_text(exc.detail),
        _first_code(exc),
        retry_after=math.ceil(wait) if wait else None,
    )
    if challenge := getattr(exc, "auth_header", None):
        answer["WWW-Authenticate"] = challenge
    return answer


def _answer(
    status_code: int, detail: str, code: str, *, retry_after: int | None = None
) -> Response:
    answer = Response({"detail": detail, "code": code}, status=status_code)
    if retry_after is not None:
        answer["Retry-After"] = str(retry_after)
    return answer


def _first_text(detail: Any) -> str:
    if isinstance(detail, Mapping):
        return str(detail.get("detail", "Invalid input."))
    if isinstance(detail, list):
        return _first_text(detail[0]) if detail else "Invalid input."
    return str(detail)


def _first_code(exc: APIException) -> str:
    # The token library keeps its code inside the detail.
    if isinstance(exc.detail, Mapping) and "code" in exc.detail:
        return str(exc.detail["code"])
    codes = exc.get_codes()
    while isinstance(codes, list | dict):
        codes = next(iter(codes if isinstance(codes, list) else codes.values()), "invalid")
    return str(codes)
