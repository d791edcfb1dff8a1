"""Answers that are given again to the same request of the same key, while they are fresh.

Off unless the model and the key both say for how long. Kept in the memory of one process, up to
BYTES_MAX; an answer is one that ended well. Pure: time comes in as an argument (monotonic seconds).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import orjson

from apps.audit.payloads import BODY_BYTES_MAX
from apps.core.usage import Usage
from apps.proxy.snapshot import Key, Model

BYTES_MAX: Final = 64 << 20
ANSWER_BYTES_MAX: Final = BODY_BYTES_MAX
# Beside the bytes of an answer: its entry, its key and what it used.
_ENTRY_BYTES: Final = 1 << 10


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer as its client got it."""

    body: bytes
    usage: Usage
    finish_reason: str
    at: float  # monotonic


def seconds_for(key: Key, model: Model) -> int:
    """Return how old an answer may be, 0 where none is kept or wanted."""
    if key.cache_seconds is None or model.cache_seconds is None:
        return 0
    return min(key.cache_seconds, model.cache_seconds)


def fingerprint(
    key: Key,
    model: Model,
    endpoint: str,
    body: Mapping[str, Any],
    headers: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """Return what two requests have in common that get the same answer.

    The key is part of it: nobody gets what somebody else was answered. So are the client's own
    `headers` that go on. The order of the fields is not.
    """
    asked = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    if headers:
        asked += orjson.dumps(headers)
    scope = b"%d\0%d\0%s\0" % (key.id, model.id, endpoint.encode())
    return blake2b(scope + asked, digest_size=32).digest()


class AnswerCache:
    """The answers that one process keeps, the least used of which goes first."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._answers: OrderedDict[bytes, CachedAnswer] = OrderedDict()

    def find(self, digest: bytes, now: float, seconds: int) -> CachedAnswer | None:
        """Return an answer that is no older than `seconds`."""
        found = self._answers.get(digest)
        if found is None:
            return None
        if now - found.at > seconds:
            # The next answer takes its place; until then nobody keeps what is given no more.
            del self._answers[digest]
            self._bytes -= _size(found)
            return None
        self._answers.move_to_end(digest)
        return found

    def keep(self, digest: bytes, answer: CachedAnswer) -> None:
        """Keep an answer in the place of an older one, unless it is too long."""
        if len(answer.body) > ANSWER_BYTES_MAX:
            return
        old = self._answers.pop(digest, None)
        if old is not None:
            self._bytes -= _size(old)
        self._answers[digest] = answer
        self._bytes += _size(answer)
        while self._bytes > self._bytes_max:
            _, dropped = self._answers.popitem(last=False)
            self._bytes -= _size(dropped)


def _size(answer: CachedAnswer) -> int:
    return len(answer.body) + _ENTRY_BYTES
