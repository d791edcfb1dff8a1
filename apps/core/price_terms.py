"""The terms of a price: conditions of a call that change its amounts. Pure.

Three things do, and each takes what the one before it gives: above a number of input tokens (a
context tier), in a service tier, and at a time of the day. Amounts that one of them names take the
place of the usual ones. The multiplier of a service tier or a window applies to the token classes
that it does not name, and to nothing that is counted by the piece.

Units: nano-USD as in a price; multipliers are millionths; factors, the product of two multipliers,
are millionths of millionths, so that nothing is rounded on the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from apps.core.usage import COUNTS, INPUT_CLASSES, TOKEN_CLASSES

REQUEST: Final = "request"
AMOUNT_NAMES: Final = (*TOKEN_CLASSES, *COUNTS, REQUEST)

AMOUNT_NANOS_MAX: Final = 10**15
MULTIPLIER_ONE: Final = 1_000_000
MULTIPLIER_MAX: Final = 1_000 * MULTIPLIER_ONE
FACTOR_ONE: Final = MULTIPLIER_ONE * MULTIPLIER_ONE
MINUTES_A_DAY: Final = 24 * 60
CONTEXT_TOKENS_MAX: Final = 10_000_000
# Of each kind; providers have at most three.
TERMS_MAX: Final = 8

# What the usual service is called by those who sell it, and by those who ask for it.
_USUAL_TIERS: Final = frozenset({"", "auto", "default", "on_demand", "standard"})
_TIER_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)

Amounts = tuple[tuple[str, int], ...]  # name and nanos, in the order of AMOUNT_NAMES


class TermsInvalid(ValueError):
    """These are no terms. The message says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class ContextTier:
    """Amounts for requests with more input than so many tokens; they count for all of it."""

    above_input_tokens: int
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class ServiceTier:
    """Amounts for requests that are served faster, or slower, than usual."""

    name: str
    multiplier_millionths: int = MULTIPLIER_ONE
    amounts: Amounts = ()


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """Amounts for calls that begin at these minutes of the day in UTC, the last one excluded.

    It goes over midnight where it ends before it begins.
    """

    from_minute: int
    to_minute: int
    multiplier_millionths: int = MULTIPLIER_ONE
    amounts: Amounts = ()

    def includes(self, minute: int) -> bool:
        """Return whether a minute of the day is in the window."""
        if self.from_minute < self.to_minute:
            return self.from_minute <= minute < self.to_minute
        return minute >= self.from_minute or minute < self.to_minute


@dataclass(frozen=True, slots=True)
class Terms:
    """All terms of a price."""

    context_tiers: tuple[ContextTier, ...] = ()  # by their tokens, ascending
    service_tiers: tuple[ServiceTier, ...] = ()
    windows: tuple[TimeWindow, ...] = ()  # no minute is in two of them

    def find_context(self, input_tokens: int) -> ContextTier | None:
        """Return the tier of a request with so much input."""
        found = None
        for tier in self.context_tiers:
            if input_tokens > tier.above_input_tokens:
                found = tier
        return found

    def find_service(self, name: str) -> ServiceTier | None:
        """Return the service tier of this name."""
        return next((tier for tier in self.service_tiers if tier.name == name), None)

    def find_window(self, minute: int) -> TimeWindow | None:
        """Return the window of a minute of the day."""
        return next((window for window in self.windows if window.includes(minute)), None)


def tier_name(name: str) -> str:
    """Return a service tier by its own name, or nothing for whatever means the usual one."""
    return "" if name in _USUAL_TIERS else name


def format_factor(factor: int) -> str:
    """Return a factor as the shortest exact decimal string."""
    whole, fraction = divmod(factor, FACTOR_ONE)
    return f"{whole}.{fraction:012d}".rstrip("0").rstrip(".")


def clock_time(minute: int) -> str:
    """Return a minute of the day as a clock shows it."""
    return f"{minute // 60:02}:{minute % 60:02}"


def amounts_under(
    base: Mapping[str, int],
    context: ContextTier | None,
    service: ServiceTier | None,
    window: TimeWindow | None,
) -> dict[str, tuple[int, int]]:
    """Return the nanos and the factor of all that has an amount under these terms.

    A token class without an amount costs what input or output costs there, by its direction; `base`
    has to name these two.
    """
    found = {name: (nanos, FACTOR_ONE) for name, nanos in base.items()}
    if context is not None:
        found.update({name: (nanos, FACTOR_ONE) for name, nanos in context.amounts})
    for step in (service, window):
        if step is None:
            continue
        for name in TOKEN_CLASSES:
            if name in found:
                nanos, factor = found[name]
                found[name] = nanos, factor * step.multiplier_millionths // MULTIPLIER_ONE
        found.update({name: (nanos, FACTOR_ONE) for name, nanos in step.amounts})
    for name in TOKEN_CLASSES:
        found.setdefault(name, found["input" if name in INPUT_CLASSES else "output"])
    return found


