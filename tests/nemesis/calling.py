"""Calls over HTTP as plain clients make them, in every dialect, each noted in the diary."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import aiohttp
import orjson

from tests.faults.site import Payer
from tests.nemesis.seen import Diary, Seen
from tests.nemesis.surfaces import Follower, Surface

CALL_SECONDS_MAX: Final = 90.0
_UNREACHED_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Door:
    """How a gateway is reached."""

    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Order:
    """A call that is to be made."""

    surface: Surface
    payer: Payer
    model: str
    is_stream: bool = False
    client: str = "plain"
    is_ordinary: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None  # None: what clients of the surface usually ask
    quote_id: str = ""


@dataclass(slots=True)
class Answer:
    """What came back, as far as it came."""

    seen: Seen
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Caller:
    """Makes calls through any of the doors."""

    def __init__(self, doors: Sequence[Door], diary: Diary) -> None:
        self._doors = doors
        self._diary = diary
        self._http: aiohttp.ClientSession

    async def open(self) -> None:
        """Begin; on the event loop on which calls are made."""
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=False),
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS_MAX),
        )

    async def close(self) -> None:
        """End."""
        await self._http.close()

    def choose(self, random: Random) -> Door:
        """Return one of the doors."""
        return random.choice(self._doors)

    async def call(self, random: Random, order: Order, *, keeps_body: bool = False) -> Answer:
        """Make a call. A stream's body is given back only where it is to be kept."""
        surface = order.surface
        seen = Seen(
            order.client,
            order.model,
            order.is_ordinary,
            order.is_stream,
            surface.dialect,
            quote_id=order.quote_id,
        )
        answer = Answer(seen)
        body = order.body
        if body is None:
            body = surface.body(order.model, is_stream=order.is_stream, random=random)
        try:
            async with self._http.post(
                self.choose(random).url + surface.path(order.model, is_stream=order.is_stream),
                data=orjson.dumps(body),
                headers={**surface.headers(order.payer.key), **order.headers},
            ) as response:
                answer.headers = response.headers
                await _take(answer, response, surface, keeps_body=keeps_body)
        except (aiohttp.ClientError, OSError):
            pass  # Cut off: what had come until then is what was seen.
        await self._note(seen)
        return answer

    async def ask(
        self,
        random: Random,
        seen: Seen,
        path: str,
        key: str,
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Ask for something that is no call in OpenAI's shape, and return the whole answer."""
        told = b""
        try:
            async with self._http.request(
                method,
                self.choose(random).url + path,
                data=None if body is None else orjson.dumps(body),
                headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            ) as response:
                if seen.client == "administrator":
                    seen.note_administration(response.status, await response.read())
                else:
                    seen.note_head(response.status, response.headers)
                    told = await response.read()
                    seen.is_clean = True
                    if response.status != 200:
                        seen.note_refusal(told)
        except (aiohttp.ClientError, OSError):
            told = b""  # Cut off.
        if not seen.is_quote:
            seen.request_id = ""  # Nothing is on record about it.
        await self._note(seen)
        return told

    async def _note(self, seen: Seen) -> None:
        self._diary.add(seen)
        if not seen.status:
            await asyncio.sleep(_UNREACHED_SECONDS)


async def _take(
    answer: Answer, response: aiohttp.ClientResponse, surface: Surface, *, keeps_body: bool
) -> None:
    seen = answer.seen
    seen.note_head(response.status, response.headers)
    if response.status != 200:
        answer.body = await response.read()
        seen.is_clean = True
        seen.note_refusal(answer.body)
    elif seen.is_stream:
        await _follow(answer, response, surface, keeps_body=keeps_body)
    else:
        answer.body = await response.read()
        seen.note_whole(answer.body, surface.whole)


async def _follow(
    answer: Answer, response: aiohttp.ClientResponse, surface: Surface, *, keeps_body: bool
) -> None:
    followed, kept = Follower(surface), bytearray()
    try:
        async for data in response.content.iter_any():
            followed.feed(data)
            if keeps_body:
                kept += data
        answer.seen.is_clean = True
    finally:
        answer.seen.note_stream(followed)
        answer.body = bytes(kept)
