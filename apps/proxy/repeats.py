"""Calls with an idempotency key: what is kept of their answers, and what is said to their repeats.

The key is taken with the hold and ends with the settlement (see
`apps.billing.ledger.idempotency_keys`). What is kept is what the first call was answered, where
that is final: an answer, or an error that no SDK repeats by itself. Where neither was reached, what
has been charged is not made a second time, and what has not leaves the key free. Bounds:
ANSWER_BYTES_MAX an answer, ANSWERS_BYTES_MAX of all that are under way; what is beyond is not kept.

A repeat gets its answer whatever has become of the model, its price and its routes, and whatever
is left of the balance. What it has to be is from somebody whose API key is still valid, and within
the limits of that key.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import orjson
from django.db import DatabaseError, InterfaceError, close_old_connections
from django.db.models import Q
from django.db.models.functions import Now

from apps.audit.idempotency_keys import (
    ANSWER_BYTES_MAX,
    AnswerUnreadable,
    answer_secret,
    fingerprint_of,
    key_digest,
    open_answer,
    seal_answer,
)
from apps.audit.models import CallKey
from apps.billing.ledger.commands import Claim, ClaimEnd, KeyState, RepeatAnswer
from apps.core.errors import GatewayError
from apps.core.idempotency_keys import is_idempotency_key
from apps.proxy.dialects.answer_conversion import error_body, error_status
from apps.proxy.endings import Ending
from apps.proxy.http import Send, answer_headers
from apps.proxy.limits import count_request

if TYPE_CHECKING:
    from apps.proxy.call import Call
    from apps.proxy.dialects.parsed_request import Endpoint
    from apps.proxy.gateway import Gateway
    from apps.proxy.snapshot import Caller
    from apps.quotas.limits import Scope

HEADER: Final = b"idempotency-key"
ANSWERS_BYTES_MAX: Final = 64 << 20
_IN_LOOP_BYTES: Final = 32 << 10
_STREAM: Final = "text/event-stream; charset=utf-8"
_JSON: Final = "application/json; charset=utf-8"
_RETRIED: Final = frozenset({408, 409, 429})
# What is said of a model, its price and its routes before the ledger, which knows the keys, is
# asked: all that may have changed since the first call.
_HIDING_ROWS: Final = frozenset({"E07", "E13", "E14", "E32", "E33", "E41", "E42"})

logger = logging.getLogger(__name__)


class Repeated(Exception):
    """The call's idempotency key has been used; nothing was held."""

    def __init__(self, first: KeyState) -> None:
        super().__init__(str(first.request_id))
        self.first: Final = first


class KeyedCall:
    """The idempotency key of a call, and its answer as it goes to the client."""

    def __init__(self, gateway: Gateway, claim: Claim, secret: bytes) -> None:
        self._gateway = gateway
        self._secret = secret
        self._parts: list[bytes] = []
        self._size = 0
        self._is_too_large = False
        self.claim: Final = claim

    def capture(self, data: bytes) -> None:
        """Keep what goes to the client, up to the bounds."""
        if self._is_too_large:
            return
        size = len(data)
        if (
            self._size + size > ANSWER_BYTES_MAX
            or self._gateway.answer_bytes + size > ANSWERS_BYTES_MAX
        ):
            self.forget()
            self._is_too_large = True
            return
        self._parts.append(data)
        self._size += size
        self._gateway.answer_bytes += size

    def forget(self) -> None:
        """Drop what was captured."""
        self._gateway.answer_bytes -= self._size
        self._parts.clear()
        self._size = 0
        self._is_too_large = False

    async def keep(self, call: Call, ending: Ending) -> RepeatAnswer | None:
        """Return the answer of a call as it is stored, None where it ends without a final one."""
        error, headers, status = ending.error, [], ending.status_code
        if ending.is_whole:
            status = 200  # Also where its client has left.
            body, kind = b"".join(self._parts), _JSON
            if call.plan.request.is_stream and not call.plan.request.is_array:
                kind = _STREAM
            cap = call.plan.cap_for(call.held.amount_nanos) if call.held is not None else None
            if cap is not None:
                headers.append(("x-gateway-output-cap", str(cap)))
        elif error is not None and not is_retried(error):
            dialect = call.plan.request.dialect
            status = error_status(dialect, error)
            body, kind = error_body(dialect, error, call.request_text), _JSON
        else:
            return None
        told = orjson.dumps([("content-type", kind), *headers]).decode()
        if self._is_too_large or len(body) > ANSWER_BYTES_MAX:
            return RepeatAnswer(status, told, None)
        if len(body) <= _IN_LOOP_BYTES:
            sealed = seal_answer(body, secret=self._secret, request_id=call.request_id)
        else:
            loop = asyncio.get_running_loop()
            sealed = await loop.run_in_executor(None, lambda: self._seal(body, call))
        return RepeatAnswer(status, told, sealed)

    def end(self, ending: Ending, charge_nanos: int, answer: RepeatAnswer | None) -> ClaimEnd:
        """Return what becomes of the key: what was charged and has no answer keeps it."""
        if answer is None and charge_nanos:
            answer = RepeatAnswer(ending.status_code, "[]", None)
        return ClaimEnd(self.claim, answer)

    async def find_first(self) -> KeyState | None:
        """Return who has the key, None where it is free. Raises E34."""
        try:
            return await self._gateway.read(_find_first, self.claim)
        except (DatabaseError, InterfaceError) as error:
            raise GatewayError("E34") from error

    def open(self, sealed: bytes, first: KeyState) -> bytes:
        """Return the body of the first call's answer. Raises AnswerUnreadable."""
        return open_answer(sealed, secret=self._secret, request_id=first.request_id)

    def _seal(self, body: bytes, call: Call) -> bytes:
        return seal_answer(body, secret=self._secret, request_id=call.request_id)


