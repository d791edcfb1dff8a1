"""Which pages of other origins may read what the REST API answers.

Refusals that never reach Django are answers of it, too: a page that cannot read a 503 takes it for
a broken connection.
"""

from __future__ import annotations

from typing import Final

from django.conf import settings

REST_PREFIX: Final = "/api/"
# What docs/api.md tells clients to go by; browsers keep all but a few headers from scripts.
_EXPOSED_HEADERS: Final = "allow, content-disposition, retry-after, x-request-id"


def cross_origin_headers(path: str, origin: str) -> dict[str, str]:
    """Return what lets a page of `origin` read an answer; nothing where it may not."""
    if not path.startswith(REST_PREFIX) or origin not in settings.CORS_ALLOWED_ORIGINS:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": _EXPOSED_HEADERS,
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
