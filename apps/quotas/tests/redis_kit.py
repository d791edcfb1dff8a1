"""What the tests of the shared limits have in common: a real Redis, gateways, short calls."""

import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from apps.core.breaker import Breaker
from apps.quotas.limits import Headroom, LimitMet, LocalLimiter, Scope
from apps.quotas.shared_limits import SharedLimiter

REDIS_SERVER = shutil.which("redis-server")
PASSWORD = "canary-redis-password"
# Where a test is not about the deadline: a busy machine must not decide it.
LONG_SECONDS = 10.0

needs_redis = [
    pytest.mark.redis,
    pytest.mark.skipif(REDIS_SERVER is None, reason="no redis-server is installed here"),
]


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    process: subprocess.Popen[bytes]
    client: Redis

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def seconds(self) -> int:
        return int(self.client.time()[0])


@contextmanager
def running_redis(port: int, directory: Path) -> Iterator[Server]:
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(
        [str(REDIS_SERVER), *arguments, "--requirepass", PASSWORD, "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
    )
    retry = Retry(NoBackoff(), 0)
    client = Redis(port=port, password=PASSWORD, decode_responses=True, retry=retry)
    try:
        for _ in range(200):
            try:
                client.ping()
                break
            except RedisConnectionError:
                time.sleep(0.05)
        yield Server(port, process, client)
    finally:
        client.close()
        process.kill()
        process.wait()


@asynccontextmanager
async def gateway(
    url: str,
    *,
    deadline_seconds: float = LONG_SECONDS,
    lease_seconds: float = 30.0,
    breaker: Breaker | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[SharedLimiter]:
    limiter = SharedLimiter(
        url,
        LocalLimiter(),
        breaker=breaker,
        deadline_seconds=deadline_seconds,
        lease_seconds=lease_seconds,
        clock=clock,
    )
    try:
        yield limiter
    finally:
        await limiter.close()


def scope(name: str = "key:1", **limits_set: int) -> Scope:
    rpm, tpm, concurrency = (limits_set.get(limit) for limit in ("rpm", "tpm", "concurrency"))
    return Scope(name, rpm, tpm, concurrency)


async def admit(
    limiter: SharedLimiter, request_id: str, *scopes: Scope, tokens: int = 0
) -> Headroom | LimitMet:
    return await limiter.admit(request_id=request_id, scopes=scopes, tokens=tokens)


async def finish(
    limiter: SharedLimiter, request_id: str, *, reserved: int = 0, used: int = 0
) -> None:
    """Finish the request and wait until Redis has been told."""
    limiter.finish(request_id=request_id, scopes=(), tokens_reserved=reserved, tokens_used=used)
    # Calls go in order: when this one is answered, the one before has been carried out.
    await admit(limiter, f"after {request_id}", scope("user:flush", rpm=1_000_000))
