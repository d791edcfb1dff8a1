"""How providers of each dialect know who asks them. Pure.

Where a provider wants its key elsewhere than its dialect says (Azure's `api-key`), its own setting
decides.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Authorisation(NamedTuple):
    """By which header a provider gets its key, and what else it wants in each request."""

    header: str
    prefix: str = ""
    fixed: tuple[tuple[str, str], ...] = ()


BEARER: Final = Authorisation("authorization", "Bearer ")
KEY_HEADERS: Final = {
    "authorization": BEARER,
    # Source: https://learn.microsoft.com/en-us/azure/ai-services/openai/reference
    "api-key": Authorisation("api-key"),
    "x-api-key": Authorisation("x-api-key"),
    "x-goog-api-key": Authorisation("x-goog-api-key"),
}
_BY_DIALECT: Final = {
    "anthropic": "x-api-key",
    "gemini": "x-goog-api-key",
}
_FIXED: Final = {
    # Source: https://platform.claude.com/docs/en/api/versioning
    "anthropic": (("anthropic-version", "2023-06-01"),),
}


def find_authorisation(dialect: str, key_header: str = "") -> Authorisation:
    """Return how a provider is asked; `key_header` is its own setting, "" for its dialect's."""
    header = key_header or _BY_DIALECT.get(dialect, "authorization")
    return KEY_HEADERS[header]._replace(fixed=_FIXED.get(dialect, ()))
