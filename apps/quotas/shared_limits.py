"""The same limits for several gateways at once, counted in Redis.

A request is counted in this process first, then in Redis; both must let it through. So Redis is
never the only guard: whatever happens to it (F40–F43), this process alone never lets through more
than the limit, and n gateways without Redis at most n times the limit, also in a minute in which
Redis goes or comes back. A request that this process refuses costs Redis nothing.

Calls go to Redis in batches: what gathered while one batch was out leaves with the next one, on
one connection, in the order it came. A batch has a deadline of 50 ms; after three failed batches
in a row a breaker keeps requests off Redis for 5 s, then one of them or a renewal is the probe.

Per scope Redis holds a hash (per-second buckets and their sums; expires with the window) and, for
concurrent requests, a sorted set of request ids by the time their slot expires: the slots of a
gateway that died free themselves after 30 s. Times are those of the Redis server.
"""

import asyncio
import contextlib
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError

from apps.core.breaker import Breaker
from apps.quotas.limits import (
    TOKENS_MAX,
    UNLIMITED,
    Headroom,
    LimitMet,
    LocalLimiter,
    Scope,
    tightest_headroom,
    token_correction,
)
from apps.quotas.shared_limits_scripts import (
    ADMIT_SCRIPT,
    FINISH_SCRIPT,
    RENEW_SCRIPT,
    limit_met_from,
    readings_from,
)
from apps.quotas.used_up import UsedUp

logger = logging.getLogger(__name__)

QUEUE_MAX = 10_000
# Keys, not calls, are what a batch costs Redis: 512 take it about 2 ms.
BATCH_KEYS_MAX = 512
RENEWAL_KEYS_MAX = 256
RENEWAL_SECONDS_MAX = 1.0
CLOSE_SECONDS_MAX = 1.0
KEY_PREFIX = "limits:"
# A slot that nobody counts: each renewal writes it, and so finds out whether Redis answers.
_PROBE: Final = ((f"{KEY_PREFIX}probe:slots",), ("renewal",))


@dataclass(slots=True, eq=False)
class _Running:
    """A request that this process let through and has not finished."""

    token_windows: tuple[str, ...]
    slots: tuple[str, ...]
    second: int = 0  # of the Redis server, when it counted the request; 0 if it never said so
    is_decided: bool = False  # false while Redis may still refuse


@dataclass(slots=True, eq=False)
class _Call:
    """One script call that waits for the next batch."""

    script: AsyncScript
    keys: Sequence[str]
    arguments: Sequence[str | int]
    reply: asyncio.Future[list[int] | None] | None = field(default=None)


