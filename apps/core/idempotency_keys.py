"""Idempotency keys of the REST API: a call repeated with the same key is carried out once."""

from __future__ import annotations

from typing import Final

from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from apps.core.domain_errors import DomainError

HEADER: Final = "Idempotency-Key"
KEY_LENGTH_MAX: Final = 255


class IdempotencyKeyMalformed(DomainError):
    """The key is empty, too long or holds what cannot be printed."""

    code = "invalid_idempotency_key"
    message = f"An idempotency key is 1 to {KEY_LENGTH_MAX} printable ASCII characters."


class IdempotencyKeyReused(DomainError):
    """The same key came again with another body, or from a form with other values."""

    status_code = 422
    code = "idempotency_key_reused"
    message = "This idempotency key was used with another body."


def is_idempotency_key(key: str) -> bool:
    """Return whether a text can be an idempotency key.

    An empty one cannot: who sends one believes that the call can be repeated.
    """
    return 0 < len(key) <= KEY_LENGTH_MAX and key.isascii() and key.isprintable()


def read_idempotency_key(request: Request) -> str | None:
    """Return the call's key, None without one. Raises IdempotencyKeyMalformed."""
    key: str | None = request.headers.get(HEADER)
    if key is None:
        return None
    if not is_idempotency_key(key):
        raise IdempotencyKeyMalformed
    return key


def idempotency_key_parameter(*, is_required: bool) -> OpenApiParameter:
    """Return what the schema says of the header."""
    return OpenApiParameter(
        HEADER,
        {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH_MAX, "pattern": "^[ -~]+$"},
        OpenApiParameter.HEADER,
        required=is_required,
        description="A repeated call with the same key and body is carried out once.",
    )
