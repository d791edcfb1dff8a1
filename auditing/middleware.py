"""What browsers may do with the control plane's pages, which origins may call it, its languages.

The client API sets its own headers; it never comes through here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.locale import LocaleMiddleware
from django.utils import translation
from django.utils.cache import patch_vary_headers

from apps.core.throttles import is_address_within_limit, seconds_to_wait
from auditing.cross_origin import REST_PREFIX, cross_origin_headers

# No inline scripts anywhere: the Django admin and the split API page need none.
_CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_ALLOWED_METHODS: Final = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_ALLOWED_HEADERS: Final = "authorization, content-type, idempotency-key"
_PREFLIGHT_SECONDS: Final = "600"

GetResponse = Callable[[HttpRequest], HttpResponse]


class SecurityHeadersMiddleware:
    """Sets the headers that keep pages from being framed, sniffed, cached or scripted by others."""

    def __init__(self, get_response: GetResponse) -> None:
        """Keep the next handler."""
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Return the answer with the headers."""
        response = self.get_response(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if request.path.startswith(("/api/", "/admin/")):
            response.headers["Cache-Control"] = "no-store"
        if request.is_secure():
            # Embedded, without TLS, a browser would refuse to send such cookies back.
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response


class AddressThrottleMiddleware:
    """Counts what one address asks for before anything else is done for it.

    Of the Django admin only what is sent counts, the sign-in above all: pages are many small reads.
    """

    def __init__(self, get_response: GetResponse) -> None:
        """Keep the next handler."""
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer 429 beyond the limit."""
        is_counted = request.path.startswith("/api/") or (
            request.method == "POST" and request.path.startswith("/admin/")
        )
        if not is_counted or is_address_within_limit(request):
            return self.get_response(request)
        response = JsonResponse(
            {"detail": "Too many calls from this address.", "code": "throttled"}, status=429
        )
        response.headers["Retry-After"] = str(math.ceil(seconds_to_wait()))
        return response


class AdminLanguageMiddleware(LocaleMiddleware):
    """Lets the Django admin follow the browser's language; what programs read stays English."""

    def process_request(self, request: HttpRequest) -> None:
        """Set the language of the thread, which has that of its last request."""
        if request.path.startswith("/admin/"):
            super().process_request(request)
        else:
            translation.activate(settings.LANGUAGE_CODE)

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Return the answer, which says that it depends on the language where it does."""
        if request.path.startswith("/admin/"):
            return super().process_response(request, response)
        return response


class CrossOriginMiddleware:
    """Lets exactly the configured origins call the REST API from a browser."""

    def __init__(self, get_response: GetResponse) -> None:
        """Keep the next handler."""
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a preflight, or mark the answer as readable by the calling origin."""
        if not request.path.startswith(REST_PREFIX):
            return self.get_response(request)
        allowed = cross_origin_headers(request.path, request.headers.get("Origin", ""))
        is_preflight = (
            request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        )
        response = HttpResponse(status=204) if is_preflight else self.get_response(request)
        patch_vary_headers(response, ("Origin",))
        for name, value in allowed.items():
            response.headers[name] = value
        if allowed and is_preflight:
            response.headers["Access-Control-Allow-Methods"] = _ALLOWED_METHODS
            response.headers["Access-Control-Allow-Headers"] = _ALLOWED_HEADERS
            response.headers["Access-Control-Max-Age"] = _PREFLIGHT_SECONDS
        return response
