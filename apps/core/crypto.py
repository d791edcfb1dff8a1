"""Secrets at rest: derived keys, sealed values and keyed digests. No tables, no I/O.

A sealed value is `v1.<key id>.<base64 of nonce + ciphertext>`, AES-256-GCM, bound to the place it
is stored in (`context`, for example `providers.ProviderKey:12`), so that a ciphertext moved to
another row does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = "v1"
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)

# What a credential looks like in free text: our keys, providers' keys, bearer headers.
# Within JSON a line begins behind the letters of an escape, where no word does.
_CREDENTIAL = re.compile(
    r"(?i)(?:\b|(?<=\\[nrtbf])|(?<=\\u[0-9a-f]{4}))"
    r"(?:(?:sk|pk|rk|key)[-_]|AIza)[A-Za-z0-9_\-]{12,}|bearer\s+[A-Za-z0-9._~+/=\-]{8,}"
)


class SecretUnreadable(Exception):
    """A sealed value is damaged, moved to another row, or sealed with a key that is not at hand."""


class EncryptionKeyMalformed(ValueError):
    """An encryption key is not 32 bytes of base64 or hexadecimal."""


def parse_encryption_keys(text: str) -> tuple[bytes, ...]:
    """Return the encryption keys in `text` (comma separated); the first one seals.

    Raises EncryptionKeyMalformed.
    """
    keys = tuple(_parse_key(part.strip()) for part in text.split(",") if part.strip())
    if not keys:
        raise EncryptionKeyMalformed("no encryption key")
    return keys


def _parse_key(text: str) -> bytes:
    try:
        key = (
            bytes.fromhex(text)
            if len(text) == 2 * KEY_BYTES
            else base64.b64decode(text, validate=True)
        )
    except (ValueError, binascii.Error) as error:
        raise EncryptionKeyMalformed(
            "an encryption key is neither base64 nor hexadecimal"
        ) from error
    if len(key) != KEY_BYTES:
        raise EncryptionKeyMalformed(
            f"an encryption key has {len(key)} bytes instead of {KEY_BYTES}"
        )
    return key


def derive_key(master: bytes, purpose: str) -> bytes:
    """Return a 32-byte key for one purpose, so that no two uses share a key."""
    return HKDF(
        algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode()
    ).derive(master)


def keyed_digest(key: bytes, text: str | bytes) -> bytes:
    """Return the HMAC-SHA256 of `text`: what is stored and looked up instead of an API key."""
    made = _keyed(key).copy()
    made.update(text.encode() if isinstance(text, str) else text)
    return made.digest()


@lru_cache(maxsize=8)  # of the few keys of a process
def _keyed(key: bytes) -> hmac.HMAC:
    # To take in the key takes three times as long as all the rest.
    return hmac.new(key, digestmod="sha256")


def redact(text: str) -> str:
    """Return `text` with everything that looks like a credential masked."""
    return _CREDENTIAL.sub("[redacted]", text)


@dataclass(frozen=True, slots=True)
class Vault:
    """Seals and opens secrets with a list of keys; the first seals, all open."""

    keys: tuple[bytes, ...]

    @classmethod
    def from_text(cls, text: str) -> Vault:
        """Build a vault from a comma-separated list of keys. Raises EncryptionKeyMalformed."""
        return cls(parse_encryption_keys(text))

    def seal(self, secret: str, *, context: str) -> str:
        """Return `secret` sealed for the place named by `context`."""
        key = self.keys[0]
        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(key).encrypt(nonce, secret.encode(), context.encode())
        return f"{_VERSION}.{key_id(key)}.{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *, context: str) -> str:
        """Return the secret in `sealed`. Raises SecretUnreadable."""
        version, _, rest = sealed.partition(".")
        wanted, _, encoded = rest.partition(".")
        key = _find_key(self.keys, wanted)
        if version != _VERSION or key is None:
            raise SecretUnreadable(
                f"no key of ENCRYPTION_KEY opens {context}, which key {wanted or '?'} sealed"
            )
        try:
            raw = base64.b64decode(encoded, validate=True)
            return (
                AESGCM(key)
                .decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context.encode())
                .decode()
            )
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise SecretUnreadable(f"the secret of {context} is damaged or was moved") from error


def key_id(key: bytes) -> str:
    """Return the short public name of a key."""
    return hashlib.sha256(b"key-id" + key).hexdigest()[:8]


def sealing_key_id(sealed: str) -> str:
    """Return the short name of the key that sealed a value, "" where nothing is sealed."""
    version, _, rest = sealed.partition(".")
    name, dot, _ = rest.partition(".")
    return name if version == _VERSION and dot and _KEY_ID.fullmatch(name) else ""


def _find_key(keys: Sequence[bytes], wanted: str) -> bytes | None:
    return next((key for key in keys if key_id(key) == wanted), None)
