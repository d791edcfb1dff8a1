"""Limits on requests per minute, tokens per minute and concurrent requests, in one process.

A minute is a sliding window of one-second buckets. The window holds the running second and the
60 full seconds before it: with 60 buckets alone, a burst at the end of the first second and one
at the start of the 61st would lie within the same 60 seconds. So any 60 seconds let through at
most the limit, at the price of up to one second of strictness.

Tokens are reserved at admission by estimate and corrected at the end. A request that alone is
larger than the token limit is admitted while its window holds no tokens, else it could never run.
None is no limit; 0 lets nothing through. One event loop only: nothing here is locked.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

WINDOW_SECONDS = 60
BUCKETS_MAX = WINDOW_SECONDS + 1
SCOPES_MAX = 200_000
LIVE_REQUESTS_MAX = 200_000
# Far above any real request; keeps sums exact in the doubles of the shared limits' scripts.
TOKENS_MAX = 1_000_000_000
RETRY_AFTER_SECONDS_MAX = 60
IDLE_SCOPES_DROPPED_PER_ADMISSION = 2
IDLE_SCOPES_DROPPED_PER_RENEWAL = 2_000


@dataclass(frozen=True, slots=True)
class Scope:
    """One limited thing; the names in one request differ."""

    name: str  # "key:12", "user:3", "user_group:1"
    rpm: int | None
    tpm: int | None
    concurrency: int | None


@dataclass(frozen=True, slots=True)
class LimitMet:
    """The first limit a request met; nothing was taken from any scope."""

    kind: Literal["requests", "tokens", "concurrency"]
    scope: str
    retry_after_seconds: int  # 1..60: SDKs ignore or stop at more
    limit: int
    remaining: int
    reset_seconds: float  # until the whole limit is free again


@dataclass(frozen=True, slots=True)
class Headroom:
    """What is left where it is least, for requests and for tokens each; None is unlimited."""

    limit_requests: int | None
    remaining_requests: int | None
    reset_requests_seconds: float | None
    limit_tokens: int | None
    remaining_tokens: int | None
    reset_tokens_seconds: float | None


UNLIMITED = Headroom(None, None, None, None, None, None)


class Limiter(Protocol):
    async def admit(
        self, *, request_id: str, scopes: tuple[Scope, ...], tokens: int
    ) -> Headroom | LimitMet:
        """Take a request and its token estimate from all scopes, or from none."""

    def find_limit_met(self, *, scopes: tuple[Scope, ...], tokens: int) -> LimitMet | None:
        """Return what a request would be refused for now, as far as this process knows."""

    def finish(
        self, *, request_id: str, scopes: tuple[Scope, ...], tokens_reserved: int, tokens_used: int
    ) -> None:
        """Free the request's slots and correct its tokens; never blocks, never raises."""

    async def renew(self) -> None:
        """Keep what must not expire while requests run; called every 10 s."""

    async def close(self) -> None:
        """Give back what the limiter holds open."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one scope's window holds after an admission."""

    requests: int
    tokens: int
    reset_seconds: float


def tightest_headroom(scopes: Sequence[Scope], readings: Iterable[Reading]) -> Headroom:
    """Return what is left in the scope with least requests left and in that with least tokens."""
    by_requests: tuple[int, int, float] | None = None
    by_tokens: tuple[int, int, float] | None = None
    for scope, reading in zip(scopes, readings, strict=True):
        if scope.rpm is not None:
            remaining = max(0, scope.rpm - reading.requests)
            if by_requests is None or remaining < by_requests[1]:
                by_requests = (scope.rpm, remaining, reading.reset_seconds)
        if scope.tpm is not None:
            remaining = max(0, scope.tpm - reading.tokens)
            if by_tokens is None or remaining < by_tokens[1]:
                by_tokens = (scope.tpm, remaining, reading.reset_seconds)
    return Headroom(*(by_requests or (None, None, None)), *(by_tokens or (None, None, None)))


def retry_after_seconds(wait_seconds: float) -> int:
    """Return the wait as a whole number from 1 to 60.

    A window that filled within the running second needs up to 61 s; the client is told 60.
    """
    return min(RETRY_AFTER_SECONDS_MAX, max(1, math.ceil(wait_seconds)))


class _Bucket:
    """What was taken within one second."""

    __slots__ = ("requests", "second", "tokens")

    def __init__(self, second: int) -> None:
        self.second = second
        self.requests = 0
        self.tokens = 0


