"""How often the REST API may be called: by one user and from one address, a minute; and how often
somebody may change what is his own, an hour.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.http import HttpRequest
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from apps.core.client_address import find_client_address, network_of
from apps.core.counters import count_up

if TYPE_CHECKING:
    # Views import the default throttles: at run time this would go round in a circle.
    from rest_framework.views import APIView

OWN_CHANGES_MAX: Final = 60
_WINDOW_SECONDS: Final = 60
_OWN_WINDOW_SECONDS: Final = 3_600


def is_address_within_limit(request: HttpRequest) -> bool:
    """Count one call of the address and return whether it is within the limit."""
    address = find_client_address(
        request.META.get("REMOTE_ADDR") or "",
        request.headers.get("X-Forwarded-For", ""),
        settings.TRUSTED_PROXIES,
    )
    return _is_within(f"address:{network_of(address)}", settings.API_RPM_PER_ADDRESS)


def seconds_to_wait(window_seconds: int = _WINDOW_SECONDS) -> float:
    """Return the seconds until the next window begins."""
    return window_seconds - time.time() % window_seconds


class UserThrottle(BaseThrottle):
    """Counts every call that was let in against its user."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Return whether this call is within the limit."""
        if not request.user.is_authenticated:
            return True
        return _is_within(f"user:{request.user.pk}", settings.API_RPM_PER_USER)

    def wait(self) -> float:
        """Return the seconds until the next window."""
        return seconds_to_wait()


class OwnChangesThrottle(BaseThrottle):
    """Counts what a user changes of his own: each change is an event that is kept for ever."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Return whether this call is within the limit, or changes nothing."""
        if request.method in SAFE_METHODS or not request.user.is_authenticated:
            return True
        return _is_within(f"own:{request.user.pk}", OWN_CHANGES_MAX, _OWN_WINDOW_SECONDS)

    def wait(self) -> float:
        """Return the seconds until the next window."""
        return seconds_to_wait(_OWN_WINDOW_SECONDS)


# Of endpoints where users change what is their own.
OWN_THROTTLES: Final = (UserThrottle, OwnChangesThrottle)


def _is_within(who: str, limit: int, window_seconds: int = _WINDOW_SECONDS) -> bool:
    window = int(time.time()) // window_seconds
    counter = f"rest:{who}:{window}"
    return count_up(counter, seconds=2 * window_seconds, locks_at=limit + 1) <= limit
