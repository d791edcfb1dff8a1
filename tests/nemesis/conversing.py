"""Clients that go on from answers that their provider keeps, read them again and delete them."""

from __future__ import annotations

import re
from random import Random
from typing import Final

import orjson

from tests.faults.site import Payer
from tests.nemesis.calling import Caller, Order
from tests.nemesis.menu import Menu
from tests.nemesis.seen import Seen
from tests.nemesis.surfaces import RESPONSES

_TURNS_MAX: Final = 3
_READ: Final = 0.5
_DELETED: Final = 0.3
_ID: Final = re.compile(rb'"id":"(resp_[^"]+)"')
# Where the settlement of an answer is still in the journal, or its row was refused, it cannot be
# named (yet); so says the gateway.
_FORGOTTEN: Final = frozenset({"previous_response_not_found", "response_not_found"})


class ConversingClients:
    """Conversations of some turns, of which the provider keeps the earlier ones."""

    def __init__(self, caller: Caller, menu: Menu) -> None:
        self._caller = caller
        self._menu = menu
        self.forgotten = 0  # answers that could not be named later

    async def call(self, random: Random, payer: Payer) -> None:
        """Hold one conversation."""
        dishes, previous = self._menu.dishes["openai-responses"], ""
        for _ in range(_TURNS_MAX):
            is_stream = random.random() < 0.5
            model = (dishes.short if is_stream else dishes.quick).name
            body = RESPONSES.body(model, is_stream=is_stream)
            if previous:
                body["previous_response_id"] = previous
            order = Order(
                RESPONSES, payer, model, is_stream=is_stream, client="conversation", body=body
            )
            answer = await self._caller.call(random, order, keeps_body=True)
            self.forgotten += answer.seen.error in _FORGOTTEN
            found = _ID.search(answer.body)
            if not answer.seen.is_whole or found is None:
                break
            previous = found[1].decode()
        if previous and random.random() < _READ:
            await self._read(random, payer, previous)

    async def _read(self, random: Random, payer: Payer, response_id: str) -> None:
        """Read an answer, have somebody else try to, and delete it."""
        path = f"/v1/responses/{response_id}"
        seen, told = await self._ask(random, payer, path)
        self.forgotten += seen.error in _FORGOTTEN
        if told and orjson.loads(told).get("id") != response_id:
            seen.problems.append(f"asked for {response_id}, got {told[:300]!r}")
        stranger = random.choice([other for other in self._menu.rich if other is not payer])
        seen, told = await self._ask(random, stranger, path)
        if told:
            seen.problems.append(f"somebody else's answer was told: {told[:300]!r}")
        if random.random() >= _DELETED:
            return
        seen, _ = await self._ask(random, payer, path, method="DELETE")
        if seen.status == 200 and seen.is_clean:
            seen, told = await self._ask(random, payer, path)
            if told:
                seen.problems.append(f"a deleted answer was told: {told[:300]!r}")

    async def _ask(
        self, random: Random, payer: Payer, path: str, *, method: str = "GET"
    ) -> tuple[Seen, bytes]:
        """Return what was seen, and the answer where it is one."""
        seen = Seen("stored answers")
        told = await self._caller.ask(random, seen, path, payer.key, method=method)
        return seen, told if seen.status == 200 and seen.is_clean else b""
