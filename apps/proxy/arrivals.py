"""What becomes of a request that costs money: read, admitted, and carried out or refused."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson

from apps.core.errors import GatewayError
from apps.proxy.admission import plan_call
from apps.proxy.cached_calls import look_in_cache
from apps.proxy.call import Call
from apps.proxy.dialects.gemini_paths import read_form
from apps.proxy.dialects.gemini_request_reader import with_path
from apps.proxy.dialects.parsed_request import ParsedRequest
from apps.proxy.dialects.surfaces import (
    complete_count,
    count_document,
    headers_for,
    parse_request,
)
from apps.proxy.gateway import Gateway
from apps.proxy.guard import Circumstances
from apps.proxy.http import Scope, Send, check_may_stream, send_json
from apps.proxy.json_body import parse_object
from apps.proxy.limits import count_request
from apps.proxy.operations import Operation, recorded_path
from apps.proxy.protocol import Connection
from apps.proxy.quote_holds import HEADER as QUOTE_HEADER
from apps.proxy.quote_holds import Agreed, find_agreed, spend_with
from apps.proxy.quotes import (
    QuoteRequest,
    describe_hold,
    describe_quote,
    expect_usage,
    parse_quote,
)
from apps.proxy.recount import count_input
from apps.proxy.repeats import KeyedCall, Repeated, answer_in_spite, answer_repeat, make_keyed
from apps.proxy.running import run_limited
from apps.proxy.snapshot import Caller, Snapshot
from apps.proxy.stickiness import find_sticky_key
from apps.proxy.weight import Weight
from apps.risk.rules import RuleBook

T = TypeVar("T")

_OF_CALLERS: Final = frozenset({"E02", "E04", "E05", "E06", "E08"})  # counted by who finds them


@dataclass(slots=True)
class Arrival:
    """What is known of a request on its way to a call. Made when its caller is known."""

    gateway: Gateway
    operation: Operation
    scope: Scope
    request_id: UUID
    snapshot: Snapshot
    caller: Caller
    headers: dict[bytes, bytes]
    address: str
    begun: float  # monotonic
    now: datetime
    weight: Weight
    body: bytes = b""
    keyed: KeyedCall | None = None  # where it came with an idempotency key
    agreed: Agreed | None = None  # by the quote that it names
    call: Call | None = None  # once it is admitted

    async def answer(self, key: bytes | None, connection: Connection, send: Send) -> None:
        """Answer a request whose body is there; `key` is its idempotency key.

        Raises GatewayError and Interrupted.
        """
        asked: QuoteRequest | None = None
        if self.operation.kind == "quote":
            asked = await self._work(_read_quote, self.body)
            request = asked.request
        else:
            request = await self._read_request(key)
        if self.snapshot.rules is not None:
            await self._check_rules(self.snapshot.rules, request)
        call = await self._admit(request)
        if asked is not None:
            await _answer_quote(call, asked, send)
        elif self.operation.kind == "count":
            await _answer_count(call, self.operation, send)
        else:
            await self._run(call, request, connection, send)

    async def refuse(self, refusal: GatewayError, send: Send) -> None:
        """Answer a repeat in spite of a refusal; else count what it is told, and raise that."""
        gateway, call = self.gateway, self.call
        # What had a hold is on record already.
        is_unheld = call is None or call.held is None
        error = await answer_in_spite(
            refusal,
            gateway,
            self.keyed if is_unheld else None,
            send,
            scopes=() if call is not None and call.is_counted else self.caller.scopes,
            request_text=str(self.request_id),
        )
        if error is None:
            return
        is_counted = error.row in _OF_CALLERS or (call is not None and call.is_settled)
        if (error.is_refusal or is_unheld) and not is_counted:
            gateway.count_refusal(self.caller.key.id, error.code)
            if not error.is_refusal:  # No key is left; refusals are counted with the others.
                gateway.counts.refusals.add(error.row, error.code)
        raise error from None

    def end(self) -> None:
        """Give back what was set aside for it."""
        self.weight.give_back()
        if self.keyed is not None:
            self.keyed.forget()

    def _work(self, function: Callable[..., T], *arguments: Any) -> Coroutine[Any, Any, T]:
        """Have something made of the body, which may take long."""
        user_id, size = self.caller.member.id, len(self.body)
        return self.gateway.body_work.run(user_id, size, function, *arguments)

    async def _read_request(self, key: bytes | None) -> ParsedRequest:
        """Return what a call asks for, with its idempotency key and its quote noted.

        Raises E11 to E14, E24 and E34.
        """
        operation, headers = self.operation, self.headers
        parsed, request = await self._work(
            _read_call, operation, self.scope["query_string"], self.body
        )
        if request.is_stream:
            check_may_stream(self.scope)
        if request.dialect != "openai":
            told = headers_for(request.dialect, headers)
            request = request._replace(headers=told) if told else request
        if key is not None and operation.kind == "call":
            self.keyed = await make_keyed(
                self.gateway, self.caller, key, operation.endpoint, parsed, len(self.body)
            )
        if QUOTE_HEADER in headers:
            self.agreed = await find_agreed(self.gateway, self.caller, headers[QUOTE_HEADER])
        return request

    async def _check_rules(self, rules: RuleBook, request: ParsedRequest) -> None:
        """Hold the request against the risk rules. Raises E25, E26 and E37."""
        agent = self.headers.get(b"user-agent", b"")
        around = Circumstances(self.request_id, self.address, agent, len(self.body), self.now)
        await self.gateway.guard.check(rules, self.snapshot, self.caller, request, around)

    async def _admit(self, request: ParsedRequest) -> Call:
        """Return the call that the request becomes. Raises what `plan_call` does."""
        promise = self.agreed and self.agreed.promise
        plan = await self._work(plan_call, self.snapshot, self.caller, request, self.now, promise)
        call = self.call = Call(
            self.gateway,
            plan,
            request_id=self.request_id,
            body=self.body,
            path=recorded_path(self.scope["path"], self.operation),
            address=self.address,
            user_agent=self.headers.get(b"user-agent", b"").decode("latin-1"),
            now=self.now,
            begun=self.begun,
            weight=self.weight,
        )
        call.keyed = self.keyed
        return call

    async def _run(
        self, call: Call, request: ParsedRequest, connection: Connection, send: Send
    ) -> None:
        """Carry out a call, or answer it with what the first one with its key was answered."""
        headers, model = self.headers, call.plan.model
        if model.is_sticky:
            call.sticky_key = find_sticky_key(headers, request, user_id=self.caller.member.id)
        if model.cache_seconds is not None:
            look_in_cache(call, headers)
        try:
            if QUOTE_HEADER in headers:
                spend_with(call, self.agreed)
            await run_limited(call, connection)
        except Repeated as repeated:
            await answer_repeat(self.gateway, self.keyed, repeated.first, send)


def _read_quote(body: bytes) -> QuoteRequest:
    """Return what a request for a quote asks for. Raises E11 to E14."""
    return parse_quote(parse_object(body))


def _read_call(
    operation: Operation, query: bytes, body: bytes
) -> tuple[dict[str, Any], ParsedRequest]:
    """Return the body of a call with what its path says, and what it asks for.

    Raises E11 to E14.
    """
    parsed = parse_object(body)
    if operation.kind == "count":
        parsed = complete_count(operation.dialect, parsed)
    if operation.model:
        form = read_form(query)
        parsed = with_path(
            parsed,
            model=operation.model,
            is_stream=operation.is_stream,
            is_array=operation.is_stream and form == "json",
        )
    return parsed, parse_request(operation.endpoint, operation.dialect, parsed)


async def _answer_count(call: Call, operation: Operation, send: Send) -> None:
    """Answer how many tokens a call would read."""
    gateway = call.gateway
    extra = await count_request(
        gateway, call.plan.caller.scopes, call.request_text, operation.dialect
    )
    read = await count_input(call.plan, gateway.token_counter)
    told = orjson.dumps(count_document(operation.dialect, read.input_tokens))
    await send_json(send, told, request_id=call.request_text, extra=extra)


async def _answer_quote(call: Call, asked: QuoteRequest, send: Send) -> None:
    """Answer what a call would cost, and hold it where that is asked for, too."""
    gateway, plan = call.gateway, call.plan
    extra = await count_request(gateway, plan.caller.scopes, call.request_text)
    read = await count_input(plan, gateway.token_counter)
    likely = expect_usage(plan, gateway.habits, read=read)
    quote = describe_quote(plan, likely, quote_id=call.request_text)
    if asked.hold_seconds:
        cap = await gateway.quotes.place(call, asked.hold_seconds)
        assert call.held is not None  # noqa: S101 (narrows the type: it was placed)
        quote["hold"] = describe_hold(
            hold_id=call.request_text,
            amount_nanos=call.held.amount_nanos,
            output_cap=cap,
            expires_at=datetime.now(UTC) + timedelta(seconds=asked.hold_seconds),
        )
    await send_json(send, orjson.dumps(quote), request_id=call.request_text, extra=extra)
