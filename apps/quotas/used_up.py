"""What other gateways have used up of limits, as far as Redis has said so to this one.

A limiter that refuses by its own counts alone would ask Redis for each request of a caller whose
minute was spent elsewhere, after all of that request had been read.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from apps.quotas.limits import LimitMet, Scope, retry_after_seconds

SCOPES_MAX: Final = 10_000


class UsedUp:
    """The scopes whose requests a minute are spent. One event loop only: nothing is locked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: dict[str, tuple[LimitMet, float]] = {}  # by scope, with when it was said

    def note(self, refusal: LimitMet) -> None:
        """Remember a refusal of Redis.

        Not of tokens or slots: a smaller request may fit, and a slot may be free at once.
        """
        if refusal.kind == "requests":
            if len(self._told) >= SCOPES_MAX:
                self._told.clear()
            self._told[refusal.scope] = (refusal, self._clock())

    def find(self, scopes: tuple[Scope, ...]) -> LimitMet | None:
        """Return what was said of the first of these scopes that is spent.

        It holds until a request leaves the window, or the limit is another one.
        """
        for scope in scopes:
            if scope.name in self._told and (refusal := self._find(scope)) is not None:
                return refusal
        return None

    def forget(self) -> None:
        """Forget all: Redis does not answer any more, and limits hold per gateway."""
        self._told.clear()

    def _find(self, scope: Scope) -> LimitMet | None:
        refusal, said_at = self._told[scope.name]
        passed = self._clock() - said_at
        left = refusal.retry_after_seconds - passed
        if left <= 0 or refusal.limit != scope.rpm:
            del self._told[scope.name]
            return None
        return replace(
            refusal,
            retry_after_seconds=retry_after_seconds(left),
            reset_seconds=max(left, refusal.reset_seconds - passed),
        )
