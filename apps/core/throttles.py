"""How often the REST API may be called: by one user and from one address, a minute."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from apps.core.client_address import find_client_address
from apps.core.counters import count_up

if TYPE_CHECKING:
    # Views import the default throttles: at run time this would go round in a circle.
    from rest_framework.views import APIView

_WINDOW_SECONDS: Final = 60


class CallerThrottle(BaseThrottle):
    """Counts every call against its address and, when signed in, against its user."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Return whether this call is within both limits."""
        minute = int(time.time()) // _WINDOW_SECONDS
        address = find_client_address(
            request.META.get("REMOTE_ADDR") or "",
            request.headers.get("X-Forwarded-For", ""),
            settings.TRUSTED_PROXIES,
        )
        limits = [(f"address:{address}", settings.API_RPM_PER_ADDRESS)]
        if request.user.is_authenticated:
            limits.append((f"user:{request.user.pk}", settings.API_RPM_PER_USER))
        counts = [
            (count_up(f"rest:{who}:{minute}", seconds=2 * _WINDOW_SECONDS), limit)
            for who, limit in limits
        ]
        return all(count <= limit for count, limit in counts)

    def wait(self) -> float:
        """Return the seconds until the next window."""
        return _WINDOW_SECONDS - time.time() % _WINDOW_SECONDS
