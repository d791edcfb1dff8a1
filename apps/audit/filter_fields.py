"""Kinds of filters for lists of what happened. What they cannot understand is refused.

Each one says in the schema what it takes: the type of the column behind it would be wrong there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add
from typing import Any, Final

import django_filters
from django import forms
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from apps.audit.models import Attempt
from apps.audit.networks import condition_of, parse_network
from apps.core.filters import TEXT_LENGTH_MAX, IdFilter, describe
from apps.core.usage import TOKEN_CLASSES

_ADDRESS_LENGTH_MAX: Final = 64


class _ChoicesField(forms.CharField):
    """Several words of a known list, with commas between them."""

    def __init__(self, *, known: Iterable[str], **kwargs: Any) -> None:
        self.known = tuple(known)
        super().__init__(**kwargs)

    def clean(self, value: Any) -> Any:
        """Return the words, each once."""
        text = super().clean(value)
        words = list(dict.fromkeys(word.strip() for word in text.split(","))) if text else []
        if any(word not in self.known for word in words):
            raise forms.ValidationError(f"Choose from {', '.join(self.known)}.")
        return words


class ChoicesFilter(django_filters.Filter):
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


class AddressFilter(django_filters.Filter):
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


class TokensFilter(IdFilter):
    """Filters by the sum of all token classes."""

    def filter(self, qs: QuerySet[Any], value: int | None) -> QuerySet[Any]:
        """Return the rows whose sum is within the bound."""
        if value is None:
            return qs
        total: Any = reduce(add, (F(f"{name}_tokens") for name in TOKEN_CLASSES))
        rows: QuerySet[Any] = qs.alias(all_tokens=total)
        return rows.filter(**{f"all_tokens__{self.lookup_expr}": value})


class ErrorFilter(django_filters.CharFilter):
    """Finds a piece of text in a call's error code or in what its attempts were told."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=TEXT_LENGTH_MAX, **kwargs)

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows that hold the text; % and _ mean themselves."""
        if not value:
            return qs
        attempts = Attempt.objects.filter(
            request_id=OuterRef("pk"),
            # True of all attempts. Without it PostgreSQL reads all attempts there are into a hash
            # table; with it, it looks up those of each failed call until a page is full.
            number__lte=OuterRef("attempt_count"),
            error_text__icontains=value,
        )
        # An attempt has an error text only when it failed: then the call failed too, or there
        # were several attempts. Saying so is what lets the index of failures serve this.
        has_errors = Q(attempt_count__gt=1) | Q(error_code__gt="")
        return qs.filter(has_errors).filter(Q(error_code__icontains=value) | Exists(attempts))
