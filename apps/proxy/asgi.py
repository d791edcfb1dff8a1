"""The client API: a bare ASGI application beside Django's.

It answers `/v1/…`, `/v1beta/…` and the same below `/api`, with and without a slash at the end, and
the probes; `auditing.asgi` sends it those paths and nothing else.

Over 400 lines because it is one way, from a request to its answer.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs
from uuid import UUID

import orjson
from django.db import DatabaseError, InterfaceError

from apps.core.errors import GatewayError
from apps.core.ids import new_uuid7
from apps.core.logs import Origin, origin
from apps.proxy import reads
from apps.proxy.admission import authenticate, check_operation, plan_call
from apps.proxy.cached_calls import look_in_cache
from apps.proxy.call import Call
from apps.proxy.dialects.gemini_paths import is_array
from apps.proxy.dialects.gemini_request_reader import with_path
from apps.proxy.dialects.parsed_request import ParsedRequest
from apps.proxy.dialects.surfaces import (
    complete_count,
    count_document,
    headers_for,
    parse_request,
)
from apps.proxy.endings import Interrupted
from apps.proxy.estimate import estimate_tokens
from apps.proxy.gateway import Gateway
from apps.proxy.guard import Circumstances
from apps.proxy.http import (
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    check_may_stream,
    client_address,
    header_map,
    read_body,
    send_error,
    send_json,
)
from apps.proxy.json_body import parse_object, serialise
from apps.proxy.limits import count_request
from apps.proxy.operations import (
    Operation,
    dialect_of,
    find_operation,
    is_operation_path,
    recorded_path,
)
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
from apps.proxy.repeats import Repeated, answer_in_spite, answer_repeat, make_keyed, read_key
from apps.proxy.retrieval import ask_provider, read_question
from apps.proxy.running import run_limited
from apps.proxy.snapshot import Caller, Snapshot
from apps.proxy.stickiness import find_sticky_key
from apps.proxy.weight import Weight

PROBES: Final = frozenset({"/health", "/api/health", "/livez", "/readyz"})
_SLOW_BODY_SECONDS: Final = 1.0
_FIELDS_MAX: Final = 20  # of a query, in which only two are known
_OF_CALLERS: Final = frozenset({"E02", "E04", "E05", "E06", "E08"})  # counted by who finds them

logger = logging.getLogger(__name__)


def is_client_path(path: str) -> bool:
    """Return whether a path belongs to the data plane."""
    return is_operation_path(path) or path in PROBES


class DataPlane:
    """The ASGI application of the client API."""

    def __init__(self) -> None:
        self.gateway = Gateway()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        if path in PROBES:
            await self._answer_probe(path, scope, send)
            return
        request_id = new_uuid7()
        origin.set(Origin(request_id, scope["headers"]))
        try:
            await self._route(path, scope, receive, send, request_id)
        except GatewayError as error:
            if error.is_refusal:
                self.gateway.counts.refusals.add(error.row, error.code)
            await send_error(
                send,
                error,
                request_id=str(request_id),
                dialect=dialect_of(path, scope["headers"]),
                is_head=scope["method"] == "HEAD",
            )
        except ClientGone:
            return
        except Interrupted as interruption:
            if interruption.reason != "client":
                self.gateway.counts.refusals.add("E36", "service_restarting")
                # The gateway began to drain while the hold was being placed; it is given back.
                await send_error(
                    send,
                    GatewayError("E36"),
                    request_id=str(request_id),
                    dialect=dialect_of(path, scope["headers"]),
                )
        except asyncio.CancelledError:
            # The server ends what did not drain in time, where nothing could be settled any more.
            await _fail(scope, send, request_id, GatewayError("E36"))
        except Exception:  # a bug: logged whole, answered with E70 or E71
            self.gateway.counts.internal_errors.add()
            logger.exception("a call failed")
            message = f"Internal error, id {request_id}."
            await _fail(scope, send, request_id, GatewayError("E70", message=message))

    async def _route(
        self, path: str, scope: Scope, receive: Receive, send: Send, request_id: UUID
    ) -> None:
        if scope["extensions"]["gateway.connection"].is_surplus:
            raise GatewayError("E37")
        operation, method = find_operation(path), scope["method"]
        if operation is None:
            raise GatewayError("E09")
        if method not in operation.methods:
            allowed = ", ".join(name for name in operation.methods if name != "HEAD")
            raise GatewayError("E10", headers=(("allow", allowed),))
        if "POST" in operation.methods:
            await self._call(operation, scope, receive, send, request_id)
        else:
            await self._read(operation, scope, send, request_id)

    # ---- probes and reads

    async def _answer_probe(self, path: str, scope: Scope, send: Send) -> None:
        is_ok = path != "/readyz" or self.gateway.is_ready
        body = orjson.dumps({"ok": is_ok})
        headers: Headers = [
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"content-length", b"%d" % len(body)),
        ]
        status = 200 if is_ok else 503
        await send({"type": "http.response.start", "status": status, "headers": headers})
        is_head = scope["method"] == "HEAD"
        await send({"type": "http.response.body", "body": b"" if is_head else body})

    async def _read(self, operation: Operation, scope: Scope, send: Send, request_id: UUID) -> None:
        """Answer a question that costs nothing; what is refused is counted as of calls."""
        snapshot = self._snapshot()
        caller, _, _ = self._authenticate(snapshot, scope, datetime.now(UTC), operation)
        answer = self._answer_stored if operation.response_id else self._answer_read
        try:
            await answer(snapshot, caller, operation, scope, send, request_id)
        except GatewayError as error:
            if error.is_refusal:
                self.gateway.count_refusal(caller.key.id, error.code)
            raise

    async def _answer_read(
        self,
        snapshot: Snapshot,
        caller: Caller,
        operation: Operation,
        scope: Scope,
        send: Send,
        request_id: UUID,
    ) -> None:
        now = datetime.now(UTC)
        dialect = dialect_of(scope["path"], scope["headers"])
        found: dict[str, Any]
        extra: Headers = []
        if operation.kind == "models":
            found = reads.list_models(snapshot, caller, now, dialect)
        elif operation.kind == "usage":
            # The calls of a user are summed up for it, in a thread that others wait for.
            extra = await count_request(self.gateway, caller.scopes, str(request_id))
            try:
                found = await self.gateway.read(reads.read_usage, self.gateway.used, caller)
            except (DatabaseError, InterfaceError) as error:
                raise GatewayError("E34") from error
        else:
            found = reads.get_model(snapshot, caller, operation.model, now, dialect)
        await send_json(send, orjson.dumps(found), request_id=str(request_id), extra=extra)

    async def _answer_stored(
        self,
        snapshot: Snapshot,
        caller: Caller,
        operation: Operation,
        scope: Scope,
        send: Send,
        request_id: UUID,
    ) -> None:
        extra = await count_request(self.gateway, caller.scopes, str(request_id))
        question = read_question(operation, scope["method"], scope["query_string"])
        weight = Weight(self.gateway, caller.member.id)
        try:
            body = await ask_provider(
                self.gateway, snapshot, caller, question, str(request_id), weight
            )
            await send_json(send, body, request_id=str(request_id), extra=extra)
        finally:
            weight.give_back()

    # ---- calls

    async def _call(
        self,
        operation: Operation,
        scope: Scope,
        receive: Receive,
        send: Send,
        request_id: UUID,
    ) -> None:
        """Answer a call, a quote of one, or the count of what it would have read."""
        gateway = self.gateway
        begun, now = gateway.monotonic(), datetime.now(UTC)
        snapshot = self._snapshot()
        caller, headers, address = self._authenticate(snapshot, scope, now, operation)
        connection: Connection = scope["extensions"]["gateway.connection"]
        weight = Weight(gateway, caller.member.id)
        call: Call | None = None
        keyed = None
        try:
            key = read_key(headers)
            body = await read_body(receive, headers, weight.reserve, connection.take_body)
            if gateway.monotonic() - begun > _SLOW_BODY_SECONDS:
                # The key may have been revoked while its body was under way.
                snapshot = self._snapshot()
                caller, _, _ = self._authenticate(snapshot, scope, datetime.now(UTC), operation)
            work = partial(gateway.body_work.run, caller.member.id, len(body))
            asked: QuoteRequest | None = None
            agreed: Agreed | None = None
            if operation.kind == "quote":
                asked = await work(_read_quote, body)
                request = asked.request
            else:
                parsed, request = await work(_read_call, operation, scope["query_string"], body)
                if request.is_stream:
                    check_may_stream(scope)
                if request.dialect != "openai":
                    told = headers_for(request.dialect, headers)
                    request = request._replace(headers=told) if told else request
                if key is not None and operation.kind == "call":
                    keyed = await make_keyed(
                        gateway, caller, key, operation.endpoint, parsed, len(body)
                    )
                if QUOTE_HEADER in headers:
                    agreed = await find_agreed(gateway, caller, headers[QUOTE_HEADER])
            if snapshot.rules is not None:
                agent = headers.get(b"user-agent", b"")
                around = Circumstances(request_id, address, agent, len(body), now)
                await gateway.guard.check(snapshot.rules, snapshot, caller, request, around)
            promise = agreed and agreed.promise
            plan = await work(plan_call, snapshot, caller, request, now, promise)
            call = Call(
                gateway,
                plan,
                request_id=request_id,
                body=body,
                path=recorded_path(scope["path"], operation),
                address=address,
                user_agent=headers.get(b"user-agent", b"").decode("latin-1"),
                now=now,
                begun=begun,
                weight=weight,
            )
            call.keyed = keyed
            if asked is not None:
                await self._quote(call, asked, send)
                return
            if operation.kind == "count":
                await self._count(call, operation, send)
                return
            if call.plan.model.is_sticky:
                call.sticky_key = find_sticky_key(headers, request, user_id=caller.member.id)
            if call.plan.model.cache_seconds is not None:
                look_in_cache(call, headers)
            try:
                if QUOTE_HEADER in headers:
                    spend_with(call, agreed)
                await run_limited(call, connection)
            except Repeated as repeated:
                await answer_repeat(gateway, keyed, repeated.first, send)
        except GatewayError as refusal:
            # What had a hold is on record already.
            is_unheld = call is None or call.held is None
            error = await answer_in_spite(
                refusal,
                gateway,
                keyed if is_unheld else None,
                send,
                scopes=() if call is not None and call.is_counted else caller.scopes,
                request_text=str(request_id),
            )
            if error is None:
                return
            is_counted = error.row in _OF_CALLERS or (call is not None and call.is_settled)
            if (error.is_refusal or is_unheld) and not is_counted:
                gateway.count_refusal(caller.key.id, error.code)
                if not error.is_refusal:  # No key is left; refusals are counted with the others.
                    gateway.counts.refusals.add(error.row, error.code)
            raise error from None
        finally:
            weight.give_back()
            if keyed is not None:
                keyed.forget()

    async def _count(self, call: Call, operation: Operation, send: Send) -> None:
        """Answer how many tokens a call would read."""
        extra = await count_request(
            self.gateway, call.plan.caller.scopes, call.request_text, operation.dialect
        )
        tokens = await count_input(call.plan, self.gateway.token_counter)
        told = orjson.dumps(count_document(operation.dialect, tokens))
        await send_json(send, told, request_id=call.request_text, extra=extra)

    async def _quote(self, call: Call, asked: QuoteRequest, send: Send) -> None:
        """Answer what a call would cost, and hold it where that is asked for, too."""
        gateway, plan = self.gateway, call.plan
        extra = await count_request(gateway, plan.caller.scopes, call.request_text)
        read = estimate_tokens(serialise(asked.request.body))
        likely = expect_usage(plan, gateway.habits, input_tokens=read)
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

    def _snapshot(self) -> Snapshot:
        if self.gateway.is_closed:
            raise GatewayError("E36")
        snapshot = self.gateway.find_snapshot()
        if snapshot is None:
            raise GatewayError("E34")
        return snapshot

    def _authenticate(
        self, snapshot: Snapshot, scope: Scope, now: datetime, operation: Operation
    ) -> tuple[Caller, dict[bytes, bytes], str]:
        """Return who calls, with the headers by name, and from which address.

        Raises E01 to E06 and E08, and counts them.
        """
        headers = header_map(scope)
        address = client_address(scope, headers, self.gateway.trusted_proxies)
        key_id = 0
        try:
            caller = authenticate(
                snapshot,
                headers,
                pepper=self.gateway.pepper,
                address=address,
                now=now,
                query_key=_key_in_query(scope) if scope["query_string"] else None,
            )
            key_id = caller.key.id
            check_operation(caller.key, operation)
        except GatewayError as error:
            self.gateway.count_refusal(key_id, error.code)
            raise
        return caller, headers, address


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
        parsed = with_path(
            parsed,
            model=operation.model,
            is_stream=operation.is_stream,
            is_array=operation.is_stream and is_array(query),
        )
    return parsed, parse_request(operation.endpoint, operation.dialect, parsed)


def _key_in_query(scope: Scope) -> bytes | None:
    """Return the API key in an address, which Google's clients may send there; it is in no log."""
    query = scope["query_string"]
    if b"key" not in query and b"%" not in query:
        return None  # In no spelling of it.
    if dialect_of(scope["path"], scope["headers"]) != "gemini":
        return None
    try:
        given = parse_qs(query.decode("latin-1"), max_num_fields=_FIELDS_MAX)
    except ValueError:
        return None  # More than any client sends.
    keys = {key.encode("utf-8") for key in given.get("key", ())}
    if len(keys) > 1:
        raise GatewayError("E03")
    return next(iter(keys), None)


async def _fail(scope: Scope, send: Send, request_id: UUID, error: GatewayError) -> None:
    """Answer a failure, or break the stream off where it has begun."""
    connection: Connection | None = scope.get("extensions", {}).get("gateway.connection")
    if connection is not None and connection.has_started:
        connection.abort()
        return
    dialect = dialect_of(scope["path"], scope["headers"])
    await send_error(send, error, request_id=str(request_id), dialect=dialect)
