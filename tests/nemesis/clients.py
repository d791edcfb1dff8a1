"""All clients: plain ones, the official SDKs, those that leave or read slowly, those that repeat
calls with their key, have them quoted or go on from kept answers, and administrators.

Each is a loop with a generator of its own, seeded: it calls, notes what it saw, and waits a little.
Each call is in any dialect, of a model whose providers speak any dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Final

from apps.ai_models.models import AIModel
from tests.faults.crowd import Crowd
from tests.faults.site import Payer
from tests.nemesis.calling import Caller, Door, Order
from tests.nemesis.conversing import ConversingClients
from tests.nemesis.keyed import KeyedClients
from tests.nemesis.menu import Menu
from tests.nemesis.quoted import QuotedClients
from tests.nemesis.raw import POINTS, Habit, RawCall
from tests.nemesis.seen import Diary, Seen
from tests.nemesis.surfaces import SURFACES

_UNREACHED_SECONDS: Final = 0.3
_LISTS: Final = (
    *("requests/?page_size=20", "ledger/entries/?page_size=20", "ledger/accounts/"),
    *("stats/overview/", "events/", "users/", "models/?page_size=5", "refusals/"),
)

Step = Callable[[Random, Payer], Awaitable[None]]


class Clients:
    """Starts the loops and ends them. `seed` seeds each of them."""

    def __init__(
        self, crowd: Crowd, menu: Menu, doors: Sequence[Door], diary: Diary, seed: int
    ) -> None:
        self._crowd = crowd
        self._menu = menu
        self._diary = diary
        self._seeds = Random(seed)
        self._loops: list[Any] = []
        self._is_over = False
        self._is_calm = False
        self._caller = Caller(doors, diary)
        # Here, for the SDKs take a second to import, and every session of tests reads this module.
        from tests.nemesis.sdks import Sdks

        self._sdks = Sdks(doors, diary)
        self._quoted = QuotedClients(self._caller, menu)
        self.keyed = KeyedClients(self._caller, menu, lambda: self._is_over)
        self.conversing = ConversingClients(self._caller, menu)

    def start(self) -> None:
        """Start all loops."""
        self._crowd.start(self._open()).result(30)
        menu = self._menu
        for number in range(5):
            self._begin(self._call_plainly, menu.rich[number % 3])
            self._begin(self._stream_plainly, menu.rich[number % 3])
            self._begin(self._use_sdk, menu.rich[number % 3])
        for _ in range(6):
            self._begin(self._leave, menu.rich[0])
        for _ in range(3):
            self._begin(self._read_slowly, menu.rich[1])
        for _ in range(10):
            self._begin(self._ask_naughty, menu.rich[2])
        for payer in menu.payers[len(menu.rich) :]:
            self._begin(self._spend_what_is_there, payer)
        for payer in (*menu.rich, *menu.quotas):
            self._begin(self.keyed.call, payer)
        for payer in (menu.rich[0], menu.quotas[0]):
            self._begin(self._quoted.call, payer)
        for payer in (menu.rich[1], menu.rich[2]):
            self._begin(self.conversing.call, payer)
        self._begin(self._ask_shaky, menu.rich[1])
        self._begin(self._ask_shaky, menu.rich[2])
        self._begin(self._read, menu.rich[0])
        for _ in range(3):
            self._begin(self._administrate, menu.rich[0])

    def calm_down(self) -> None:
        """Go on with what must succeed; nobody misbehaves any more."""
        self._is_calm = True

    def stop(self, timeout_seconds: float) -> None:
        """Let all calls end, and end the loops."""
        self._is_over = self._is_calm = True
        for loop in self._loops:
            loop.result(timeout_seconds)
        self._crowd.start(self._close()).result(10)

    # ---- the loops

    def _begin(self, step: Step, payer: Payer) -> None:
        random = Random(self._seeds.random())
        self._loops.append(self._crowd.start(self._repeat(step, payer, random)))

    async def _repeat(self, step: Step, payer: Payer, random: Random) -> None:
        is_naughty = step not in (self._call_plainly, self._stream_plainly, self._use_sdk)
        while not self._is_over and not (is_naughty and self._is_calm):
            await step(random, payer)
            await asyncio.sleep(random.uniform(0.05, 0.4))

    async def _open(self) -> None:
        await self._caller.open()
        await self._sdks.open()

    async def _close(self) -> None:
        await self._caller.close()
        await self._sdks.close()

    # ---- plain clients, and the official SDKs

    async def _call_plainly(self, random: Random, payer: Payer) -> None:
        model = self._menu.choose(random).quick
        await self._call(random, payer, model, is_stream=False, is_ordinary=True)

    async def _stream_plainly(self, random: Random, payer: Payer) -> None:
        dishes = self._menu.choose(random)
        models = (dishes.quick, dishes.short, dishes.short, dishes.medium, dishes.long)
        await self._call(random, payer, random.choice(models), is_stream=True, is_ordinary=True)

    async def _use_sdk(self, random: Random, payer: Payer) -> None:
        await self._sdks.call(random, payer, self._menu.choose(random))

    async def _ask_naughty(self, random: Random, payer: Payer) -> None:
        model = random.choice(self._menu.choose(random).naughty)
        is_stream = random.random() < 0.6
        await self._call(random, payer, model, is_stream=is_stream, client="misbehaviour")

    async def _ask_shaky(self, random: Random, payer: Payer) -> None:
        model = random.choice(self._menu.choose(random).shaky)
        await self._call(random, payer, model, is_stream=True, client="shaky")

    async def _spend_what_is_there(self, random: Random, payer: Payer) -> None:
        dishes, is_stream = self._menu.choose(random), random.random() < 0.5
        model = random.choice((dishes.quick, dishes.short))
        await self._call(random, payer, model, is_stream=is_stream, client="limited")

    async def _call(
        self,
        random: Random,
        payer: Payer,
        model: AIModel,
        *,
        is_stream: bool,
        client: str = "plain",
        is_ordinary: bool = False,
    ) -> None:
        surface = random.choice(SURFACES)
        order = Order(
            surface, payer, model.name, is_stream, f"{client} {surface.name}", is_ordinary
        )
        await self._caller.call(random, order)

    async def _read(self, random: Random, payer: Payer) -> None:
        quick = self._menu.choose(random).quick.name
        path = random.choice(("models", f"models/{quick}", "usage"))
        await self._caller.ask(random, Seen("reader"), f"/v1/{path}", payer.key)

    async def _administrate(self, random: Random, _: Payer) -> None:
        path = f"/api/admin/{random.choice(_LISTS)}"
        await self._caller.ask(random, Seen("administrator"), path, self._menu.admin_token)
        await asyncio.sleep(random.uniform(0.5, 1.5))

    # ---- clients on a bare socket

    async def _leave(self, random: Random, payer: Payer) -> None:
        habit = Habit(leaves=random.choice(POINTS), resets=random.random() < 0.5)
        how = "RST" if habit.resets else "FIN"
        # Of a whole answer there is nothing to leave in the middle of.
        is_stream = habit.leaves != "before headers" or random.random() < 0.5
        model = self._menu.choose(random).paced
        client = f"left {habit.leaves}, {how}"
        await self._go_raw(random, payer, model, habit, client, is_stream=is_stream)

    async def _read_slowly(self, random: Random, payer: Payer) -> None:
        habit = Habit(read_bytes=random.choice((16 << 10, 48 << 10)), pause_seconds=0.5)
        model = self._menu.choose(random).bulky
        await self._go_raw(random, payer, model, habit, "slow reader", is_stream=True)

    async def _go_raw(
        self,
        random: Random,
        payer: Payer,
        model: AIModel,
        habit: Habit,
        client: str,
        *,
        is_stream: bool,
    ) -> None:
        surface = random.choice(SURFACES)
        order = Order(surface, payer, model.name, is_stream=is_stream, client=client)
        seen = Seen(client, model.name, is_stream=is_stream, dialect=surface.dialect)
        port, patience = self._caller.choose(random).port, random.uniform(0.0, 0.2)
        await RawCall(seen, habit, order).run(port, patience=patience)
        self._diary.add(seen)
        if not seen.status and not seen.has_left:
            await asyncio.sleep(_UNREACHED_SECONDS)
