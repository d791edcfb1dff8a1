"""Request bodies: strict JSON in, so that every parser behind us reads the same object.

Go's parser takes the last of two equal keys and ignores case, Python's accepts NaN and any depth:
what two parsers could read differently is refused, and what goes upstream is written anew from
the parsed object (I-32).
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final, NoReturn

import orjson

from apps.core.errors import GatewayError

DEPTH_MAX: Final = 64
# A body of 32 MiB could otherwise become a gigabyte of small objects.
VALUES_MAX: Final = 1_000_000
# Objects and members of objects: to look at each takes some microseconds. A model reads each as
# four tokens: so many are a million, and most of a conversation is text.
MEMBERS_MAX: Final = 250_000

_INTEGER_MIN: Final = -(2**63)
_INTEGER_MAX: Final = 2**64 - 1
_SAFE_DIGITS: Final = 18  # fewer digits always fit 64 bits

# What a refused body may be searched for the name of its parameter.
_SEARCH_BYTES_MAX: Final = 1024 * 1024

_CONTAINERS: Final = (dict, list)

_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# An atomic group, and not a possessive one: where a turn of such a one fails half-way, Python
# 3.11.2, Debian 12's, goes on from there, and takes a string that never ends for a whole one.
_SOME_STRINGS: Final = re.compile(rb'(?>(?:[^"]*+"[^"\\]*+(?:\\.[^"\\]*+)*+"){0,4096})', re.DOTALL)
# A string that is not closed is one token up to the end, for the same reason.
_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[\[\]{}:]', re.DOTALL)
_HAZARDOUS_ESCAPE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class _Refused(Exception):
    """A hook of the parser met a value that no body may hold."""


class _Duplicate(Exception):
    """An object of the body has a key twice."""


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Duplicate(key)
            seen.add(key)
    return members


def _integer(digits: str) -> int:
    if len(digits) <= _SAFE_DIGITS:
        return int(digits)
    # Twenty digits and a sign are the longest that can fit, and int() on thousands is slow.
    if len(digits) > 21 or not _INTEGER_MIN <= int(digits) <= _INTEGER_MAX:
        raise _Refused("an integer beyond 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if value - value != 0:
        # 1e999 is infinite, which would be written as null.
        raise _Refused("a number beyond the range of a double")
    return value


def _constant(name: str) -> NoReturn:
    raise _Refused(name)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_object,
    parse_int=_integer,
    parse_float=_number,
    parse_constant=_constant,
)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises GatewayError E11 or E12, with the top-level parameter where the fault lies if there is
    one, for everything that is not one unambiguous object.
    """
    # Each member takes a byte, and to count the commas of a long prompt as long as to parse it.
    if len(body) > MEMBERS_MAX and (_values(body) > VALUES_MAX or _members(body) > MEMBERS_MAX):
        _check_number_of_values(body)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid("The body is not UTF-8.", _last_key(body[: error.start])) from error
    try:
        parsed = _DECODER.decode(text)
    except _Duplicate as error:
        raise GatewayError(
            "E12", param=str(error), message=f"The body names '{error}' more than once."
        ) from error
    except _Refused as error:
        raise _invalid(f"The body holds {error}.", _find_refused_number(text)) from error
    except json.JSONDecodeError as error:
        raise _invalid(f"The body is not JSON: {error.msg}, character {error.pos}.") from error
    except RecursionError as error:
        raise _too_deep(_last_key(body)) from error
    if not isinstance(parsed, dict):
        raise _invalid("The body is not a JSON object.")
    if body.count(b"[") + body.count(b"{") > DEPTH_MAX:
        _check_depth(parsed)
    if b"\\u" in body and _HAZARDOUS_ESCAPE.search(body) is not None:
        _check_strings(parsed)
    _check_keys_but_for_case(parsed)
    return parsed


def serialise(value: object) -> bytes:
    """Return a parsed value as compact JSON."""
    return orjson.dumps(value)


def _invalid(message: str, param: str | None = None) -> GatewayError:
    return GatewayError("E11", message=message, param=param)


def _too_deep(param: str | None) -> GatewayError:
    return _invalid(f"The body is nested more than {DEPTH_MAX} levels deep.", param)


