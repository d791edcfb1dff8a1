"""All clients: plain ones, the official SDK, those that leave or read slowly, and administrators.

Each is a loop with a generator of its own, seeded: it calls, notes what it saw, and waits a little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import aiohttp
import openai
import orjson

from apps.ai_models.models import AIModel
from tests.faults.crowd import Crowd
from tests.faults.site import Payer, chat
from tests.nemesis.menu import Menu
from tests.nemesis.raw import POINTS, Habit, RawCall
from tests.nemesis.seen import Diary, Seen

_TAIL_BYTES: Final = 2048
_UNREACHED_SECONDS: Final = 0.3
_CALL_SECONDS_MAX: Final = 90.0
_LISTS: Final = (
    *("requests/?page_size=20", "ledger/entries/?page_size=20", "ledger/accounts/"),
    *("stats/overview/", "events/", "users/", "models/?page_size=5", "refusals/"),
)
_TRY_HEADER: Final = "x-nemesis"


@dataclass(frozen=True, slots=True)
class Door:
    """How a gateway is reached."""

    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


class Clients:
    """Starts the loops and ends them. `random` seeds each of them."""

    def __init__(
        self, crowd: Crowd, menu: Menu, doors: Sequence[Door], diary: Diary, seed: int
    ) -> None:
        self._crowd = crowd
        self._menu = menu
        self._doors = doors
        self._diary = diary
        self._seeds = Random(seed)
        self._loops: list[Any] = []
        self._is_over = False
        self._is_calm = False
        self._http: aiohttp.ClientSession
        self._sdks: list[openai.AsyncOpenAI] = []
        self._tries: dict[str, list[Seen]] = {}
        self._next_try = 0

    def start(self) -> None:
        """Start all loops."""
        self._crowd.start(self._open()).result(10)
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

    def _begin(self, step: Callable[[Random, Payer], Awaitable[None]], payer: Payer) -> None:
        random = Random(self._seeds.random())
        self._loops.append(self._crowd.start(self._repeat(step, payer, random)))

    async def _repeat(
        self, step: Callable[[Random, Payer], Awaitable[None]], payer: Payer, random: Random
    ) -> None:
        is_naughty = step not in (self._call_plainly, self._stream_plainly, self._use_sdk)
        while not self._is_over and not (is_naughty and self._is_calm):
            await step(random, payer)
            await asyncio.sleep(random.uniform(0.05, 0.4))

    async def _open(self) -> None:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=False),
            timeout=aiohttp.ClientTimeout(total=_CALL_SECONDS_MAX),
        )
        hooks: dict[str, list[Callable[..., Any]]] = {"response": [self._note_try]}
        self._sdks = [
            openai.AsyncOpenAI(
                base_url=f"{door.url}/v1",
                api_key="set for each call",
                timeout=_CALL_SECONDS_MAX,
                http_client=openai.DefaultAsyncHttpxClient(event_hooks=hooks),
            )
            for door in self._doors
        ]

    async def _close(self) -> None:
        await self._http.close()
        for sdk in self._sdks:
            await sdk.close()

    # ---- plain clients

    async def _call_plainly(self, random: Random, payer: Payer) -> None:
        await self._call(random, payer, chat(self._menu.quick), is_ordinary=True)

    async def _stream_plainly(self, random: Random, payer: Payer) -> None:
        menu = self._menu
        model = random.choice((menu.quick, menu.short, menu.short, menu.medium, menu.long))
        await self._call(random, payer, _streamed(random, model), is_ordinary=True)

    async def _ask_naughty(self, random: Random, payer: Payer) -> None:
        model = random.choice(self._menu.naughty)
        body = chat(model) if random.random() < 0.4 else _streamed(random, model)
        await self._call(random, payer, body, client="misbehaviour")

    async def _ask_shaky(self, random: Random, payer: Payer) -> None:
        model = random.choice(self._menu.shaky)
        await self._call(random, payer, _streamed(random, model), client="shaky")

    async def _spend_what_is_there(self, random: Random, payer: Payer) -> None:
        model = random.choice((self._menu.quick, self._menu.short))
        body = chat(model) if random.random() < 0.5 else _streamed(random, model)
        await self._call(random, payer, body, client="limited")

    async def _call(
        self,
        random: Random,
        payer: Payer,
        body: dict[str, Any],
        *,
        client: str = "plain",
        is_ordinary: bool = False,
    ) -> None:
        is_stream = bool(body.get("stream"))
        seen = Seen(client, body["model"], is_ordinary, is_stream)
        try:
            async with self._http.post(
                f"{random.choice(self._doors).url}/v1/chat/completions",
                data=orjson.dumps(body),
                headers={
                    "authorization": f"Bearer {payer.key}",
                    "content-type": "application/json",
                },
            ) as answer:
                await _take(seen, answer)
        except (aiohttp.ClientError, OSError):
            pass  # Cut off: what had come until then is what was seen.
        self._diary.add(seen)
        if not seen.status:
            await asyncio.sleep(_UNREACHED_SECONDS)

    async def _read(self, random: Random, payer: Payer) -> None:
        path = random.choice(("models", f"models/{self._menu.quick.name}", "usage"))
        seen = Seen("reader")
        try:
            async with self._http.get(
                f"{random.choice(self._doors).url}/v1/{path}",
                headers={"authorization": f"Bearer {payer.key}"},
            ) as answer:
                seen.note_head(answer.status, answer.headers)
                body = await answer.read()
                seen.is_clean = True
                if answer.status != 200:
                    seen.note_refusal(body)
        except (aiohttp.ClientError, OSError):
            pass  # Cut off.
        # It is no call: nothing is on record about it.
        seen.request_id = ""
        self._diary.add(seen)

    async def _administrate(self, random: Random, _: Payer) -> None:
        seen = Seen("administrator")
        try:
            async with self._http.get(
                f"{random.choice(self._doors).url}/api/admin/{random.choice(_LISTS)}",
                headers={"authorization": f"Bearer {self._menu.admin_token}"},
            ) as answer:
                seen.note_administration(answer.status, await answer.read())
        except (aiohttp.ClientError, OSError):
            pass  # Cut off.
        self._diary.add(seen)
        await asyncio.sleep(random.uniform(0.5, 1.5))

    # ---- clients on a bare socket

    async def _leave(self, random: Random, payer: Payer) -> None:
        habit = Habit(leaves=random.choice(POINTS), resets=random.random() < 0.5)
        how = "RST" if habit.resets else "FIN"
        await self._go_raw(random, payer, self._menu.paced, habit, f"left {habit.leaves}, {how}")

    async def _read_slowly(self, random: Random, payer: Payer) -> None:
        habit = Habit(read_bytes=random.choice((16 << 10, 48 << 10)), pause_seconds=0.5)
        await self._go_raw(random, payer, self._menu.bulky, habit, "slow reader")

    async def _go_raw(
        self, random: Random, payer: Payer, model: AIModel, habit: Habit, client: str
    ) -> None:
        seen = Seen(client, model.name, is_stream=True)
        body = chat(model, stream=True, stream_options={"include_usage": True})
        port, patience = random.choice(self._doors).port, random.uniform(0.0, 0.2)
        await RawCall(seen, habit).run(port, payer.key, body, patience=patience)
        self._diary.add(seen)
        if not seen.status and not seen.has_left:
            await asyncio.sleep(_UNREACHED_SECONDS)

    # ---- the official SDK, which tries again by itself

    async def _use_sdk(self, random: Random, payer: Payer) -> None:
        sdk = random.choice(self._sdks).with_options(api_key=payer.key)
        is_stream = random.random() < 0.5
        model = self._menu.short if is_stream else self._menu.quick
        number = str(self._next_try)
        self._next_try += 1
        tries = self._tries[number] = []
        last = Seen("sdk", model.name, is_ordinary=True, is_stream=is_stream)
        try:
            answer = await sdk.chat.completions.create(
                extra_headers={_TRY_HEADER: number}, **chat(model), stream=is_stream
            )
            if isinstance(answer, openai.AsyncStream):
                async for _ in answer:
                    pass
            # The SDK says that this is all: whether it is, the record must agree.
            is_whole = True
        except openai.OpenAIError:
            is_whole = False
        del self._tries[number]
        for one in tries:
            one.model, one.is_stream = model.name, is_stream
            one.is_whole = is_whole and one is tries[-1] and one.status == 200
        if tries:
            last = tries.pop()
            last.is_ordinary = True
        for one in tries:
            self._diary.add(one)
        self._diary.add(last)

    async def _note_try(self, response: Any) -> None:
        seen = Seen("sdk")
        seen.note_head(response.status_code, response.headers)
        if response.status_code != 200:
            seen.note_refusal(await response.aread())
        self._tries[response.request.headers[_TRY_HEADER]].append(seen)


def _streamed(random: Random, model: AIModel) -> dict[str, Any]:
    body = chat(model, stream=True)
    if random.random() < 0.5:
        body["stream_options"] = {"include_usage": random.random() < 0.7}
    return body


async def _take(seen: Seen, answer: aiohttp.ClientResponse) -> None:
    seen.note_head(answer.status, answer.headers)
    if answer.status != 200:
        body = await answer.read()
        seen.is_clean = True
        seen.note_refusal(body)
    elif seen.is_stream:
        tail = b""
        try:
            async for data in answer.content.iter_any():
                tail = (tail + data)[-_TAIL_BYTES:]
            seen.is_clean = True
        finally:
            seen.note_stream(tail)
    else:
        body = await answer.read()
        seen.is_clean = seen.is_whole = True
        if b'"choices":[{' not in body:
            seen.problems.append(f"a 200 that is no answer: {body[:200]!r}")
