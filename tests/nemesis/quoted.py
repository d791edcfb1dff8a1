"""Clients that have a call quoted and held, and then spend the hold, twice, or let it lapse."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

import orjson

from tests.faults.site import Payer
from tests.nemesis.calling import Caller, Order
from tests.nemesis.menu import Menu
from tests.nemesis.seen import Seen
from tests.nemesis.surfaces import ANTHROPIC, OPENAI, RESPONSES

_ENDPOINTS: Final = (
    ("chat/completions", OPENAI),
    ("messages", ANTHROPIC),
    ("responses", RESPONSES),
)
_HELD_SECONDS: Final = (1, 12)
_SPENT: Final = 0.7
_SPENT_TWICE: Final = 0.3
_WAIT_SECONDS: Final = 2.0
_HEADER: Final = "x-quote-id"


class QuotedClients:
    """Calls whose hold is placed before them."""

    def __init__(self, caller: Caller, menu: Menu) -> None:
        self._caller = caller
        self._menu = menu

    async def call(self, random: Random, payer: Payer) -> None:
        """Have a call held, and make it or not."""
        dishes = self._menu.choose(random)
        is_stream = random.random() < 0.5
        model = (dishes.short if is_stream else dishes.quick).name
        endpoint, surface = random.choice(_ENDPOINTS)
        body = surface.body(model, is_stream=is_stream, random=random)
        seen = Seen("quote", model, is_quote=True)
        asked = {
            "endpoint": endpoint,
            "request": body,
            "hold": True,
            "hold_seconds": random.randint(*_HELD_SECONDS),
        }
        told = await self._caller.ask(
            random, seen, "/v1/quote", payer.key, method="POST", body=asked
        )
        if seen.status != 200 or not seen.is_clean:
            return
        quote_id = seen.request_id
        hold = orjson.loads(told)["hold"]
        if hold is None or hold["id"] != quote_id:
            seen.problems.append(f"a quote without the hold that was asked for: {told[:300]!r}")
        if random.random() >= _SPENT:
            return
        await asyncio.sleep(random.uniform(0.0, _WAIT_SECONDS))
        order = Order(
            surface,
            payer,
            model,
            is_stream=is_stream,
            client="quoted",
            headers={_HEADER: quote_id},
            body=body,
            quote_id=quote_id,
        )
        calls = 2 if random.random() < _SPENT_TWICE else 1
        answers = [self._caller.call(random, order) for _ in range(calls)]
        await asyncio.gather(*answers)
