"""Counts of failed sign-ins, and the locks they make.

An attempt is counted before its password is checked, so that parallel guesses cannot slip through.
Three counts, each of a window of fifteen minutes that its first attempt begins:

- a name from a network (an address; of IPv6 its /64): ten. A stranger locks himself out, not the
  owner elsewhere.
- a network, whichever names it tries: fifty. Nothing more is counted for a network that is locked.
- an account from everywhere: a hundred. It stays open to networks from which its user signed in
  within thirty days.

Names are counted as they were typed, in lower case, whether or not there is such a user, so that
the locks do not tell who exists.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.http import HttpRequest
from django.utils import timezone

from apps.audit.events import client_address, record_event
from apps.audit.models import AdminEvent
from apps.core.client_address import network_of
from apps.core.counters import count_down, count_up, forget
from apps.core.domain_errors import DomainError
from apps.users.models import User

PAIR_FAILURES_MAX: Final = 10
NETWORK_FAILURES_MAX: Final = 50
ACCOUNT_FAILURES_MAX: Final = 100
LOCKED_SECONDS: Final = 15 * 60
NETWORK_KNOWN_FOR: Final = timedelta(days=30)
SIGNED_IN: Final = "sign_in.succeeded"
_ADDRESSES_MAX: Final = 1_000


class SignInLocked(DomainError):
    """Too many failures of one name, from one network or of one account."""

    status_code = 429
    code = "too_many_attempts"
    message = "Too many failed attempts. Try again later."


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """The counters of one attempt. `network` is empty where the call has no address."""

    network: str
    pair: str
    account: str


def claim_attempt(
    *, user: User | None, identifier: str, request: HttpRequest | None
) -> SignInAttempt:
    """Count one attempt before its password is checked. Raises SignInLocked."""
    network = network_of(client_address(request)) if request is not None else ""
    name = _digest(identifier)
    attempt = SignInAttempt(
        network=f"sign-in:network:{network}" if network else "",
        pair=f"sign-in:pair:{network}:{name}",
        account=f"sign-in:account:{name if user is None else user.pk}",
    )
    if attempt.network and _count(attempt.network, NETWORK_FAILURES_MAX, user, request):
        raise SignInLocked(retry_after_seconds=LOCKED_SECONDS)
    if _count(attempt.pair, PAIR_FAILURES_MAX, user, request) or (
        _count(attempt.account, ACCOUNT_FAILURES_MAX, user, request)
        and not _is_known(network, user)
    ):
        # No password was tried: a program that repeats an old one must not lock its whole network.
        _take_back(attempt.network)
        raise SignInLocked(retry_after_seconds=LOCKED_SECONDS)
    return attempt


def forgive(attempt: SignInAttempt) -> None:
    """Forget the failures of this name from this network: the password was right."""
    forget(attempt.pair)
    _take_back(attempt.network)
    count_down(attempt.account)


def withdraw(attempt: SignInAttempt) -> None:
    """Take back an attempt whose password was not checked."""
    count_down(attempt.pair)
    _take_back(attempt.network)
    count_down(attempt.account)


def _count(counter: str, failures_max: int, user: User | None, request: HttpRequest | None) -> bool:
    """Count one more and return whether that is too many."""
    count = count_up(counter, seconds=LOCKED_SECONDS, locks_at=failures_max + 1)
    # One event a lock: whoever goes on guessing cannot fill the table.
    if count == failures_max + 1:
        record_event(actor=None, action="sign_in.locked", subject=user, request=request)
    return count > failures_max


def _take_back(counter: str) -> None:
    if counter:
        count_down(counter)


def _is_known(network: str, user: User | None) -> bool:
    """Return whether the user signed in from this network lately, at whichever door."""
    if user is None or not network:
        return False
    # Events and not sessions: signing in to the Django admin makes no session of ours.
    addresses = (
        AdminEvent.objects.filter(
            actor_id=user.pk,
            action=SIGNED_IN,
            created_at__gt=timezone.now() - NETWORK_KNOWN_FOR,
        )
        .values_list("ip_address", flat=True)
        .distinct()[:_ADDRESSES_MAX]
    )
    return any(network_of(address) == network for address in addresses)


def _digest(identifier: str) -> str:
    typed = unicodedata.normalize("NFKC", identifier.strip()).casefold()
    return hashlib.sha256(typed.encode(errors="surrogatepass")).hexdigest()
