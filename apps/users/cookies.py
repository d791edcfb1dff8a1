"""The refresh token in a cookie, for browsers: no script can read it, no other site can use it.

Over TLS the cookie is `__Host-refresh`, which the browser ties to this very host; over plain HTTP,
where the browser would not take that name, it is `refresh`. It counts only with proof that a page
of this origin, or of one in CORS_ALLOWED_ORIGINS, made the call.

Source: https://www.rfc-editor.org/rfc/rfc6265bis (cookie prefixes, SameSite)
"""

from __future__ import annotations

from typing import Final

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from apps.core.domain_errors import DomainError
from apps.users.tokens import refresh_lifetime_seconds

_SECURE_NAME: Final = "__Host-refresh"
_PLAIN_NAME: Final = "refresh"
_TOKEN_LENGTH_MAX: Final = 4_096


class CrossSite(DomainError):
    """Nothing proves that a page of ours made this call."""

    status_code = 403
    code = "cross_site"
    message = "The cookie is accepted only from pages of this site."


def check_same_origin(request: HttpRequest) -> None:
    """Refuse what no page of ours has sent. Raises CrossSite.

    Browsers set Origin on every POST; Sec-Fetch-Site, which no script can set, stands in for it.
    """
    origin = request.headers.get("Origin")
    if origin is None:
        is_ours = request.headers.get("Sec-Fetch-Site") == "same-origin"
    else:
        own = f"{request.scheme}://{request.get_host()}"
        is_ours = origin == own or origin in settings.CORS_ALLOWED_ORIGINS
    if not is_ours:
        raise CrossSite


def read_refresh_cookie(request: HttpRequest) -> str | None:
    """Return the refresh token of the cookie, None without one. Raises CrossSite."""
    token = request.COOKIES.get(_name(request))
    if not token:
        return None
    check_same_origin(request)
    return token[:_TOKEN_LENGTH_MAX]


def set_refresh_cookie(response: HttpResponseBase, refresh: str, request: HttpRequest) -> None:
    """Give the browser a refresh token."""
    response.set_cookie(
        _name(request),
        refresh,
        max_age=refresh_lifetime_seconds(),
        path="/",
        secure=request.is_secure(),
        httponly=True,
        samesite="Strict",
    )


def clear_refresh_cookie(response: HttpResponseBase, request: HttpRequest) -> None:
    """Take the cookie away."""
    response.delete_cookie(_name(request), path="/", samesite="Strict")


def _name(request: HttpRequest) -> str:
    return _SECURE_NAME if request.is_secure() else _PLAIN_NAME