def check_terms(base: Mapping[str, int], terms: Terms) -> None:
    """Refuse terms under which a longer request costs less. Raises TermsInvalid.

    It would be cheaper to pad a request then.
    """
    if "input" not in base or "output" not in base:
        return
    for service in (None, *terms.service_tiers):
        for window in (None, *terms.windows):
            before = amounts_under(base, None, service, window)
            for tier in terms.context_tiers:
                after = amounts_under(base, tier, service, window)
                for name, (nanos, factor) in before.items():
                    if after[name][0] * after[name][1] < nanos * factor:
                        raise TermsInvalid(
                            f"Above {tier.above_input_tokens} input tokens {name} costs less than "
                            "below."
                        )
                before = after


def parse_terms(value: object) -> Terms | None:
    """Return the terms that `show_terms` wrote, None where there are none. Raises TermsInvalid."""
    if value is None:
        return None
    fields = _object(value, "terms", {"context_tiers", "service_tiers", "windows"})
    terms = Terms(
        tuple(_context_tier(item) for item in _list(fields, "context_tiers")),
        tuple(_service_tier(item) for item in _list(fields, "service_tiers")),
        tuple(_window(item) for item in _list(fields, "windows")),
    )
    lengths = [tier.above_input_tokens for tier in terms.context_tiers]
    if lengths != sorted(set(lengths)):
        raise TermsInvalid("Context tiers must ascend.")
    names = [tier.name for tier in terms.service_tiers]
    if len(set(names)) < len(names):
        raise TermsInvalid("A service tier is named twice.")
    if any(sum(w.includes(m) for w in terms.windows) > 1 for m in range(MINUTES_A_DAY)):
        raise TermsInvalid("Windows must not overlap.")
    return None if terms == Terms() else terms


def show_terms(terms: Terms | None) -> dict[str, Any] | None:
    """Return terms as they are stored: JSON with whole numbers, without what is usual."""
    if terms is None:
        return None
    shown: dict[str, list[dict[str, Any]]] = {
        "context_tiers": [
            {"above_input_tokens": tier.above_input_tokens, "amounts": dict(tier.amounts)}
            for tier in terms.context_tiers
        ],
        "service_tiers": [{"name": tier.name} | _change(tier) for tier in terms.service_tiers],
        "windows": [
            {"from_minute": window.from_minute, "to_minute": window.to_minute} | _change(window)
            for window in terms.windows
        ],
    }
    return {name: items for name, items in shown.items() if items}


def _change(term: ServiceTier | TimeWindow) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if term.multiplier_millionths != MULTIPLIER_ONE:
        shown["multiplier_millionths"] = term.multiplier_millionths
    if term.amounts:
        shown["amounts"] = dict(term.amounts)
    return shown


def _context_tier(value: object) -> ContextTier:
    fields = _object(value, "A context tier", {"above_input_tokens", "amounts"})
    amounts = _amounts(fields)
    if not amounts:
        raise TermsInvalid("A context tier needs an amount.")
    return ContextTier(_integer(fields, "above_input_tokens", 1, CONTEXT_TOKENS_MAX), amounts)


def _service_tier(value: object) -> ServiceTier:
    fields = _object(value, "A service tier", {"name", "multiplier_millionths", "amounts"})
    name = fields.get("name")
    if not isinstance(name, str) or _TIER_NAME.fullmatch(name) is None:
        raise TermsInvalid("A service tier needs a name of lower-case letters and digits.")
    if tier_name(name) == "":
        raise TermsInvalid(f"{name} is the usual service: its amounts are those of the price.")
    return ServiceTier(name, _multiplier(fields), _amounts(fields))


def _window(value: object) -> TimeWindow:
    names = {"from_minute", "to_minute", "multiplier_millionths", "amounts"}
    fields = _object(value, "A window", names)
    window = TimeWindow(
        _integer(fields, "from_minute", 0, MINUTES_A_DAY - 1),
        _integer(fields, "to_minute", 0, MINUTES_A_DAY - 1),
        _multiplier(fields),
        _amounts(fields),
    )
    if window.from_minute == window.to_minute:
        raise TermsInvalid("A window must end at another minute than it begins.")
    return window


def _object(value: object, what: str, names: Iterable[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TermsInvalid(f"{what} must be an object.")
    unknown = value.keys() - set(names)
    if unknown:
        raise TermsInvalid(f"{what} has unknown fields: {', '.join(sorted(map(str, unknown)))}.")
    return value


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    items = fields.get(name, [])
    if not isinstance(items, list) or len(items) > TERMS_MAX:
        raise TermsInvalid(f"{name} must be a list of at most {TERMS_MAX}.")
    return items


def _integer(fields: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    # type() and not isinstance(): true is an int.
    if type(value) is not int or not least <= value <= most:
        raise TermsInvalid(f"{name} must be a whole number from {least} to {most}.")
    return value


def _multiplier(fields: Mapping[str, Any]) -> int:
    if "multiplier_millionths" not in fields:
        return MULTIPLIER_ONE
    return _integer(fields, "multiplier_millionths", 0, MULTIPLIER_MAX)


def _amounts(fields: Mapping[str, Any]) -> Amounts:
    amounts = _object(fields.get("amounts", {}), "amounts", AMOUNT_NAMES)
    return tuple(
        (name, _integer(amounts, name, 0, AMOUNT_NANOS_MAX))
        for name in AMOUNT_NAMES
        if name in amounts
    )
