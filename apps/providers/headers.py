"""Headers that an administrator has requests to providers carry. Pure.

They are configuration that everybody who may read it sees, so nothing secret goes into them; and
they never touch what decides where a request goes, who pays for it, or where it ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

HEADERS_MAX: Final = 20
VALUE_LENGTH_MAX: Final = 500

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,63}", re.ASCII)
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", re.ASCII)
# Beside these only what begins with x-: nothing that HTTP itself or a server on the way acts on.
_ALLOWED: Final = frozenset(
    {
        "accept",
        "accept-language",
        "anthropic-beta",
        "anthropic-version",
        "http-referer",
        "openai-beta",
        "openai-organization",
        "openai-project",
        "referer",
        "user-agent",
    }
)
_REFUSED_PREFIXES: Final = ("x-accel", "x-forwarded", "x-http-method", "x-method", "x-original")
_REFUSED: Final = frozenset({"x-real-ip", "x-request-id", "x-rewrite-url"})
# What speaks of these holds something that has to be sealed.
_SECRET: Final = re.compile(r"auth|cookie|credential|key|passw|secret|session|signature|token")


class HeadersRefused(ValueError):
    """These headers cannot be sent. The message is for people."""


def check_header_name(name: Any) -> str:
    """Return the name in lower case, or refuse it. Raises HeadersRefused."""
    folded = name.lower() if isinstance(name, str) else ""
    if _NAME.fullmatch(folded) is None:
        raise HeadersRefused("A header's name is 1 to 64 letters, digits and hyphens.")
    is_allowed = folded in _ALLOWED or (
        folded.startswith("x-")
        and folded not in _REFUSED
        and not folded.startswith(_REFUSED_PREFIXES)
        and _SECRET.search(folded) is None
    )
    if not is_allowed:
        raise HeadersRefused(f"The header {folded} cannot be set here.")
    return folded


def check_headers(value: Any) -> dict[str, str]:
    """Return headers by lower-case name, or refuse them. Raises HeadersRefused."""
    if not isinstance(value, Mapping):
        raise HeadersRefused("Enter a JSON object of names and values.")
    if len(value) > HEADERS_MAX:
        raise HeadersRefused(f"At most {HEADERS_MAX} headers.")
    found: dict[str, str] = {}
    for name, text in value.items():
        folded = check_header_name(name)
        if folded in found:
            raise HeadersRefused(f"The header {folded} stands twice.")
        if (
            not isinstance(text, str)
            or len(text) > VALUE_LENGTH_MAX
            or _VALUE.fullmatch(text) is None
        ):
            raise HeadersRefused(
                f"The value of {folded} is not 1 to {VALUE_LENGTH_MAX} printable ASCII characters."
            )
        found[folded] = text
    return found