def _values(body: bytes) -> int:
    """Return how many bytes there are that may stand before a value."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _members(body: bytes) -> int:
    """Return how many bytes there are that may begin an object, or stand in a member of one."""
    return body.count(b"{") + body.count(b":")


def _check_number_of_values(body: bytes) -> None:
    # Only what is outside strings separates values. Some strings at a time: all pieces
    # between the strings of a large body at once would take thirty times its size.
    view = memoryview(body)
    values = members = start = 0
    while start < len(body):  # each turn takes some strings, or all that is left
        found = _SOME_STRINGS.match(body, start)
        end = found.end() if found is not None else start
        # What follows the last whole string holds none: to look for one behind each of its quotes
        # would take time by the square of its length.
        skeleton = _STRING.sub(b"", view[start:end]) if end > start else body[start:]
        end = end if end > start else len(body)
        values += _values(skeleton)
        members += _members(skeleton)
        if values > VALUES_MAX:
            raise _invalid(f"The body holds more than {VALUES_MAX} values.")
        if members > MEMBERS_MAX:
            raise _invalid(f"The body holds more than {MEMBERS_MAX} objects and members of such.")
        start = end


def _check_depth(parsed: dict[str, Any]) -> None:
    """Raise E11 if the object, itself level 1, is nested deeper than allowed."""
    if not _is_deeper([parsed], DEPTH_MAX):
        return
    for key, value in parsed.items():
        if type(value) in _CONTAINERS and _is_deeper([value], DEPTH_MAX - 1):
            raise _too_deep(key)


def _is_deeper(level: list[Any], levels: int) -> bool:
    """Return whether containers nest more than `levels` deep; `level` is a list of containers."""
    for _ in range(levels):
        level = [
            child
            for container in level
            for child in _children(container)
            if type(child) in _CONTAINERS
        ]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    if type(value) is dict:
        return value.values()
    return value if type(value) is list else ()


def _check_strings(parsed: dict[str, Any]) -> None:
    """Raise E11 for NUL and lone surrogates, which some parser or database cannot hold."""
    for key, value in parsed.items():
        stack: list[Any] = [key, value]
        while stack:  # bounded by VALUES_MAX
            item = stack.pop()
            if type(item) is str:
                if "\x00" in item:
                    raise _invalid("The body holds a NUL character.", key)
                try:
                    item.encode("utf-8")
                except UnicodeEncodeError as error:
                    raise _invalid("The body holds a lone surrogate.", key) from error
            elif type(item) is dict:
                stack.extend(item)
                stack.extend(item.values())
            elif type(item) is list:
                stack.extend(item)


def _check_keys_but_for_case(parsed: dict[str, Any]) -> None:
    if len({key.casefold() for key in parsed}) == len(parsed):
        return
    seen: set[str] = set()
    for key in parsed:
        folded = key.casefold()
        if folded in seen:
            raise GatewayError(
                "E12", param=key, message=f"The body names '{folded}' twice but for case."
            )
        seen.add(folded)


def _find_refused_number(text: str) -> str | None:
    """Return the top-level key under which a refused number stands."""
    refused = object()

    def integer(digits: str) -> object:
        try:
            return _integer(digits)
        except _Refused:
            return refused

    def number(digits: str) -> object:
        try:
            return _number(digits)
        except _Refused:
            return refused

    try:
        parsed = json.JSONDecoder(
            parse_int=integer,
            parse_float=number,
            parse_constant=lambda _: refused,
        ).decode(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(parsed, dict):
        return None
    for key, value in parsed.items():
        stack = [value]
        while stack:  # bounded by VALUES_MAX
            item = stack.pop()
            if item is refused:
                return str(key)
            stack.extend(_children(item))
    return None


def _last_key(body: bytes) -> str | None:
    """Return the last top-level key of a body, or the one under which it becomes too deep."""
    depth = 0
    last_string = b""
    key = b""
    for token in _TOKEN.finditer(body[:_SEARCH_BYTES_MAX]):
        mark = token.group()
        if mark in (b"[", b"{"):
            depth += 1
            if depth > DEPTH_MAX:
                break
        elif mark in (b"]", b"}"):
            depth -= 1
        elif mark != b":":
            last_string = mark
        elif depth == 1:
            key = last_string
    return _name(key)


def _name(quoted: bytes) -> str | None:
    """Return the text of a quoted key."""
    if not quoted:
        return None
    try:
        name = orjson.loads(quoted)
    except orjson.JSONDecodeError:
        return None
    return name if isinstance(name, str) else None
