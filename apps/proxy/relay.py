"""Sends a call to providers and the answer back, one attempt after the other.

Until the first byte goes to the client, a failure leads to the next route (at most two more);
after it, the stream ends with an error inside it and a broken connection, never with a clean end.
The last frame of an answer waits until its charge is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from apps.audit.models import RequestState
from apps.audit.records import Row
from apps.core.errors import GatewayError, in_band_event
from apps.proxy.attempts import Attempts
from apps.proxy.blame import BLAMELESS_ROWS
from apps.proxy.call import Call, ending_of_interruption
from apps.proxy.delivery import Delivery
from apps.proxy.dialects.openai import (
    StreamMeter,
    answer_to_sse,
    read_answer,
    upstream_body,
    upstream_error,
)
from apps.proxy.endings import AttemptFailed, Ending, Interrupted
from apps.proxy.framing import CutInsideAnEvent, begins_an_answer, has_data, last_event
from apps.proxy.http import Headers
from apps.proxy.http_client import Answer, BadAnswer, ConnectFailed, ConnectionClosed
from apps.proxy.protocol import Connection
from apps.proxy.snapshot import Credential, Route
from apps.proxy.sse import EventBuffer, EventTooLarge
from apps.proxy.upstream import (
    ANSWER_BYTES_MAX,
    ERROR_BYTES_MAX,
    encoding_of,
    failure_of,
    read_limited,
    request_id_of,
)

DONE: Final = b"data: [DONE]\n\n"
# How much of comments and the like may come before the first event.
_PREAMBLE_BYTES_MAX: Final = 64 << 10
_BROKEN: Final = (ConnectFailed, ConnectionClosed, BadAnswer)

logger = logging.getLogger(__name__)


class Relay:
    """Carries one held call. `run` returns when the client has its answer or its error."""

    def __init__(self, call: Call, connection: Connection, extra: Headers, cap: int | None) -> None:
        self._call, self._gateway, self._plan = call, call.gateway, call.plan
        self._delivery = Delivery(call, connection, extra)
        self._cap = cap
        self._has_started = False
        self._attempts = Attempts(call)

    async def run(self) -> None:
        """Try routes until one answers.

        Raises GatewayError where none did (the hold is resolved then, and nothing was sent).
        """
        call = self._call
        try:
            error = await self._attempts.run(self._exchange)
            if error is None:
                return
            if error.row not in BLAMELESS_ROWS:
                logger.warning(
                    "no provider answered: %s after %d attempts", error.code, len(call.attempts)
                )
            await call.settle(Ending(RequestState.FAILED, error.status, error.code, error=error))
            raise error
        except Interrupted as interruption:
            await self._end_interrupted(interruption)
        finally:
            self._attempts.close()

    # ---- one attempt

    async def _exchange(self, route: Route, credential: Credential, row: Row) -> None:
        call, request = self._call, self._plan.request
        body: Mapping[str, Any] = request.body
        if route.parameters is not None:
            body, row["changes"] = route.parameters.apply(body)
        if route.headers:
            names = f"headers {', '.join(sorted(name for name, _ in route.headers))}"
            row["changes"] = f"{row['changes']}; {names}" if row["changes"] else names
        call.upstream_body = upstream_body(
            body,
            upstream_model=route.upstream_name,
            stream=request.is_stream,
            output_cap=self._cap,
            cap_parameter=request.output_parameter or route.max_tokens_parameter,
        )
        call.deadline = self._gateway.monotonic() + route.provider.first_byte_timeout_seconds
        answer: Answer | None = None
        call.open_to_interruption()
        try:
            answer = await self._gateway.upstream.send(
                route,
                credential,
                path=request.endpoint,
                body=call.upstream_body,
                request_id=call.request_text,
                on_connected=call.note_asked if route.provider.drain_seconds else None,
            )
            row["status_code"] = answer.status
            call.upstream_request_id = request_id_of(answer, credential.secret)
            if answer.status != 200:
                await self._fail_by_status(answer, credential.secret)
            if encoding_of(answer):
                raise AttemptFailed(GatewayError("E49"), 200, "an encoding that was not asked for")
            await self._pass_on(route, answer)
        except asyncio.CancelledError:
            raise self._interruption() from None
        except (*_BROKEN, OSError) as error:
            raise failure_of(error, answer.status if answer else None) from error
        except GatewayError as error:
            if self._has_started:
                raise
            raise AttemptFailed(error, answer.status if answer else None, error.code) from error
        finally:
            call.close_to_interruption()
            call.deadline = float("inf")
            if answer is not None:
                if call.meter is not None and call.meter.done_seen:
                    answer.finish()
                else:
                    answer.release()

    def _interruption(self) -> Exception:
        """Return what a cancellation means: a wait that was too long may go to another route."""
        interruption = self._call.translate_cancellation()
        if self._call.is_settled:
            return Interrupted("drain")  # The settlement is under way: no other route any more.
        if interruption.reason == "timeout" and not self._has_started:
            self._call.reset_interruption()
            return AttemptFailed(GatewayError("E48"), None, "no answer in time")
        return interruption

    async def _fail_by_status(self, answer: Answer, secret: str) -> None:
        try:
            body = await read_limited(answer, ERROR_BYTES_MAX)
        except (GatewayError, *_BROKEN):
            body = b""
        body = body.replace(secret.encode(), b"[redacted]")
        error = upstream_error(answer.status, answer.text_headers(), body)
        raise AttemptFailed(error, answer.status, body.decode("utf-8", "replace"))

    async def _pass_on(self, route: Route, answer: Answer) -> None:
        kind = answer.header(b"content-type").partition(";")[0].strip()
        if self._plan.request.is_stream and kind.lower() == "text/event-stream":
            await self._pass_stream(route, answer)
        elif kind.lower() == "application/json" or kind.lower().endswith("+json"):
            await self._pass_answer(route, answer)
        else:
            # In its own letters: a key in it would not be known in others.
            raise AttemptFailed(GatewayError("E49"), answer.status, f"content type {kind}")

    # ---- a whole answer

    async def _pass_answer(self, route: Route, answer: Answer) -> None:
        call, request = self._call, self._plan.request

        def renew_deadline() -> None:
            call.deadline = self._gateway.monotonic() + route.provider.idle_timeout_seconds

        # Until something of the body has come, the deadline is still that of the first byte: some
        # servers send the head at once, and then the model thinks.
        body = await read_limited(answer, ANSWER_BYTES_MAX, on_read=renew_deadline)
        found = call.answer = read_answer(request.endpoint, body)
        call.close_to_interruption()
        call.note_first_byte()
        self._attempts.observe_latency()
        usage = found.final_usage(estimated_input_tokens=call.estimated_input_tokens())
        frames = [body]
        if request.is_stream:
            frames = answer_to_sse(
                request.endpoint, found.document, include_usage=request.include_usage
            )
        for frame in frames:
            call.capture(frame)
        self._attempts.finish("answered")
        await call.settle(call.ending_of_answer(usage, found.finish_reason or ""))
        if call.is_client_gone:
            return
        self._has_started = True
        self._delivery.start(request.is_stream, len(body))
        await self._delivery.end(b"".join(frames))

    # ---- a stream

    async def _pass_stream(self, route: Route, answer: Answer) -> None:
        call, request = self._call, self._plan.request
        meter = call.meter = StreamMeter(
            strip_usage=not request.include_usage, is_completion=request.endpoint == "completions"
        )
        buffer = EventBuffer()
        preamble = b""
        try:
            while not meter.done_seen and meter.error is None:
                chunk = await answer.read()
                block = buffer.feed(chunk) if chunk else last_event(buffer)
                if block:
                    preamble = await self._pass_block(route, meter, preamble + block)
                if not chunk:
                    break
        except (*_BROKEN, EventTooLarge, CutInsideAnEvent) as error:
            if not self._has_started:
                raise AttemptFailed(GatewayError("E46"), 200, type(error).__name__) from error
            self._attempts.break_off()
            await self._break_off(RequestState.UPSTREAM_INTERRUPTED, GatewayError("E60"))
            return
        if meter.error is not None or not (meter.done_seen or self._have_all_finished(meter)):
            if not self._has_started:
                row = "E53" if meter.error is not None else "E49"
                raise AttemptFailed(
                    GatewayError(row), 200, meter.upstream_error_code or "no answer"
                )
            self._attempts.break_off()
            await self._break_off(RequestState.UPSTREAM_INTERRUPTED, GatewayError("E60"))
            return
        await self._complete_stream(meter)

    def _have_all_finished(self, meter: StreamMeter) -> bool:
        """Return whether a stream without [DONE] holds the end of each choice that was asked for.

        Of the candidates of `best_of` only `n` are sent.
        """
        request = self._plan.request
        answers: int = request.body.get("n") or 1
        candidates = max(answers, request.body.get("best_of") or 1)
        return meter.finished_choices >= request.choices // candidates * answers

    async def _pass_block(self, route: Route, meter: StreamMeter, block: bytes) -> bytes:
        """Send a block of complete events on and return what has to wait for the first event."""
        call = self._call
        going_on = meter.observe(block)
        if not self._has_started:
            if meter.error is not None:
                return b""
            if not has_data(going_on) and not meter.done_seen:
                if len(block) > _PREAMBLE_BYTES_MAX:
                    raise EventTooLarge("too much before the first event")
                return going_on
            if not begins_an_answer(going_on):
                raise AttemptFailed(
                    GatewayError("E49"), 200, "the first event is no part of an answer"
                )
            self._has_started = True
            call.note_first_byte()
            self._attempts.begin_answer()
            if not call.is_drained:
                self._delivery.start(is_stream=True)
        if going_on:
            call.capture(going_on)
            if call.is_drained:
                call.note_drained(len(going_on))
            else:
                await self._delivery.send(going_on)
        call.deadline = self._gateway.monotonic() + route.provider.idle_timeout_seconds
        return b""

    async def _complete_stream(self, meter: StreamMeter) -> None:
        call = self._call
        usage = meter.final_usage(estimated_input_tokens=call.estimated_input_tokens())
        call.close_to_interruption()
        if not call.upstream_request_id:
            call.upstream_request_id = meter.upstream_id or ""
        self._attempts.finish("answered")
        await call.settle(call.ending_of_answer(usage, meter.finish_reason or ""))
        if not call.is_client_gone:
            await self._delivery.end(DONE)

    async def _break_off(self, state: str, error: GatewayError) -> None:
        """Settle what was delivered, tell the client inside the stream, and cut the connection."""
        call = self._call
        call.close_to_interruption()
        usage = call.delivered_usage()
        self._attempts.finish(error.code)
        finish = (call.meter.finish_reason or "") if call.meter else ""
        logger.warning("a stream is broken off: %s", error.code)
        ending = Ending(state, 200, error.code, usage, finish)
        await call.settle(ending_of_interruption(call, "client") if call.is_drained else ending)
        if call.is_client_gone:
            return
        await self._delivery.break_off(in_band_event(error))

    async def _end_interrupted(self, interruption: Interrupted) -> None:
        call, reason = self._call, interruption.reason
        if reason == "client":
            await call.settle(ending_of_interruption(call, reason))
            self._delivery.drop()
            return
        if not self._has_started and call.is_settled:
            # Charged: an answer that clients retry by themselves would charge them twice.
            raise GatewayError("E71")
        if not self._has_started:
            error = GatewayError({"drain": "E36", "limit": "E48", "timeout": "E48"}[reason])
            state = RequestState.GATEWAY_DRAINED if reason == "drain" else RequestState.FAILED
            await call.settle(Ending(state, error.status, error.code))
            raise error
        state, row = {
            "timeout": (RequestState.UPSTREAM_INTERRUPTED, "E60"),
            "limit": (RequestState.LIMIT_EXCEEDED, "E61"),
            "drain": (RequestState.GATEWAY_DRAINED, "E66"),
        }[reason]
        await self._break_off(state, GatewayError(row))
