"""Filters of lists: what cannot be understood is refused, never dropped, and text is literal."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from typing import Any, Final, cast

import django_filters
from django import forms
from django.db.models import Q, QuerySet
from django_filters.fields import BaseCSVField, IsoDateTimeField
from drf_spectacular.drainage import set_override
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from apps.core.money import AMOUNT_SCHEMA, InvalidAmount, parse_usd

ID_MAX: Final = 2**63 - 1
_ID_DIGITS_MAX: Final = 19
_IDS_PATTERN: Final = "^[0-9]{1,19}(,[0-9]{1,19})*$"
TEXT_LENGTH_MAX: Final = 200
# Far enough from both ends of the calendar for every time zone.
_YEAR_MIN: Final = 1970
_YEAR_MAX: Final = 8_999
VALUES_MAX: Final = 100
_EMPTY_VALUE: Final = "Enter values with single commas between them."
_PARAMETERS_MAX: Final = 100


class StrictFilterSet(django_filters.FilterSet):
    """Filters that refuse parameters they do not know: a misspelt filter must not show everything.

    Declare filters explicitly; `Meta.fields` stays empty.
    """

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that pass every filter."""
        request = cast(Request, self.request)
        wrong = {
            name[:100]: [message]
            for name in list(request.query_params)[:_PARAMETERS_MAX]
            if (message := self._find_wrong(name, request.query_params.getlist(name)))
        }
        if wrong:
            raise ValidationError(wrong, code="invalid_filter")
        passed: QuerySet[Any] = super().filter_queryset(queryset)
        return passed

    def _find_wrong(self, name: str, values: list[str]) -> str | None:
        if name in _parameters_of_pages(cast(Request, self.request)):
            return None
        if name not in self.filters:
            return "Unknown filter."
        if len(values) > 1:
            return "Given more than once."
        # `?user=` of a script whose variable was empty must not show everybody's rows.
        if not values[0].strip() and not isinstance(self.filters[name], SearchFilter):
            return "Empty filter."
        return None


def _parameters_of_pages(request: Request) -> frozenset[str]:
    view = (request.parser_context or {}).get("view")
    paginator = getattr(view, "paginator", None)
    names = (
        getattr(paginator, name, None)
        for name in ("page_query_param", "cursor_query_param", "page_size_query_param")
    )
    return frozenset(name for name in names if name)


def describe(found: django_filters.Filter, text: str = "", **schema: Any) -> None:
    """Set what the schema says of a filter: the type of the column behind it may differ."""
    set_override(found, "field", {**schema, "description": text} if text else schema)


