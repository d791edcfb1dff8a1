"""What a call costs: counts times a price, without I/O.

Units: prices are nano-USD per million tokens, or per piece of what is no token (characters: per
million); multipliers are millionths (1_000_000 is the list price). All arithmetic is on integers.
A charge is rounded up to a whole nano once, on its total, so that splitting a request never makes
it cheaper and priced usage is never free (I-41, I-42).

The minimum of a price is compared with the total before the multiplier: a discount applies to it
as to all else, and a multiplier of 0 makes it 0. Only a context tier makes a split cheaper: its
parts are then shorter requests, which is what such a price says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter, mul
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from apps.core.price_terms import (
    AMOUNT_NAMES,
    FACTOR_ONE,
    REQUEST,
    ContextTier,
    ServiceTier,
    Terms,
    TimeWindow,
    amounts_under,
    parse_terms,
    tier_name,
)
from apps.core.price_terms import MULTIPLIER_ONE as MULTIPLIER_ONE
from apps.core.usage import COUNTS, INPUT_CLASSES, OUTPUT_CLASSES, TOKEN_CLASSES, Usage

TOKENS_PER_PRICE: Final = 1_000_000

# No model produces more; also the answer when output costs nothing and any cap is affordable.
OUTPUT_TOKENS_MAX: Final = 10_000_000

MINIMUM: Final = "minimum"
PER_MILLION: Final = frozenset({*TOKEN_CLASSES, "character"})
"""What is priced by the million; everything else is by the piece."""

_DENOMINATOR: Final = TOKENS_PER_PRICE * MULTIPLIER_ONE

_TEXT_INPUT_CLASSES: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
_TEXT_OUTPUT_CLASSES: Final = ("output", "reasoning")

_tokens = attrgetter(*TOKEN_CLASSES)
NO_COUNTS: Final[Mapping[str, int]] = MappingProxyType({})


class PriceIncomplete(Exception):
    """The price names no amount for input or output: nothing is free by accident."""


@dataclass(frozen=True, slots=True)
class Price:
    """One version of a price, in nanos per million tokens of each class, or per piece.

    A token class that is None costs what input or output costs, depending on its direction. What
    is counted by the piece and has no amount is not sold: admission refuses to ask for it.
    """

    id: int
    input: int | None = None
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    output: int | None = None
    reasoning: int | None = None
    audio_in: int | None = None
    audio_out: int | None = None
    image_in: int | None = None
    image_out: int | None = None
    request_nanos: int = 0
    image: int | None = None
    second: int | None = None
    character: int | None = None  # per million characters
    web_search: int | None = None
    tool_call: int | None = None
    minimum_nanos: int = 0  # of a request, before the multiplier
    terms: Terms | None = None

    def __hash__(self) -> int:
        """Hash by the id: there are few prices, and each is looked up several times a call."""
        return self.id


class Conditions(NamedTuple):
    """What of a call, beside its usage, decides which amounts of a price count."""

    service_tier: str = ""  # the usual one
    minute: int = 0  # of the day in UTC at which the call began


USUAL: Final = Conditions()


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """One line of the explanation of a charge."""

    item: str  # a token class, a count, "request" or "minimum"
    count: int  # tokens or pieces, or 1
    price_nanos: int  # per million tokens or characters, else per piece
    amount_nanos: int  # after the multiplier; the lines of a charge sum to it
    factor: int = FACTOR_ONE  # by which the terms of the price multiply `price_nanos`


@dataclass(frozen=True, slots=True)
class _Rates:
    """A price under certain terms with its gaps filled, in numerators over `denominator`."""

    by_class: tuple[int, ...]  # in the order of TOKEN_CLASSES
    by_count: tuple[tuple[str, int], ...]  # only what has an amount
    request: int
    minimum: int
    denominator: int
    dearest_input: int
    dearest_output: int
    dearest_text_input: int
    dearest_text_output: int
    listed: Mapping[str, tuple[int, int]]  # nanos and factor by name, for explanations


class _Scenario(NamedTuple):
    """Rates that may come to count, and the most input with which they do."""

    rates: _Rates
    input_tokens: int


def conditions_of(service_tier: str, started_at: datetime) -> Conditions:
    """Return the conditions of a call of a service tier that began at a moment."""
    at = started_at if started_at.tzinfo is UTC else started_at.astimezone(UTC)
    return Conditions(service_tier, at.hour * 60 + at.minute)


def price_of_columns(row: Mapping[str, Any]) -> Price:
    """Return the Price in a row of price versions, given its columns by name.

    `terms` may be JSON as text. Raises PriceIncomplete where they are none.
    """
    terms = row["terms"]
    try:
        # Also orjson's error is a ValueError.
        parsed = parse_terms(orjson.loads(terms) if isinstance(terms, str) else terms)
    except ValueError as error:
        raise PriceIncomplete(f"Price {row['id']} has terms that cannot be read.") from error
    return Price(
        id=row["id"],
        request_nanos=row["request_nanos"],
        minimum_nanos=row["minimum_nanos"],
        terms=parsed,
        **{name: row[f"{name}_nanos"] for name in (*TOKEN_CLASSES, *COUNTS)},
    )


# Prices are few and never edited; the bound only stops a process that lives for years.
@lru_cache(maxsize=4096)
def _rates(
    price: Price,
    context: ContextTier | None = None,
    service: ServiceTier | None = None,
    window: TimeWindow | None = None,
) -> _Rates:
    if price.input is None or price.output is None:
        raise PriceIncomplete(f"Price {price.id} needs an amount for input and for output.")
    named = {name: getattr(price, name) for name in (*TOKEN_CLASSES, *COUNTS)}
    base = {name: nanos for name, nanos in named.items() if nanos is not None}
    base[REQUEST] = price.request_nanos
    if min(*base.values(), price.minimum_nanos) < 0:
        raise PriceIncomplete(f"Price {price.id} has a negative amount.")
    listed = amounts_under(base, context, service, window)
    is_exact = all(factor == FACTOR_ONE for _, factor in listed.values())
    scale = 1 if is_exact else FACTOR_ONE
    scaled = {
        name: nanos
        * (1 if name in PER_MILLION else TOKENS_PER_PRICE)
        * factor
        * scale
        // FACTOR_ONE
        for name, (nanos, factor) in listed.items()
    }
    return _Rates(
        by_class=tuple(scaled[name] for name in TOKEN_CLASSES),
        by_count=tuple((name, scaled[name]) for name in COUNTS if name in scaled),
        request=scaled[REQUEST],
        minimum=price.minimum_nanos * TOKENS_PER_PRICE * scale,
        denominator=_DENOMINATOR * scale,
        dearest_input=max(scaled[name] for name in INPUT_CLASSES),
        dearest_output=max(scaled[name] for name in OUTPUT_CLASSES),
        dearest_text_input=max(scaled[name] for name in _TEXT_INPUT_CLASSES),
        dearest_text_output=max(scaled[name] for name in _TEXT_OUTPUT_CLASSES),
        listed=listed,
    )


def find_terms(
    usage: Usage, price: Price, conditions: Conditions
) -> tuple[ContextTier | None, ServiceTier | None, TimeWindow | None]:
    """Return which terms of a price count for a call. An unknown service tier is the usual one."""
    terms = price.terms
    if terms is None:
        return None, None, None
    return (
        terms.find_context(usage.input_tokens),
        terms.find_service(conditions.service_tier),
        terms.find_window(conditions.minute),
    )


def _rates_of(usage: Usage, price: Price, conditions: Conditions) -> _Rates:
    if price.terms is None:
        return _rates(price)
    return _rates(price, *find_terms(usage, price, conditions))


def _scenarios(
    price: Price, input_bound: int, conditions: Conditions, *, is_served_as_asked: bool = False
) -> Sequence[_Scenario]:
    """Return what may come to count for a call: whoever asks for a service tier may be served in
    the usual one, and may need less input than the bound.
    """
    terms = price.terms
    if terms is None:
        return (_Scenario(_rates(price), input_bound),)
    window = terms.find_window(conditions.minute)
    ends = (*(tier.above_input_tokens for tier in terms.context_tiers), input_bound)
    found = []
    asked = terms.find_service(conditions.service_tier)
    for service in {asked} if is_served_as_asked else {None, asked}:
        for tier, end in zip((None, *terms.context_tiers), ends, strict=True):
            if tier is None or tier.above_input_tokens < input_bound:
                rates = _rates(price, tier, service, window)
                found.append(_Scenario(rates, min(end, input_bound)))
    return found


def _numerator(usage: Usage, rates: _Rates) -> int:
    """Return the total before the multiplier, without the minimum."""
    total = rates.request + sum(map(mul, _tokens(usage), rates.by_class))
    for name, rate in rates.by_count:
        total += rate * getattr(usage, name)
    return int(total)


def _round_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def charge_nanos(
    usage: Usage, price: Price, multiplier_millionths: int, conditions: Conditions = USUAL
) -> int:
    """Return the charge for `usage`, in nanos, rounded up once on the total.

    Raises PriceIncomplete if input or output has no price.
    """
    rates = _rates_of(usage, price, conditions)
    numerator = max(_numerator(usage, rates), rates.minimum)
    return _round_up(numerator * multiplier_millionths, rates.denominator)


def charged_tier(
    usage: Usage, price: Price, *, asked: str, served: str | None, started_at: datetime
) -> str:
    """Return the service tier at which a call is charged: the one that the provider says it served.

    That is the tier that was asked for where it says nothing (None), where the price does not name
    what it says, and where that costs more than whatever the hold was for: nobody who did not ask
    for a dearer tier pays for it. "" is the usual tier.
    """
    terms = price.terms
    if terms is None or served is None:
        return asked
    found = tier_name(served)
    if found == asked or (found and terms.find_service(found) is None):
        return asked
    of_asked, of_found, usual = (
        charge_nanos(usage, price, MULTIPLIER_ONE, conditions_of(tier, started_at))
        for tier in (asked, found, "")
    )
    return found if of_found <= max(of_asked, usual) else asked


def worst_case_nanos(
    input_tokens_bound: int,
    output_tokens_bound: int,
    price: Price,
    multiplier_millionths: int,
    *,
    is_text_only: bool = False,
    conditions: Conditions = USUAL,
    count_bounds: Mapping[str, int] = NO_COUNTS,
    is_served_as_asked: bool = False,
) -> int:
    """Return the most that a call inside these bounds can cost, whatever the classes.

    With `is_text_only` the prices of audio and images are left out: a call that neither sends nor
    asks for them should not have to hold for them. It may be served in the tier of `conditions` or,
    unless `is_served_as_asked`, in the usual one. `count_bounds` holds the most of what is counted
    by the piece.
    """
    worst = 0
    scenarios = _scenarios(
        price, input_tokens_bound, conditions, is_served_as_asked=is_served_as_asked
    )
    for rates, input_tokens in scenarios:
        fixed, dearest_output = _bounds(rates, input_tokens, is_text_only, count_bounds)
        numerator = max(fixed + output_tokens_bound * dearest_output, rates.minimum)
        worst = max(worst, _round_up(numerator * multiplier_millionths, rates.denominator))
    return worst


def affordable_output_tokens(
    budget_nanos: int,
    input_tokens_bound: int,
    price: Price,
    multiplier_millionths: int,
    choices: int,
    *,
    is_text_only: bool = False,
    conditions: Conditions = USUAL,
    count_bounds: Mapping[str, int] = NO_COUNTS,
) -> int:
    """Return the largest cap on output, per choice, whose worst case the budget covers.

    Returns 0 if not even the input is covered, and at most OUTPUT_TOKENS_MAX.
    """
    scenarios = _scenarios(price, input_tokens_bound, conditions)
    if multiplier_millionths == 0:
        return OUTPUT_TOKENS_MAX if budget_nanos >= 0 else 0
    affordable = OUTPUT_TOKENS_MAX
    for rates, input_tokens in scenarios:
        fixed, dearest_output = _bounds(rates, input_tokens, is_text_only, count_bounds)
        # The worst case rounds up, and ceil(x) ≤ budget exactly if x ≤ budget.
        budget = budget_nanos * rates.denominator // multiplier_millionths
        if budget < max(fixed, rates.minimum):
            return 0
        if dearest_output:
            affordable = min(affordable, (budget - fixed) // (dearest_output * choices))
    return affordable


def _bounds(
    rates: _Rates, input_tokens: int, is_text_only: bool, count_bounds: Mapping[str, int]
) -> tuple[int, int]:
    """Return the numerators of all but the output at its dearest, and of a token of output."""
    fixed = rates.request
    if is_text_only:
        fixed += input_tokens * rates.dearest_text_input
    else:
        fixed += input_tokens * rates.dearest_input
    if count_bounds:
        fixed += sum(rate * count_bounds.get(name, 0) for name, rate in rates.by_count)
    return fixed, rates.dearest_text_output if is_text_only else rates.dearest_output


def explain(
    usage: Usage, price: Price, multiplier_millionths: int, conditions: Conditions = USUAL
) -> list[ChargeLine]:
    """Return the lines of a charge; their amounts sum to `charge_nanos` exactly.

    Each line is rounded down, and the nanos missing to the total go to the lines with the largest
    remainders. What the minimum adds is a line of its own.
    """
    rates = _rates_of(usage, price, conditions)
    counts = usage._asdict() | {REQUEST: 1 if rates.request else 0}
    by_name = dict(zip(TOKEN_CLASSES, rates.by_class, strict=True))
    by_name.update(rates.by_count)
    by_name[REQUEST] = rates.request
    items = [(name, counts[name]) for name in AMOUNT_NAMES if name in by_name and counts[name]]
    shares = [
        divmod(count * by_name[name] * multiplier_millionths, rates.denominator)
        for name, count in items
    ]
    numerator = _numerator(usage, rates)
    total = _round_up(numerator * multiplier_millionths, rates.denominator)
    missing = total - sum(share[0] for share in shares)
    by_remainder = sorted(range(len(items)), key=lambda index: -shares[index][1])
    rounded_up = set(by_remainder[:missing])
    lines = [
        ChargeLine(
            item=name,
            count=count,
            price_nanos=rates.listed[name][0],
            amount_nanos=shares[index][0] + (index in rounded_up),
            factor=rates.listed[name][1],
        )
        for index, (name, count) in enumerate(items)
    ]
    if numerator < rates.minimum:
        least = _round_up(rates.minimum * multiplier_millionths, rates.denominator)
        lines.append(ChargeLine(MINIMUM, 1, price.minimum_nanos, least - total))
    return lines