def is_retried(error: GatewayError) -> bool:
    """Return whether the SDKs repeat a call by themselves that is answered so."""
    return error.should_retry is not False and (error.status in _RETRIED or error.status >= 500)


def read_idempotency_key(headers: dict[bytes, bytes]) -> bytes | None:
    """Return the idempotency key of a request, None without one. Raises E29."""
    key = headers.get(HEADER)
    if key is not None and not is_idempotency_key(key.decode("latin-1")):
        raise GatewayError("E29")
    return key


async def make_keyed(
    gateway: Gateway,
    caller: Caller,
    key: bytes,
    endpoint: Endpoint,
    parsed: dict[str, Any],
    size: int,
) -> KeyedCall:
    """Return what a call with an idempotency key claims; `size` is that of its body, in bytes.

    The key belongs to the user: what he sees of his own calls he sees of no other user's, whoever
    pays for both.
    """
    user_id = caller.member.id
    secret = answer_secret(gateway.pepper, user_id, key)
    arguments = (secret, endpoint, parsed)
    if size <= _IN_LOOP_BYTES:
        fingerprint = fingerprint_of(*arguments)
    else:
        loop = asyncio.get_running_loop()
        fingerprint = await loop.run_in_executor(None, fingerprint_of, *arguments)
    claim = Claim(user_id, key_digest(gateway.pepper, user_id, key), fingerprint)
    return KeyedCall(gateway, claim, secret)


async def answer_in_spite(
    refusal: GatewayError,
    gateway: Gateway,
    keyed: KeyedCall | None,
    send: Send,
    *,
    scopes: tuple[Scope, ...],
    request_text: str,
) -> GatewayError | None:
    """Answer a refused call with what it was answered before, and return None.

    Return what to say instead: the refusal where it is the first with its key, or where that
    cannot be known; else why there is no answer (E22 to E24, E27, E28, E31, E34). `scopes` are
    the limits in which the call does not count yet.
    """
    if keyed is None or refusal.row not in _HIDING_ROWS:
        return refusal
    try:
        await count_request(gateway, scopes, request_text)
        try:
            first = await keyed.find_first()
        except GatewayError:
            return refusal  # Of two answers the one that nobody tries again.
        if first is None:
            return refusal
        await answer_repeat(gateway, keyed, first, send)
    except GatewayError as error:
        return error
    return None


async def answer_repeat(
    gateway: Gateway, keyed: KeyedCall | None, first: KeyState, send: Send
) -> None:
    """Answer a call whose idempotency key has been used with what the first one was answered.

    Raises E27, E28, E31, and E34 where the database does not answer.
    """
    assert keyed is not None  # noqa: S101 (without a key nothing is repeated)
    if first.fingerprint != keyed.claim.fingerprint:
        raise GatewayError("E28")
    if first.expires_at is None:
        raise _in_progress(first)
    try:
        found = await gateway.read(_find_answer, keyed, first)
    except (DatabaseError, InterfaceError) as error:
        raise GatewayError("E34") from error
    if found is None:
        raise _in_progress(first)  # Its time was up just now: the next one is a new call.
    answer, body = found
    if body is None:
        message = "A request with this idempotency key has ended, but its answer was not kept"
        raise GatewayError("E31", message=f"{message}: {first.request_id}.")
    gateway.counts.replays.add(f"{answer.status_code // 100}xx")
    headers = [(name.encode(), value.encode()) for name, value in orjson.loads(answer.headers)]
    _, kind = headers.pop(0)
    headers.append((b"idempotent-replayed", b"true"))
    if answer.status_code >= 400:
        headers.append((b"x-should-retry", b"false"))
    if kind != _STREAM.encode():
        headers.append((b"content-length", b"%d" % len(body)))
    told = answer_headers(str(first.request_id), kind, headers)
    await send({"type": "http.response.start", "status": answer.status_code, "headers": told})
    await send({"type": "http.response.body", "body": body})


def _in_progress(first: KeyState) -> GatewayError:
    message = "A request with this idempotency key is still running"
    return GatewayError("E27", message=f"{message}: {first.request_id}.")


def _find_first(claim: Claim) -> KeyState | None:
    """Return who has a key, as far as is committed, by the database's clock. Blocks."""
    try:
        close_old_connections()
        rows = CallKey.objects.filter(user_id=claim.user_id, digest=claim.digest)
        taken = rows.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=Now()))
        row = taken.values_list("request_id", "fingerprint", "expires_at").first()
    finally:
        close_old_connections()
    return None if row is None else KeyState(row[0], bytes(row[1]), row[2])


def _find_answer(keyed: KeyedCall, first: KeyState) -> tuple[RepeatAnswer, bytes | None] | None:
    """Return a stored answer and its body, None for a body that is gone. Blocks."""
    try:
        close_old_connections()
        rows = CallKey.objects.filter(request_id=first.request_id)
        row = rows.values_list("status_code", "headers", "body").first()
    finally:
        close_old_connections()
    if row is None or row[0] is None:
        return None
    answer = RepeatAnswer(row[0], row[1], None if row[2] is None else bytes(row[2]))
    if answer.body is None:
        return answer, None
    try:
        return answer, keyed.open(answer.body, first)
    except AnswerUnreadable:
        logger.error("the stored answer of %s cannot be read", first.request_id)
        return answer, None
