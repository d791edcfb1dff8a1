"""What providers, models and parameters may be called. Pure."""

from __future__ import annotations

import re
from typing import Final

_PARAMETER: Final = re.compile(r"[a-z][a-z0-9_]{0,49}", re.ASCII)


class NameRefused(ValueError):
    """This cannot be a name. The message is for people."""


def check_name(name: str) -> str:
    """Return the name, unless it would not fit a line of a log. Raises NameRefused."""
    if not name.isprintable():
        raise NameRefused("A name holds no control characters.")
    return name


def check_model_name(name: str) -> str:
    """Return the name, unless clients could not write it into a URL or a log line.

    Raises NameRefused.
    """
    if not name.isprintable() or any(character.isspace() for character in name):
        raise NameRefused("A name holds no spaces or control characters.")
    return name


def check_parameter_name(name: str) -> str:
    """Return the name of a parameter of a request. Raises NameRefused."""
    if _PARAMETER.fullmatch(name) is None:
        raise NameRefused("Enter a name such as max_tokens.")
    return name
