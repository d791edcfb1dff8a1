"""Access tokens of Google service accounts: a signed claim is exchanged for one. Blocking.

Source: https://developers.google.com/identity/protocols/oauth2/service-account#httprest and RFC
7523. The claim is signed by PyJWT; why not by google-auth: docs/decisions, "signed requests".
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import jwt
import orjson

from apps.core.addresses import AllowedNetwork
from apps.providers.identities import ServiceAccount, may_ask_for_tokens
from apps.providers.outgoing import (
    Answer,
    Ask,
    Failure,
    OutgoingFailed,
    Resolve,
    fetch,
    resolve_name,
)

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
CLAIM_SECONDS: Final = 3_600  # the most that Google takes
TOKEN_SECONDS_MAX: Final = 43_200
_ANSWER_BYTES_MAX: Final = 64 << 10
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}", re.ASCII)
_REFUSALS: Final = frozenset({400, 401, 403})
# What Google says of the account itself; all else may be a trouble of the moment.
# Source: https://developers.google.com/identity/protocols/oauth2/service-account#error-codes
_REFUSED: Final = frozenset(
    {"access_denied", "admin_policy_enforced", "deleted_client", "disabled_client"}
    | {"invalid_client", "invalid_grant", "invalid_scope", "org_internal", "unauthorized_client"}
)
# "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check
# your iat and exp values": no fault of the key, but of this machine's clock.
_CLOCK: Final = re.compile(r"\biat\b.{0,20}\bexp\b|reasonable timeframe", re.IGNORECASE)


class Token(NamedTuple):
    """An access token, and for how long it is good."""

    value: str
    seconds: int


class TokenRefused(Exception):
    """Google gives this service account no token; the text is the name of its refusal."""


class TokenUnavailable(Exception):
    """No token could be fetched now, which says nothing about the service account."""


def fetch_token(
    account: ServiceAccount,
    *,
    now: datetime,
    private: tuple[AllowedNetwork, ...],
    resolve: Resolve = resolve_name,
) -> Token:
    """Return a new access token. Raises TokenRefused and TokenUnavailable.

    Not for an event loop: it takes its time, at most that of `outgoing`.
    """
    if not may_ask_for_tokens(account.token_uri, private):
        raise TokenUnavailable(Failure.NOT_ALLOWED.value)
    issued_at = int(now.timestamp())
    claim = {
        "iss": account.email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": issued_at,
        "exp": issued_at + CLAIM_SECONDS,
    }
    try:
        assertion = jwt.encode(
            claim, account.private_key, algorithm="RS256", headers={"kid": account.private_key_id}
        )
    except (ValueError, jwt.PyJWTError) as error:
        raise TokenUnavailable("The private key cannot be used.") from error
    ask = Ask(
        url=account.token_uri,
        method="POST",
        headers={"content-type": "application/x-www-form-urlencoded"},
        body=urlencode({"grant_type": _GRANT, "assertion": assertion}).encode(),
        body_bytes_max=_ANSWER_BYTES_MAX,
    )
    try:
        answer = fetch(ask, private=private, resolve=resolve)
    except OutgoingFailed as error:
        raise TokenUnavailable(error.failure.value) from error
    return _read(answer)


def _read(answer: Answer) -> Token:
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise TokenUnavailable(f"The token endpoint answered {answer.status_code}.")
    if answer.status_code != 200:
        raise _refusal(answer.status_code, document)
    value, seconds = document.get("access_token"), document.get("expires_in")
    is_bearer = str(document.get("token_type", "")).lower() == "bearer"
    if not isinstance(value, str) or _TOKEN.fullmatch(value) is None or not is_bearer:
        raise TokenUnavailable("The token endpoint gave no token.")
    if type(seconds) is not int or seconds < 1:
        raise TokenUnavailable("The token endpoint gave a token without a time.")
    return Token(value, min(seconds, TOKEN_SECONDS_MAX))


def _refusal(status: int, document: dict[str, Any]) -> TokenRefused | TokenUnavailable:
    name = document.get("error")
    if status not in _REFUSALS or not isinstance(name, str) or name not in _REFUSED:
        return TokenUnavailable(f"The token endpoint answered {status}.")
    if _CLOCK.search(str(document.get("error_description", ""))) is not None:
        return TokenUnavailable("The clock of this machine is wrong.")
    return TokenRefused(name)
