"""One accepted call: hold, relay, settlement. Whatever happens after the hold, it is resolved once.

States that matter for cancellation: while `_can_interrupt` is set, the task may be cancelled by
`interrupt` (the client left, a time limit passed, the gateway drains); a settlement is never
interrupted.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson

from apps.audit.models import RequestState
from apps.audit.payloads import BODY_BYTES_MAX
from apps.audit.records import Row
from apps.billing.ledger.commands import Held, Resolve, StoredRecord
from apps.core.usage import COUNTS, TOKEN_CLASSES, Usage
from apps.proxy.admission import Plan
from apps.proxy.answer_cache import CachedAnswer
from apps.proxy.attempt_costs import cost_nanos
from apps.proxy.dialects.metered_answer import MeteredAnswer
from apps.proxy.dialects.providers import PROVIDERS
from apps.proxy.dialects.stream_meter import StreamMeter
from apps.proxy.endings import AttemptFailed, Ending, Interrupted, Reason
from apps.proxy.estimate import estimate_tokens
from apps.proxy.holds import place_hold
from apps.proxy.recount import recount
from apps.proxy.settlement import (
    conditions_served,
    count_settled,
    make_resolve,
    seal_bodies,
    served_tier,
)
from apps.proxy.snapshot import Route, strictest_payload_mode
from apps.proxy.upstream import is_free

if TYPE_CHECKING:
    from apps.proxy.gateway import Gateway
    from apps.proxy.repeats import KeyedCall
    from apps.proxy.weight import Weight

CHECKPOINT_AFTER_SECONDS: Final = 10.0
# How much of an answer is read on when its client has left.
DRAIN_BYTES_MAX: Final = 8 << 20
# How much of one answer goes to its client: far above any honest one. It is looked at with the
# limits of time, so that a stream may exceed it by what half a second brings.
STREAM_BYTES_MAX: Final = 256 << 20

logger = logging.getLogger(__name__)


class Call:
    """What is known of a call while it runs. Made when it is admitted, before its hold."""

    def __init__(
        self,
        gateway: Gateway,
        plan: Plan,
        *,
        request_id: UUID,
        body: bytes,
        path: str,
        address: str,
        user_agent: str,
        now: datetime,
        begun: float,
        weight: Weight,
    ) -> None:
        self.gateway = gateway
        self.plan = plan
        self.request_id = request_id
        self.request_text = str(request_id)
        self.body = body
        self.path = path
        self.address = address
        self.user_agent = user_agent
        self.started_at = now
        self.begun = begun  # monotonic
        self.weight = weight
        self.sticky_key: bytes | None = None
        self.routes: list[Route] = []
        self.route: Route | None = None  # the one that is being tried, or that answered
        self.attempts: list[Row] = []
        self.held: Held | None = None
        self.is_settled = False
        self.is_counted = False  # in the limits of its caller
        self.settled_tokens = 0  # for the limits
        self.meter: StreamMeter | None = None
        self.answer: MeteredAnswer | None = None  # a whole one
        self.ttft_ms: int | None = None
        self.output_bytes = 0
        self.upstream_request_id = ""
        self.upstream_body = b""
        self._estimated = (b"", 0)  # of which body, tokens
        self.deadline = float("inf")  # monotonic; when to interrupt for idleness
        self.is_client_gone = False
        self.is_asked = False  # the provider that is being tried has the request
        self.is_drained = False  # the client has left, and its answer is read on
        self._drained_bytes = 0
        self._drained_until = float("inf")  # monotonic
        self.is_sending = False  # waiting for the client to take bytes
        self._captured: list[bytes] = []
        self._captured_bytes = 0
        self._task: asyncio.Task[Any] | None = None
        self._can_interrupt = False
        self._interrupted: Reason | None = None
        self._next_checkpoint = begun + CHECKPOINT_AFTER_SECONDS
        self.member = plan.caller.member
        self.payload_modes = (gateway.payload_mode, plan.caller.key.payload_mode)
        self._captures = strictest_payload_mode(*self.payload_modes) != "off"
        self.detail: Row = {}
        self.keyed: KeyedCall | None = None  # where the client sent an idempotency key
        self.spends: Resolve | None = None  # the hold of a quote that this call is for
        self.cache_digest: bytes | None = None  # under which its answer is kept
        self.cached: CachedAnswer | None = None  # what it is answered with
        self.quote_seconds: int | None = None  # this is such a hold, and waits so long for its call

    # ---- interruption

    def open_to_interruption(self) -> None:
        """Let `interrupt` cancel the current task from now on.

        Raises Interrupted if it came already.
        """
        if self._interrupted is not None:
            raise Interrupted(self._interrupted)
        self._task = asyncio.current_task()
        self._can_interrupt = True

    def close_to_interruption(self) -> None:
        """Run on whatever happens outside."""
        self._can_interrupt = False

    def interrupt(self, reason: Reason) -> None:
        """End the call early, where it can be."""
        self.is_client_gone = self.is_client_gone or reason == "client"
        if self._interrupted is None:
            self._interrupted = reason
            if self._can_interrupt and self._task is not None:
                self._task.cancel()

    def leave(self) -> None:
        """End the call because its client has left, or read its answer on where the provider's
        policy says so: for its time, DRAIN_BYTES_MAX, and no longer than a drain of the gateway.
        """
        seconds = self.route.provider.drain_seconds if self.route is not None else 0.0
        if seconds and self.is_asked and self._can_interrupt and self._interrupted is None:
            self.is_client_gone = self.is_drained = True
            self._drained_until = self.gateway.monotonic() + seconds
        else:
            self.interrupt("client")

    def note_asked(self) -> None:
        """Note that the request goes out: from now on the provider bills for it."""
        self.is_asked = True

    def note_drained(self, size: int) -> None:
        """Count what is read for nobody, up to its bound. Raises Interrupted beyond it."""
        self._drained_bytes += size
        if self._drained_bytes > DRAIN_BYTES_MAX:
            raise Interrupted("client")

    def translate_cancellation(self) -> Interrupted:
        """Return why this task was cancelled, and make it usable again.

        A cancellation that is not ours is the server ending what did not drain in time.
        """
        if self._task is not None:
            while self._task.cancelling():
                self._task.uncancel()
        self._can_interrupt = False
        if self.is_drained:
            return Interrupted("client")
        return Interrupted(self._interrupted or "drain")

    def reset_interruption(self) -> None:
        """Allow another attempt after one that was too slow, if anybody still waits."""
        self._interrupted = "client" if self.is_client_gone else None

    def on_tick(self, now: float) -> None:
        """Interrupt the call where a limit has passed, and note a checkpoint where one is due."""
        if now > self._drained_until:
            self.interrupt("client")
        elif now > self.deadline:
            self.interrupt("client" if self.is_sending else "timeout")
        elif self.output_bytes > STREAM_BYTES_MAX or (
            self.route and now - self.begun > self.route.provider.total_timeout_seconds
        ):
            self.interrupt("limit")
        if now > self._next_checkpoint and self.meter is not None and not self.is_settled:
            self._next_checkpoint = now + CHECKPOINT_AFTER_SECONDS
            usage = self.delivered_usage()
            if usage.source != "none":
                counts = {name: getattr(usage, name) for name in (*TOKEN_CLASSES, *COUNTS)}
                self.gateway.writer.note_checkpoint(self.request_id, orjson.dumps(counts).decode())

    # ---- the hold

    async def place_hold(self) -> int | None:
        """Reserve the worst case and return the lowered cap on output, None where it is not
        lowered.

        Raises E19 to E21, E32 to E37, Repeated where its idempotency key has been used, and
        Interrupted where the client left meanwhile.
        """
        self.held, self.routes, self.detail = await place_hold(self)
        return self.plan.cap_for(self.held.amount_nanos)

    @property
    def reserved_tokens(self) -> int:
        """How many tokens the call counts for in limits until it is settled."""
        return max(1, len(self.body) // 4)

    def capture_all(self) -> None:
        """Keep what goes to the client also where no payload is."""
        self._captures = True

    def forget_request(self) -> None:
        """Let go of what the client sent: it may be large, and the hold of a quote waits long."""
        self.body = b""
        request = self.plan.request._replace(body={})
        self.plan = self.plan._replace(request=request, converted={})

    # ---- what has been delivered

    def capture(self, data: bytes) -> None:
        """Keep what goes to the client for the payload, up to its bound."""
        self.output_bytes += len(data)
        if self._captures and self._captured_bytes < BODY_BYTES_MAX:
            self._captured.append(data)
            self._captured_bytes += len(data)
        if self.keyed is not None:
            self.keyed.capture(data)

    def forget_captured(self) -> None:
        """Drop what was captured of an attempt of which the client saw nothing."""
        self._captured.clear()
        self._captured_bytes = self.output_bytes = 0
        if self.keyed is not None:
            self.keyed.forget()

    def note_first_byte(self) -> None:
        """Note the time to the first byte that goes to the client."""
        if self.ttft_ms is None:
            self.ttft_ms = int((self.gateway.monotonic() - self.begun) * 1000)

    def final_usage(self, answer: StreamMeter | MeteredAnswer) -> Usage:
        """Return the usage of an answer; what was sent is estimated only where that matters."""
        reported = answer.usage
        is_told = reported is not None and (reported.total_tokens > 0 or self.plan.is_by_the_unit)
        read = 0 if is_told else self._estimate_input_tokens()
        return answer.final_usage(estimated_input_tokens=read)

    def _estimate_input_tokens(self) -> int:
        """Return an estimate of what the provider read, never above the bound of the hold."""
        body, tokens = self._estimated
        if body is not self.upstream_body:
            tokens = min(estimate_tokens(self.upstream_body), self.plan.input_bound)
            self._estimated = (self.upstream_body, tokens)
        return tokens

    def delivered_usage(self) -> Usage:
        """Return the usage of what the provider produced so far."""
        if self.meter is None:
            return Usage()
        if self.meter.usage is None and not self.meter.saw_content:
            return Usage()
        return self.with_search(self.final_usage(self.meter))

    def with_search(self, usage: Usage) -> Usage:
        """Return the usage with a search where one was asked for and none was counted.

        Providers that search for every call with these options do not say how often. What is kept
        of an answer tells it.
        """
        is_told = self.cached is not None or usage.source == "none" or usage.web_search
        if is_told or not self.plan.request.has_web_search:
            return usage
        route = self.route or self.plan.routes[0]
        is_untold = not PROVIDERS[route.provider.dialect].tells_searches
        return usage._replace(web_search=1) if is_untold else usage

    async def count_answer(self, found: MeteredAnswer) -> MeteredAnswer:
        """Return a whole answer with its tokens counted here, since its client is told of them.

        From now on the client's leaving is no interruption: the provider has done its work.
        """
        self.close_to_interruption()
        counted = await recount(
            self.final_usage(found),
            found,
            plan=self.plan,
            route=self.route,
            counter=self.gateway.token_counter,
        )
        self.answer = found._replace(usage=counted)
        return self.answer

    def ending_of_answer(self, usage: Usage, finish_reason: str) -> Ending:
        """Return how a call ends whose answer is complete, for whoever it was read."""
        if self.is_drained:
            state = RequestState.CLIENT_DISCONNECTED
            code = "client_disconnected"
            return Ending(state, 499, code, usage, finish_reason, is_whole=True)
        return Ending(RequestState.COMPLETED, 200, "", usage, finish_reason, is_whole=True)

    # ---- the settlement

    async def settle(self, ending: Ending, stored: StoredRecord | None = None) -> None:
        """Resolve the hold and return when that is durable. Never more than once.

        `stored`: where the answer lies that the provider keeps.
        """
        if self.is_settled or self.held is None:
            return
        self.close_to_interruption()
        if ending.usage.source == "estimated":
            usage = await recount(
                ending.usage,
                self.meter or self.answer,
                plan=self.plan,
                route=self.route,
                counter=self.gateway.token_counter,
            )
            ending = ending._replace(usage=usage)
        kept = await seal_bodies(self)
        answer = None if self.keyed is None else await self.keyed.keep(self, ending)
        resolve = make_resolve(self, self.held, ending, kept, answer, stored)
        count_settled(self, ending, resolve.row)
        # Only now: whatever failed above, the hold is still to be resolved.
        self.is_settled = True
        await self.gateway.writer.resolve(resolve)
        if self.cache_digest is not None and self.cached is None:
            self._keep_answer(self.cache_digest, ending)

    def submit_settlement(self, ending: Ending) -> None:
        """Resolve the hold without waiting, for a task that is being cancelled; no payload.

        What cannot be settled because of a bug is given back: no money is held for ever.
        """
        if self.is_settled or self.held is None:
            return
        try:
            resolve = make_resolve(self, self.held, ending)
            count_settled(self, ending, resolve.row)
        except Exception:  # a bug: logged whole
            logger.exception("a call cannot be settled: its hold is given back")
            self.gateway.writer.disown(self.request_id)
            return
        finally:
            self.is_settled = True
        self.gateway.writer.submit(resolve)

    def cost_of_failure(self, route: Route, failure: AttemptFailed) -> int | None:
        """Return what an attempt cost that led to nothing, None where that is not known."""
        reported = None if self.meter is None else self.meter.usage
        if reported is None:
            return 0 if is_free(failure) else None
        conditions = conditions_served(self, reported)
        return cost_nanos(reported, route, conditions, self.started_at, served=served_tier(self))

    def captured_bytes(self) -> bytes:
        """Return what went to the client, as far as it was kept."""
        return b"".join(self._captured)

    def _keep_answer(self, digest: bytes, ending: Ending) -> None:
        """Have the cache keep an answer that is whole, and whose usage is certain.

        One that was cut by what the balance covers is not what the request asks for.
        """
        if self.held is not None and self.plan.cap_for(self.held.amount_nanos) is not None:
            return
        usage, body = ending.usage, self.captured_bytes()
        is_certain = usage.source == "reported" and not usage.is_suspect
        if ending.state != RequestState.COMPLETED or len(body) != self.output_bytes:
            return
        if is_certain and not self.is_client_gone:
            counted = self.with_search(usage)
            kept = CachedAnswer(body, counted, ending.finish_reason, self.gateway.monotonic())
            self.gateway.answers.keep(digest, kept)


def ending_of_interruption(call: Call, reason: Reason) -> Ending:
    """Return how an interrupted call ends, charged for what the provider had produced."""
    usage = call.delivered_usage()
    finish = (call.meter.finish_reason or "") if call.meter else ""
    state, status, code = {
        "client": (RequestState.CLIENT_DISCONNECTED, 499, "client_disconnected"),
        "timeout": (RequestState.UPSTREAM_INTERRUPTED, 200, "upstream_timeout"),
        "limit": (RequestState.LIMIT_EXCEEDED, 200, "stream_limit_exceeded"),
        "drain": (RequestState.GATEWAY_DRAINED, 200, "service_restarting"),
    }[reason]
    return Ending(state, status, code, usage, finish)
