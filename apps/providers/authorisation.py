"""How providers of each dialect know who asks them. Pure.

Where a provider wants its key elsewhere than its dialect says (Azure's `api-key`), its own setting
decides. So does it where requests are signed anew each time, with what a key holds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from apps.providers.identities import AWS, GOOGLE


class Authorisation(NamedTuple):
    """By which header a provider gets its key, and what else it wants in each request."""

    header: str
    prefix: str = ""
    fixed: tuple[tuple[str, str], ...] = ()
    scheme: str = ""  # by which requests are signed; "" where the key goes into the header as it is


BEARER: Final = Authorisation("authorization", "Bearer ")
KEY_HEADERS: Final = {
    "authorization": BEARER,
    # Source: https://learn.microsoft.com/en-us/azure/ai-services/openai/reference
    "api-key": Authorisation("api-key"),
    "x-api-key": Authorisation("x-api-key"),
    "x-goog-api-key": Authorisation("x-goog-api-key"),
    # Source: https://docs.cloud.google.com/vertex-ai/docs/authentication
    GOOGLE: Authorisation("authorization", "Bearer ", scheme=GOOGLE),
    # Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
    AWS: Authorisation("authorization", scheme=AWS),
}
_BY_DIALECT: Final = {
    "anthropic": "x-api-key",
    "gemini": "x-goog-api-key",
}
_FIXED: Final = {
    # Source: https://platform.claude.com/docs/en/api/versioning
    "anthropic": (("anthropic-version", "2023-06-01"),),
}


def find_authorisation(
    dialect: str, key_header: str = "", *, is_hosted: bool = False
) -> Authorisation:
    """Return how a provider is asked; `key_header` is its own setting, "" for its dialect's.

    Where a cloud hosts the dialect, its version stands in the body.
    """
    header = key_header or _BY_DIALECT.get(dialect, "authorization")
    return KEY_HEADERS[header]._replace(fixed=() if is_hosted else _FIXED.get(dialect, ()))
