"""Bodies beside the audit row.

Cut, cleaned of credentials, compressed, and digested with a salt. Pure.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Final

import zstandard

BODY_BYTES_MAX: Final = 256 << 10
_SALT_BYTES: Final = 16
_LEVEL: Final = 3
# In JSON a line begins behind the letters of an escape, where no word does.
_CREDENTIAL: Final = re.compile(
    rb"(?:\b|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))"
    rb"(?:(?:sk|pk|rk)[-_]|AIza)[A-Za-z0-9_\-]{12,}|(?i:bearer)\s+[A-Za-z0-9._~+/=\-]{8,}"
)

_HINTS: Final = (b"sk-", b"pk-", b"rk-", b"k_", b"AIza")


@dataclass(frozen=True, slots=True)
class SealedPayload:
    """A payload as it is stored, and the digest that goes into the request's chain."""

    digest: bytes
    salt: bytes
    request_body: bytes  # zstd
    response_body: bytes  # zstd
    is_request_truncated: bool
    is_response_truncated: bool


def seal_payload(
    request_body: bytes, response_body: bytes, *, is_response_truncated: bool, keeps_bodies: bool
) -> SealedPayload:
    """Return the bodies ready to be stored; without them only their digest and salt."""
    request = _clean(request_body[:BODY_BYTES_MAX])
    response = _clean(response_body[:BODY_BYTES_MAX])
    salt = os.urandom(_SALT_BYTES)
    compress = zstandard.ZstdCompressor(level=_LEVEL).compress
    return SealedPayload(
        digest=payload_digest(salt, request, response),
        salt=salt,
        request_body=compress(request) if keeps_bodies else b"",
        response_body=compress(response) if keeps_bodies else b"",
        is_request_truncated=len(request_body) > BODY_BYTES_MAX,
        is_response_truncated=is_response_truncated or len(response_body) > BODY_BYTES_MAX,
    )


def payload_digest(salt: bytes, request: bytes, response: bytes) -> bytes:
    """Return the digest of two stored bodies, before compression."""
    parts = hashlib.sha256(request).digest() + hashlib.sha256(response).digest()
    return hashlib.sha256(salt + parts).digest()


def open_body(compressed: bytes) -> bytes:
    """Return a stored body. Raises zstandard.ZstdError where it is damaged."""
    if not compressed:
        return b""
    return zstandard.ZstdDecompressor().decompress(compressed, max_output_size=2 * BODY_BYTES_MAX)


def _clean(body: bytes) -> bytes:
    if any(hint in body for hint in _HINTS) or b"bearer" in body.lower():
        return _CREDENTIAL.sub(b"[redacted]", body)
    return body
