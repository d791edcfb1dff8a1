"""Reads a client's JSON object member by member, and refuses by name what nobody read.

Absent and null are the same. Nothing of a request can get lost on its way into another dialect:
what a reader does not ask for is refused (E14), what has another type is E13.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from apps.core.errors import GatewayError
from apps.proxy.dialects.openai_refusals import inexpressible, missing, wrong_type, wrong_value

# Members that tell nothing by being there: the value of each is what also holds without it.
_EMPTY: Final[tuple[object, ...]] = (None, [], {})


class Parameters:
    """One object of a request, at a place that has a name."""

    __slots__ = ("_members", "_unread", "at")

    def __init__(self, members: object, at: str = "") -> None:
        """Raises E13 if `members` is no object."""
        if not isinstance(members, Mapping):
            raise wrong_type(at, "an object")
        self._members: Final[Mapping[str, Any]] = members
        self._unread = dict.fromkeys(members)
        self.at: Final = at

    def __contains__(self, name: str) -> bool:
        return self._members.get(name) is not None

    def name(self, member: str) -> str:
        """Return the whole name of a member, as errors tell it."""
        return f"{self.at}.{member}" if self.at else member

    def names(self) -> tuple[str, ...]:
        """Return the names of all members that are there, also of those that are null."""
        return tuple(self._members)

    def take(self, name: str) -> Any:
        """Return a member of any type, None if it is absent."""
        self._unread.pop(name, None)
        return self._members.get(name)

    def text(self, name: str) -> str | None:
        """Return a string."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise wrong_type(self.name(name), "a string")
        return value

    def require_text(self, name: str) -> str:
        """Return a string that has to be there."""
        value = self.text(name)
        if value is None:
            raise missing(self.name(name))
        return value

    def flag(self, name: str) -> bool | None:
        """Return a boolean."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise wrong_type(self.name(name), "a boolean")
        return value

    def integer(self, name: str) -> int | None:
        """Return a whole number."""
        value = self.take(name)
        # type() and not isinstance(): true is an int.
        if value is not None and type(value) is not int:
            raise wrong_type(self.name(name), "an integer")
        return value

    def number(self, name: str, lowest: float, highest: float) -> float | None:
        """Return a number of this range, ends included."""
        value = self.take(name)
        if value is None:
            return None
        if type(value) not in (int, float):
            raise wrong_type(self.name(name), "a number")
        if not lowest <= value <= highest:
            raise wrong_value(self.name(name), f"a number from {lowest:g} to {highest:g}")
        number: float = value
        return number

    def one_of(self, name: str, values: Iterable[str]) -> str | None:
        """Return a string that must be among these."""
        value = self.text(name)
        allowed = tuple(values)
        if value is not None and value not in allowed:
            raise wrong_value(self.name(name), f"one of {', '.join(allowed)}")
        return value

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        """Return an object whose members are the model's business."""
        value = self.take(name)
        if value is not None and not isinstance(value, Mapping):
            raise wrong_type(self.name(name), "an object")
        return value

    def member(self, name: str) -> Self | None:
        """Return an object."""
        value = self.take(name)
        return None if value is None else type(self)(value, self.name(name))

    def require_object(self, name: str) -> Self:
        """Return an object that has to be there."""
        found = self.member(name)
        if found is None:
            raise missing(self.name(name))
        return found

    def objects(self, name: str) -> list[Self]:
        """Return the objects of an array, none if it is absent."""
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise wrong_type(self.name(name), "an array of objects")
        return [
            type(self)(item, f"{self.name(name)}[{position}]")
            for position, item in enumerate(value)
        ]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the strings of an array, none if it is absent."""
        value = self.take(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise wrong_type(self.name(name), "an array of strings")
        return tuple(value)

    def ignore(self, *names: str, unless: Iterable[object] = ()) -> None:
        """Pass over members that change no answer; `unless` lists the values that may pass.

        Without `unless` any value may. Raises E14 for another one.
        """
        allowed = tuple(unless)
        for name in names:
            value = self.take(name)
            if allowed and value is not None and not any(_same(value, item) for item in allowed):
                raise inexpressible(self.name(name))

    def refuse(self, name: str) -> GatewayError:
        """Return the refusal of a member."""
        return inexpressible(self.name(name))

    def finish(self, *, empty: Iterable[object] = _EMPTY) -> None:
        """Raise E14 for the first member that was not read and holds anything.

        `empty` lists what holds nothing; where an object tells something by being there, less.
        """
        holding_nothing = tuple(empty)
        for name in self._unread:
            if not any(_same(self._members[name], item) for item in holding_nothing):
                raise self.refuse(name)


def _same(value: object, other: object) -> bool:
    # 0 and False are equal, and mean different things; 0 and 0.0 mean the same.
    return value == other and isinstance(value, bool) == isinstance(other, bool)
