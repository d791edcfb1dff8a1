"""All kinds of clients at once, as many as told, and what became of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from tests.faults.crowd import Crowd, Outcome
from tests.nemesis.surfaces import OPENAI, Follower, Surface

# More calls at once than these and the gateway does not keep up: they are not made, and counted.
OPEN_MAX: Final = 1_000
_TICK_SECONDS: Final = 0.01
_ADMIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Chat:
    """A kind of call. `statuses` are the answers that are right."""

    name: str
    weight: int
    key: str
    body: dict[str, Any]
    statuses: frozenset[int] = frozenset({200})
    leaves: bool = False  # the client goes when the answer has begun


@dataclass(frozen=True, slots=True)
class Call:
    """A kind of call as clients of any dialect make it, to be answered with 200."""

    name: str
    weight: int
    key: str
    model: str
    surface: Surface = OPENAI
    is_stream: bool = False
    is_quoted: bool = False  # it has its hold placed before, and then spends it


@dataclass(frozen=True, slots=True)
class Read:
    """A kind of question about what there is."""

    name: str
    weight: int
    key: str
    path: str


@dataclass(frozen=True, slots=True)
class Errand:
    """Something that an administrator does, one after the other, one each second."""

    method: str
    path: str
    body: dict[str, Any] | None = None


Kind = Chat | Call | Read


class Traffic(Crowd):
    """Calls gateways in turn, by weight."""

    def __init__(
        self, urls: Sequence[str], kinds: Sequence[Kind], errands: Callable[[int], Errand]
    ) -> None:
        """`errands` is told how many there have been."""
        super().__init__()
        self.outcomes: list[Outcome] = []
        self.seen: Counter[str] = Counter()  # by kind
        self.wrong: Counter[str] = Counter()  # by kind and what came instead
        self.refused = 0  # 503: the machine or its disk stood still for too long
        self.left_out = 0  # calls that were due while too many were open
        self.admin_token = ""
        self._urls = urls
        self._kinds = kinds
        self._weights = [kind.weight for kind in kinds]
        self._errands = errands
        self._random = random.Random(20_261_128)
        self._barrier.set()

    def measure(self, seconds: float, clients: int) -> float:
        """Have clients make one call after the other, and return how many a second they made."""
        future = asyncio.run_coroutine_threadsafe(self._measure(seconds, clients), self._loop)
        rate = future.result(seconds + 60)
        # All that gateways can take, before they know which route fails: more further attempts may
        # have been due at once than are allowed.
        self.refused = 0
        return rate

    def make_calls(self, rate: float, seconds: float) -> Future[None]:
        """Make so many calls a second, whatever becomes of them."""
        return asyncio.run_coroutine_threadsafe(self._pace(rate, seconds), self._loop)

    def disconnect(self) -> None:
        """Close what the clients keep open."""
        self._run(self._reopen())

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=5),
            timeout=aiohttp.ClientTimeout(total=60),
        )

    async def _reopen(self) -> None:
        await self._session.close()
        await self._open()

    async def _measure(self, seconds: float, clients: int) -> float:
        until = time.monotonic() + seconds
        before = self.seen.total()

        async def one_after_the_other() -> None:
            while time.monotonic() < until:
                await self._one()

        admin = asyncio.create_task(self._run_errands())
        await asyncio.gather(*(one_after_the_other() for _ in range(clients)))
        admin.cancel()
        return (self.seen.total() - before) / seconds

    async def _pace(self, rate: float, seconds: float) -> None:
        begun = time.monotonic()
        running: set[asyncio.Task[None]] = set()
        admin = asyncio.create_task(self._run_errands())
        made = 0
        while (passed := time.monotonic() - begun) < seconds:
            due = int(rate * passed)
            for _ in range(made, due):
                if len(running) >= OPEN_MAX:
                    self.left_out += 1
                    continue
                task = asyncio.create_task(self._one())
                running.add(task)
                task.add_done_callback(running.discard)
            made = due
            await asyncio.sleep(_TICK_SECONDS)
        await asyncio.gather(*running)
        admin.cancel()

    async def _one(self) -> None:
        (kind,) = self._random.choices(self._kinds, self._weights)
        url = self._random.choice(self._urls)
        if isinstance(kind, Read):
            problem = await self._ask("GET", url + kind.path, kind.key)
        elif isinstance(kind, Call):
            problem = await self._call_surface(url, kind)
        elif kind.leaves:
            problem = await self._leave(url, kind)
        else:
            outcome = await self._call(url, kind.key, kind.body)
            self.outcomes.append(outcome)
            problem = _judge(kind, outcome)
        self.seen[kind.name] += 1
        if problem.startswith("503"):
            self.refused += 1
        elif problem:
            self.wrong[f"{kind.name}: {problem}"] += 1

    async def _ask(
        self, method: str, url: str, token: str, body: dict[str, Any] | None = None
    ) -> str:
        try:
            async with self._session.request(
                method,
                url,
                data=None if body is None else orjson.dumps(body),
                headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
            ) as answer:
                await answer.read()
                return "" if answer.status == 200 else str(answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__

    async def _call_surface(self, url: str, kind: Call) -> str:
        surface, began = kind.surface, time.monotonic()
        path = surface.path(kind.model, is_stream=kind.is_stream)
        body = surface.body(kind.model, is_stream=kind.is_stream)
        headers = surface.headers(kind.key)
        try:
            if kind.is_quoted:
                asked = {"endpoint": path.removeprefix("/v1/"), "request": body, "hold": True}
                status, headers["x-quote-id"], told = await self._post(
                    f"{url}/v1/quote", headers, asked
                )
                if status != 200:
                    return f"{status} {told[:200]!r}"
            status, request_id, told = await self._post(url + path, headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__
        if status != 200:
            return f"{status} {told[:200]!r}"
        now, is_whole = time.monotonic(), _is_whole(kind, told)
        self.outcomes.append(Outcome(200, request_id, "", is_whole, now - began, now, None, None))
        return "" if is_whole else "not whole"

    async def _post(
        self, url: str, headers: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, str, bytes]:
        """Return the status, the id (a quote's is that of its hold) and the whole answer."""
        async with self._session.post(url, data=orjson.dumps(body), headers=headers) as answer:
            return answer.status, answer.headers["x-request-id"], await answer.read()

    async def _leave(self, url: str, kind: Chat) -> str:
        try:
            answer = await self._session.post(
                f"{url}/v1/chat/completions",
                data=orjson.dumps(kind.body),
                headers={
                    "authorization": f"Bearer {kind.key}",
                    "content-type": "application/json",
                },
            )
            try:
                await answer.content.readany()
                return "" if answer.status == 200 else str(answer.status)
            finally:
                answer.close()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__

    async def _run_errands(self) -> None:
        url = self._urls[0]
        while True:
            errand = self._errands(self.seen["errand"])
            problem = await self._ask(
                errand.method, url + errand.path, self.admin_token, errand.body
            )
            self.seen["errand"] += 1
            if problem:
                self.wrong[f"{errand.method} {errand.path}: {problem}"] += 1
            await asyncio.sleep(_ADMIN_SECONDS)


def _judge(kind: Chat, outcome: Outcome) -> str:
    if outcome.status not in kind.statuses:
        return f"{outcome.status} {outcome.kind}"
    return "" if outcome.is_whole or outcome.status != 200 else "not whole"


def _is_whole(kind: Call, told: bytes) -> bool:
    if not kind.is_stream:
        return kind.surface.whole in told
    followed = Follower(kind.surface)
    followed.feed(told)
    return followed.is_over(is_clean=True) and not followed.has_error
