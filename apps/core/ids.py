"""Time-ordered identifiers: UUID version 7.

Ids made by one process strictly increase, so that rows lie on disk in the order they were made.

Source: RFC 9562 §5.7 (layout) and §6.2 (method 2, monotonic random).
"""

import os
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

_VERSION_AND_VARIANT: Final = (7 << 76) | (0b10 << 62)
_TAIL_BITS: Final = 74  # 12 bits rand_a and 62 bits rand_b
_TAIL_MAX: Final = (1 << _TAIL_BITS) - 1
_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_MILLISECONDS_MAX: Final = (1 << 48) - 1
_RANDOM_BYTES: Final = 10
_new: Final = object.__new__
_set: Final = object.__setattr__
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _make(now_ms: int, tail: int) -> uuid.UUID:
    """Return the id of a millisecond and the 74 bits that follow it."""
    made = _new(uuid.UUID)
    # What UUID(int=…) comes to after its checks, which take most of its time.
    _set(
        made,
        "int",
        (now_ms << 80) | ((tail >> _LOW_BITS) << 64) | (tail & _LOW_MASK) | _VERSION_AND_VARIANT,
    )
    _set(made, "is_safe", uuid.SafeUUID.unknown)
    return made


def uuid7(now_ms: int, random_bytes: bytes) -> uuid.UUID:
    """Return the UUIDv7 of a millisecond since 1970 and at least 10 random bytes."""
    if not 0 <= now_ms <= _MILLISECONDS_MAX:
        raise ValueError("The time does not fit the 48 bits of a UUIDv7.")
    if len(random_bytes) < _RANDOM_BYTES:
        raise ValueError(f"A UUIDv7 needs {_RANDOM_BYTES} random bytes.")
    tail = int.from_bytes(random_bytes[:_RANDOM_BYTES], "big") & _TAIL_MAX
    return _make(now_ms, tail)


def uuid7_lower_bound(moment: datetime) -> uuid.UUID:
    """Return the smallest UUIDv7 of a moment's millisecond: where a partition begins."""
    if moment.tzinfo is None:
        raise ValueError("A moment must carry its time zone.")
    now_ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    return uuid7(now_ms, bytes(_RANDOM_BYTES))


class Uuid7Source:
    """Makes ids that strictly increase, also within one millisecond and when the clock steps back.

    Within a millisecond the random tail grows by a random step, so an id does not tell its
    neighbour.
    """

    _POOL_BYTES: Final = 4096

    def __init__(
        self,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._clock_ns = clock_ns
        self._random = random
        self._lock = threading.Lock()
        self._last_ms = -1
        self._tail = 0
        self._pool = b""
        self._offset = 0

    def _take(self, count: int) -> int:
        # One system call for some hundred ids: urandom costs more than all the rest.
        if self._offset + count > len(self._pool):
            self._pool = self._random(self._POOL_BYTES)
            self._offset = 0
        start = self._offset
        self._offset = start + count
        return int.from_bytes(self._pool[start : start + count], "big")

    def next_id(self) -> uuid.UUID:
        """Return an id greater than every id returned before."""
        with self._lock:
            now_ms = self._clock_ns() // 1_000_000
            if now_ms > self._last_ms:
                # The highest bit stays free, so that a busy millisecond can count upwards.
                self._tail = self._take(_RANDOM_BYTES) & (_TAIL_MAX >> 1)
                self._last_ms = now_ms
            else:
                self._tail += 1 + self._take(4)
                if self._tail > _TAIL_MAX:
                    self._tail = self._take(_RANDOM_BYTES) & (_TAIL_MAX >> 1)
                    self._last_ms += 1
            return _make(self._last_ms, self._tail)

    def forget(self) -> None:
        """Drop the random bytes at hand: a forked child must not share them with its parent."""
        self._lock = threading.Lock()
        self._pool = b""
        self._offset = 0
        self._last_ms = -1


# The one shared state of the process: ids increase only if all of them come from one place.
_process_source: Final = Uuid7Source()
os.register_at_fork(after_in_child=_process_source.forget)


def new_uuid7() -> uuid.UUID:
    """Return a new UUIDv7, greater than every one this process made before."""
    return _process_source.next_id()
