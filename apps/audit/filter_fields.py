"""Kinds of filters for lists of what happened. What they cannot understand is refused.

Each one says in the schema what it takes: the type of the column behind it would be wrong there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add
from typing import Any, Final, cast

import django_filters
from django import forms
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django_filters.fields import IsoDateTimeField
from drf_spectacular.drainage import set_override
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from apps.audit.models import Attempt
from apps.audit.networks import condition_of, parse_network
from apps.core.filters import (
    TEXT_LENGTH_MAX,
    VALUES_MAX,
    IdFilter,
    IdsFilter,
    StrictFilterSet,
    USDFilter,
    WordsFilter,
)
from apps.core.usage import TOKEN_CLASSES

_ADDRESS_LENGTH_MAX: Final = 64
# Far enough from both ends of the calendar for every time zone.
_YEAR_MIN: Final = 1970
_YEAR_MAX: Final = 8_999


def describe(found: django_filters.Filter, text: str = "", **schema: Any) -> None:
    """Set what the schema says of a filter."""
    set_override(found, "field", {**schema, "description": text} if text else schema)


class _MomentField(IsoDateTimeField):  # type: ignore[misc]  # its package ships no types
    """A moment that can be moved to another time zone without leaving the calendar."""

    def clean(self, value: Any) -> Any:
        """Return the moment."""
        moment = super().clean(value)
        if moment is not None and not _YEAR_MIN <= moment.year <= _YEAR_MAX:
            raise forms.ValidationError(f"Enter a year from {_YEAR_MIN} to {_YEAR_MAX}.")
        return moment


class MomentFilter(django_filters.IsoDateTimeFilter):  # type: ignore[misc]  # its package ships no types
    """Filters by a moment, ISO 8601; without a time zone it is UTC."""

    field_class = _MomentField


class NumberFilter(IdFilter):
    """Filters by a whole number from 0 up."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        describe(self, kwargs.get("help_text", ""), type="integer", format="int64", minimum=0)


class NumbersFilter(IdsFilter):
    """Filters by any of several whole numbers with commas between them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        describe(self, "Several with commas: `1,2`.", type="string", pattern="^[0-9]+(,[0-9]+)*$")


class TextsFilter(WordsFilter):
    """Filters by any of several texts with commas between them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        describe(self, "Several with commas: `a,b`.", type="string")


class MoneyFilter(USDFilter):
    """Filters a column of nanos by an amount in US dollars."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        describe(self, "US dollars.", type="string", format="decimal")


class _ChoicesField(forms.CharField):
    """Several words of a known list, with commas between them."""

    def __init__(self, *, known: Iterable[str], **kwargs: Any) -> None:
        self.known = tuple(known)
        super().__init__(**kwargs)

    def clean(self, value: Any) -> Any:
        """Return the words, each once."""
        text = super().clean(value)
        words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
        if any(word not in self.known for word in words):
            raise forms.ValidationError(f"Choose from {', '.join(self.known)}.")
        return words


class ChoicesFilter(django_filters.Filter):  # type: ignore[misc]  # its package ships no types
    """Filters by any of several words of a known list."""

    field_class = _ChoicesField

    def __init__(self, *, known: Iterable[str], **kwargs: Any) -> None:
        words = tuple(known)
        super().__init__(known=words, max_length=TEXT_LENGTH_MAX, **kwargs)
        choices = "|".join(words)
        describe(
            self,
            f"Any of {', '.join(words)}; several with commas.",
            type="string",
            pattern=f"^({choices})(,({choices}))*$",
        )

    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        """Return the rows with one of the words."""
        return qs.filter(**{f"{self.field_name}__in": value}) if value else qs


class RangesFilter(ChoicesFilter):
    """Filters by any of several named ranges of numbers, [low, high)."""

    def __init__(self, *, ranges: Mapping[str, tuple[int, int]], **kwargs: Any) -> None:
        self.ranges = ranges
        super().__init__(known=ranges, **kwargs)

    def filter(self, qs: QuerySet[Any], value: list[str]) -> QuerySet[Any]:
        """Return the rows within one of the ranges."""
        condition = Q()
        for word in value or ():
            low, high = self.ranges[word]
            name = self.field_name
            condition |= Q(**{f"{name}__gte": low, f"{name}__lt": high})
        return qs.filter(condition)


class _AddressField(forms.CharField):
    """An address or a network."""

    def clean(self, value: Any) -> Any:
        """Return the network, None where nothing was given."""
        text = super().clean(value)
        if not text:
            return None
        try:
            return parse_network(text)
        except ValueError as error:
            raise forms.ValidationError(
                "Enter an address such as 192.0.2.1 or a network such as 192.0.2.0/24."
            ) from error


class AddressFilter(django_filters.Filter):  # type: ignore[misc]  # its package ships no types
    """Filters by an address, or by the network that an address lies in."""

    field_class = _AddressField

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=_ADDRESS_LENGTH_MAX, **kwargs)
        describe(self, "An address, or a network such as `192.0.2.0/24`.", type="string")

    def filter(self, qs: QuerySet[Any], value: Any) -> QuerySet[Any]:
        """Return the rows whose address lies in the network."""
        if value is None:
            return qs
        condition = condition_of(value)
        if condition.exact:
            return qs.filter(**{self.field_name: condition.exact})
        if condition.prefix:
            qs = qs.filter(**{f"{self.field_name}__startswith": condition.prefix})
        if condition.pattern:
            qs = qs.filter(**{f"{self.field_name}__regex": condition.pattern})
        return qs


class TokensFilter(NumberFilter):
    """Filters by the sum of all token classes."""

    def filter(self, qs: QuerySet[Any], value: int | None) -> QuerySet[Any]:
        """Return the rows whose sum is within the bound."""
        if value is None:
            return qs
        total: Any = reduce(add, (F(f"{name}_tokens") for name in TOKEN_CLASSES))
        rows: QuerySet[Any] = qs.alias(all_tokens=total)
        return rows.filter(**{f"all_tokens__{self.lookup_expr}": value})


class ErrorFilter(django_filters.CharFilter):  # type: ignore[misc]  # its package ships no types
    """Finds a piece of text in a call's error code or in what its attempts were told."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=TEXT_LENGTH_MAX, **kwargs)

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows that hold the text; % and _ mean themselves."""
        if not value:
            return qs
        attempts = Attempt.objects.filter(request_id=OuterRef("pk"), error_text__icontains=value)
        # An attempt has an error text only when it failed: then the call failed too, or there
        # were several attempts. Saying so is what lets the index of failures serve this.
        has_errors = Q(attempt_count__gt=1) | Q(error_code__gt="")
        return qs.filter(has_errors).filter(Q(error_code__icontains=value) | Exists(attempts))


class HistoryFilterSet(StrictFilterSet):
    """Filters of lists with one fixed order: what would be ignored is refused too."""

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that pass every filter."""
        given = cast(Request, self.request).query_params
        for name in ("ordering", "page"):
            if name in given:
                raise ValidationError({name: ["Unknown filter."]}, code="unknown_filter")
        repeated = [name for name, values in given.lists() if len(values) > 1]
        if repeated:
            raise ValidationError(
                {name[:100]: ["Give this once."] for name in repeated[:VALUES_MAX]},
                code="repeated_filter",
            )
        passed: QuerySet[Any] = super().filter_queryset(queryset)
        return passed
