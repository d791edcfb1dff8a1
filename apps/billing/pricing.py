"""What a call costs: token counts times a price, without I/O.

Units: prices are nano-USD per million tokens; multipliers are millionths (1_000_000 is the list
price). All arithmetic is on integers. A charge is rounded up to a whole nano once, on its total,
so that splitting a request never makes it cheaper and priced usage is never free (I-41, I-42).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from apps.core.usage import INPUT_CLASSES, OUTPUT_CLASSES, TOKEN_CLASSES, Usage

TOKENS_PER_PRICE: Final = 1_000_000
MULTIPLIER_ONE: Final = 1_000_000

# No model produces more; also the answer when output costs nothing and any cap is affordable.
OUTPUT_TOKENS_MAX: Final = 10_000_000

_DENOMINATOR: Final = TOKENS_PER_PRICE * MULTIPLIER_ONE

_TEXT_INPUT_CLASSES: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
_TEXT_OUTPUT_CLASSES: Final = ("output", "reasoning")


class PriceIncomplete(Exception):
    """The price names no amount for input or output: nothing is free by accident."""


@dataclass(frozen=True, slots=True)
class Price:
    """One version of a price, in nanos per million tokens of each class.

    A class that is None costs what input or output costs, depending on its direction.
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


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """One line of the explanation of a charge."""

    item: str  # a token class, or "request"
    count: int  # tokens, or 1
    price_nanos: int  # per million tokens, or per request
    amount_nanos: int  # after the multiplier; the lines of a charge sum to it


@dataclass(frozen=True, slots=True)
class _Rates:
    """A price with its gaps filled, in the order of TOKEN_CLASSES."""

    by_class: tuple[int, ...]
    dearest_input: int
    dearest_output: int
    dearest_text_input: int
    dearest_text_output: int


# Prices are few and never edited; the bound only stops a process that lives for years.
@lru_cache(maxsize=4096)
def _rates(price: Price) -> _Rates:
    if price.input is None or price.output is None:
        raise PriceIncomplete(f"Price {price.id} needs an amount for input and for output.")
    if price.request_nanos < 0:
        raise PriceIncomplete(f"Price {price.id} has a negative amount.")
    by_name: dict[str, int] = {}
    for name in TOKEN_CLASSES:
        own: int | None = getattr(price, name)
        fallback = price.input if name in INPUT_CLASSES else price.output
        by_name[name] = fallback if own is None else own
        if by_name[name] < 0:
            raise PriceIncomplete(f"Price {price.id} has a negative amount.")
    return _Rates(
        by_class=tuple(by_name[name] for name in TOKEN_CLASSES),
        dearest_input=max(by_name[name] for name in INPUT_CLASSES),
        dearest_output=max(by_name[name] for name in OUTPUT_CLASSES),
        dearest_text_input=max(by_name[name] for name in _TEXT_INPUT_CLASSES),
        dearest_text_output=max(by_name[name] for name in _TEXT_OUTPUT_CLASSES),
    )


def _counts(usage: Usage) -> tuple[int, ...]:
    """Return the counts in the order of TOKEN_CLASSES."""
    return (
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.output,
        usage.reasoning,
        usage.audio_in,
        usage.audio_out,
        usage.image_in,
        usage.image_out,
    )


def _round_up(numerator: int) -> int:
    return -(-numerator // _DENOMINATOR)


def charge_nanos(usage: Usage, price: Price, multiplier_millionths: int) -> int:
    """Return the charge for `usage`, in nanos, rounded up once on the total.

    Raises PriceIncomplete if input or output has no price.
    """
    numerator = price.request_nanos * TOKENS_PER_PRICE
    for count, rate in zip(_counts(usage), _rates(price).by_class, strict=True):
        if count:
            numerator += count * rate
    return _round_up(numerator * multiplier_millionths)


def worst_case_nanos(
    input_tokens_bound: int,
    output_tokens_bound: int,
    price: Price,
    multiplier_millionths: int,
    *,
    is_text_only: bool = False,
) -> int:
    """Return the most that a call inside these bounds can cost, whatever the classes.

    With `is_text_only` the prices of audio and images are left out: a call that neither sends nor
    asks for them should not have to hold for them.
    """
    rates = _rates(price)
    dearest_input = rates.dearest_text_input if is_text_only else rates.dearest_input
    dearest_output = rates.dearest_text_output if is_text_only else rates.dearest_output
    numerator = (
        price.request_nanos * TOKENS_PER_PRICE
        + input_tokens_bound * dearest_input
        + output_tokens_bound * dearest_output
    )
    return _round_up(numerator * multiplier_millionths)


def affordable_output_tokens(
    budget_nanos: int,
    input_tokens_bound: int,
    price: Price,
    multiplier_millionths: int,
    choices: int,
    *,
    is_text_only: bool = False,
) -> int:
    """Return the largest cap on output, per choice, whose worst case the budget covers.

    Returns 0 if not even the input is covered, and at most OUTPUT_TOKENS_MAX.
    """
    rates = _rates(price)
    dearest_input = rates.dearest_text_input if is_text_only else rates.dearest_input
    dearest_output = rates.dearest_text_output if is_text_only else rates.dearest_output
    if multiplier_millionths == 0:
        return OUTPUT_TOKENS_MAX if budget_nanos >= 0 else 0
    # The worst case rounds up, and ceil(x) ≤ budget exactly if x ≤ budget.
    left = (
        budget_nanos * _DENOMINATOR // multiplier_millionths
        - price.request_nanos * TOKENS_PER_PRICE
        - input_tokens_bound * dearest_input
    )
    if left < 0:
        return 0
    if dearest_output == 0:
        return OUTPUT_TOKENS_MAX
    return min(left // (dearest_output * choices), OUTPUT_TOKENS_MAX)


def explain(usage: Usage, price: Price, multiplier_millionths: int) -> list[ChargeLine]:
    """Return the lines of a charge; their amounts sum to `charge_nanos` exactly.

    Each line is rounded down, and the nanos missing to the total go to the lines with the largest
    remainders.
    """
    rates = _rates(price).by_class
    items = [
        (name, count, rate, count * rate)
        for name, count, rate in zip(TOKEN_CLASSES, _counts(usage), rates, strict=True)
        if count
    ]
    if price.request_nanos:
        items.append(("request", 1, price.request_nanos, price.request_nanos * TOKENS_PER_PRICE))
    shares = [divmod(item[3] * multiplier_millionths, _DENOMINATOR) for item in items]
    missing = charge_nanos(usage, price, multiplier_millionths) - sum(share[0] for share in shares)
    by_remainder = sorted(range(len(items)), key=lambda index: -shares[index][1])
    rounded_up = set(by_remainder[:missing])
    return [
        ChargeLine(name, count, rate, shares[index][0] + (index in rounded_up))
        for index, (name, count, rate, _) in enumerate(items)
    ]