class _IdField(forms.IntegerField):
    """A key; what would not fit the column is refused before it reaches the database."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=0, max_value=ID_MAX, required=bool(kwargs.get("required")))


class IdFilter(django_filters.Filter):
    """Filters by a whole number from 0 up; `lookup_expr` gte and lte make bounds of it."""

    field_class = _IdField

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        describe(
            self,
            kwargs.get("help_text", ""),
            type="integer",
            format="int64",
            minimum=0,
            maximum=ID_MAX,
        )


class _WordsField(forms.CharField):
    """Several values with commas between them."""

    def clean(self, value: Any) -> list[str]:
        """Return the values."""
        text = super().clean(value)
        found = [word.strip() for word in text.split(",")] if text else []
        # `?provider=,` must not show everybody's rows either.
        if not all(found):
            raise forms.ValidationError(_EMPTY_VALUE)
        if len(found) > VALUES_MAX:
            raise forms.ValidationError(f"At most {VALUES_MAX} values.")
        return found


class WordsFilter(django_filters.Filter):
    """Filters by any of several words: `?model=a,b`."""

    field_class = _WordsField

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=VALUES_MAX * TEXT_LENGTH_MAX, **kwargs)
        describe(self, "Several with commas: `a,b`.", type="string")

    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        """Return the rows with one of the values."""
        return qs.filter(**{f"{self.field_name}__in": value}) if value else qs


class _IdsField(_WordsField):
    """Several whole numbers with commas between them."""

    def clean(self, value: Any) -> list[Any]:
        """Return the numbers."""
        found = super().clean(value)
        if not all(is_id(word) for word in found):
            raise forms.ValidationError("Enter whole numbers with commas between them.")
        return [int(word) for word in found]


def is_id(word: str) -> bool:
    """Return whether a text is a whole number from 0 up that fits the column of a key."""
    # int() refuses thousands of digits with an error of its own.
    is_short = len(word) <= _ID_DIGITS_MAX
    return is_short and word.isascii() and word.isdigit() and int(word) <= ID_MAX


class IdsFilter(WordsFilter):
    """Filters by any of several whole numbers: `?provider=1,2`."""

    field_class = _IdsField

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        describe(self, "Several with commas: `1,2`.", type="string", pattern=_IDS_PATTERN)


class _FlagField(forms.Field):
    """Yes or no; a misspelt word must not mean both."""

    def to_python(self, value: Any) -> bool | None:
        """Return the truth value."""
        if value in self.empty_values:
            return None
        known = {"true": True, "false": False}.get(str(value).lower())
        if known is None:
            raise forms.ValidationError("Enter true or false.")
        return known


class FlagFilter(django_filters.BooleanFilter):
    """Filters by true or false; anything else is refused."""

    field_class = _FlagField


class _ColumnsField(BaseCSVField):
    """Columns to order by, with commas between them."""

    def clean(self, value: Any) -> list[str] | None:
        """Return the columns."""
        found = cast("list[str] | None", super().clean(value))
        # An empty piece is no choice, and so no wrong one to the field below.
        if found and not all(found):
            raise forms.ValidationError(_EMPTY_VALUE)
        return found


class StableOrderingFilter(django_filters.OrderingFilter):
    """Orders by what was asked for, and by the newest id where that is the same."""

    base_field_class = _ColumnsField

    def filter(self, qs: QuerySet[Any], value: list[str] | None) -> QuerySet[Any]:
        """Return the rows in order."""
        if not value:
            return qs
        return qs.order_by(*(self.get_ordering_value(name) for name in value), "-id")


class _USDFormField(forms.CharField):
    """Dollars as a decimal string."""

    def clean(self, value: Any) -> int | None:
        """Return nanos."""
        text = super().clean(value)
        if not text:
            return None
        try:
            return parse_usd(text)
        except InvalidAmount as error:
            raise forms.ValidationError(str(error)) from error


class USDFilter(django_filters.Filter):
    """Filters a column of nanos by an amount in US dollars."""

    field_class = _USDFormField

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        describe(self, "US dollars.", **AMOUNT_SCHEMA)


class SearchFilter(django_filters.CharFilter):
    """Finds a piece of text in any of `columns`, whatever the case; % and _ mean themselves."""

    def __init__(self, *, columns: Iterable[str], **kwargs: Any) -> None:
        self.columns = tuple(columns)
        super().__init__(max_length=TEXT_LENGTH_MAX, **kwargs)

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows that hold the text."""
        if not value:
            return qs
        condition = Q()
        for column in self.columns:
            condition |= Q(**{f"{column}__icontains": value})
        return qs.filter(condition)


class _MomentField(IsoDateTimeField):
    """A moment that can be moved to another time zone without leaving the calendar."""

    def clean(self, value: Any) -> Any:
        """Return the moment."""
        moment = super().clean(value)
        if moment is None:
            return None
        if not _YEAR_MIN <= moment.year <= _YEAR_MAX:
            raise forms.ValidationError(f"Enter a year from {_YEAR_MIN} to {_YEAR_MAX}.")
        # PostgreSQL takes no offset of 16 hours and more.
        return moment.astimezone(UTC)


class MomentFilter(django_filters.IsoDateTimeFilter):
    """Filters by a moment, ISO 8601; without a time zone it is UTC."""

    field_class = _MomentField
