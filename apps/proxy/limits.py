"""The limits of an API key, its user and his user group, as calls meet them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from apps.core.errors import GatewayError
from apps.proxy.http import Headers
from apps.quotas.limit_headers import ratelimit_headers
from apps.quotas.limits import Headroom, LimitMet, Scope

if TYPE_CHECKING:
    from apps.proxy.dialects.parsed_request import DialectName
    from apps.proxy.gateway import Gateway

_REFUSED: Final = {"requests": "E22", "tokens": "E23", "concurrency": "E24"}


def check_limits(
    gateway: Gateway, scopes: tuple[Scope, ...], dialect: DialectName = "openai"
) -> None:
    """Refuse who is at a limit already, and take nothing: his body need not be read.

    Looks only at what this process knows. Raises E22, E23 and E24.
    """
    if not scopes:
        return
    met = gateway.limiter.find_limit_met(scopes=scopes, tokens=0)
    if met is not None:
        raise _refused(met, _headers(met, dialect))


async def take_limits(
    gateway: Gateway,
    scopes: tuple[Scope, ...],
    *,
    request_text: str,
    tokens: int,
    dialect: DialectName = "openai",
) -> Headers:
    """Take a request and tokens from every scope and return the headers that tell of it.

    The limiter has to be told of the end. Raises E22, E23 and E24.
    """
    outcome = await gateway.limiter.admit(request_id=request_text, scopes=scopes, tokens=tokens)
    extra = _headers(outcome, dialect)
    if isinstance(outcome, LimitMet):
        raise _refused(outcome, extra)
    return extra


async def count_request(
    gateway: Gateway,
    scopes: tuple[Scope, ...],
    request_text: str,
    dialect: DialectName = "openai",
) -> Headers:
    """Take a request that reads no tokens and is as good as over. Raises E22, E23 and E24."""
    if not scopes:
        return []
    extra = await take_limits(gateway, scopes, request_text=request_text, tokens=0, dialect=dialect)
    gateway.limiter.finish(request_id=request_text, scopes=scopes, tokens_reserved=0, tokens_used=0)
    return extra


def _headers(outcome: Headroom | LimitMet, dialect: DialectName) -> Headers:
    now = datetime.now(UTC) if dialect == "anthropic" else None
    return ratelimit_headers(outcome, anthropic_at=now)


def _refused(met: LimitMet, extra: Headers) -> GatewayError:
    return GatewayError(
        _REFUSED[met.kind],
        retry_after=met.retry_after_seconds,
        headers=[(name.decode(), value.decode()) for name, value in extra],
    )
