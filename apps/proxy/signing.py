"""What shows a provider who asks, where that is made anew: access tokens and signatures.

A token is fetched once for all calls that wait for it, in a thread, and used until shortly before
its end; it is renewed before that while calls go on with the old one. Signatures are made for the
bytes that are sent. Nothing here concerns providers whose key goes into a header as it is.

Bounds: FETCHES_MAX at once, each as long as `outgoing` takes; ACCOUNTS_MAX tokens and as many
clocks are remembered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Final

from apps.core.addresses import AllowedNetwork
from apps.providers.aws_signing import digest_of, service_of
from apps.providers.aws_signing import sign as sign_for_aws
from apps.providers.google_tokens import Token, TokenRefused, TokenUnavailable, fetch_token
from apps.providers.identities import Identity, ServiceAccount
from apps.proxy.http_client import Answer, ConnectFailed
from apps.proxy.snapshot import Provider

FETCHES_MAX: Final = 4
ACCOUNTS_MAX: Final = 1_000
# A token is renewed so long before its end, or in the last quarter of its time.
RENEW_SECONDS: Final = 300.0
# So long before its end it is used no more: a request takes its time to arrive.
MARGIN_SECONDS: Final = 30.0
# A token that is refused when it is as new as that will not be better the next time.
NEW_SECONDS: Final = 1.0
# After a renewal that failed, while the old token is still good.
AGAIN_SECONDS: Final = 5.0
# Larger bodies are digested in a thread: this much takes less than a millisecond.
DIGESTED_BYTES: Final = 256 << 10
# A signature counts for five minutes on either side. Beyond a day it is no clock that is wrong.
CLOCK_SECONDS: Final = 240.0
CLOCK_SECONDS_MAX: Final = 86_400.0

logger = logging.getLogger(__name__)


class SigningFailed(ConnectFailed):
    """Nothing could be sent, for want of a token. `row` is that of the error, `status` what the
    record says, None where nobody answered.
    """

    def __init__(self, row: str, status: int | None, text: str) -> None:
        super().__init__(text)
        self.row: Final = row
        self.status: Final = status
        self.text: Final = text


@dataclass(slots=True)
class _Held:
    """The token of one account; moments are monotonic."""

    value: str = ""
    got_at: float = 0.0
    renew_at: float = 0.0
    ends_at: float = 0.0
    again_at: float = 0.0
    fetching: asyncio.Task[str] | None = None


class Signing:
    """Signs the requests of one process. Belongs to the event loop."""

    def __init__(
        self,
        private: tuple[AllowedNetwork, ...],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._private = private
        self._monotonic = monotonic
        self._held: dict[ServiceAccount, _Held] = {}
        self._offsets: dict[str, timedelta] = {}  # of clocks, by host
        self._fetchers = ThreadPoolExecutor(FETCHES_MAX, thread_name_prefix="tokens")
        # Not among those that may wait for an endpoint.
        self._digester = ThreadPoolExecutor(1, thread_name_prefix="digests")

    async def prepare(self, identity: Identity, body: bytes) -> str:
        """Return what takes time: a token, or the digest of a body. Raises SigningFailed."""
        if isinstance(identity, ServiceAccount):
            return await self._find_token(identity)
        if len(body) <= DIGESTED_BYTES:
            return digest_of(body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._digester, digest_of, body)

    def sign(
        self,
        identity: Identity,
        prepared: str,
        *,
        provider: Provider,
        method: str,
        target: str,
        headers: dict[str, str],
    ) -> dict[str, str]:
        """Return the headers that a request has to carry beside these, which are as it is sent."""
        if isinstance(identity, ServiceAccount):
            return {"authorization": f"Bearer {prepared}"}
        url = provider.url
        return sign_for_aws(
            identity,
            method=method,
            url=url.origin + target,
            headers=headers,
            digest=prepared,
            service=service_of(url.host),
            now=datetime.now(UTC) + self._offsets.get(url.host, timedelta(0)),
        )

    def learn(self, identity: Identity, prepared: str, *, host: str, answer: Answer) -> bool:
        """Return whether a refusal is no word about the key, and the request may be signed again.

        A token may have been revoked before its end, and the clock of this machine be wrong.
        """
        if answer.status not in (401, 403):
            return False
        if isinstance(identity, ServiceAccount):
            return answer.status == 401 and self._forget(identity, prepared)
        return self._set_clock(host, answer.header(b"date"))

    def close(self) -> None:
        """Fetch no more."""
        for held in self._held.values():
            if held.fetching is not None:
                held.fetching.cancel()
        self._fetchers.shutdown(wait=False, cancel_futures=True)
        self._digester.shutdown(wait=False, cancel_futures=True)

    # ---- tokens

    async def _find_token(self, account: ServiceAccount) -> str:
        held = self._held.get(account)
        if held is None:
            if len(self._held) >= ACCOUNTS_MAX:
                self._held.clear()
            held = self._held[account] = _Held()
        now = self._monotonic()
        if now < held.renew_at:
            return held.value
        is_good = now < held.ends_at
        if held.fetching is None and not (is_good and now < held.again_at):
            held.fetching = asyncio.create_task(self._fetch(account, held))
            held.fetching.add_done_callback(_note_failure)
        if is_good or held.fetching is None:
            return held.value
        # Others wait for the same token.
        return await asyncio.shield(held.fetching)

    async def _fetch(self, account: ServiceAccount, held: _Held) -> str:
        loop = asyncio.get_running_loop()
        begun = self._monotonic()
        fetch = partial(fetch_token, account, now=datetime.now(UTC), private=self._private)
        try:
            token: Token = await loop.run_in_executor(self._fetchers, fetch)
        except TokenRefused as error:
            held.value, held.renew_at, held.ends_at = "", 0.0, 0.0
            raise SigningFailed(
                "E41", 401, f"the token endpoint refused the key: {error}"
            ) from error
        except TokenUnavailable as error:
            held.again_at = self._monotonic() + AGAIN_SECONDS
            raise SigningFailed("E47", None, f"no access token: {error}") from error
        finally:
            held.fetching = None
        held.value, held.got_at = token.value, self._monotonic()
        held.renew_at = begun + token.seconds - min(RENEW_SECONDS, token.seconds / 4)
        held.ends_at = begun + token.seconds - min(MARGIN_SECONDS, token.seconds / 20)
        return held.value

    def _forget(self, account: ServiceAccount, value: str) -> bool:
        """Drop a token that was refused; return whether it had been kept for a while."""
        held = self._held.get(account)
        if held is None or held.value != value:
            return True  # Another call has got another one meanwhile.
        is_kept = self._monotonic() - held.got_at > NEW_SECONDS
        held.value, held.renew_at, held.ends_at = "", 0.0, 0.0
        return is_kept

    # ---- clocks

    def _set_clock(self, host: str, date: str) -> bool:
        """Take over the clock of a provider that is far from ours; return whether it is."""
        try:
            told = parsedate_to_datetime(date)
        except ValueError:
            return False
        if told.tzinfo is None:
            return False
        offset = told - datetime.now(UTC)
        before = self._offsets.get(host, timedelta(0))
        if abs((offset - before).total_seconds()) < CLOCK_SECONDS:
            return False
        if abs(offset.total_seconds()) > CLOCK_SECONDS_MAX:
            return False
        if len(self._offsets) >= ACCOUNTS_MAX:
            self._offsets.clear()
        self._offsets[host] = offset
        logger.error(
            "the clock of this machine is %d s off that of %s", offset.total_seconds(), host
        )
        return True


def _note_failure(fetching: asyncio.Task[str]) -> None:
    """Say that a token could not be fetched: perhaps nobody waits for it."""
    if not fetching.cancelled() and (error := fetching.exception()) is not None:
        logger.warning("an access token cannot be fetched: %s", error)
