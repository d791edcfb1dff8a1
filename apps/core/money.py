"""Amounts of money: decimal US dollars at the edge, integer nano-USD inside.

Unit: 1 nano = 1e-9 USD. Nothing here, or anywhere behind it, is a float.
"""

import re
from decimal import Decimal
from typing import Final

NANOS_PER_USD: Final = 10**9

# Everything that fits under this also fits a signed 64-bit column, with room to add a few.
USD_MAX: Final = 9_000_000

_DECIMALS_MAX: Final = 9
_TEXT_LENGTH_MAX: Final = 40
# The exponent has at most two digits, so that no text makes Decimal build a huge number.
_AMOUNT: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)

# What JSON Schema says of such a text.
AMOUNT_SCHEMA: Final = {
    "type": "string",
    "format": "decimal",
    "pattern": f"^{_AMOUNT.pattern}$",
    "maxLength": _TEXT_LENGTH_MAX,
}


class InvalidAmount(ValueError):
    """The text is not an amount of US dollars that the ledger can hold exactly."""


def parse_usd(text: str | int) -> int:
    """Return the nanos of an amount written in US dollars, such as "9.99".

    Raises InvalidAmount for floats, more than nine decimals and anything beyond USD_MAX.
    """
    if isinstance(text, bool) or not isinstance(text, (str, int)):
        raise InvalidAmount("An amount must be a decimal string.")
    if isinstance(text, int):
        if abs(text) > USD_MAX:
            raise InvalidAmount(f"An amount must not exceed {USD_MAX} USD.")
        return text * NANOS_PER_USD
    if len(text) > _TEXT_LENGTH_MAX or _AMOUNT.fullmatch(text) is None:
        raise InvalidAmount("An amount must be a decimal number such as 9.99.")
    amount = Decimal(text)
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -_DECIMALS_MAX:
        raise InvalidAmount(f"An amount must not have more than {_DECIMALS_MAX} decimals.")
    if abs(amount) > USD_MAX:
        raise InvalidAmount(f"An amount must not exceed {USD_MAX} USD.")
    return int(amount.scaleb(_DECIMALS_MAX))


def format_usd(nanos: int) -> str:
    """Return an amount as the shortest exact decimal string of US dollars."""
    sign = "-" if nanos < 0 else ""
    dollars, fraction = divmod(abs(nanos), NANOS_PER_USD)
    if not fraction:
        return f"{sign}{dollars}"
    return f"{sign}{dollars}.{fraction:09d}".rstrip("0")


def show_usd(nanos: int) -> str:
    """Return an amount as people write it: -$0.05."""
    return f"{'-' if nanos < 0 else ''}${format_usd(abs(nanos))}"


def format_multiplier(millionths: int) -> str:
    """Return a multiplier as the shortest exact decimal string."""
    whole, fraction = divmod(millionths, 1_000_000)
    return f"{whole}.{fraction:06d}".rstrip("0").rstrip(".")
