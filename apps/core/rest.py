"""What all REST views share: error answers, strict serializers, money as decimal strings."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Final, TypeVar

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.db.models import ProtectedError
from django.http import Http404
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers, status
from rest_framework.exceptions import APIException, NotAuthenticated, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import set_rollback

from apps.core.domain_errors import find_error_answer
from apps.core.json_kinds import find_wrong_kind
from apps.core.money import (
    AMOUNT_SCHEMA,
    NANOS_PER_USD,
    USD_MAX,
    InvalidAmount,
    format_multiplier,
    format_usd,
    parse_usd,
)

MULTIPLIER_MILLIONTHS_MAX: Final = 1_000_000_000
_MILLIONTHS_DIGITS: Final = 6
_RETRY_SECONDS: Final = 5
_DECIMAL_PATTERN: Final = r"^-?[0-9]{1,10}(\.[0-9]{1,9})?$"


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know, and values of another JSON type than the field's.

    A misspelt or smuggled field is never just dropped.
    """

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated values."""
        if isinstance(data, Mapping):
            known = {name for name, field in self.fields.items() if not field.read_only}
            unknown = [str(name)[:100] for name in data if name not in known]
            if unknown:
                raise ValidationError(
                    {name: ["Unknown field."] for name in unknown[:20]}, code="unknown_field"
                )
            wrong = {name: find_wrong_kind(self.fields[name], data[name]) for name in data}
            if any(wrong.values()):
                raise ValidationError(
                    {name: [message] for name, message in wrong.items() if message}, code="invalid"
                )
        return super().to_internal_value(data)


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


class MultiplierField(serializers.Field[int, Any, str, int]):
    """A multiplier from 0 to 1000: a decimal string outside, integer millionths inside."""

    default_error_messages = {
        "range": "A multiplier is from 0 to 1000.",
        "decimals": "A multiplier has at most six decimals.",
    }

    def to_internal_value(self, data: Any) -> int:
        """Return millionths."""
        try:
            nanos = parse_usd(data)
        except InvalidAmount as error:
            raise ValidationError("Enter a number such as 1.5.", code="invalid") from error
        millionths, rest = divmod(nanos, 1_000)
        if rest:
            self.fail("decimals")
        if not 0 <= millionths <= MULTIPLIER_MILLIONTHS_MAX:
            self.fail("range")
        return millionths

    def to_representation(self, value: int) -> str:
        """Return the decimal string."""
        return format_multiplier(value)


class _DecimalSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]  # untyped base
    """Describes decimal strings: whole JSON numbers are taken as well, and never given."""

    target_class = "apps.core.rest.USDField"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        """Return the schema of the field."""
        if direction == "response":
            return {"type": "string", "format": "decimal", "pattern": _DECIMAL_PATTERN}
        low, high = self.find_range()
        return {"oneOf": [AMOUNT_SCHEMA, {"type": "integer", "minimum": low, "maximum": high}]}

    def find_range(self) -> tuple[int, int]:
        """Return the least and the greatest whole number that the field takes."""
        nanos_max = self.target.nanos_max
        high = USD_MAX if nanos_max is None else min(USD_MAX, nanos_max // NANOS_PER_USD)
        return (-high if self.target.is_signed else 0), high


class _MultiplierSchema(_DecimalSchema):  # type: ignore[no-untyped-call]  # untyped base
    """Describes multipliers likewise."""

    target_class = "apps.core.rest.MultiplierField"

    def find_range(self) -> tuple[int, int]:
        """Return the least and the greatest whole multiplier."""
        return 0, MULTIPLIER_MILLIONTHS_MAX // 10**_MILLIONTHS_DIGITS


class MaskedSerializer(serializers.Serializer[Any]):
    """Shows null in the place of what the caller's role must not see.

    `hidden_from` is role → names of fields; those fields are declared with `allow_null=True`. Pass
    `context={"request": request}`, else everything that any role must not see is hidden.
    """

    hidden_from: ClassVar[Mapping[str, frozenset[str]]] = {}

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return the values that the caller may see."""
        values = super().to_representation(instance)
        request = self.context.get("request")
        if request is None:
            hidden = frozenset[str]().union(*self.hidden_from.values())
        else:
            hidden = self.hidden_from.get(getattr(request.user, "role", ""), frozenset())
        return {name: None if name in hidden else value for name, value in values.items()}


_Shown = TypeVar("_Shown", bound=type[serializers.BaseSerializer[Any]])


def example(value: Mapping[str, Any]) -> Callable[[_Shown], _Shown]:
    """Give a serializer the example that the schema shows wherever it is used."""
    shown = OpenApiExample("Example", value=dict(value), status_codes=("200", "201", "202"))
    return extend_schema_serializer(examples=[shown])


def answer_deletion(*, is_deleted: bool) -> Response:
    """Return 204, or 409 for what has history and was deactivated instead."""
    if is_deleted:
        return Response(status=status.HTTP_204_NO_CONTENT)
    return _answer(
        status.HTTP_409_CONFLICT,
        "This has history: it was deactivated instead of deleted.",
        "archived_instead",
    )


def read_query(
    serializer: type[StrictSerializer], request: Request, *, without: Collection[str] = ()
) -> dict[str, Any]:
    """Return the validated parameters of a query, but for those `without`.

    Raises ValidationError, for what is given twice or empty too.
    """
    repeated = [name for name, values in request.query_params.lists() if len(values) > 1]
    if repeated:
        raise ValidationError(
            {name[:100]: ["Given more than once."] for name in repeated[:20]}, code="invalid_filter"
        )
    # A plain dict: of a form's data, REST framework would drop what is empty.
    asked = {
        name: value for name, value in request.query_params.dict().items() if name not in without
    }
    given = serializer(data=asked)
    given.is_valid(raise_exception=True)
    return dict(given.validated_data)


def actor_of(request: Request) -> AbstractBaseUser:
    """Return who calls. Only for views behind a permission that wants a user."""
    if not isinstance(request.user, AbstractBaseUser):
        raise NotAuthenticated
    return request.user


def answer_exception(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer for an exception, None for one that nobody expected.

    Field errors are {field: [messages]}, everything else is {"detail", "code"} and what the error
    adds.
    """
    told = find_error_answer(exc)
    if told is not None:
        set_rollback()
        return _answer(
            told.status_code,
            told.message,
            told.code,
            retry_after=told.retry_after_seconds,
            details=told.details,
        )
    if isinstance(exc, Http404):
        return _answer(status.HTTP_404_NOT_FOUND, "Not found.", "not_found")
    if isinstance(exc, PermissionDenied):
        return _answer(status.HTTP_403_FORBIDDEN, "You may not do this.", "permission_denied")
    if isinstance(exc, ProtectedError):
        set_rollback()
        return _answer(status.HTTP_409_CONFLICT, "This is still in use.", "in_use")
    if isinstance(exc, OperationalError):
        # A statement that took too long, a lock, or a database that is away.
        set_rollback()
        return _answer(
            status.HTTP_503_SERVICE_UNAVAILABLE,
            "The database did not answer in time.",
            "database_unavailable",
            retry_after=_RETRY_SECONDS,
        )
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
    status_code: int,
    detail: str,
    code: str,
    *,
    retry_after: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Response:
    answer = Response({**(details or {}), "detail": detail, "code": code}, status=status_code)
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
