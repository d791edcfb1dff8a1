"""Members of Google's JSON objects, whose servers take each under two names.

The JSON of protocol buffers is written in camelCase and read in snake_case as well; whole numbers
may come as a float without a fraction or as a string, names of enumerations in any case (Google's
SDKs send `topK` as 40.0). Errors tell the name that the client used.

Source: https://protobuf.dev/programming-guides/json/
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.proxy.dialects.openai_refusals import wrong_type, wrong_value
from apps.proxy.dialects.parameters import Parameters

_CAPITAL: Final = re.compile(r"[A-Z]")
_DIGITS: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
# Beyond, a double is not exact.
_WHOLE_MAX: Final = 2**53
# More than the members that this gateway knows by name.
_NAMES_MAX: Final = 1_024


@lru_cache(maxsize=_NAMES_MAX)
def snake_case(name: str) -> str:
    """Return the other name of a member."""
    return _CAPITAL.sub(lambda found: f"_{found[0].lower()}", name)


def member(holder: Mapping[str, Any], name: str) -> Any:
    """Return a member under whichever of its names it is there."""
    value = holder.get(name)
    return holder.get(snake_case(name)) if value is None else value


def word(holder: Mapping[str, Any], name: str) -> str:
    """Return a text, empty where there is none."""
    value = member(holder, name)
    return value if isinstance(value, str) else ""


class GoogleParameters(Parameters):
    """One object of a request to Google; names are given in camelCase."""

    __slots__ = ()

    def __contains__(self, name: str) -> bool:
        return super().__contains__(self.spelling(name))

    def spelling(self, name: str) -> str:
        """Return the client's name of a member; raises E12 where both are used."""
        other = snake_case(name)
        if other == name or self._members.get(other) is None:
            return name
        if self._members.get(name) is not None:
            raise GatewayError("E12", param=super().name(other))
        return other

    def name(self, member: str) -> str:
        """Return the whole name of a member, as the client has it."""
        return super().name(self.spelling(member))

    def take(self, name: str) -> Any:
        """Return a member of any type, None if it is absent."""
        return super().take(self.spelling(name))

    def integer(self, name: str) -> int | None:
        """Return a whole number, in whichever form."""
        value = self.take(name)
        if type(value) is float and value.is_integer() and abs(value) <= _WHOLE_MAX:
            return int(value)
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            return int(value)
        if value is not None and type(value) is not int:
            raise wrong_type(self.name(name), "an integer")
        return value

    def one_of(self, name: str, values: Iterable[str]) -> str | None:
        """Return a name that must be among these, in capitals."""
        value = self.text(name)
        allowed = tuple(values)
        if value is None:
            return None
        if value.upper() not in allowed:
            raise wrong_value(self.name(name), f"one of {', '.join(allowed)}")
        return value.upper()
