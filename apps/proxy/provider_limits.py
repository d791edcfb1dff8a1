"""Limits of providers and their keys: which routes have room, and the places that calls take.

They are counted as those of callers are, in this process and, where there is one, in Redis. A
provider at its limit is passed over; what was refused for its requests a minute stays so until one
of them leaves the window. A place is taken when a provider is about to be asked, and given back
when its attempt is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from apps.proxy.daily_costs import DailyCosts
from apps.proxy.snapshot import Credential, Route
from apps.quotas.limits import RETRY_AFTER_SECONDS_MAX, Limiter, LimitMet, Scope


class Place(NamedTuple):
    """What an attempt counts against, until it is given back."""

    identifier: str
    scopes: tuple[Scope, ...]
    tokens: int


class Full(NamedTuple):
    """A refusal: when to try again, and whether it is the key alone that is at its limit."""

    seconds: int  # 1 to 60
    is_of_key: bool


class ProviderLimits:
    """The limits of providers as one gateway sees them."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self.daily: DailyCosts | None = None

    def find_wait(self, route: Route, tokens: int) -> int | None:
        """Return after how many seconds the route may have room; None where it seems to have."""
        provider = route.provider
        if not provider.is_limited:
            return None
        if self._is_spent_by_provider(route):
            return RETRY_AFTER_SECONDS_MAX
        wait = self._find_wait(_scopes(provider.scope), tokens)
        if wait is not None:
            return wait
        waits = []
        for credential in provider.credentials:
            wait = self._find_wait(_scopes(credential.scope), tokens)
            if self._is_spent_by_key(credential):
                wait = RETRY_AFTER_SECONDS_MAX
            if wait is None:
                return None
            waits.append(wait)
        return min(waits, default=None)

    async def take(
        self, route: Route, credential: Credential, *, identifier: str, tokens: int
    ) -> Place | Full:
        """Take a place at the provider and its key, or none at either."""
        if self._is_spent_by_provider(route):
            return Full(RETRY_AFTER_SECONDS_MAX, is_of_key=False)
        if self._is_spent_by_key(credential):
            return Full(RETRY_AFTER_SECONDS_MAX, is_of_key=True)
        scopes = _scopes(route.provider.scope, credential.scope)
        if scopes:
            outcome = await self._limiter.admit(request_id=identifier, scopes=scopes, tokens=tokens)
            if isinstance(outcome, LimitMet):
                is_of_key = credential.scope is not None and (
                    outcome.scope == credential.scope.name
                )
                return Full(outcome.retry_after_seconds, is_of_key)
        return Place(identifier, scopes, tokens)

    def give_back(self, place: Place, tokens_used: int) -> None:
        """Free a place, with what was used instead of what was reserved."""
        if place.scopes:
            self._limiter.finish(
                request_id=place.identifier,
                scopes=place.scopes,
                tokens_reserved=place.tokens,
                tokens_used=tokens_used,
            )

    def _find_wait(self, scopes: tuple[Scope, ...], tokens: int) -> int | None:
        if not scopes:
            return None
        met = self._limiter.find_limit_met(scopes=scopes, tokens=tokens)
        return None if met is None else met.retry_after_seconds

    def _is_spent_by_provider(self, route: Route) -> bool:
        provider, daily = route.provider, self.daily
        return daily is not None and daily.is_spent(
            ("provider", provider.id), provider.daily_cost_nanos
        )

    def _is_spent_by_key(self, credential: Credential) -> bool:
        daily = self.daily
        return daily is not None and daily.is_spent(
            ("provider_key", credential.id), credential.daily_cost_nanos
        )


class Places:
    """The places that the attempts of one call take, one at a time.

    `wait_seconds` is the shortest time after which one that was refused may be had.
    """

    def __init__(self, limits: ProviderLimits, *, request_text: str, tokens: int) -> None:
        self._limits = limits
        self._request_text = request_text
        self._tokens = tokens
        self._taken: Place | None = None
        self._asked = 0
        self.wait_seconds: int | None = None

    async def take(
        self, route: Route, choose: Callable[[Sequence[Credential]], Credential | None]
    ) -> Credential | None:
        """Return the key to ask with, None where the provider or all its keys are at a limit.

        `choose` picks one of those that are left.
        """
        left = list(route.provider.credentials)
        while left:
            credential = choose(left)
            if credential is None:
                return None
            left.remove(credential)
            self._asked += 1
            place = await self._limits.take(
                route,
                credential,
                identifier=f"{self._request_text}/{self._asked}",
                tokens=self._tokens,
            )
            if isinstance(place, Place):
                self._taken = place
                return credential
            self.wait_seconds = min(self.wait_seconds or place.seconds, place.seconds)
            if not place.is_of_key:
                return None
        return None

    def give_back(self, tokens_used: int) -> None:
        """Free the place that is taken, if there is one."""
        place, self._taken = self._taken, None
        if place is not None:
            self._limits.give_back(place, tokens_used)


def find_shortest_wait(limits: ProviderLimits, routes: Iterable[Route], tokens: int) -> int | None:
    """Return when the first of these routes may have room; None where none is at its limit."""
    waits = [limits.find_wait(route, tokens) for route in routes]
    return min((wait for wait in waits if wait is not None), default=None)


def _scopes(*scopes: Scope | None) -> tuple[Scope, ...]:
    return tuple(scope for scope in scopes if scope is not None)
