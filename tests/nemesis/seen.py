"""What clients see of calls: the first of the three logs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.faults.site import PROVIDER_SECRET
from tests.nemesis.refusals import is_repeated, read_refusal
from tests.nemesis.surfaces import Follower
from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY

# What must not stand in any answer.
_SECRETS: Final = re.compile(
    b'Traceback|File "/|psycopg|sqlite3|sk-audit-[0-9A-Za-z]{26}|'
    + b"|".join(re.escape(text.encode()) for text in (PROVIDER_SECRET, ENCRYPTION_KEY, SECRET_KEY))
)
# How an answer ended that was broken off, and said so.
IN_THE_STREAM: Final = "in the stream"
# Tokens are not valid where a clock is set wrong.
_ADMINISTRATION: Final = frozenset({200, 401, 429, 503})


@dataclass(slots=True)
class Seen:
    """One answer as one client saw it. The SDK's own retries are answers of their own."""

    client: str  # what kind of client
    model: str = ""
    is_ordinary: bool = False  # nothing but a fault of ours could have it fail
    is_stream: bool = False
    dialect: str = "openai"
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    status: int = 0  # 0 where nothing was answered
    request_id: str = ""
    error: str = ""  # its code, also of an error inside a stream
    is_free: bool = False  # clients try again by themselves, so that it must not cost anything
    is_after_hold: bool = False  # an error that only a call with a hold is answered
    is_whole: bool = False  # the end was seen: [DONE], or the whole body
    is_clean: bool = False  # the answer ended as HTTP wants it
    has_left: bool = False  # the client ended it
    quote_id: str = ""  # the quote whose hold it was to spend
    is_quote: bool = False  # nothing was called: a hold waits for its call
    problems: list[str] = field(default_factory=list)

    def note_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the head of an answer."""
        self.status = status
        self.request_id = headers.get("x-request-id", "")
        self.is_free = is_repeated(self.dialect, status, headers)
        if not self.request_id:
            self.problems.append(f"a {status} without x-request-id")

    def note_refusal(self, body: bytes) -> None:
        """Take the body of an answer that is not 200."""
        self._look_for_secrets(body)
        refusal = read_refusal(self.dialect, self.status, body)
        self.error, self.is_after_hold = refusal.code, refusal.is_after_hold
        if not refusal.is_known:
            self.problems.append(f"not in the table of errors: {self.status} {body[:200]!r}")

    def note_administration(self, status: int, body: bytes) -> None:
        """Take an answer of the REST API: the lists that an administrator reads."""
        self.status, self.is_clean = status, True
        self._look_for_secrets(body)
        if status not in _ADMINISTRATION:
            self.problems.append(f"an administrator was answered {status}: {body[:200]!r}")

    def note_whole(self, body: bytes, mark: bytes) -> None:
        """Take a whole answer of 200, in which a mark has to stand."""
        self.is_clean = self.is_whole = True
        if mark not in body:
            self.problems.append(f"a 200 that is no answer: {body[:200]!r}")

    def note_stream(self, followed: Follower) -> None:
        """Take a stream as far as it came."""
        is_over = followed.is_over(is_clean=self.is_clean)
        self.is_whole = is_over and not followed.has_error
        if followed.has_error:
            self._look_for_secrets(followed.tail)
            self.error = IN_THE_STREAM
            if is_over or self.is_clean:
                self.problems.append("an error inside the stream, and then a clean end")
        elif self.is_clean and not self.is_whole:
            self.problems.append(f"a clean end of an unfinished stream: {followed.tail[-200:]!r}")

    def end(self) -> None:
        """Note how long it took."""
        self.seconds = time.monotonic() - self.began

    def _look_for_secrets(self, body: bytes) -> None:
        if found := _SECRETS.search(body):
            self.problems.append(f"an answer shows {found[0]!r}: {body[:300]!r}")


class Diary:
    """All that clients have seen. Filled on their event loop."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def add(self, one: Seen) -> None:
        """Keep what a client saw."""
        one.end()
        self.seen.append(one)
