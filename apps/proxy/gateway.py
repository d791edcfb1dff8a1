"""One gateway process: what it knows, what it holds open, and what it does in the background."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from apps.billing.connections import connect
from apps.billing.journal import Journal
from apps.billing.writer import LedgerWriter
from apps.proxy import loader
from apps.proxy.answer_cache import AnswerCache
from apps.proxy.body_work import BodyWork
from apps.proxy.call import Call
from apps.proxy.counter import TokenCounter
from apps.proxy.counts import Counts
from apps.proxy.daily_costs import READ_SECONDS, find_limited, read_daily_costs
from apps.proxy.guard import Guard
from apps.proxy.health import Health
from apps.proxy.latency import Latencies
from apps.proxy.provider_limits import ProviderLimits
from apps.proxy.quote_holds import QuoteHolds
from apps.proxy.quotes import Habits
from apps.proxy.retries import RetryBudget
from apps.proxy.sharing import Sharing
from apps.proxy.snapshot import Catalogue, Snapshot
from apps.proxy.threads import DeadlineThread, with_fresh_connection
from apps.proxy.upstream import Upstream
from apps.proxy.used import UsedTotals
from apps.quotas.limits import Limiter, LocalLimiter
from apps.quotas.shared_limits import SharedLimiter

START_SECONDS: Final = 5.0
POLL_SECONDS: Final = 1.0
# A gateway that has not seen the configuration for so long would not notice a revoked key.
STALE_SECONDS: Final = 15.0
TICK_SECONDS: Final = 0.5
TICK_SLICE_SECONDS: Final = 0.002  # how long that may take before events are looked after again
RENEW_SECONDS: Final = 10.0
# A timer that is so late is worth a line.
STANDSTILL_SECONDS: Final = 2.0
PRUNE_SECONDS: Final = 3600.0
FORGET_SECONDS: Final = 60.0
DELTA_SECONDS: Final = 5.0
LOAD_SECONDS: Final = 60.0
CHANGES_KEPT: Final = 100_000
BYTES_IN_FLIGHT_MAX: Final = 256 << 20
# A database that has not answered for so long is away. Below two seconds by what it takes to tell.
ANSWERED_SECONDS: Final = 1.6
# How long calls are still taken on connections that were open when the drain began.
GRACE_SECONDS: Final = 1.0
READ_THREADS: Final = 4
# How many new objects make the garbage collector look for circles; a call leaves none behind.
GARBAGE_OBJECTS: Final = 10_000
READS_WAITING_MAX: Final = 200

T = TypeVar("T")
# What a cursor of the server's meets when it is closed comes as the driver's own error.
_AWAY: Final = (DatabaseError, InterfaceError, OSError, psycopg.Error)

logger = logging.getLogger(__name__)


class Gateway:
    """Everything that calls share. Methods belong to the event loop."""

    def __init__(self) -> None:
        self.monotonic: Callable[[], float] = time.monotonic
        self.random: Callable[[], float] = random.random
        self.pepper: bytes = settings.API_KEY_PEPPER
        self.payload_mode: str = settings.PAYLOADS
        self.trusted_proxies: tuple[str, ...] = tuple(settings.TRUSTED_PROXIES)
        self.snapshot: Snapshot | None = None
        self.health = Health()
        self.retries = RetryBudget()
        self.sharing = Sharing(self.health, self.monotonic)
        self.guard = Guard(self.monotonic)
        self.body_work = BodyWork()
        self.latencies = Latencies()
        self.calls: dict[UUID, Call] = {}
        self.habits = Habits()
        self.answers = AnswerCache()
        self.quotes = QuoteHolds(self.monotonic)
        self.retrievals = 0  # questions to providers about answers that they keep
        self.bytes_in_flight = 0
        self.arriving_bytes: dict[int, int] = {}  # of bodies that are not complete, by user
        self.answer_bytes_in_flight = 0
        self.answer_bytes = 0  # of running calls with an idempotency key
        self.counts = Counts()
        self.token_counter = TokenCounter()
        self.is_draining = False  # has been told to stop
        self.is_closed = False  # takes no more calls
        self.polled_at = 0.0  # monotonic; the last time the configuration was known to be current
        self._is_doubtful = False  # the configuration's database may be another one by now
        self.writer: LedgerWriter
        self.upstream: Upstream
        self.limiter: Limiter
        self.provider_limits: ProviderLimits
        self._loader = DeadlineThread("configuration")
        self.used = UsedTotals()
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="reads")
        self._reads_waiting = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start everything, and give the database a moment before connections are taken.

        Where it stays away the gateway serves all the same: calls get 503 until it is there.
        """
        self.upstream = Upstream(settings.PRIVATE_UPSTREAMS)
        local = LocalLimiter()
        self.limiter = SharedLimiter(settings.REDIS_URL, local) if settings.REDIS_URL else local
        self.provider_limits = ProviderLimits(self.limiter)
        self.writer = LedgerWriter(
            connect=connect,
            journal=Journal(Path(settings.DATA_DIR) / "journal"),
            is_only_owner=connection.vendor == "sqlite",
        )
        self.writer.start()
        self._tasks = [
            asyncio.create_task(self._follow_configuration()),
            asyncio.create_task(self._tick()),
            asyncio.create_task(self._renew_limits()),
            asyncio.create_task(self.sharing.run()),
            asyncio.create_task(self._follow_daily_costs()),
        ]
        until = self.monotonic() + START_SECONDS
        while not self.is_ready and self.monotonic() < until:  # noqa: ASYNC110 (bounded, at the start)
            await asyncio.sleep(0.02)
        _spare_collector()

    async def stop(self) -> None:
        """Let running calls settle, then close everything."""
        self.is_draining = self.is_closed = True
        self._interrupt_all()
        until = self.monotonic() + 5.0
        while self.calls and self.monotonic() < until:  # noqa: ASYNC110 (bounded, once in a life)
            await asyncio.sleep(0.02)
        for task in self._tasks:
            task.cancel()
        self.quotes.lapse_all()
        await self.writer.stop()
        await self.guard.stop()
        await self.limiter.close()
        await self.upstream.close()
        await self.token_counter.stop()
        self._loader.close()
        self.sharing.close()
        self.body_work.close()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def begin_drain(self) -> None:
        """Say that this process is not ready; calls that run get the drain time, then an error
        inside their streams.
        """
        if not self.is_draining:
            self.is_draining = True
            seconds = max(self.grace_seconds, settings.DRAIN_SECONDS - 2.0)
            asyncio.get_running_loop().call_later(seconds, self._interrupt_all)

    def close(self) -> None:
        """Refuse new calls."""
        self.is_closed = True

    @property
    def grace_seconds(self) -> float:
        """How long a gateway that drains still takes calls."""
        return min(GRACE_SECONDS, settings.DRAIN_SECONDS / 4)

    def _interrupt_all(self) -> None:
        for call in list(self.calls.values()):
            call.interrupt("drain")

    @property
    def is_ready(self) -> bool:
        """Whether this process should get calls: it knows the configuration, its database
        answers, and it is not about to end.
        """
        is_current = self.find_snapshot() is not None
        is_database_there = self.writer.is_available and self.writer.answer_age < ANSWERED_SECONDS
        return is_current and is_database_there and not self.is_draining

    @property
    def is_limiter_degraded(self) -> bool:
        """Whether limits that are to be shared hold for this process only."""
        return isinstance(self.limiter, SharedLimiter) and self.limiter.is_degraded

    def count_streams(self) -> int:
        """Return how many streams have begun and not ended."""
        return sum(
            call.plan.request.is_stream and call.ttft_ms is not None for call in self.calls.values()
        )

    def find_snapshot(self) -> Snapshot | None:
        """Return the configuration, None while it is not loaded or too old to be trusted."""
        if self.monotonic() - self.polled_at > STALE_SECONDS:
            return None
        return self.snapshot

    async def read(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a blocking read in a thread. Raises DatabaseError, also where too many wait
        already.
        """
        if self._reads_waiting >= READS_WAITING_MAX:
            raise DatabaseError("too many reads are waiting")
        self._reads_waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._readers, function, *arguments)
        finally:
            self._reads_waiting -= 1

    # ---- in the background

    async def _follow_configuration(self) -> None:
        forget_at = self.monotonic() + FORGET_SECONDS
        prune_at = self.monotonic() + PRUNE_SECONDS
        while True:
            try:
                snapshot = await self._update_snapshot()
                now = self.polled_at = self.monotonic()
                if now > forget_at:
                    forget_at = now + FORGET_SECONDS
                    self.health.forget_doors(snapshot.catalogue, now)
                if self.monotonic() > prune_at:
                    prune_at = self.monotonic() + PRUNE_SECONDS
                    await self._load(LOAD_SECONDS, loader.prune_changes, CHANGES_KEPT)
            except _AWAY as error:
                logger.warning("the configuration cannot be read: %s", type(error).__name__)
            except Exception:  # this task must not end
                # What was loaded before stays in force until it is STALE_SECONDS old.
                logger.exception("the configuration cannot be loaded")
            await asyncio.sleep(POLL_SECONDS)

    async def _update_snapshot(self) -> Snapshot:
        if self.snapshot is not None:
            delta = await self._load(DELTA_SECONDS, loader.load_delta, self.snapshot.version)
            if delta is not None:
                loader.apply_delta(self.snapshot, delta)
                self.health.forget_bad(delta.version)
                if not self._is_doubtful:
                    return self.snapshot
                # What is known stays in force while all of it is read.
                self.polled_at = self.monotonic()
        is_first, was_doubtful = self.snapshot is None, self._is_doubtful
        self.snapshot = await self._load(LOAD_SECONDS, loader.load_snapshot)
        self.health.forget_bad(self.snapshot.version)
        self._is_doubtful = False
        if was_doubtful and not is_first:
            _spare_collector()
        return self.snapshot

    async def _load(self, seconds: float, function: Callable[..., T], *arguments: Any) -> T:
        """Run a read of the configuration in its thread. Raises TimeoutError."""
        try:
            return await self._loader.run(seconds, function, *arguments)
        except TimeoutError:
            raise  # It is slow, and the same as before.
        except _AWAY:
            # The next one that answers may be a standby to which the last changes had not come:
            # there the same versions mean other changes.
            self._is_doubtful = True
            raise

    async def _tick(self) -> None:
        while True:
            due = self.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            now = since = self.monotonic()
            self.counts.loop_lag.observe(max(0.0, now - due))
            if now - due > STANDSTILL_SECONDS:
                logger.warning("the event loop stood still for %.1f s", now - due)
            for look_after in [
                *(call.on_tick for call in self.calls.values()),
                self.quotes.on_tick,
            ]:
                try:
                    look_after(now)
                except Exception:  # this task must not end, nor the limits of all others
                    logger.exception("a call cannot be looked after")
                # Checkpoints of many streams at once must not keep their events waiting.
                if self.monotonic() - since > TICK_SLICE_SECONDS:
                    await asyncio.sleep(0)
                    since = self.monotonic()

    async def _renew_limits(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self.limiter.renew()
            except Exception:  # this task must not end
                logger.exception("limits cannot be renewed")

    async def _follow_daily_costs(self) -> None:
        catalogue: Catalogue | None = None
        has_providers = has_keys = False
        while True:
            await asyncio.sleep(READ_SECONDS)
            limits, snapshot = self.provider_limits, self.snapshot
            if snapshot is not None and snapshot.catalogue is not catalogue:
                catalogue = snapshot.catalogue
                has_providers, has_keys = find_limited(catalogue)
            if not has_providers and not has_keys:
                limits.daily = None
                continue
            read = partial(read_daily_costs, limits.daily, datetime.now(UTC), has_keys=has_keys)
            try:
                limits.daily = await self.read(with_fresh_connection, read)
            except (DatabaseError, InterfaceError, OSError) as error:
                # The sums that were read last stay in force.
                logger.warning("daily costs cannot be read: %s", type(error).__name__)
            except Exception:  # this task must not end
                logger.exception("daily costs cannot be read")

    def count_refusal(self, api_key_id: int, code: str) -> None:
        """Count a refused call."""
        self.writer.count_refusal(api_key_id, code, datetime.now(UTC))


def _spare_collector() -> None:
    """Have the garbage collector not go through what stays: code, settings, the configuration.

    It did so for every few hundred calls, which took a seventh of all time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)