class SharedLimiter:
    """The limits of all gateways that use one Redis.

    `local` belongs to this limiter alone. A request whose end is lost on the way to Redis keeps
    its slot there until it expires, and its token estimate stays uncorrected for the minute.

    Raises ValueError, without the URL, for a URL that is not one: it may hold a password.
    """

    def __init__(
        self,
        redis_url: str,
        local: LocalLimiter,
        *,
        breaker: Breaker | None = None,
        deadline_seconds: float = 0.05,
        lease_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            self._redis: Redis = Redis.from_url(
                redis_url,
                protocol=2,
                socket_timeout=None,  # the batch's deadline covers every read
                socket_connect_timeout=deadline_seconds,
                # A call sent twice would count twice.
                retry=Retry(NoBackoff(), 0),
                driver_info=None,
            )
        except ValueError:
            raise ValueError("REDIS_URL is not a valid Redis URL") from None
        self._local = local
        self._breaker = breaker if breaker is not None else Breaker(clock=clock)
        self._deadline_seconds = deadline_seconds
        self._lease_ms = int(lease_seconds * 1000)
        self._admit_script = self._redis.register_script(ADMIT_SCRIPT)
        self._finish_script = self._redis.register_script(FINISH_SCRIPT)
        self._renew_script = self._redis.register_script(RENEW_SCRIPT)
        self._running: dict[str, _Running] = {}
        self._used_up = UsedUp(clock)
        self._calls: deque[_Call] = deque()
        self._has_calls = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_degraded(self) -> bool:
        """Whether Redis does not answer, so that limits hold per gateway."""
        return self._breaker.is_open

    async def admit(
        self, *, request_id: str, scopes: tuple[Scope, ...], tokens: int
    ) -> Headroom | LimitMet:
        """Take a request and its token estimate from all scopes, or from none.

        Raises ValueError where `LocalLimiter.admit_now` does.
        """
        if not scopes:
            return UNLIMITED
        local = self._local.admit_now(request_id=request_id, scopes=scopes, tokens=tokens)
        if isinstance(local, LimitMet):
            return local
        running = self._running[request_id] = _Running(
            token_windows=tuple(_window_key(s.name) for s in scopes if s.tpm is not None),
            slots=tuple(_slots_key(s.name) for s in scopes if s.concurrency is not None),
        )
        if self._is_closed or len(self._calls) >= QUEUE_MAX or not self._breaker.allows():
            running.is_decided = True
            return local
        try:
            reply = await self._ask(self._admit_call(request_id, scopes, min(tokens, TOKENS_MAX)))
        except asyncio.CancelledError:
            # Queued behind the admission, so that Redis forgets the request after it counted it.
            self.finish(request_id=request_id, scopes=scopes, tokens_reserved=0, tokens_used=0)
            raise
        running.is_decided = True
        if reply is None:
            return local
        if reply[0] == 0:
            self._running.pop(request_id, None)
            self._local.withdraw(request_id)
            refusal = limit_met_from(reply, scopes)
            self._used_up.note(refusal)
            return refusal
        running.second = reply[1]
        return tightest_headroom(scopes, readings_from(reply))

    def find_limit_met(self, *, scopes: tuple[Scope, ...], tokens: int) -> LimitMet | None:
        """Return what a request would be refused for now, without asking Redis: what other gateways
        have used up is known from the last request that Redis refused for it.
        """
        met = self._used_up.find(scopes)
        return met or self._local.find_limit_met(scopes=scopes, tokens=tokens)

    def finish(
        self,
        *,
        request_id: str,
        scopes: tuple[Scope, ...],
        tokens_reserved: int,
        tokens_used: int,
    ) -> None:
        """Free the request's slots and correct its tokens; never waits for Redis."""
        running = self._running.pop(request_id, None)
        if running is None:
            return
        self._local.finish(
            request_id=request_id,
            scopes=scopes,
            tokens_reserved=tokens_reserved,
            tokens_used=tokens_used,
        )
        correction = token_correction(tokens_reserved, tokens_used) if running.second else 0
        windows = running.token_windows if correction else ()
        if not windows and not running.slots:
            return
        if self._is_closed or self._breaker.is_open or len(self._calls) >= QUEUE_MAX:
            return
        self._queue(
            _Call(
                self._finish_script,
                (*windows, *running.slots),
                (request_id, running.second, correction, len(windows)),
            )
        )

    async def renew(self) -> None:
        """Extend the slots of the requests running here; put back those that Redis lost.

        Also finds out whether Redis answers, where no request comes that would.
        """
        await self._local.renew()
        if self._is_closed or not self._breaker.allows():
            return
        if self._breaker.is_open:
            # Alone: of a request that ends before Redis answers, it would not be told.
            await self._renew([_PROBE])
            if self._breaker.is_open:
                return
        await self._renew(self._slots_in_chunks())

    async def close(self) -> None:
        """Send what is queued, within a second, and close the connection."""
        self._is_closed = True
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await self._send_all()
        self._abandon_queue()
        await self._disconnect()

    async def _ask(self, call: _Call) -> list[int] | None:
        """Queue the call; return its reply, or None when there is none within the deadline."""
        call.reply = asyncio.get_running_loop().create_future()
        self._queue(call)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                return await call.reply
        except TimeoutError:
            # The answer and the deadline may arrive in the same turn of the loop.
            return None if call.reply.cancelled() else call.reply.result()

    def _admit_call(self, request_id: str, scopes: tuple[Scope, ...], tokens: int) -> _Call:
        keys: list[str] = []
        arguments: list[str | int] = [request_id, tokens, self._lease_ms]
        for scope in scopes:
            keys += (_window_key(scope.name), _slots_key(scope.name))
            for limit in (scope.rpm, scope.tpm, scope.concurrency):
                arguments.append(-1 if limit is None else limit)
        return _Call(self._admit_script, keys, arguments)

    async def _renew(self, chunks: Iterable[tuple[Sequence[str], Sequence[str]]]) -> None:
        last: _Call | None = None
        for keys, request_ids in chunks:
            if len(self._calls) >= QUEUE_MAX:
                break
            last = _Call(self._renew_script, keys, (self._lease_ms, *request_ids))
            self._queue(last)
        if last is None:
            return
        last.reply = asyncio.get_running_loop().create_future()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RENEWAL_SECONDS_MAX):
                await last.reply

    def _slots_in_chunks(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield slot keys and the request id in each, RENEWAL_KEYS_MAX at a time."""
        keys, request_ids = [*_PROBE[0]], [*_PROBE[1]]
        for request_id, running in self._running.items():
            if not running.is_decided:
                continue
            keys += running.slots
            request_ids += [request_id] * len(running.slots)
            if len(keys) >= RENEWAL_KEYS_MAX:
                yield keys, request_ids
                keys, request_ids = [], []
        if keys:
            yield keys, request_ids

    def _queue(self, call: _Call) -> None:
        self._calls.append(call)
        self._has_calls.set()
        if self._sender is None or self._sender.done():
            # It outlives the request that starts it, and is not to log in its name.
            self._sender = asyncio.get_running_loop().create_task(
                self._send_forever(), context=contextvars.Context()
            )

    async def _send_forever(self) -> None:
        while True:
            await self._has_calls.wait()
            self._has_calls.clear()
            await self._send_all()

    async def _send_all(self) -> None:
        while self._calls:
            batch = self._next_batch()
            if batch:
                await self._send(batch)

    def _next_batch(self) -> list[_Call]:
        batch: list[_Call] = []
        keys = 0
        while self._calls and keys < BATCH_KEYS_MAX:
            call = self._calls.popleft()
            # Nobody waits for a cancelled reply any more, and nothing has been counted.
            if call.reply is None or not call.reply.cancelled():
                batch.append(call)
                keys += len(call.keys)
        return batch

    async def _send(self, batch: list[_Call]) -> None:
        """Send one batch and give out the replies; None where there is none."""
        replies: list[Any] = []
        failure: str | None = None
        try:
            async with asyncio.timeout(self._deadline_seconds):
                replies = await self._execute(batch)
        except (OSError, RedisError) as error:  # a missed deadline is an OSError too
            failure = type(error).__name__
            await self._disconnect()
        finally:
            errors = [reply for reply in replies if isinstance(reply, Exception)]
            for index, call in enumerate(batch):
                reply = replies[index] if index < len(replies) else None
                _resolve(call, None if isinstance(reply, Exception) else reply)
        if failure is None and errors and _is_failed(batch, replies):
            failure = type(errors[0]).__name__
        self._record(failure)

    async def _execute(self, batch: list[_Call]) -> list[Any]:
        """Return a reply or an exception for each call, in order."""
        replies = await self._run_pipeline(batch)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            # A Redis that restarted. Calls it did not know have counted nothing, so they may go
            # once more.
            for script in (self._admit_script, self._finish_script, self._renew_script):
                await self._redis.script_load(script.script)
            again = await self._run_pipeline([batch[index] for index in unknown])
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        return replies

    async def _run_pipeline(self, batch: list[_Call]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in batch:
            pipeline.evalsha(call.script.sha, len(call.keys), *call.keys, *call.arguments)
        return list(await pipeline.execute(raise_on_error=False))

    def _record(self, failure: str | None) -> None:
        if failure is None:
            if self._breaker.record_success():
                logger.info("Redis answers again: limits are shared")
            return
        if self._breaker.record_failure():
            # The class only: a message may quote the connection's address.
            logger.warning("Redis does not answer (%s): limits hold per gateway", failure)
        if self._breaker.is_open:
            self._used_up.forget()
            self._abandon_queue()

    def _abandon_queue(self) -> None:
        while self._calls:
            _resolve(self._calls.popleft(), None)

    async def _disconnect(self) -> None:
        # A connection that still owes answers must not be used again.
        with contextlib.suppress(OSError, RedisError):
            async with asyncio.timeout(self._deadline_seconds):
                await self._redis.connection_pool.disconnect()


def _is_failed(batch: list[_Call], replies: list[Any]) -> bool:
    """Return whether no caller that waits got an answer; a full Redis still frees slots."""
    waited = [
        reply for call, reply in zip(batch, replies, strict=True) if call.reply is not None
    ] or replies
    return all(isinstance(reply, Exception) for reply in waited)


def _resolve(call: _Call, reply: list[int] | None) -> None:
    if call.reply is not None and not call.reply.done():
        call.reply.set_result(reply)


def _window_key(scope_name: str) -> str:
    return f"{KEY_PREFIX}{scope_name}:window"


def _slots_key(scope_name: str) -> str:
    return f"{KEY_PREFIX}{scope_name}:slots"
