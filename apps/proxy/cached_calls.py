"""Calls that are answered from the cache: held, recorded and charged like any other, at a share.

Who sends `cache-control: no-cache` gets a fresh answer, which is kept; with `no-store` the cache is
not touched. The row says `answered_from: cache`, names no provider, costs the operator nothing, and
its multiplier includes the share.
"""

from __future__ import annotations

from typing import Final

from apps.billing.pricing import MULTIPLIER_ONE, charge_nanos
from apps.proxy.answer_cache import CachedAnswer, fingerprint, seconds_for
from apps.proxy.call import Call
from apps.proxy.delivery import Delivery
from apps.proxy.http import Headers
from apps.proxy.protocol import Connection

HEADER: Final = b"x-gateway-cache"
MISS: Final = (HEADER, b"miss")


def look_in_cache(call: Call, headers: dict[bytes, bytes]) -> None:
    """Have a call answered from the cache where that has what it asks for, or keep its answer."""
    gateway, plan = call.gateway, call.plan
    key, model, request = plan.caller.key, plan.model, plan.request
    wish = headers.get(b"cache-control", b"").lower()
    seconds = seconds_for(key, model)
    if not seconds or b"no-store" in wish:
        return
    call.cache_digest = fingerprint(key, model, request.endpoint, request.body, request.headers)
    call.capture_all()
    if b"no-cache" in wish:
        return
    found = gateway.answers.find(call.cache_digest, gateway.monotonic(), seconds)
    if found is None:
        return
    call.cached = found
    share = model.cache_share_millionths
    # Rounded up, so that no product of shares and discounts becomes free by rounding.
    multiplier = -(-plan.access.multiplier_millionths * share // MULTIPLIER_ONE)
    charge = charge_nanos(found.usage, plan.price, multiplier, plan.conditions)
    call.plan = plan._replace(
        access=plan.access._replace(multiplier_millionths=multiplier),
        wanted_nanos=charge,
        least_nanos=charge,
    )


async def answer_from_cache(
    call: Call, cached: CachedAnswer, connection: Connection, extra: Headers
) -> None:
    """Settle a call whose answer is there, and send it."""
    call.capture(cached.body)
    call.note_first_byte()
    await call.settle(call.ending_of_answer(cached.usage, cached.finish_reason))
    if call.is_client_gone:
        return
    age = int(call.gateway.monotonic() - cached.at)
    delivery = Delivery(call, connection, [*extra, (HEADER, b"hit"), (b"age", b"%d" % age)])
    is_stream, body = call.plan.request.is_stream, cached.body
    delivery.start(is_stream, None if is_stream else len(body))
    await delivery.end(body)
