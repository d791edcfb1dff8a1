"""Sends a call to providers and the answer back, one attempt after the other.

Until the first byte goes to the client, a failure leads to the next route (at most two more);
after it, the stream ends with an error inside it and a broken connection, never with a clean end.
The last frame of an answer waits until its charge is durable.

Over 400 lines because the steps of an attempt have one order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from apps.audit.models import RequestState
from apps.audit.records import Row
from apps.billing.ledger.commands import StoredRecord
from apps.core.errors import GatewayError
from apps.proxy.attempts import Attempts
from apps.proxy.blame import BLAMELESS_ROWS
from apps.proxy.call import Call, ending_of_interruption
from apps.proxy.delivery import Delivery
from apps.proxy.dialects.answer_conversion import AnswerConverter, error_event, error_status
from apps.proxy.dialects.conversion import Reply
from apps.proxy.dialects.embedding_conversion import EmbeddingConverter
from apps.proxy.dialects.gemini_array import GeminiArray
from apps.proxy.dialects.metered_answer import MeteredAnswer
from apps.proxy.dialects.openai_answer import answer_to_sse
from apps.proxy.dialects.parsed_request import EMBEDDING_ENDPOINTS, Endpoint
from apps.proxy.dialects.providers import ProviderDialect, Sending, find_provider_dialect
from apps.proxy.dialects.stream_meter import StreamMeter
from apps.proxy.dialects.upstream_errors import upstream_error
from apps.proxy.endings import AttemptFailed, Ending, Interrupted
from apps.proxy.framed_answer import FramedAnswer, failure_inside
from apps.proxy.framing import CutInsideAnEvent, last_event
from apps.proxy.http import Headers
from apps.proxy.http_client import Answer, BadAnswer, ConnectFailed, ConnectionClosed
from apps.proxy.protocol import Connection
from apps.proxy.snapshot import Credential, Route
from apps.proxy.sse import EventBuffer, EventTooLarge
from apps.proxy.stored_answers import stored_record
from apps.proxy.upstream import (
    ANSWER_BYTES_MAX,
    ERROR_BYTES_MAX,
    encoding_of,
    failure_of,
    read_limited,
    request_id_of,
)

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
        self._converter: AnswerConverter | None = None  # of the route that answers
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
            status = error_status(self._plan.request.dialect, error)
            await call.settle(Ending(RequestState.FAILED, status, error.code, error=error))
            raise error
        except Interrupted as interruption:
            await self._end_interrupted(interruption)
        finally:
            self._attempts.close()

    # ---- one attempt

    async def _exchange(self, route: Route, credential: Credential, row: Row) -> None:
        call, request = self._call, self._plan.request
        converted = self._plan.converted.get(route.id)
        dialect = find_provider_dialect(route.provider.dialect, route.provider.hosting)
        own_headers = request.headers if converted is None else ()
        body: Mapping[str, Any] = request.body if converted is None else converted
        if route.parameters is not None:
            body, row["changes"] = route.parameters.apply(body)
        if route.headers:
            names = f"headers {', '.join(sorted(name for name, _ in route.headers))}"
            row["changes"] = f"{row['changes']}; {names}" if row["changes"] else names
        sending = Sending(
            upstream_model=route.upstream_name,
            is_stream=request.is_stream,
            output_cap=self._cap,
            cap_parameter=(request.output_parameter if converted is None else None)
            or route.max_tokens_parameter,
            headers=(*own_headers, *route.headers) if dialect.is_framed else (),
            reasoning=route.target.reasoning,
        )
        endpoint = request.endpoint if converted is None else dialect.endpoint_for(request.endpoint)
        call.upstream_body = dialect.body(body, sending)
        call.deadline = self._gateway.monotonic() + route.provider.first_byte_timeout_seconds
        answer: Answer | None = None
        call.open_to_interruption()
        try:
            answer = await self._gateway.upstream.send(
                route,
                credential,
                path=dialect.path(endpoint, sending),
                body=call.upstream_body,
                request_id=call.request_text,
                headers=own_headers if dialect.takes_headers else (),
                on_connected=call.note_asked if route.provider.drain_seconds else None,
                is_anew=self._attempts.is_once_more,
            )
            row["status_code"] = answer.status
            secret = answer.sent_secret or credential.secret
            call.upstream_request_id = request_id_of(answer, secret)
            if answer.status != 200:
                await self._fail_by_status(answer, secret, converted is not None)
            if encoding_of(answer):
                raise AttemptFailed(GatewayError("E49"), 200, "an encoding that was not asked for")
            converter = self._converter = self._find_converter(route, converted is not None)
            await self._pass_on(dialect, endpoint, converter, route, answer)
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

    async def _fail_by_status(self, answer: Answer, secret: str, is_converted: bool) -> None:
        try:
            body = await read_limited(answer, ERROR_BYTES_MAX)
        except (GatewayError, *_BROKEN):
            body = b""
        body = body.replace(secret.encode(), b"[redacted]")
        error = upstream_error(
            answer.status, answer.text_headers(), body, is_converted=is_converted
        )
        raise AttemptFailed(error, answer.status, body.decode("utf-8", "replace"))

    def _find_converter(self, route: Route, is_converted: bool) -> AnswerConverter | None:
        """Return what rewrites an answer, None where it passes as it is."""
        if is_converted:
            return self._make_converter(route)
        return GeminiArray(self._reply()) if self._plan.request.is_array else None

    def _make_converter(self, route: Route) -> AnswerConverter:
        request = self._plan.request
        kind = EmbeddingConverter if request.endpoint in EMBEDDING_ENDPOINTS else AnswerConverter
        return kind(route.provider.dialect, request.dialect, self._reply())

    def _reply(self) -> Reply:
        call, request = self._call, self._plan.request
        created = int(call.started_at.timestamp())
        return Reply(
            call.request_text,
            created,
            include_usage=request.include_usage,
            is_array=request.is_array,
            asked=request.body,
        )

    async def _pass_on(
        self,
        dialect: ProviderDialect,
        endpoint: Endpoint,
        converter: AnswerConverter | None,
        route: Route,
        answer: Answer,
    ) -> None:
        kind = answer.header(b"content-type").partition(";")[0].strip()
        if self._plan.request.is_stream and kind.lower() == dialect.stream_type:
            meter = dialect.meter(self._plan.request, converter is not None)
            answer.is_behind = self._delivery.is_behind
            stream = FramedAnswer(answer) if dialect.is_framed else answer
            await self._pass_stream(route, stream, meter, converter)
        elif kind.lower() == "application/json" or kind.lower().endswith("+json"):
            await self._pass_answer(dialect, endpoint, converter, route, answer)
        else:
            # In its own letters: a key in it would not be known in others.
            raise AttemptFailed(
                GatewayError("E49"), answer.status, f"content type {answer.conceal(kind)}"
            )

    def _stored(
        self, ids: tuple[str, ...], converter: AnswerConverter | None
    ) -> StoredRecord | None:
        """Return where an answer with these ids lies. One that is converted has none of them."""
        return stored_record(self._call, ids) if ids and converter is None else None

    # ---- a whole answer

    async def _pass_answer(
        self,
        dialect: ProviderDialect,
        endpoint: Endpoint,
        converter: AnswerConverter | None,
        route: Route,
        answer: Answer,
    ) -> None:
        call, request = self._call, self._plan.request

        def renew_deadline() -> None:
            call.deadline = self._gateway.monotonic() + route.provider.idle_timeout_seconds

        async def reserve(size: int, announced: int) -> None:
            call.deadline = float("inf")  # It is the provider that waits.
            await call.weight.reserve_answer(size, announced)
            renew_deadline()

        # Until something of the body has come, the deadline is still that of the first byte: some
        # servers send the head at once, and then the model thinks.
        body = await read_limited(answer, ANSWER_BYTES_MAX, on_read=renew_deadline, reserve=reserve)
        found = call.answer = dialect.read_answer(endpoint, body)
        if found.usage is None and isinstance(converter, EmbeddingConverter):
            found = await call.count_answer(found)
        told = self._told(body, found, converter, route)
        call.close_to_interruption()
        call.note_first_byte()
        self._attempts.observe_latency()
        usage = call.final_usage(found)
        call.capture(told)
        call.upstream_request_id = call.upstream_request_id or found.upstream_id
        self._attempts.finish("answered")
        ending = call.ending_of_answer(usage, found.finish_reason or "")
        await call.settle(ending, self._stored(found.stored_ids, converter))
        if call.is_client_gone:
            return
        self._has_started = True
        self._delivery.start(request.is_stream, len(told))
        await self._delivery.end(told)

    def _told(
        self, body: bytes, found: MeteredAnswer, converter: AnswerConverter | None, route: Route
    ) -> bytes:
        """Return a whole answer as the client gets it. Raises E49 where it cannot be said so."""
        request = self._plan.request
        if not request.is_stream:
            return body if converter is None else converter.convert_metered(found)
        if request.dialect == "openai" and converter is None:
            return b"".join(
                answer_to_sse(request.endpoint, found.document, include_usage=request.include_usage)
            )
        return (converter or self._make_converter(route)).stream_whole(found.document)

    # ---- a stream

    async def _pass_stream(
        self,
        route: Route,
        answer: Answer | FramedAnswer,
        meter: StreamMeter,
        converter: AnswerConverter | None,
    ) -> None:
        self._call.meter = meter
        buffer = EventBuffer()
        preamble = b""
        idle_seconds = route.provider.idle_timeout_seconds
        is_plain = converter is None
        take = partial(self._take_block, meter, buffer, idle_seconds) if is_plain else None
        try:
            while not (meter.done_seen or meter.error is not None or _is_cut(converter)):
                if self._has_started and isinstance(answer, Answer):
                    chunk = await answer.read(take)
                else:
                    chunk = await answer.read()
                is_last = not chunk
                block = last_event(buffer) if is_last else buffer.feed(chunk)
                # Not kept beside the block while a slow client takes that.
                del chunk
                if block:
                    preamble = await self._pass_block(route, meter, converter, preamble + block)
                if is_last:
                    break
        except (*_BROKEN, EventTooLarge, CutInsideAnEvent) as error:
            if not self._has_started:
                raise failure_inside(error) from error
            await self._break_off_by_provider()
            return
        is_failed = meter.error is not None or _is_cut(converter)
        if is_failed or not meter.is_whole(self._plan.request.streamed_choices):
            if not self._has_started:
                row = "E53" if meter.error is not None else "E49"
                raise AttemptFailed(
                    GatewayError(row), 200, meter.upstream_error_code or "no answer"
                )
            await self._break_off_by_provider()
            return
        await self._complete_stream(meter, converter)

    def _take_block(
        self, meter: StreamMeter, buffer: EventBuffer, idle_seconds: float, data: bytes
    ) -> bool:
        """Send on what can go as it came, without waking this call's task for it.

        Most of a stream is that: whole events in which nothing matters, to a client that takes
        them. For all else this does nothing and returns False.
        """
        call, delivery = self._call, self._delivery
        goes_now = not (buffer.pending or call.is_drained) and data.endswith(b"\n\n")
        if not (goes_now and delivery.has_room_for(data) and meter.pass_over(data)):
            return False
        call.capture(data)
        delivery.send_now(data)
        call.deadline = self._gateway.monotonic() + idle_seconds
        return True

    async def _pass_block(
        self, route: Route, meter: StreamMeter, converter: AnswerConverter | None, block: bytes
    ) -> bytes:
        """Send a block of complete events on and return what has to wait for the first event."""
        call = self._call
        going_on = meter.observe(block)
        if not self._has_started:
            if meter.error is not None:
                return b""
            begins = meter.begins_an_answer(going_on)
            if begins is None:
                if len(block) > _PREAMBLE_BYTES_MAX:
                    raise EventTooLarge("too much before the first event")
                return going_on
            if not begins:
                raise AttemptFailed(
                    GatewayError("E49"), 200, "the first event is no part of an answer"
                )
        if converter is not None and going_on:
            going_on = converter.convert(going_on)
            if converter.is_cut and not converter.has_begun:
                raise AttemptFailed(GatewayError("E49"), 200, "the answer has no equal")
        if not self._has_started:
            self._has_started = True
            call.note_first_byte()
            self._attempts.begin_answer()
            if not call.is_drained:
                self._delivery.start(is_stream=True)
        idle_seconds = route.provider.idle_timeout_seconds
        if going_on:
            call.capture(going_on)
            if call.is_drained:
                call.note_drained(len(going_on))
            else:
                await self._delivery.send(going_on, idle_seconds)
        call.deadline = self._gateway.monotonic() + idle_seconds
        return b""

    async def _complete_stream(self, meter: StreamMeter, converter: AnswerConverter | None) -> None:
        call, last = self._call, meter.last_frame
        if converter is not None:
            last = converter.finish(last)
            if converter.is_cut:
                await self._break_off_by_provider()
                return
        usage = call.final_usage(meter)
        call.close_to_interruption()
        call.capture(last)
        if not call.upstream_request_id:
            call.upstream_request_id = meter.upstream_id or ""
        self._attempts.finish("answered")
        ending = call.ending_of_answer(usage, meter.finish_reason or "")
        await call.settle(ending, self._stored(meter.stored_ids, converter))
        if not call.is_client_gone:
            await self._delivery.end(last)

    async def _break_off_by_provider(self) -> None:
        """Break off a stream that its provider did not end as it should."""
        self._attempts.break_off()
        await self._break_off(RequestState.UPSTREAM_INTERRUPTED, GatewayError("E60"))

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
        if self._converter is None:
            event = error_event(self._plan.request.dialect, error, call.request_text)
        else:
            # It knows what it has said: its events are numbered, or the pieces of an array.
            event = self._converter.break_off(error)
        await self._delivery.break_off(event)

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
            status = error_status(self._plan.request.dialect, error)
            await call.settle(Ending(state, status, error.code))
            raise error
        state, row = {
            "timeout": (RequestState.UPSTREAM_INTERRUPTED, "E60"),
            "limit": (RequestState.LIMIT_EXCEEDED, "E61"),
            "drain": (RequestState.GATEWAY_DRAINED, "E66"),
        }[reason]
        await self._break_off(state, GatewayError(row))


def _is_cut(converter: AnswerConverter | None) -> bool:
    return converter is not None and converter.is_cut
