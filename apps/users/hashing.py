"""How many passwords may be hashed at once: each takes a processor and a hundred megabytes.

Take a place, and hash, before a transaction is begun: whoever waits in one keeps its locks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.contrib.auth.hashers import make_password

from apps.core.domain_errors import DomainError

PLACES: Final = 4
WAIT_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 5

_places: Final = threading.BoundedSemaphore(PLACES)


class HashingBusy(DomainError):
    """Too many passwords are being checked at this moment."""

    status_code = 503
    code = "busy"
    message = "Too much is asked for at once."


@contextmanager
def hashing_place() -> Iterator[None]:
    """Hold one of the places of this process. Raises HashingBusy after a short wait."""
    if not _places.acquire(timeout=WAIT_SECONDS):
        raise HashingBusy(retry_after_seconds=_RETRY_SECONDS)
    try:
        yield
    finally:
        _places.release()


def hash_password(password: str | None) -> str:
    """Return what is stored of a password; of None what nobody can sign in with.

    Raises HashingBusy.
    """
    if password is None:
        return make_password(None)
    with hashing_place():
        return make_password(password)
