"""Which routes and keys a call tries, one attempt after the other, and what each outcome means.

A further attempt is made only before the first byte goes to the client, at most twice, within the
retry budget of the process, and never for the client's own mistakes. Each attempt is a row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from apps.audit.records import Row, attempt_row, fit_attempt
from apps.core.crypto import redact
from apps.core.errors import GatewayError
from apps.proxy.blame import KEY_ROWS, blame, count_failure, credit, credit_beginning
from apps.proxy.circuit import Door
from apps.proxy.dialects.parsed_request import kind_of
from apps.proxy.endings import AttemptFailed, Interrupted
from apps.proxy.provider_limits import Places
from apps.proxy.routing import ATTEMPTS_MAX
from apps.proxy.snapshot import Credential, Route
from apps.proxy.upstream import is_unanswered

if TYPE_CHECKING:
    from apps.proxy.call import Call

# The client's own mistakes, and what would fail anywhere: no other route is tried.
_FINAL_ROWS: Final = frozenset({"E37", "E40", "E45", "E52"})

Exchange = Callable[[Route, Credential, Row], Awaitable[None]]


class Attempts:
    """The attempts of one call."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._gateway = call.gateway
        self._begun = 0.0  # monotonic, of the latest
        self._latest: tuple[Route, Credential] | None = None
        self._retries = 0  # that were granted
        self._has_begun = False  # the client has a part of a stream
        self._is_broken_off = False
        self.is_once_more = False  # the first one's connection was closed without an answer
        self._places: Places | None = None  # at providers that have limits
        self._failed: tuple[Door, ...] = ()  # keys that were to blame, on their routes

    async def run(self, exchange: Exchange) -> GatewayError | None:
        """Try routes until one answers and return None, else why the last one did not.

        `exchange` makes one attempt: it raises AttemptFailed or Interrupted. (It is not kept: it
        knows this object, and a circle would be left to the garbage collector.) Raises
        Interrupted.
        """
        error: GatewayError | None = None
        routes = list(self._call.routes)
        number = 0
        while routes and number < ATTEMPTS_MAX:
            route = routes.pop(0)
            if route.provider.is_limited:
                credential = await self._take_place(route)
            else:
                credential = self._choose_key(route, route.provider.credentials)
            if credential is None:
                continue  # It is at a limit, or its last key was refused since it was planned.
            if number and not self._may_try_again():
                break
            number += 1
            try:
                await self._attempt(exchange, route, credential, number)
                return None
            except AttemptFailed as failure:
                error = failure.error
                if self._places is not None:
                    self._places.give_back(0)
                if self._call.is_drained:
                    raise Interrupted("client") from failure
                if error.row in _FINAL_ROWS:
                    break
                if error.row in KEY_ROWS:
                    self._failed = (*self._failed, (route.id, credential.id))
                self.is_once_more = number == 1 and is_unanswered(failure)
                if self.is_once_more or self._goes_on_with_another_key(
                    route, error, is_next_last=number == ATTEMPTS_MAX - 1
                ):
                    routes.insert(0, route)
        return error or self._refusal()

    def _refusal(self) -> GatewayError:
        """Return why nothing was tried."""
        if self._places is not None and self._places.wait_seconds is not None:
            return GatewayError("E33", retry_after=self._places.wait_seconds)
        routes = self._call.routes
        return self._gateway.health.refusal(routes) if routes else GatewayError("E33")

    def close(self) -> None:
        """Give back what was taken of limits and of the retry budget: the call has ended."""
        if self._places is not None:
            self._places.give_back(self._call.settled_tokens)
        if self._retries:
            self._gateway.retries.give_back(self._retries)
            self._retries = 0

    def begin_answer(self) -> None:
        """Note that the first byte of a stream goes to the client."""
        self._has_begun = True
        self.observe_latency()
        if self._latest is not None and not self._gateway.health.is_good:
            credit_beginning(self._gateway, *self._latest, self._begun)

    def observe_latency(self) -> None:
        """Note how long the latest attempt took to its first byte, where that decides on routes."""
        plan = self._call.plan
        if self._latest is not None and plan.model.strategy == "least_latency":
            route, now = self._latest[0], self._gateway.monotonic()
            is_stream, seconds = plan.request.is_stream, now - self._begun
            self._gateway.latencies.observe(route.id, is_stream, seconds, now)

    def break_off(self) -> None:
        """Note that the provider did not end what it had begun."""
        self._is_broken_off = True

    def finish(self, outcome: str) -> None:
        """Complete the attempt's row, once: after the settlement it belongs to the ledger."""
        if self._call.is_settled:
            return
        row = self._call.attempts[-1]
        self._gateway.counts.attempts.add(outcome)
        row["outcome"] = outcome
        row["duration_ms"] = int((self._gateway.monotonic() - self._begun) * 1000)
        row["upstream_request_id"] = self._call.upstream_request_id
        fit_attempt(row)

    def _choose_key(self, route: Route, among: Sequence[Credential]) -> Credential | None:
        gateway = self._gateway
        if self._failed:
            # Whichever a sticky key or the weights would choose again.
            among = [one for one in among if (route.id, one.id) not in self._failed]
        return gateway.health.choose_key(
            route,
            among,
            now=gateway.monotonic(),
            random=gateway.random,
            sticky_key=self._call.sticky_key,
        )

    async def _take_place(self, route: Route) -> Credential | None:
        call = self._call
        if self._places is None:
            self._places = Places(
                self._gateway.provider_limits,
                request_text=call.request_text,
                tokens=call.reserved_tokens,
            )
        return await self._places.take(route, partial(self._choose_key, route))

    def _may_try_again(self) -> bool:
        counts = self._gateway.counts
        if not self._gateway.retries.take(len(self._gateway.calls)):
            counts.retries_refused.add()
            return False
        counts.retries.add()
        self._retries += 1
        return True

    def _goes_on_with_another_key(
        self, route: Route, error: GatewayError, *, is_next_last: bool
    ) -> bool:
        """Return whether the same route comes next: its key is to blame, and it has another.

        The last attempt is for another route, where the call has one.
        """
        if error.row not in KEY_ROWS or (is_next_last and self._call.routes[-1] is not route):
            return False
        now = self._gateway.monotonic()
        return self._gateway.health.has_another_key(route, self._failed, now)

    async def _attempt(
        self, exchange: Exchange, route: Route, credential: Credential, number: int
    ) -> None:
        call, gateway = self._call, self._gateway
        kind = kind_of(call.plan.request.endpoint)
        call.route = route
        call.meter = None
        call.is_asked = False
        call.upstream_request_id = ""
        self._latest = (route, credential)
        begun = self._begun = gateway.monotonic()
        gateway.health.begin(route, credential, begun)
        row = attempt_row(
            request_id=call.request_id,
            number=number,
            route_id=route.id,
            provider_id=route.provider.id,
            provider_name=route.provider.name,
            provider_key_id=credential.id,
            upstream_model=route.upstream_name,
            started_at=datetime.now(UTC),
        )
        call.attempts.append(row)
        try:
            await exchange(route, credential, row)
        except AttemptFailed as failure:
            if failure.error.row == "E48":
                self.observe_latency()
            row["status_code"] = failure.status_code
            # Some providers repeat the key they were sent, and not every key looks like one.
            row["error_text"] = redact(failure.text.replace(credential.secret, "[redacted]"))
            row["cost_nanos"] = call.cost_of_failure(route, failure)
            self.finish(failure.error.code)
            blame(gateway, route, credential, failure, begun, kind=kind)
            call.forget_captured()
            raise
        except Interrupted as interruption:
            if interruption.reason == "client" or not self._has_begun:
                self.finish(f"interrupted_{interruption.reason}")
            # Else it is finished by the error that the client gets inside its stream.
            if interruption.reason == "timeout":
                count_failure(gateway, route, credential, "upstream_timeout", begun)
            else:
                gateway.health.abandon(route, credential)
            raise
        except BaseException:
            gateway.health.abandon(route, credential)
            raise
        if self._is_broken_off:
            count_failure(gateway, route, credential, "upstream_interrupted", begun)
        else:
            gateway.health.note_kind(route, kind)
            credit(gateway, route, credential, begun)
