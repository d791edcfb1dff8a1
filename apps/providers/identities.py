"""Provider keys that requests are signed with: what they hold, and how they are kept. Pure.

A plain key is one word and goes into a header as it is. The others are typed as JSON and kept as
`SCHEME {…}`, with what is needed of them alone: no plain key has a space, so none is ever taken for
one of another kind, and sent.

Sources: https://docs.cloud.google.com/iam/docs/keys-create-delete and
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from apps.core.addresses import AllowedNetwork, UrlRefused, check_upstream_url

GOOGLE: Final = "google-service-account"
AWS: Final = "aws-sigv4"
SCHEMES: Final = frozenset({GOOGLE, AWS})
TOKEN_URI: Final = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address

SECRET_LENGTH_MAX: Final = 8_192  # as it is typed
# A plain secret goes into a header: no white space, no control characters.
_PLAIN: Final = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)
_RSA_BITS: Final = range(2_048, 8_193)
_EMAIL: Final = re.compile(r"[\x21-\x3f\x41-\x7e]{1,128}@[A-Za-z0-9.-]{1,190}", re.ASCII)
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_AWS_MEMBERS: Final = {
    "access_key_id": re.compile(r"[A-Za-z0-9_]{16,128}", re.ASCII),
    "secret_access_key": re.compile(r"[\x21-\x7e]{16,256}", re.ASCII),
    "session_token": re.compile(r"[\x21-\x7e]{0,4096}", re.ASCII),
    "region": re.compile(r"[a-z]{2}[a-z0-9-]{3,30}", re.ASCII),
}
_PLAIN_REFUSED: Final = "A provider key is 1 to 4096 printable ASCII characters without spaces."


class KeyUnusable(ValueError):
    """The key is none of the kind that its provider wants; the text says why, and holds none."""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What proves to Google who asks for an access token."""

    email: str
    private_key_id: str
    private_key: str = field(repr=False)  # PEM
    token_uri: str = TOKEN_URI


@dataclass(frozen=True, slots=True)
class AwsKey:
    """What requests to AWS are signed with."""

    access_key_id: str
    region: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


Identity = ServiceAccount | AwsKey


def keep_secret(typed: str, scheme: str, private: tuple[AllowedNetwork, ...]) -> str:
    """Return what is sealed of a secret as it was typed; `scheme` is "" for a plain one.

    Raises KeyUnusable.
    """
    if scheme not in SCHEMES:
        if typed.lstrip().startswith("{"):
            raise KeyUnusable(f"This key is JSON: key_header must be {GOOGLE} or {AWS} for it.")
        if _PLAIN.fullmatch(typed) is None:
            raise KeyUnusable(_PLAIN_REFUSED)
        return typed
    members = _load_object(typed, scheme)
    kept = _keep_account(members, private) if scheme == GOOGLE else _keep_aws_key(members)
    return f"{scheme} {orjson.dumps(kept).decode()}"


def read_identity(kept: str, scheme: str) -> Identity | None:
    """Return what requests are signed with, None where the secret goes into a header as it is.

    Raises KeyUnusable for a secret of another kind: it must not be sent.
    """
    kind, space, text = kept.partition(" ")
    if (kind if space else "") != (scheme if scheme in SCHEMES else ""):
        raise KeyUnusable("it is a key of another kind than its provider wants")
    if not space:
        return None
    members = orjson.loads(text)
    return ServiceAccount(**members) if kind == GOOGLE else AwsKey(**members)


def shown_part(kept: str) -> str:
    """Return the last four characters of a plain secret, or of the public name of another one."""
    kind, space, text = kept.partition(" ")
    if space:
        members = orjson.loads(text)
        return str(members["private_key_id" if kind == GOOGLE else "access_key_id"])[-4:]
    # Four characters of a short secret would be a good part of it.
    return kept[-4:] if len(kept) >= 16 else ""


def may_ask_for_tokens(token_uri: str, private: tuple[AllowedNetwork, ...]) -> bool:
    """Return whether a service account may name this address: Google's own, or a private one that
    the deployment allows. Who types a key must not choose where the gateway connects to.
    """
    if token_uri == TOKEN_URI:
        return True
    try:
        return check_upstream_url(token_uri, private).is_private_only
    except UrlRefused:
        return False


def _load_object(typed: str, scheme: str) -> Mapping[str, Any]:
    if len(typed) > SECRET_LENGTH_MAX:
        raise KeyUnusable(f"A key has at most {SECRET_LENGTH_MAX} characters.")
    wanted = "the JSON of a service account's key"
    if scheme == AWS:
        wanted = 'JSON: {"access_key_id": …, "secret_access_key": …, "region": …}'
    try:
        members = orjson.loads(typed)
    except orjson.JSONDecodeError:
        members = None
    if not isinstance(members, dict):
        raise KeyUnusable(f"This provider wants {wanted}.")
    return members


def _keep_account(
    members: Mapping[str, Any], private: tuple[AllowedNetwork, ...]
) -> dict[str, str]:
    if members.get("type") != "service_account":
        raise KeyUnusable('The "type" of the key must be "service_account".')
    if members.get("universe_domain", "googleapis.com") != "googleapis.com":
        raise KeyUnusable('The "universe_domain" of the key must be "googleapis.com".')
    token_uri = _read(members, "token_uri", None, default=TOKEN_URI)
    if not may_ask_for_tokens(token_uri, private):
        raise KeyUnusable(f'The "token_uri" of the key must be "{TOKEN_URI}".')
    kept = {
        "email": _read(members, "client_email", _EMAIL),
        "private_key_id": _read(members, "private_key_id", _KEY_ID),
        "private_key": _read(members, "private_key", None),
        "token_uri": token_uri,
    }
    _check_private_key(kept["private_key"])
    return kept


def _check_private_key(pem: str) -> None:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey) or key.key_size not in _RSA_BITS:
        raise KeyUnusable('The "private_key" of the key must be an RSA key of 2048 bits or more.')


def _keep_aws_key(members: Mapping[str, Any]) -> dict[str, str]:
    for name in members:
        if name not in _AWS_MEMBERS:
            raise KeyUnusable(f"An AWS key has these members: {', '.join(_AWS_MEMBERS)}.")
    return {
        name: _read(members, name, pattern, default="" if name == "session_token" else None)
        for name, pattern in _AWS_MEMBERS.items()
    }


def _read(
    members: Mapping[str, Any],
    name: str,
    pattern: re.Pattern[str] | None,
    *,
    default: str | None = None,
) -> str:
    value = members.get(name, default)
    if value is None:
        raise KeyUnusable(f'The key has no "{name}".')
    if not isinstance(value, str) or (pattern is not None and pattern.fullmatch(value) is None):
        raise KeyUnusable(f'The "{name}" of the key cannot be used.')
    return value