class _Window:
    """One scope's last minute (sums, and at most 61 buckets, oldest first) and running requests."""

    __slots__ = ("buckets", "requests", "running", "tokens")

    def __init__(self) -> None:
        self.buckets: list[_Bucket] = []
        self.requests = 0
        self.tokens = 0
        self.running = 0

    def drop_before(self, oldest_second: int) -> None:
        """Forget the buckets older than `oldest_second`."""
        count = 0
        for bucket in self.buckets:
            if bucket.second >= oldest_second:
                break
            self.requests -= bucket.requests
            self.tokens -= bucket.tokens
            count += 1
        if count:
            del self.buckets[:count]

    def bucket_at(self, second: int) -> _Bucket:
        """Return the bucket of `second`, the newest one."""
        if self.buckets and self.buckets[-1].second >= second:
            return self.buckets[-1]
        bucket = _Bucket(second)
        self.buckets.append(bucket)
        return bucket

    def reset_seconds(self, now: float) -> float:
        """Return the time until the window is empty."""
        return self.buckets[-1].second + BUCKETS_MAX - now if self.buckets else 0.0


@dataclass(frozen=True, slots=True)
class _Admission:
    """Where a running request was counted."""

    windows: tuple[_Window, ...]
    buckets: tuple[_Bucket, ...]
    tokens: int


