"""The official SDKs of all dialects. They try again by themselves: each try is an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import anthropic
import httpx2
import openai
from google import genai
from google.genai import errors, types

from tests.faults.site import Payer
from tests.nemesis.calling import CALL_SECONDS_MAX, Door
from tests.nemesis.menu import Dishes
from tests.nemesis.seen import Diary, Seen
from tests.nemesis.surfaces import OUTPUT_MAX, dialect_of

_TRY_HEADER: Final = "x-nemesis"
_SAID: Final = "Say it."
_TURNS: Final[Any] = [{"role": "user", "content": _SAID}]
# As often as the other SDKs do it unasked: Google's repeats nothing by itself.
_GOOGLE_ATTEMPTS: Final = 3
_FAILURES: Final = (
    *(openai.OpenAIError, anthropic.AnthropicError, errors.APIError),
    *(errors.UnknownApiResponseError, httpx2.HTTPError, OSError),
)
_RESPONSE_ENDS: Final = frozenset({"response.completed", "response.incomplete"})


@dataclass(frozen=True, slots=True)
class _Ask:
    """One call by an SDK."""

    door: Door
    payer: Payer
    model: str
    is_stream: bool
    headers: dict[str, str]


class Sdks:
    """The SDKs of one crowd of clients, for each door."""

    def __init__(self, doors: Sequence[Door], diary: Diary) -> None:
        self._doors = doors
        self._diary = diary
        self._tries: dict[str, list[Seen]] = {}
        self._next_try = 0
        self._openai: dict[Door, openai.AsyncOpenAI] = {}
        self._anthropic: dict[Door, anthropic.AsyncAnthropic] = {}
        self._genai: dict[tuple[Door, str], genai.Client] = {}
        self._http: httpx2.AsyncClient

    async def open(self) -> None:
        """Begin; on the event loop on which calls are made."""
        hooks: Any = {"response": [self._note_try]}
        self._http = httpx2.AsyncClient(event_hooks=hooks, timeout=CALL_SECONDS_MAX)
        for door in self._doors:
            self._openai[door] = openai.AsyncOpenAI(
                base_url=f"{door.url}/v1",
                api_key="set for each call",
                timeout=CALL_SECONDS_MAX,
                http_client=openai.DefaultAsyncHttpxClient(event_hooks=hooks),
            )
            self._anthropic[door] = anthropic.AsyncAnthropic(
                base_url=door.url,
                api_key="set for each call",
                timeout=CALL_SECONDS_MAX,
                http_client=anthropic.DefaultAsyncHttpxClient(event_hooks=hooks),
            )

    async def close(self) -> None:
        """End."""
        for chat in self._openai.values():
            await chat.close()
        for messages in self._anthropic.values():
            await messages.close()
        for google in self._genai.values():
            google.close()
        await self._http.aclose()

    async def call(self, random: Random, payer: Payer, dishes: Dishes) -> None:
        """Make a call with one of them."""
        name = random.choice(tuple(_USES))
        is_stream = random.random() < 0.5
        model = dishes.short if is_stream else dishes.quick
        number = str(self._next_try)
        self._next_try += 1
        tries = self._tries[number] = []
        last = Seen(f"sdk {name}", model.name, is_stream=is_stream, dialect=name)
        ask = _Ask(random.choice(self._doors), payer, model.name, is_stream, {_TRY_HEADER: number})
        try:
            # The SDK says that this is all: whether it is, the record must agree.
            is_whole = await _USES[name](self, ask)
        except _FAILURES:
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
        path: str = response.request.url.path
        seen = Seen("sdk", dialect=dialect_of(path))
        seen.client = f"sdk {seen.dialect}"
        seen.note_head(response.status_code, response.headers)
        if response.status_code != 200:
            seen.note_refusal(await response.aread())
        self._tries[response.request.headers[_TRY_HEADER]].append(seen)

    # ---- each SDK: whether it says that the answer is whole

    async def _chat(self, ask: _Ask) -> bool:
        client = self._openai[ask.door].with_options(api_key=ask.payer.key)
        asked: dict[str, Any] = {"model": ask.model, "messages": _TURNS}
        answer = await client.chat.completions.create(
            extra_headers=ask.headers, **asked, stream=ask.is_stream
        )
        if isinstance(answer, openai.AsyncStream):
            async for _ in answer:
                pass
        return True

    async def _respond(self, ask: _Ask) -> bool:
        client = self._openai[ask.door].with_options(api_key=ask.payer.key)
        answer: Any = await client.responses.create(
            extra_headers=ask.headers, model=ask.model, input=_SAID, stream=ask.is_stream
        )
        if not ask.is_stream:
            return bool(answer.output_text)
        kinds = [event.type async for event in answer]
        return bool(kinds) and kinds[-1] in _RESPONSE_ENDS

    async def _message(self, ask: _Ask) -> bool:
        client = self._anthropic[ask.door].with_options(api_key=ask.payer.key)
        answer: Any = await client.messages.create(
            extra_headers=ask.headers,
            model=ask.model,
            max_tokens=OUTPUT_MAX,
            messages=_TURNS,
            stream=ask.is_stream,
        )
        if not ask.is_stream:
            return bool(answer.content)
        kinds = [event.type async for event in answer]
        return bool(kinds) and kinds[-1] == "message_stop"

    async def _generate(self, ask: _Ask) -> bool:
        models = self._google(ask.door, ask.payer).aio.models
        config = types.GenerateContentConfig(http_options=types.HttpOptions(headers=ask.headers))
        asked: Any = {"model": ask.model, "contents": _SAID, "config": config}
        if not ask.is_stream:
            return bool((await models.generate_content(**asked)).text)
        is_finished = False
        async for piece in await models.generate_content_stream(**asked):
            for candidate in piece.candidates or ():
                is_finished = is_finished or candidate.finish_reason is not None
        return is_finished

    def _google(self, door: Door, payer: Payer) -> genai.Client:
        """Return the client of a key: it is given only once."""
        found = self._genai.get((door, payer.key))
        if found is None:
            options = types.HttpOptions(
                base_url=door.url,
                timeout=int(CALL_SECONDS_MAX * 1_000),
                httpx_async_client=self._http,
                retry_options=types.HttpRetryOptions(attempts=_GOOGLE_ATTEMPTS),
            )
            found = genai.Client(api_key=payer.key, http_options=options)
            self._genai[door, payer.key] = found
        return found


_USES: Final[dict[str, Callable[[Sdks, _Ask], Awaitable[bool]]]] = {
    "openai": Sdks._chat,
    "anthropic": Sdks._message,
    "gemini": Sdks._generate,
    "openai-responses": Sdks._respond,
}
