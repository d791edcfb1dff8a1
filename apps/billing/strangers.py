"""Lines of the anchor file whose key is not at hand, until a line of a known key vouches for them.

A vouch counts only if nothing between its line and theirs is broken: then the digests bind them to
what was verified when it was given. What is put behind the line that it names is not covered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

from apps.billing.anchors import Anchor, Place

# Lines between a line that vouches and the last one that it vouches for: written meanwhile.
DISTANCE_MAX: Final = 1_000
# More keys than anybody changes; what is beyond can no longer be vouched for.
_RUNS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive lines of one key that is not at hand."""

    key: str
    first: int
    last: int

    @property
    def lines(self) -> int:
        """Return how many lines it has."""
        return self.last - self.first + 1


@dataclass(slots=True)
class Strangers:
    """Takes the lines in their order and gives back runs that nobody will vouch for any more."""

    _waiting: deque[Run] = field(default_factory=deque)
    _recent: deque[Place] = field(default_factory=lambda: deque(maxlen=DISTANCE_MAX))

    def take(self, anchor: Anchor) -> list[Run]:
        """Go on by a line."""
        lost: list[Run] = []
        if not anchor.follows:
            # The digests say nothing any more about what came before.
            lost = self.end()
            self._recent.clear()
        if not anchor.is_key_known:
            self._wait(anchor)
        elif anchor.vouched is not None and anchor.vouched in self._recent:
            self._release(anchor.vouched[0])
        self._recent.append((anchor.number, anchor.digest))
        while len(self._waiting) > _RUNS_MAX:
            lost.append(self._waiting.popleft())
        return lost

    def end(self) -> list[Run]:
        """Return all runs that wait, and forget them."""
        lost = list(self._waiting)
        self._waiting.clear()
        return lost

    def _wait(self, anchor: Anchor) -> None:
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.key == anchor.key and last.last + 1 == anchor.number:
            self._waiting[-1] = replace(last, last=anchor.number)
        else:
            self._waiting.append(Run(anchor.key, anchor.number, anchor.number))

    def _release(self, number: int) -> None:
        """Forget the lines up to a number."""
        while self._waiting and self._waiting[0].last <= number:
            self._waiting.popleft()
        if self._waiting and self._waiting[0].first <= number:
            self._waiting[0] = replace(self._waiting[0], first=number + 1)
