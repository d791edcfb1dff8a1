"""The client API: a bare ASGI application beside Django's.

It answers `/v1/…`, `/v1beta/…` and the same below `/api`, with and without a slash at the end, and
the probes; `auditing.asgi` sends it those paths and nothing else.

What becomes of a call once its caller is known is in `apps.proxy.arrivals`.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs
from uuid import UUID

import orjson
from django.db import DatabaseError, InterfaceError

from apps.core.errors import GatewayError
from apps.core.ids import new_uuid7
from apps.core.logs import Origin, origin
from apps.proxy import reads
from apps.proxy.arrivals import Arrival
from apps.proxy.authentication import authenticate, check_operation
from apps.proxy.dialects.gemini_paths import read_form
from apps.proxy.endings import Interrupted
from apps.proxy.gateway import Gateway
from apps.proxy.http import (
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    client_address,
    header_map,
    read_body,
    send_error,
    send_json,
)
from apps.proxy.limits import check_limits, count_request
from apps.proxy.operations import Operation, dialect_of, find_operation, is_operation_path
from apps.proxy.protocol import Connection
from apps.proxy.repeats import read_idempotency_key
from apps.proxy.retrieval import ask_provider, read_question
from apps.proxy.snapshot import Caller, Snapshot
from apps.proxy.weight import Weight

PROBES: Final = frozenset({"/health", "/api/health", "/livez", "/readyz"})
_SLOW_BODY_SECONDS: Final = 1.0
_FIELDS_MAX: Final = 20  # of a query, in which only two are known

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
        if operation is None or (method == "POST" and operation.may_name_method):
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
        if dialect == "gemini":
            read_form(scope["query_string"])
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
            found = reads.describe_model(snapshot, caller, operation.model, now, dialect)
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
        arrival = Arrival(
            gateway=gateway,
            operation=operation,
            scope=scope,
            request_id=request_id,
            snapshot=snapshot,
            caller=caller,
            headers=headers,
            address=address,
            begun=begun,
            now=now,
            weight=weight,
        )
        try:
            check_limits(gateway, caller.scopes, operation.dialect)
            key = read_idempotency_key(headers)
            arrival.body = await read_body(receive, headers, weight.reserve, connection.take_body)
            if gateway.monotonic() - begun > _SLOW_BODY_SECONDS:
                # The key may have been revoked while its body was under way.
                self._authenticate_anew(arrival)
            await arrival.answer(key, connection, send)
        except GatewayError as refusal:
            await arrival.refuse(refusal, send)
        finally:
            arrival.end()

    def _authenticate_anew(self, arrival: Arrival) -> None:
        """Have a request go on with the configuration of now. Raises what `_authenticate` does."""
        arrival.snapshot = self._snapshot()
        arrival.caller, _, _ = self._authenticate(
            arrival.snapshot, arrival.scope, datetime.now(UTC), arrival.operation
        )

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
