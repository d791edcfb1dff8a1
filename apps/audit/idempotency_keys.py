"""Idempotency keys of calls: what is stored of one, of what came with it, and of its answer. Pure.

The database knows a key by its digest and an answer sealed with a secret made of the key: only who
sends the key again can have the answer read. Digest, fingerprint and secret hold the user, so that
equal keys of two users have nothing in common.
"""

from __future__ import annotations

import hmac
import os
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apps.core.crypto import keyed_digest

ANSWER_BYTES_MAX: Final = 1 << 20
KEPT: Final = timedelta(hours=24)
_NONCE_BYTES: Final = 12
_LEVEL: Final = 3


class AnswerUnreadable(Exception):
    """A stored answer is damaged, or was sealed for another call."""


def key_digest(pepper: bytes, user_id: int, key: bytes) -> bytes:
    """Return what a user's key is stored and found by."""
    return keyed_digest(pepper, b"idempotency key %d " % user_id + key)


def answer_secret(pepper: bytes, user_id: int, key: bytes) -> bytes:
    """Return what the answer of a user's key is sealed with."""
    return keyed_digest(pepper, b"idempotent answer %d " % user_id + key)


def fingerprint_of(secret: bytes, endpoint: str, parsed: dict[str, Any]) -> bytes:
    """Return what is equal for equal calls; the order of members and blanks do not matter.

    It is keyed by the secret of the key, so that an erased prompt cannot be guessed from it.
    """
    body = orjson.dumps(parsed, option=orjson.OPT_SORT_KEYS)
    return hmac.digest(secret, b"POST %s\n" % endpoint.encode() + body, "sha256")


def seal_answer(body: bytes, *, secret: bytes, request_id: UUID) -> bytes:
    """Return an answer's body ready to be stored for one call."""
    nonce = os.urandom(_NONCE_BYTES)
    compressed = zstandard.ZstdCompressor(level=_LEVEL).compress(body)
    return nonce + AESGCM(secret).encrypt(nonce, compressed, request_id.bytes)


def open_answer(sealed: bytes, *, secret: bytes, request_id: UUID) -> bytes:
    """Return a stored body. Raises AnswerUnreadable."""
    nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        compressed = AESGCM(secret).decrypt(nonce, ciphertext, request_id.bytes)
        return zstandard.ZstdDecompressor().decompress(compressed, max_output_size=ANSWER_BYTES_MAX)
    except (InvalidTag, ValueError, zstandard.ZstdError) as error:
        raise AnswerUnreadable(str(request_id)) from error
