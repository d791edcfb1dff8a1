"""Asking a provider with its own key: which models it has, whether it answers.

What a provider says is not to be trusted: sizes are bounded, names are checked, and of a failure
only its class is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson
from django.conf import settings
from django.db.models import F

from apps.core.addresses import ParsedUrl, UrlRefused, check_upstream_url
from apps.core.counters import count_up
from apps.core.crypto import SecretUnreadable
from apps.core.domain_errors import DomainError
from apps.providers.authorisation import find_authorisation
from apps.providers.aws_signing import digest_of, service_of, sign
from apps.providers.credentials import open_secret
from apps.providers.google_tokens import TokenRefused, TokenUnavailable, fetch_token
from apps.providers.headers import HeadersRefused, check_headers
from apps.providers.hosting import find_hosting
from apps.providers.identities import AwsKey, Identity, KeyUnusable, read_identity
from apps.providers.models import Provider, ProviderKey
from apps.providers.outgoing import (
    Answer,
    Ask,
    Failure,
    OutgoingFailed,
    Resolve,
    fetch,
    resolve_name,
)
from apps.providers.questions import find_list, is_answer, join_url, one_token
from apps.providers.registration import BaseUrlRefused

NAMES_MAX: Final = 5_000
NAME_LENGTH_MAX: Final = 200
ASKS_MAX_PER_MINUTE: Final = 30
_WINDOW_SECONDS: Final = 60
_UNEXPECTED: Final = "The provider answered something unexpected."
# Status → what it means here.
_STATUSES: Final = {
    400: "The provider refused the request.",
    401: "The provider refused the key.",
    402: "The provider wants to be paid first.",
    403: "The provider refused the key.",
    404: "The provider has nothing there: check the base URL and the model.",
    422: "The provider refused the request.",
    429: "The provider has too many requests.",
}


class ProviderFailed(DomainError):
    """The provider gave no answer that can be used. A 4xx: the gateway itself is well."""

    status_code = 409
    code = "provider_failed"
    message = _UNEXPECTED


class NoActiveKey(DomainError):
    """The provider has no key to ask it with."""

    status_code = 409
    code = "no_active_key"
    message = "The provider has no active key."


class StoredKeyUnreadable(DomainError):
    """The key was sealed with an encryption key that is not at hand."""

    status_code = 409
    code = "key_unreadable"
    message = "The provider's key cannot be read. Type it again."


class TooManyAsks(DomainError):
    """One user asks providers too often."""

    status_code = 429
    code = "too_many_tests"
    message = "Too many tests. Try again in a minute."


@dataclass(frozen=True, slots=True)
class Offer:
    """The models that a provider says it has."""

    names: tuple[str, ...]  # in the provider's order, each once
    ignored_count: int  # entries whose name cannot be used


def count_ask(user_id: int) -> None:
    """Count one more question of this user. Raises TooManyAsks beyond 30 a minute."""
    counter, locks_at = f"provider-asks:{user_id}", ASKS_MAX_PER_MINUTE + 1
    if count_up(counter, seconds=_WINDOW_SECONDS, locks_at=locks_at) >= locks_at:
        raise TooManyAsks(retry_after_seconds=_WINDOW_SECONDS)


def ask_for_models(
    provider: Provider, *, key: ProviderKey | None = None, resolve: Resolve = resolve_name
) -> Offer:
    """Return the models that the provider lists, asked with the given key or with any.

    Raises ProviderFailed, BaseUrlRefused, NoActiveKey and StoredKeyUnreadable.
    """
    is_signed = find_authorisation(provider.dialect, provider.key_header).scheme != ""
    listed = find_list(provider.dialect, provider.base_url, is_signed=is_signed)
    value = _ask(provider, key, url=listed.url, body=None, resolve=resolve)
    entries = listed.read(value)
    if entries is None:
        raise ProviderFailed
    if len(entries) > NAMES_MAX:
        raise ProviderFailed(f"The provider lists more than {NAMES_MAX} models.")
    names = [name for name in entries if isinstance(name, str) and is_name(name)]
    return Offer(tuple(dict.fromkeys(names)), ignored_count=len(entries) - len(names))


def ask_for_one_token(
    provider: Provider,
    *,
    upstream_name: str,
    max_tokens_parameter: str,
    resolve: Resolve = resolve_name,
) -> None:
    """Have a model say one token. Raises what `ask_for_models` raises."""
    base_url = provider.base_url
    path, body = one_token(provider.dialect, upstream_name, max_tokens_parameter, base_url)
    value = _ask(
        provider,
        None,
        url=base_url,
        below=_Below(path, upstream_name),
        body=orjson.dumps(body),
        resolve=resolve,
    )
    if not is_answer(provider.dialect, value):
        raise ProviderFailed


def is_name(text: str) -> bool:
    """Return whether a model can have this name: 1 to 200 printable characters, no spaces."""
    return (
        0 < len(text) <= NAME_LENGTH_MAX
        and text.isprintable()
        and not any(character.isspace() for character in text)
    )


class _Below(NamedTuple):
    """What is asked for below a base URL.

    The URL is judged without it: a name that was quoted looks like what no URL may hold.
    """

    path: str
    upstream_name: str


def _ask(
    provider: Provider,
    key: ProviderKey | None,
    *,
    url: str,
    below: _Below | None = None,
    body: bytes | None,
    resolve: Resolve,
) -> Any:
    secret = _secret_of(key or _pick_key(provider))
    # As calls carry them: without some, a provider refuses a key that is well.
    is_hosted = find_hosting(provider.dialect, provider.base_url) is not None
    known = find_authorisation(provider.dialect, provider.key_header, is_hosted=is_hosted)
    headers = {**dict(known.fixed), **_headers_of(provider)}
    if body is not None:
        headers["content-type"] = "application/json"
    method = "GET" if body is None else "POST"
    try:
        identity = read_identity(secret, known.scheme)
    except KeyUnusable as error:
        raise StoredKeyUnreadable from error
    try:
        parsed = check_upstream_url(url, settings.PRIVATE_UPSTREAMS)
    except UrlRefused as error:
        raise BaseUrlRefused from error
    target = parsed.target
    if below is not None:
        target = join_url(target, below.path, upstream_name=below.upstream_name)
    if identity is None:
        headers[known.header] = f"{known.prefix}{secret}"
    else:
        headers |= _sign(identity, method, parsed, target, headers, body or b"", resolve)
    ask = Ask(url=url, target=target, method=method, headers=headers, body=body or b"")
    try:
        answer = fetch(ask, private=settings.PRIVATE_UPSTREAMS, resolve=resolve)
    except OutgoingFailed as error:
        if error.failure is Failure.NOT_ALLOWED:
            raise BaseUrlRefused from error
        raise ProviderFailed(error.failure.value) from error
    return _read(answer)


def _sign(
    identity: Identity,
    method: str,
    url: ParsedUrl,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    resolve: Resolve,
) -> dict[str, str]:
    """Return the headers that show who asks, where that is made anew for each request."""
    now, private = datetime.now(UTC), settings.PRIVATE_UPSTREAMS
    if isinstance(identity, AwsKey):
        return sign(
            identity,
            method=method,
            url=url.origin + target,
            headers={"host": url.origin.partition("://")[2], **headers},
            digest=digest_of(body),
            service=service_of(url.host),
            now=now,
        )
    try:
        token = fetch_token(identity, now=now, private=private, resolve=resolve)
    except TokenRefused as error:
        raise ProviderFailed("The provider refused the key.") from error
    except TokenUnavailable as error:
        raise ProviderFailed(str(error)) from error
    return {"authorization": f"Bearer {token.value}"}


def _pick_key(provider: Provider) -> ProviderKey:
    # One that was disabled automatically where there is no other: perhaps it is well again.
    keys = provider.keys.enabled().order_by(F("disabled_at").asc(nulls_first=True), "id")
    key = keys.first()
    if key is None:
        raise NoActiveKey
    return key


def _secret_of(key: ProviderKey) -> str:
    try:
        return open_secret(key)
    except SecretUnreadable as error:
        raise StoredKeyUnreadable from error


def _headers_of(provider: Provider) -> dict[str, str]:
    try:
        return check_headers(provider.headers)
    except HeadersRefused as error:
        # Written by SQL: gateways leave such a provider out, too.
        raise ProviderFailed(str(error)) from error


def _read(answer: Answer) -> Any:
    if answer.status_code != 200:
        if 300 <= answer.status_code < 400:
            raise ProviderFailed("The provider answered with a redirect, which is not followed.")
        if answer.status_code >= 500:
            raise ProviderFailed("The provider has an error of its own.")
        raise ProviderFailed(_STATUSES.get(answer.status_code, _UNEXPECTED))
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        raise ProviderFailed from error
