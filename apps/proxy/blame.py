"""What the outcome of an attempt means for its route and its provider key."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from apps.core.errors import GatewayError
from apps.proxy.circuit import Door
from apps.proxy.dialects.upstream_errors import is_key_refused
from apps.proxy.endings import AttemptFailed
from apps.proxy.health import WHOLE
from apps.proxy.snapshot import Credential, Route
from apps.proxy.upstream import is_stale

if TYPE_CHECKING:
    from apps.proxy.gateway import Gateway

# What says nothing about whether the route works.
BLAMELESS_ROWS: Final = frozenset({"E40", "E45"})
# The provider refused the key, or the account behind it is empty.
BAD_KEY_ROWS: Final = frozenset({"E41", "E42"})
# What the wrong endpoint for a model leads to, in whichever words.
_ENDPOINT_ROWS: Final = frozenset({"E41", "E44"})
# What another key of the same route may not meet.
KEY_ROWS: Final = BAD_KEY_ROWS | {"E43", "E44"}

_MISSING_SCOPE: Final = re.compile(r"\bmissing[ _]scope", re.IGNORECASE)

logger = logging.getLogger(__name__)


def blame(
    gateway: Gateway,
    route: Route,
    credential: Credential,
    failure: AttemptFailed,
    begun: float,
    *,
    kind: str,
) -> None:
    """Count a failed attempt against its route or its key, where one of them is to blame.

    `kind` is that of the endpoint.
    """
    health, error = gateway.health, failure.error
    if error.row in BLAMELESS_ROWS:
        credit(gateway, route, credential, begun)
    elif error.row == "E37" or is_stale(failure):
        # Our own limit, whatever it did; or a connection that had been idle for too long.
        health.abandon(route, credential)
    elif error.row in BAD_KEY_ROWS and is_about_the_key(failure):
        health.abandon(route, credential)
        _give_up_key(gateway, route, credential, error)
    elif error.row == "E54" or (
        error.row in _ENDPOINT_ROWS and health.answers_elsewhere(route, kind)
    ):
        # Who asks a model at the wrong endpoint takes it from nobody.
        health.abandon(route, credential)
    elif error.row == "E43":
        health.abandon(route, credential)
        door, seconds = (route.id, credential.id), error.retry_after or 1
        health.circuits.rest(door, gateway.monotonic(), seconds)
        gateway.sharing.note_rest(route, door, reason=error.code, seconds=seconds, openings=0)
    elif error.row == "E44" and failure.status_code == 403:
        # This key may not use the model: other keys may, and this one may use other models.
        health.abandon(route, credential)
        _fail(gateway, route, (route.id, credential.id), error.code, begun, failures_max=1)
    else:
        count_failure(gateway, route, credential, error.code, begun)


def is_about_the_key(failure: AttemptFailed) -> bool:
    """Return whether the provider refused the key, and not perhaps what the client wrote.

    A 400 may repeat words of the client, and a 403 be about a file or a content of his, or the page
    of a firewall; whether a scope is missing depends on the endpoint. By none of it may a client
    put a key out of use for everybody.
    """
    is_of_scopes = _MISSING_SCOPE.search(failure.text) is not None
    if failure.status_code == 403 or is_of_scopes:
        return is_key_refused(failure.text.encode())
    return failure.status_code in (401, 402, 429)


def credit(gateway: Gateway, route: Route, credential: Credential, begun: float) -> None:
    """Count an attempt in favour of its route and its key."""
    ended = gateway.health.succeed(route, credential, gateway.monotonic(), begun=begun)
    if ended:
        gateway.sharing.note_ends(ended)


def credit_beginning(gateway: Gateway, route: Route, credential: Credential, begun: float) -> None:
    """End the trouble of what answers again: nobody waits for the end of a long stream."""
    ended = gateway.health.answer(route, credential, gateway.monotonic(), begun=begun)
    if ended:
        gateway.sharing.note_ends(ended)


def count_failure(
    gateway: Gateway, route: Route, credential: Credential, code: str, begun: float
) -> None:
    """Count a failure of a route, and say so where it is one too many.

    Where a provider has several keys, also one of the key on this route.
    """
    failures_max = route.provider.failures_max
    _fail(gateway, route, (route.id, WHOLE), code, begun, failures_max=failures_max)
    if len(route.provider.credentials) > 1:
        door = (route.id, credential.id)
        _fail(gateway, route, door, code, begun, failures_max=failures_max)


def _fail(
    gateway: Gateway, route: Route, door: Door, code: str, begun: float, *, failures_max: int
) -> None:
    circuits = gateway.health.circuits
    seconds = circuits.fail(door, gateway.monotonic(), begun=begun, failures_max=failures_max)
    if not seconds:
        return
    openings = circuits.openings_of(door)
    gateway.sharing.note_rest(route, door, reason=code, seconds=seconds, openings=openings)
    which = "" if door[1] == WHOLE else f" with key {door[1]}"
    logger.warning(
        "route %d to provider %s%s rests for %d s: %s",
        route.id,
        route.provider.name,
        which,
        seconds,
        code,
    )


def _give_up_key(
    gateway: Gateway, route: Route, credential: Credential, error: GatewayError
) -> None:
    if gateway.health.note_bad(credential, error.row) is None:
        return
    gateway.counts.bad_keys.add(error.code)
    logger.error(
        "key %d of provider %s is used no more: %s",
        credential.id,
        route.provider.name,
        error.code,
    )
