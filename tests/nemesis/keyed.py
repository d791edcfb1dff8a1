"""Clients with an `Idempotency-Key`: they repeat a call until it is answered, and then once more.

All calls with one key say it in their user agent, too, which is on record: so the database knows
of those whose answer nobody saw.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final
from uuid import uuid4

from tests.faults.site import Payer
from tests.nemesis.calling import Answer, Caller, Order
from tests.nemesis.menu import Menu
from tests.nemesis.surfaces import SURFACES

AGENT: Final = "nemesis-key/"
_REPEATED: Final = 0.6  # of those that were answered
_CHANGED: Final = 0.2
_TRIES_MAX: Final = 100
_SECONDS_MAX: Final = 80.0
_PAUSE_SECONDS: Final = (0.2, 1.0)


@dataclass(slots=True)
class KeyLog:
    """What was seen of the calls with one key."""

    bodies: dict[str, bytes] = field(default_factory=dict)  # whole, by the id of the call
    parts: dict[str, bytes] = field(default_factory=dict)  # as far as they came

    def note(self, answer: Answer) -> list[str]:
        """Take an answer and return what contradicts those before it."""
        seen, body = answer.seen, answer.body
        is_replay = answer.headers.get("idempotent-replayed") == "true"
        if seen.status != 200:
            known = self.bodies.get(seen.request_id) if is_replay else None
            return [] if known in (None, body) else [_differ("a replay", known, body)]
        # Of a stream that failed the last event is ours, and no part of the answer.
        if not seen.is_whole:
            if not seen.error:
                self.parts[seen.request_id] = body
            return []
        problems = []
        earlier = self.bodies.get(seen.request_id)
        if earlier is not None and not is_replay:
            problems.append("the same id twice, and no replay")
        if earlier not in (None, body):
            problems.append(_differ("a replay", earlier, body))
        part = self.parts.get(seen.request_id, b"")
        if not body.startswith(part):
            problems.append(_differ("what came before it broke off", part, body))
        self.bodies[seen.request_id] = body
        return problems


def _differ(what: str, first: bytes | None, second: bytes) -> str:
    return f"{what} differs: {first!r:.300} and {second!r:.300}"


class KeyedClients:
    """Calls that are repeated with their key. `is_over` ends what takes too long."""

    def __init__(self, caller: Caller, menu: Menu, is_over: Callable[[], bool]) -> None:
        self._caller = caller
        self._menu = menu
        self._is_over = is_over
        self.answered: dict[str, set[str]] = {}  # the calls that came whole, by their key

    async def call(self, random: Random, payer: Payer) -> None:
        """Make one call, whatever it takes, and look whether it stays what it was."""
        key = uuid4().hex
        dishes = self._menu.choose(random)
        model = random.choice((dishes.quick, dishes.short, dishes.medium, *dishes.shaky))
        surface = random.choice(SURFACES)
        is_stream = random.random() < 0.5
        order = Order(
            surface,
            payer,
            model.name,
            is_stream=is_stream,
            client="keyed",
            headers={"idempotency-key": key, "user-agent": AGENT + key},
            # What is repeated is the same: nothing is left open.
            body=surface.body(model.name, is_stream=is_stream, random=random),
        )
        log = KeyLog()
        if await self._repeat(random, order, log):
            await self._look_again(random, order, log)
        self.answered[key] = set(log.bodies)

    async def _look_again(self, random: Random, order: Order, log: KeyLog) -> None:
        if random.random() < _REPEATED:
            await self._once(random, order, log)
        if random.random() < _CHANGED:
            await self._ask_for_another(random, order)

    async def _repeat(self, random: Random, order: Order, log: KeyLog) -> bool:
        """Return whether the call was answered."""
        until = time.monotonic() + _SECONDS_MAX
        for _ in range(_TRIES_MAX):
            answer = await self._once(random, order, log)
            if answer.seen.is_whole:
                return True
            if _is_final(answer) or self._is_over() or time.monotonic() > until:
                return False
            await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))
        return False

    async def _once(self, random: Random, order: Order, log: KeyLog) -> Answer:
        answer = await self._caller.call(random, order, keeps_body=True)
        answer.seen.problems += log.note(answer)
        return answer

    async def _ask_for_another(self, random: Random, order: Order) -> None:
        """Use a key that has been used for something else: nothing may be answered."""
        other = self._menu.choose(random).medium.name
        if other == order.model:
            return
        body = order.surface.body(other, is_stream=order.is_stream)
        changed = replace(order, model=other, body=body, client="keyed, changed")
        answer = await self._caller.call(random, changed, keeps_body=True)
        if answer.seen.status == 200:
            answer.seen.problems.append("an answer to something else than the key was used for")


def _is_final(answer: Answer) -> bool:
    """Return whether clients do not repeat this answer."""
    status, headers = answer.seen.status, answer.headers
    if status in (0, 200):
        return False  # Nothing, or something that broke off.
    if headers.get("x-should-retry") == "false":
        return True
    return "retry-after" not in headers and status < 500
