"""Prices as values: what one is made of, how a change of one reads, per thousand and per million.

Amounts are nanos per million tokens by token class, per piece of what is counted, and per request.
Pure, but for the queries at the end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, get_args

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.core.domain_errors import DomainError
from apps.core.money import InvalidAmount
from apps.core.price_terms import REQUEST, Terms, TermsInvalid, check_terms, parse_terms, show_terms
from apps.core.usage import COUNTS, TOKEN_CLASSES

PRICE_NANOS_MAX: Final = 10**15
UPCOMING_MAX: Final = 100
# A nano per million tokens is 1e-12 USD per thousand.
_PER_1K_DECIMALS: Final = 12
_TEXT_LENGTH_MAX: Final = 40
# The exponent has at most two digits, so that no text makes Decimal build a huge number.
_PER_1K: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)

PriceState = Literal["current", "future", "past", "superseded"]
PRICE_STATES: Final = get_args(PriceState)


class PriceOutOfRange(DomainError):
    """A price is negative or absurdly high."""

    code = "price_out_of_range"
    message = "A price must be from 0 to 1000000 USD."


class UnknownTokenClass(DomainError):
    """A price is given for something that is not counted."""

    code = "unknown_token_class"
    message = "Prices are by token class or count: " + ", ".join((*TOKEN_CLASSES, *COUNTS)) + "."


class TermsRefused(DomainError):
    """The terms of a price contradict each other, or its amounts."""

    code = "invalid_terms"
    message = "These terms cannot be used."


@dataclass(frozen=True, slots=True)
class Price:
    """A price: nanos per million tokens of the classes that are priced, nanos per request.

    `classes` also holds what is priced by the piece, under the names of COUNTS.
    """

    classes: Mapping[str, int] = field(default_factory=dict)
    request_nanos: int = 0
    minimum_nanos: int = 0
    terms: Terms | None = None

    def check(self) -> None:
        """Refuse what no version can hold.

        Raises PriceOutOfRange, UnknownTokenClass and TermsRefused.
        """
        if not self.classes.keys() <= {*TOKEN_CLASSES, *COUNTS}:
            raise UnknownTokenClass
        amounts = (*self.classes.values(), self.request_nanos, self.minimum_nanos)
        if not all(0 <= nanos <= PRICE_NANOS_MAX for nanos in amounts):
            raise PriceOutOfRange
        if self.terms is not None:
            try:
                # Whoever made them: what is stored can be read.
                parse_terms(show_terms(self.terms))
                check_terms({**self.classes, REQUEST: self.request_nanos}, self.terms)
            except TermsInvalid as error:
                raise TermsRefused(str(error)) from error

    def columns(self) -> dict[str, Any]:
        """Return the columns of a version that hold the price."""
        return {
            **{f"{name}_nanos": nanos for name, nanos in self.classes.items()},
            "request_nanos": self.request_nanos,
            "minimum_nanos": self.minimum_nanos,
            "terms": show_terms(self.terms),
        }


NO_PRICE: Final = Price()


@dataclass(frozen=True, slots=True)
class PriceChange:
    """What a price is to become: another one, or the same with some classes changed."""

    whole: Price | None = None  # takes the place of the old one: classes left out are unpriced
    classes: Mapping[str, int] = field(default_factory=dict)  # the others keep their price

    def of(self, old: Price) -> Price:
        """Return the new price."""
        base = old if self.whole is None else self.whole
        return replace(base, classes={**base.classes, **self.classes})


def price_of(version: PriceVersion | None) -> Price:
    """Return what a version holds; of no version, a price without any amount."""
    if version is None:
        return NO_PRICE
    return Price(
        version.prices(), version.request_nanos, version.minimum_nanos, parse_terms(version.terms)
    )


def parse_per_1k(text: str | int) -> int:
    """Return nanos per million tokens of an amount in US dollars per thousand.

    Raises InvalidAmount for floats, more than twelve decimals and anything beyond 1000 USD.
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise InvalidAmount("An amount must be a decimal string.")
    if isinstance(text, int):
        amount = Decimal(max(min(text, PRICE_NANOS_MAX), -1))
    elif len(text) > _TEXT_LENGTH_MAX or _PER_1K.fullmatch(text) is None:
        raise InvalidAmount("A price must be a decimal number such as 0.0025.")
    else:
        amount = Decimal(text)
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -_PER_1K_DECIMALS:
        raise InvalidAmount(f"This price must not have more than {_PER_1K_DECIMALS} decimals.")
    if not 0 <= amount <= PRICE_NANOS_MAX // 10**_PER_1K_DECIMALS:
        raise InvalidAmount("A price must be from 0 to 1000 USD per thousand tokens.")
    return int(amount.scaleb(_PER_1K_DECIMALS))


def format_per_1k(nanos: int) -> str:
    """Return nanos per million tokens as the shortest exact string of US dollars per thousand."""
    dollars, fraction = divmod(nanos, 10**_PER_1K_DECIMALS)
    return f"{dollars}.{fraction:0{_PER_1K_DECIMALS}d}".rstrip("0").rstrip(".")


def find_version(
    *, at: datetime, model: AIModel | None = None, route: Route | None = None
) -> PriceVersion | None:
    """Return the version of a model or a route that counts at a moment, as the gateway sees it."""
    return (
        list_versions(model=model, route=route)
        .filter(effective_at__lte=at)
        .order_by("-effective_at", "-id")
        .first()
    )


def list_versions(
    *, model: AIModel | None = None, route: Route | None = None
) -> QuerySet[PriceVersion]:
    """Return the versions of a model or a route, the latest to count first.

    Each says as `is_superseded` whether a later one counts from the same moment in its place.
    """
    later = PriceVersion.objects.filter(
        Q(model=OuterRef("model")) if model is not None else Q(route=OuterRef("route")),
        effective_at=OuterRef("effective_at"),
        id__gt=OuterRef("id"),
    )
    return (
        PriceVersion.objects.filter(model=model, route=route)
        .annotate(is_superseded=Exists(later))
        .order_by("-effective_at", "-id")
    )


def list_upcoming(version: PriceVersion) -> list[PriceVersion]:
    """Return what will take a version's place, the next one first, at most UPCOMING_MAX."""
    later = (
        list_versions(model=version.model, route=version.route)
        .filter(effective_at__gt=version.effective_at)
        .order_by("effective_at", "id")[:UPCOMING_MAX]
    )
    return [row for row in later if not getattr(row, "is_superseded", False)]


def state_of(version: PriceVersion, *, current_id: int | None, now: datetime) -> PriceState:
    """Return where a version from `list_versions` stands."""
    if version.pk == current_id:
        return "current"
    if getattr(version, "is_superseded", False):
        return "superseded"
    return "future" if version.effective_at > now else "past"