class LocalLimiter:
    """The limits of one process, exact within it.

    A scope is forgotten once its window is empty and nothing runs in it. When SCOPES_MAX scopes
    were active within the last minute, requests of any further scope are refused for a second.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Least recently admitted first, so that idle scopes gather at the front.
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._live: dict[str, _Admission] = {}

    async def admit(
        self, *, request_id: str, scopes: tuple[Scope, ...], tokens: int
    ) -> Headroom | LimitMet:
        """Take a request and its token estimate from all scopes, or from none."""
        return self.admit_now(request_id=request_id, scopes=scopes, tokens=tokens)

    def admit_now(
        self, *, request_id: str, scopes: tuple[Scope, ...], tokens: int
    ) -> Headroom | LimitMet:
        """Do what `admit` does, without a coroutine.

        Raises ValueError for a negative estimate and for a request that is running already:
        either would let a caller past its limit.
        """
        if not scopes:
            return UNLIMITED
        if tokens < 0:
            raise ValueError("a token estimate cannot be negative")
        if request_id in self._live:
            raise ValueError("this request was admitted before")
        tokens = min(tokens, TOKENS_MAX)
        now = self._clock()
        second = int(now)
        oldest_second = second - WINDOW_SECONDS
        if any(scope.name not in self._windows for scope in scopes):
            # Before any window is made: a new one looks idle until this request counts in it.
            self._drop_idle(IDLE_SCOPES_DROPPED_PER_ADMISSION, oldest_second)
        windows: list[_Window] = []
        for scope in scopes:
            window = self._window_of(scope.name)
            if window is None:
                return LimitMet("requests", scope.name, 1, scope.rpm or 0, 0, 1.0)
            window.drop_before(oldest_second)
            met = _find_limit_met(scope, window, tokens, now)
            if met is not None:
                return met
            windows.append(window)
        buckets: list[_Bucket] = []
        for window in windows:
            bucket = window.bucket_at(second)
            bucket.requests += 1
            bucket.tokens += tokens
            window.requests += 1
            window.tokens += tokens
            window.running += 1
            buckets.append(bucket)
        if len(self._live) >= LIVE_REQUESTS_MAX:
            # No process runs this many: the oldest was never finished, and its slot would be lost.
            self._release(next(iter(self._live)))
        self._live[request_id] = _Admission(tuple(windows), tuple(buckets), tokens)
        return tightest_headroom(
            scopes, [Reading(w.requests, w.tokens, w.reset_seconds(now)) for w in windows]
        )

    def find_limit_met(self, *, scopes: tuple[Scope, ...], tokens: int) -> LimitMet | None:
        """Return what a request would be refused for now, and take nothing."""
        now = self._clock()
        for scope in scopes:
            window = self._windows.get(scope.name) or _Window()
            window.drop_before(int(now) - WINDOW_SECONDS)
            met = _find_limit_met(scope, window, min(tokens, TOKENS_MAX), now)
            if met is not None:
                return met
        return None

    def finish(
        self, *, request_id: str, scopes: tuple[Scope, ...], tokens_reserved: int, tokens_used: int
    ) -> None:
        """Free the request's slots and correct its tokens; an unknown request changes nothing.

        Tokens not used go back to the second they were reserved in, if the window still holds it;
        tokens beyond the reservation count from now.
        """
        admission = self._release(request_id)
        if admission is None:
            return
        correction = token_correction(tokens_reserved, tokens_used)
        second = int(self._clock())
        oldest_second = second - WINDOW_SECONDS
        for window, reserved in zip(admission.windows, admission.buckets, strict=True):
            window.drop_before(oldest_second)
            if correction > 0:
                window.bucket_at(second).tokens += correction
                window.tokens += correction
            elif correction < 0 and reserved.second >= oldest_second:
                given_back = min(-correction, reserved.tokens)
                reserved.tokens -= given_back
                window.tokens -= given_back

    def withdraw(self, request_id: str) -> None:
        """Undo an admission as if it had not been, for a request that will not run."""
        admission = self._release(request_id)
        if admission is None:
            return
        oldest_second = int(self._clock()) - WINDOW_SECONDS
        for window, bucket in zip(admission.windows, admission.buckets, strict=True):
            window.drop_before(oldest_second)
            if bucket.second >= oldest_second:
                given_back = min(admission.tokens, bucket.tokens)
                bucket.requests -= 1
                bucket.tokens -= given_back
                window.requests -= 1
                window.tokens -= given_back

    async def renew(self) -> None:
        """Forget idle scopes; nothing of a process can expire while it lives."""
        self._drop_idle(IDLE_SCOPES_DROPPED_PER_RENEWAL, int(self._clock()) - WINDOW_SECONDS)

    async def close(self) -> None:
        """Do nothing: there is nothing to give back."""

    def _window_of(self, name: str) -> _Window | None:
        window = self._windows.get(name)
        if window is not None:
            self._windows.move_to_end(name)
            return window
        if len(self._windows) >= SCOPES_MAX:
            return None
        window = self._windows[name] = _Window()
        return window

    def _drop_idle(self, count_max: int, oldest_second: int) -> None:
        for _ in range(min(count_max, len(self._windows))):
            name = next(iter(self._windows))
            window = self._windows[name]
            window.drop_before(oldest_second)
            if window.buckets:
                return
            if window.running:
                self._windows.move_to_end(name)
            else:
                del self._windows[name]

    def _release(self, request_id: str) -> _Admission | None:
        admission = self._live.pop(request_id, None)
        if admission is not None:
            for window in admission.windows:
                window.running -= 1
        return admission


def token_correction(tokens_reserved: int, tokens_used: int) -> int:
    """Return used − reserved, each taken as 0..TOKENS_MAX: usage never becomes a credit."""
    return min(max(0, tokens_used), TOKENS_MAX) - min(max(0, tokens_reserved), TOKENS_MAX)


def _find_limit_met(scope: Scope, window: _Window, tokens: int, now: float) -> LimitMet | None:
    rpm, tpm = scope.rpm, scope.tpm
    if rpm is not None and window.requests >= rpm:
        wait = retry_after_seconds(_seconds_until(window, lambda held, _: held < rpm, now))
        return LimitMet("requests", scope.name, wait, rpm, 0, window.reset_seconds(now))
    if tpm is not None and not _has_room_for(tokens, window.tokens, tpm):
        wait = retry_after_seconds(
            _seconds_until(window, lambda _, held: _has_room_for(tokens, held, tpm), now)
        )
        remaining = max(0, tpm - window.tokens)
        return LimitMet("tokens", scope.name, wait, tpm, remaining, window.reset_seconds(now))
    if scope.concurrency is not None and window.running >= scope.concurrency:
        return LimitMet("concurrency", scope.name, 1, scope.concurrency, 0, 1.0)
    return None


def _has_room_for(tokens: int, held: int, tpm: int) -> bool:
    return tpm > 0 and (held + tokens <= tpm or held == 0)


def _seconds_until(window: _Window, has_room: Callable[[int, int], bool], now: float) -> float:
    """Return the time until `has_room(requests, tokens)` holds, as buckets leave the window."""
    requests, tokens = window.requests, window.tokens
    for bucket in window.buckets:
        requests -= bucket.requests
        tokens -= bucket.tokens
        if has_room(requests, tokens):
            return bucket.second + BUCKETS_MAX - now
    return RETRY_AFTER_SECONDS_MAX
