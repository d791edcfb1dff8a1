"""What a test plants into a gateway process before it serves (see tests.support.serve)."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from apps.billing.pending import Pace
from apps.billing.writer import LedgerWriter
from apps.proxy import asgi, call, delivery, gateway, protocol, relay
from apps.quotas import limits

BEFORE_SETTLEMENT = "demo-chat-bug-before"
AFTER_SETTLEMENT = "demo-chat-bug-after"
INSIDE_A_STREAM = "demo-chat-bug-inside"
SECRET = "sk-canary-of-an-exception-0123456789"


class PlantedBug(Exception):
    """A bug."""


def shorten_patience() -> None:
    """Have the ledger wait for tenths of a second where it would wait for seconds."""
    pace = Pace(hold=0.5, journal_after=0.5, lease=2, duty=0.5, stranger=2.0)
    vars(gateway)["LedgerWriter"] = partial(LedgerWriter, pace=pace)


def lengthen_patience() -> None:
    """Have settlements wait for the database and not go to the journal."""
    pace = Pace(journal_after=60.0)
    vars(gateway)["LedgerWriter"] = partial(LedgerWriter, pace=pace)


def break_before_settlement() -> None:
    """Have calls of one model fail between the hold and the request to the provider."""
    real = vars(relay)["Sending"]

    def sending(*, upstream_model: str, **options: Any) -> Any:
        if upstream_model.startswith(BEFORE_SETTLEMENT):
            raise PlantedBug(f"planted with {SECRET}")
        return real(upstream_model=upstream_model, **options)

    vars(relay)["Sending"] = sending


def break_background() -> None:
    """Have each thing that runs in the background fail the first time that it does its work."""

    def fail_once(real: Callable[..., Any]) -> Callable[..., Any]:
        failures = iter([PlantedBug("planted")])

        @wraps(real)
        def failing(*arguments: Any, **options: Any) -> Any:
            for failure in failures:
                raise failure
            return real(*arguments, **options)

        return failing

    vars(gateway)["read_daily_costs"] = fail_once(vars(gateway)["read_daily_costs"])
    for owner, name in ((call.Call, "on_tick"), (limits.LocalLimiter, "renew")):
        setattr(owner, name, fail_once(getattr(owner, name)))


def break_after_settlement() -> None:
    """Have calls of one model fail between the settlement and the head of the answer."""
    real = delivery.Delivery.start

    def start(self: delivery.Delivery, *arguments: Any, **options: Any) -> None:
        route = self._call.route
        if route is not None and route.upstream_name.startswith(AFTER_SETTLEMENT):
            raise PlantedBug(f"planted with {SECRET}")
        real(self, *arguments, **options)

    delivery.Delivery.start = start  # type: ignore[method-assign]  # that is the bug


def break_inside_a_stream() -> None:
    """Have streams of one model fail when some of an answer has been sent on."""
    real, real_now = delivery.Delivery.send, delivery.Delivery.send_now

    def break_off(self: delivery.Delivery) -> None:
        route, sent = self._call.route, self._call.output_bytes
        if route is not None and route.upstream_name.startswith(INSIDE_A_STREAM) and sent > 2_000:
            raise PlantedBug(f"planted with {SECRET}")

    async def send(self: delivery.Delivery, data: bytes, idle_seconds: float) -> None:
        break_off(self)
        await real(self, data, idle_seconds)

    def send_now(self: delivery.Delivery, data: bytes) -> None:
        break_off(self)
        real_now(self, data)

    delivery.Delivery.send = send  # type: ignore[method-assign]  # that is the bug
    delivery.Delivery.send_now = send_now  # type: ignore[method-assign]  # the same


def hang_when_asked_for_health() -> None:
    """Have the event loop stand still for good: at one path in an expression that lets no other
    thread run, at another in a wait.
    """

    async def hang(self: asgi.DataPlane, path: str, *_: object) -> None:
        if path == "/health":
            re.fullmatch(r"(a+)+", "a" * 64 + "b")
        elif path == "/api/health":
            time.sleep(3_600)  # noqa: ASYNC251 (that is the bug)
        else:
            await real(self, path, *_)

    real: Any = vars(asgi.DataPlane)["_answer_probe"]
    asgi.DataPlane._answer_probe = hang  # type: ignore[method-assign,assignment]  # that is the bug


def shrink_send_buffers() -> None:
    """Have the system keep little for each client: it takes megabytes off whoever writes."""
    real = protocol.GatewayProtocol.connection_made

    def connection_made(self: protocol.GatewayProtocol, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        real(self, transport)

    protocol.GatewayProtocol.connection_made = connection_made  # type: ignore[method-assign]  # as said
