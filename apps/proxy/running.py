"""Runs a planned call: within its limits, watched for its client, resolved whatever happens."""

from __future__ import annotations

import asyncio
import logging

from apps.audit.models import RequestState
from apps.core.errors import GatewayError
from apps.proxy.cached_calls import MISS, answer_from_cache
from apps.proxy.call import Call, ending_of_interruption
from apps.proxy.dialects.answer_conversion import error_status
from apps.proxy.endings import Ending, Interrupted
from apps.proxy.http import Headers
from apps.proxy.limits import take_limits
from apps.proxy.protocol import Connection
from apps.proxy.relay import Relay
from apps.proxy.repeats import Repeated
from apps.proxy.stored_answers import follow_references, may_name_answers

logger = logging.getLogger(__name__)


async def run_limited(call: Call, connection: Connection) -> None:
    """Run a call within the limits of its caller. Raises GatewayError, Interrupted and Repeated."""
    scopes = call.plan.caller.scopes
    if not scopes:
        await _run_watched(call, connection, [])
        return
    limiter, tokens = call.gateway.limiter, max(1, len(call.body) // 4)
    extra = await take_limits(
        call.gateway,
        scopes,
        request_text=call.request_text,
        tokens=tokens,
        dialect=call.plan.request.dialect,
    )
    call.is_counted = True
    try:
        await _run_watched(call, connection, extra)
    finally:
        used = call.settled_tokens
        limiter.finish(
            request_id=call.request_text,
            scopes=scopes,
            tokens_reserved=tokens,
            tokens_used=used,
        )


async def _run_watched(call: Call, connection: Connection, extra: Headers) -> None:
    call.gateway.calls[call.request_id] = call
    connection.on_lost(call.leave)
    try:
        if may_name_answers(call.plan.request) and call.cached is None:
            await follow_references(call)
        cap = await call.place_hold()
        if cap is not None:
            extra = [*extra, (b"x-gateway-output-cap", b"%d" % cap)]
        if call.cached is not None:
            await answer_from_cache(call, call.cached, connection, extra)
            return
        if call.cache_digest is not None:
            extra = [*extra, MISS]
        await Relay(call, connection, extra, cap).run()
    except (GatewayError, Interrupted, Repeated):
        raise
    except asyncio.CancelledError:
        if call.settled_tokens and not connection.has_started:
            # Perhaps charged, when the ledger stops: the client must not pay a second time.
            raise GatewayError("E71") from None
        raise
    except Exception as error:
        if call.is_settled and not connection.has_started:
            # Charged, and nothing was shown of it: the client must not pay a second time.
            call.gateway.counts.internal_errors.add()
            logger.exception("a call failed after it was charged")
            message = f"Internal error, id {call.request_id}."
            raise GatewayError("E71", message=message) from error
        code = "internal_error"
        if connection.has_started:
            # No failure before any content: what was delivered is paid.
            ending = Ending(RequestState.INTERRUPTED, 200, code, call.delivered_usage())
        else:
            # A client that saw nothing will try again, so it pays nothing (I-24).
            status = error_status(call.plan.request.dialect, GatewayError("E70"))
            ending = Ending(RequestState.FAILED, status, code)
        await call.settle(ending)
        raise
    finally:
        connection.on_lost(None)
        call.gateway.calls.pop(call.request_id, None)
        if not call.is_settled and call.held is not None:
            # Only a cancellation comes here: the server ends calls that did not drain in time.
            call.submit_settlement(ending_of_interruption(call, "drain"))
