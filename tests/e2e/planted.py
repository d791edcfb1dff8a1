"""Bugs that a test plants into a gateway process before it serves (see tests.support.serve)."""

from __future__ import annotations

from typing import Any

from apps.proxy import relay

BEFORE_SETTLEMENT = "demo-chat-bug-before"
AFTER_SETTLEMENT = "demo-chat-bug-after"
SECRET = "sk-canary-of-an-exception-0123456789"


class PlantedBug(Exception):
    """A bug."""


def break_before_settlement() -> None:
    """Have calls of one model fail between the hold and the request to the provider."""
    real = relay.upstream_body

    def upstream_body(*arguments: Any, upstream_model: str, **options: Any) -> bytes:
        if upstream_model.startswith(BEFORE_SETTLEMENT):
            raise PlantedBug(f"planted with {SECRET}")
        return real(*arguments, upstream_model=upstream_model, **options)

    relay.upstream_body = upstream_body  # type: ignore[assignment]  # that is the bug


def break_after_settlement() -> None:
    """Have calls of one model fail between the settlement and the head of the answer."""
    real = relay.Relay._start

    async def start(self: relay.Relay, *arguments: Any) -> None:
        route = self._call.route
        if route is not None and route.upstream_name.startswith(AFTER_SETTLEMENT):
            raise PlantedBug(f"planted with {SECRET}")
        await real(self, *arguments)

    relay.Relay._start = start  # type: ignore[method-assign]  # that is the bug
