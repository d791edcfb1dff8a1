"""Holds that are placed with a quote, and wait for the call that they are for.

Such a hold is a call that has not been sent: it is on record, and ends voided, `quote_spent` where
its call took the place over in one transaction (`apps.billing.ledger`), `quote_lapsed` where none
came. Any process can spend it as long as it is there; the one that placed it lets it lapse, by a
clock that nobody sets, or it ends with the lease of that process. The call is charged by the price
and the multiplier of the quote.

Bounds: OPEN_MAX a process, OPEN_PER_USER_MAX a user, LOOKUPS_PER_USER_MAX of his calls that look
for one at the same time, and the seconds of the quote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import orjson
from django.db import DatabaseError, InterfaceError, close_old_connections

from apps.audit.models import RequestState
from apps.billing.ledger.commands import Resolve
from apps.billing.models import Hold
from apps.billing.reaper import QUOTE_SECONDS, spend_quote
from apps.core.errors import GatewayError
from apps.proxy.admission import Promise
from apps.proxy.endings import Ending
from apps.proxy.snapshot import Caller

if TYPE_CHECKING:
    from apps.proxy.call import Call
    from apps.proxy.gateway import Gateway

HEADER: Final = b"x-quote-id"
OPEN_MAX: Final = 10_000
OPEN_PER_USER_MAX: Final = 100
# A look comes before the limits of requests: without a bound it would keep others' reads waiting.
LOOKUPS_PER_USER_MAX: Final = 32


class Agreed(NamedTuple):
    """What was agreed on by a quote with a hold."""

    spends: Resolve  # the end of its hold
    promise: Promise


@dataclass(frozen=True, slots=True)
class _Waiting:
    call: Call
    lapses_at: float  # monotonic


class QuoteHolds:
    """The holds of quotes that this process has placed. Methods belong to the event loop."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._waiting: dict[UUID, _Waiting] = {}
        self._by_user: Counter[int] = Counter()
        self._lookups: Counter[int] = Counter()  # by user

    async def place(self, call: Call, seconds: int) -> int | None:
        """Place the hold of a quote and return the cap on output that it pays for, None for all.

        Raises what `Call.place_hold` does, and E24 and E37 where too many are waiting.
        """
        user_id = call.member.id
        if self._by_user[user_id] >= OPEN_PER_USER_MAX:
            raise GatewayError("E24", message="Too many quotes with a hold at the same time.")
        if len(self._waiting) >= OPEN_MAX:
            raise GatewayError("E37")
        call.quote_seconds = seconds
        # Counted before it is there: many may be asked for at once.
        self._by_user[user_id] += 1
        try:
            cap = await call.place_hold()
        except BaseException:
            _uncount(self._by_user, user_id)
            raise
        call.forget_request()
        self._waiting[call.request_id] = _Waiting(call, self._monotonic() + seconds)
        return cap

    def forget(self, request_id: UUID) -> None:
        """Note that a hold was spent."""
        found = self._waiting.pop(request_id, None)
        if found is not None:
            _uncount(self._by_user, found.call.member.id)

    def on_tick(self, now: float) -> None:
        """Let those lapse whose time is up."""
        due = [waiting for waiting in self._waiting.values() if now >= waiting.lapses_at]
        for waiting in due:
            self._lapse(waiting.call)

    def lapse_all(self) -> None:
        """Let all lapse: this process ends, and nobody else would before its lease has run out."""
        for waiting in list(self._waiting.values()):
            self._lapse(waiting.call)

    def _lapse(self, call: Call) -> None:
        self.forget(call.request_id)
        # Where another process has spent it, this changes nothing.
        call.submit_settlement(Ending(RequestState.VOIDED, 200, "quote_lapsed"))

    @contextmanager
    def looking(self, user_id: int) -> Iterator[None]:
        """Count a look for a hold. Raises E24 where too many are under way."""
        if self._lookups[user_id] >= LOOKUPS_PER_USER_MAX:
            raise GatewayError("E24", message="Too many calls with a quote at the same time.")
        self._lookups[user_id] += 1
        try:
            yield
        finally:
            _uncount(self._lookups, user_id)


def _uncount(counts: Counter[int], user_id: int) -> None:
    counts[user_id] -= 1
    if not counts[user_id]:
        del counts[user_id]


async def find_agreed(gateway: Gateway, caller: Caller, text: bytes) -> Agreed | None:
    """Return what a quote of this caller's key agreed on, None where its hold is gone.

    Raises E24 where too many are looked for, and E34 where the database does not answer.
    """
    try:
        quote_id = UUID(text.decode("ascii"))
    except ValueError:
        return None
    try:
        with gateway.quotes.looking(caller.member.id):
            hold = await gateway.read(_read_hold, quote_id)
    except (DatabaseError, InterfaceError) as error:
        raise GatewayError("E34") from error
    if hold is None:
        return None
    detail = orjson.loads(hold["detail"])
    # Somebody else's is as good as none.
    if QUOTE_SECONDS not in detail or detail["api_key_id"] != caller.key.id:
        return None
    return Agreed(
        spends=spend_quote(hold, now=datetime.now(UTC)),
        promise=Promise(
            model_id=detail["model_id"],
            price_version_id=detail["price_version_id"],
            multiplier_millionths=detail["multiplier_millionths"],
        ),
    )


def spend_with(call: Call, agreed: Agreed | None) -> None:
    """Have a call spend the hold of a quote. Raises E13 where that is gone."""
    if agreed is None:
        raise quote_gone()
    call.spends = agreed.spends


def quote_gone() -> GatewayError:
    """Return the answer to a call with a quote whose hold is not there any more."""
    message = "This quote has no hold, or its hold has been spent or has lapsed."
    return GatewayError("E13", code="invalid_value", param=HEADER.decode(), message=message)


def _read_hold(request_id: UUID) -> dict[str, Any] | None:
    """Return the row of a hold. Blocks."""
    try:
        close_old_connections()
        row = Hold.objects.filter(pk=request_id).values().first()
        return None if row is None else dict(row)
    finally:
        close_old_connections()
